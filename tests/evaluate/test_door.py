"""Plans are checked before work; the whole command on a film of synthetic people gives the same figures twice."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest
from rich.console import Console

from ffavatar.commands.evaluation import evaluate as command
from ffavatar.errors import InputError
from ffavatar.evaluate.door import Plan, run_plan


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": None}, "No data was given"),
        ({"views": "1,two"}, "no list of numbers"),
        ({"views": "0"}, "at least 1"),
        ({"images": ["theirs"]}, "not NAME=FOLDER"),
        ({"methods": "magic"}, "no method magic"),
        ({"protocol": "none"}, "is not a protocol"),
        ({"size": 20}, "64 to 2048"),
        ({"images": ["copy=x"]}, "name of its own"),
    ],
)
def test_bad_choices_are_refused_at_once(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        command(**{"data": tmp_path, "output": tmp_path / "out"} | arguments)
    assert not (tmp_path / "out").exists()


def test_personalize_adds_its_methods_beside_the_plain_ones(tmp_path: Path) -> None:
    def methods(**options) -> tuple[str, ...]:
        return Plan(tmp_path, tmp_path, personalize=True, **options).rules().methods

    assert methods() == ("copy", "warp", "driven", "tracked", "personalized", "personalized_tracked")
    assert methods(protocol="cross") == ("copy", "warp", "driven", "personalized")
    assert methods(methods=("personalized", "driven")) == ("personalized", "driven")
    for options in ({"protocol": "novel"}, {"methods": ("copy",)}):
        with pytest.raises(InputError, match="can be personalized"):
            methods(**options)


def film_of(seed: int, place: Path) -> None:
    """Four pictures of one synthetic person as a film."""
    from ffavatar.data.synthetic import synthetic_person

    person = synthetic_person(seed, shots=4, size=256)
    with av.open(str(place), "w") as container:
        stream = container.add_stream("libx264", rate=5, options={"crf": "12"})
        stream.width = stream.height = 256
        stream.pix_fmt = "yuv420p"
        for picture in person.images:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


SIZE = 96
RESULTS = 2 * 2 * 2  # people, numbers of views, methods


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """A data folder of two people."""
    folder, rows = tmp_path_factory.mktemp("films"), []
    for seed in (11, 12):
        film_of(seed, folder / f"p{seed}.mp4")
        rows.append({"id": f"p{seed}", "file": f"p{seed}.mp4", "source_frames": [0, 1], "target_frames": [2, 3]})
    (folder / "index.json").write_text(json.dumps({"clips": rows}))
    return folder


def evaluated(films: Path, out: Path, workers: int = 1) -> Path:
    """The results of an undisturbed run with all figures."""
    plan = Plan(films, out, views=(2, 1), methods=("copy", "driven"), size=SIZE, level=0, workers=workers)
    outcome = run_plan(plan, Console(file=io.StringIO()))
    assert "data:image/jpeg" in outcome.page.read_text()
    return outcome.json


@pytest.fixture(scope="module")
def whole_file(films: Path, tmp_path_factory) -> Path:
    return evaluated(films, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def whole(whole_file: Path) -> dict[tuple[str, str, int], dict[str, list]]:
    return scores_of(whole_file)


def without_clocks(place: Path) -> dict:
    """All of a result file but what is named timing and the date."""
    content = json.loads(place.read_text())
    for row in (*content["summary"], *content["results"]):
        del row["timing"]
    del content["about"]["date"]
    return content


def scores_of(place: Path) -> dict[tuple[str, str, int], dict[str, list]]:
    rows = json.loads(place.read_text())["results"]
    found = {(row["clip"], row["method"], row["views"]): row["scores"] for row in rows}
    assert len(found) == len(rows) == RESULTS
    return found


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_command_twice_gives_identical_figures_and_workers_change_nothing(
    films: Path, whole_file: Path, whole, tmp_path: Path, workers: int
) -> None:
    place = evaluated(films, tmp_path / "again", workers)
    assert scores_of(place) == whole and without_clocks(place) == without_clocks(whole_file)
    assert set(whole["p11", "driven", 2]) >= {"psnr", "lpips_vgg", "identity_dlib", "akd", "aed", "apd", "matte_iou"}


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_and_ends_with_the_same_figures(films: Path, whole, tmp_path: Path) -> None:
    """SIGKILL to the command and its two workers after the first results; what was finished is not made again."""
    out = tmp_path / "killed"
    words = ["evaluate", str(films), "-o", str(out), "--views", "2,1", "--methods", "copy,driven"]
    words += ["--size", str(SIZE), "--level", "0", "--figures", "core", "--workers", "2"]
    command_line = [sys.executable, "-m", "ffavatar", *words]

    def results() -> dict[str, int]:
        kept = (out / "results").rglob("[!.]*.json")
        return {f"{p.parent.name}/{p.name}": p.stat().st_mtime_ns for p in kept}

    running = subprocess.Popen(command_line, start_new_session=True, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 900
    while len(results()) < 3:
        assert running.poll() is None and time.monotonic() < until, "the run ended, or hung, before its kill"
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    kept = results()
    assert 3 <= len(kept) < RESULTS and not (out / f"self-{SIZE}.json").exists()
    subprocess.run(command_line, check=True, timeout=900, capture_output=True)
    after = results()
    assert len(after) == RESULTS and {name: after[name] for name in kept} == kept
    # the quicker set of figures is part of the whole one, to the digit
    core = scores_of(out / f"self-{SIZE}.json")
    assert {"psnr", "ssim", "lpips", "identity"} <= set(core["p11", "driven", 2])
    assert core == {key: {name: scores[name] for name in core[key]} for key, scores in whole.items()}
