"""Plans are checked before work; the whole command on a film of synthetic people gives the same figures twice."""

from __future__ import annotations

import io
import json
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
    """Five pictures of one synthetic person as a film."""
    from ffavatar.data.synthetic import synthetic_person

    person = synthetic_person(seed, shots=5, size=256)
    with av.open(str(place), "w") as container:
        stream = container.add_stream("libx264", rate=5, options={"crf": "12"})
        stream.width = stream.height = 256
        stream.pix_fmt = "yuv420p"
        for picture in person.images:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


@pytest.mark.slow
def test_the_same_command_twice_gives_identical_figures_and_workers_change_nothing(tmp_path: Path) -> None:
    rows = []
    for seed in (11, 12):
        film_of(seed, tmp_path / f"p{seed}.mp4")
        rows.append({"id": f"p{seed}", "file": f"p{seed}.mp4", "source_frames": [0, 1], "target_frames": [2, 3, 4]})
    (tmp_path / "index.json").write_text(json.dumps({"clips": rows}))
    quiet = Console(file=io.StringIO())

    def figures(out: str, workers: int) -> tuple[str, list]:
        plan = Plan(
            tmp_path, tmp_path / out, views=(2,), methods=("copy", "driven"), size=128, level=0, workers=workers
        )
        outcome = run_plan(plan, quiet)
        content = json.loads(outcome.json.read_text())
        for row in content["summary"]:
            del row["timing"]
        assert "data:image/jpeg" in outcome.page.read_text()
        return json.dumps(content["summary"]), [r.scores for r in outcome.results]

    first = figures("first", 1)
    assert figures("again", 1) == first
    assert figures("two", 2) == first
    assert set(first[1][1]) >= {"psnr", "lpips_vgg", "identity_dlib", "akd", "aed", "apd", "matte_iou"}
