"""``ffavatar train``: two steps of a stage end in weights, a stopped folder goes on, what cannot be is said."""

from __future__ import annotations

import json
import signal

import pytest
import torch
from made_people import write_shards

from ffavatar import cli

SMALL = ["--preset", "tiny", "--no-perceptual", "--device", "cpu"]
SMALL += [
    word for field in ("level=0", "size=64", "targets=2", "max_sources=1", "warmup=1") for word in ("--set", field)
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data") / "shards", [1], labelled=False)


@pytest.fixture
def run(capsys):
    before = signal.getsignal(signal.SIGTERM)

    def call(*words):
        with pytest.raises(SystemExit) as caught:
            cli.main(["train", *map(str, words)])
        signal.signal(signal.SIGTERM, before)
        return caught.value.code or 0, *capsys.readouterr()

    return call


def test_unlabelled_shards_streamed_to_weights_and_on(run, shards, tmp_path):
    words = ["--data", shards, "-o", tmp_path / "run", "--stream", *SMALL]
    code, out, _ = run("pretrain", *words, "--steps", 2, "--pictures-every", 2)
    assert code == 0 and out.splitlines()[-1] == str(tmp_path / "run" / "weights.safetensors")
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert "landmark" not in rows[0] and "params" not in rows[0] and rows[0]["matte"] > 0
    assert (tmp_path / "run" / "pictures" / "step_0000002.png").exists()
    saved = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["recipe"]
    assert (saved["stream"], saved["targets"], saved["weight_landmark"], saved["learn"]) == (True, 2, 1.0, "both")

    code, out, _ = run("pretrain", *words, "--steps", 2)
    assert code == 0 and "going on from step 2" in out
    code, _, err = run("pretrain", *words, "--steps", 3)
    assert code == 2 and "another recipe" in err
    weights = tmp_path / "run" / "weights.safetensors"
    code, _, _ = run(
        "self-supervised", "--data", shards, "-o", tmp_path / "next", *SMALL, "--steps", 1, "--weights", weights
    )
    assert code == 0


@pytest.mark.parametrize(
    ("stage", "words", "told"),
    [
        ("estimator", [], "needs exact labels"),
        ("avatar", ["--set", "targets=none"], "--set targets=none"),
        ("avatar", ["--batch", "2", "--stream"], "fewer people"),
        ("avatar", ["--people", "1", "--stream"], "leave --people out"),
        ("avatar", ["--vit", "vit.safetensors"], "no DINOv2"),
        ("avatar", ["--weights", "none.safetensors"], "cannot be read"),
        ("avatar", ["--device", "mps"], "mps"),
    ],
)
def test_bad_input_is_one_sentence(run, shards, tmp_path, stage, words, told):
    code, _, err = run(stage, "--data", shards, "-o", tmp_path / "run", *SMALL, "--steps", 1, *words)
    assert code == 2 and told in err and err.count("\n") == 1


def test_no_data_is_said(run, tmp_path):
    code, _, err = run("avatar", "--data", tmp_path, "-o", tmp_path / "run", *SMALL)
    assert code == 2 and "no synthetic people" in err
