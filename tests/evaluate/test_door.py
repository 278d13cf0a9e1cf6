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


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_and_ends_with_the_same_figures(tmp_path: Path) -> None:
    """SIGKILL to the command and its two workers after the first results; what was finished is not made again."""
    rows = []
    for seed in (11, 12, 21):
        film_of(seed, tmp_path / f"p{seed}.mp4")
        rows.append({"id": f"p{seed}", "file": f"p{seed}.mp4", "source_frames": [0, 1], "target_frames": [2, 3]})
    (tmp_path / "index.json").write_text(json.dumps({"clips": rows}))

    def command_line(out: str) -> list[str]:
        words = ["evaluate", str(tmp_path), "-o", str(tmp_path / out), "--views", "2,1", "--methods", "copy,driven"]
        words += ["--size", "128", "--level", "0", "--figures", "core", "--workers", "2"]
        return [sys.executable, "-m", "ffavatar", *words]

    def results(out: str) -> dict[str, int]:
        kept = (tmp_path / out / "results").rglob("[!.]*.json")
        return {f"{p.parent.name}/{p.name}": p.stat().st_mtime_ns for p in kept}

    def scores(out: str) -> list:
        content = json.loads((tmp_path / out / "self-128.json").read_text())
        return [(r["clip"], r["method"], r["views"], r["scores"]) for r in content["results"]]

    subprocess.run(command_line("whole"), check=True, timeout=900, capture_output=True)
    running = subprocess.Popen(command_line("killed"), start_new_session=True, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 900
    while len(results("killed")) < 3:
        assert running.poll() is None and time.monotonic() < until, "the run ended, or hung, before its kill"
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    kept = results("killed")
    assert 3 <= len(kept) < 12 and not (tmp_path / "killed" / "self-128.json").exists()
    subprocess.run(command_line("killed"), check=True, timeout=900, capture_output=True)
    after = results("killed")
    assert len(after) == 12 and {name: after[name] for name in kept} == kept
    assert scores("killed") == scores("whole")
