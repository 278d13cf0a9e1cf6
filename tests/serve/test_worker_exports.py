"""The real worker's exports: the options of a request give the file that ``ffavatar export`` writes with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ffavatar.animate import Rig
from ffavatar.avatar import Avatar
from ffavatar.cli import main
from ffavatar.drive.motion import demo_motion
from ffavatar.drive.video import FrameReader
from ffavatar.head import load_head
from ffavatar.serve.messages import Done, Failed, Message, Stage, Task, decode, encode
from ffavatar.serve.worker import Desk, Tools, perform
from ffavatar.types import CanonicalGaussians

TOOLS = Tools("cpu", None, None)  # type: ignore[arg-type]  # exports need no networks


class Quiet(Desk):
    """A desk without a line: what the worker says is kept."""

    def __init__(self) -> None:
        self.said: list[Message] = []

    def stage(self, name: str, done: int = 0, total: int | None = 0) -> None:
        self.said.append(Stage(name, done, total or 0))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an avatar of base vertices and a motion."""
    folder = tmp_path_factory.mktemp("stored")
    head = load_head()
    identity = torch.zeros(head.identity_size)
    rig = Rig.of(head, identity, head.surface(0))
    count = len(rig.points())
    look = CanonicalGaussians(
        offsets=torch.zeros(count, 3),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        scales=torch.full((count, 3), 0.004),
        opacities=torch.full((count,), 0.9),
        colors=torch.linspace(0, 1, count)[:, None].repeat(1, 3),
    )
    Avatar(rig, look, identity).save(folder / "me.safetensors")
    demo_motion(head, 4.0, 1.0).save(folder / "motion.json")
    return folder


def task(stored: Path, folder: Path, name: str, **options: object) -> Task:
    folder.mkdir(exist_ok=True)
    order = Task("j", "export", str(folder), container=str(stored / "me.safetensors"), name=name)
    return decode(encode(replace(order, **options)))  # as it arrives  # type: ignore[return-value,arg-type]


CASES: tuple[tuple[str, dict[str, object], list[str]], ...] = (
    ("ply", {"turn_deg": (20.0, -5.0, 3.0), "scale": 10.0}, "--yaw 20 --pitch -5 --roll 3 --scale 10".split()),
    ("obj", {"expression": {"jawOpen": 0.5}}, ["--expression", "jawOpen=0.5"]),
    ("spz", {"motion": "motion.json", "frame": -1}, ["--motion", "motion.json", "--frame", "-1"]),
    ("glb", {"motion": "motion.json"}, ["--motion", "motion.json"]),
    ("png", {"size": 96, "background": "#ff8000"}, ["--size", "96", "--background", "#ff8000"]),
    ("html", {"background": "transparent"}, ["--background", "transparent"]),
)  # fmt: skip


@pytest.mark.parametrize(("kind", "options", "words"), CASES, ids=[kind for kind, _, _ in CASES])
def test_the_file_is_the_command_lines(
    stored: Path, tmp_path: Path, kind: str, options: dict[str, object], words: list[str]
) -> None:
    if "motion" in options:
        options = {**options, "motion": str(stored / "motion.json")}
    said = perform(task(stored, tmp_path / "job", f"custom.{kind}", **options), TOOLS, Quiet())
    assert said == Done((f"custom.{kind}",)), said
    words = [str(stored / word) if word == "motion.json" else word for word in words]
    # the same name, since formats with a title take it from there
    other = tmp_path / "cli" / f"custom.{kind}"
    other.parent.mkdir()
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["export", str(stored / "me.safetensors"), "-o", str(other), *words])
    assert (tmp_path / "job" / f"custom.{kind}").read_bytes() == other.read_bytes()


def test_films_tell_how_far_they_are(stored: Path, tmp_path: Path) -> None:
    desk = Quiet()
    order = task(stored, tmp_path / "job", "custom.webm", motion=str(stored / "motion.json"), size=64)
    said = perform(replace(order, background="transparent"), TOOLS, desk)
    assert isinstance(said, Done) and said.files == ("custom.webm",)
    assert [s for s in desk.said if isinstance(s, Stage) and s.name == "drawing"][-1] == Stage("drawing", 4, 4)
    assert len(list(FrameReader(tmp_path / "job" / "custom.webm"))) == 4


def test_a_picture_in_a_moment_of_a_motion_is_not_the_resting_one(stored: Path, tmp_path: Path) -> None:
    made = []
    for number, frame in enumerate((0, 3)):
        order = task(stored, tmp_path / str(number), "custom.png", motion=str(stored / "motion.json"), frame=frame)
        assert isinstance(perform(replace(order, size=64), TOOLS, Quiet()), Done)
        made.append(np.asarray(Image.open(tmp_path / str(number) / "custom.png"), np.int16))
    assert np.abs(made[0] - made[1]).max() > 8


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("custom.png", {"frame": 99}, "Frame 99 is not in the motion, which has 4"),
        ("custom.ply", {"expression": {"jawOpenn": 1.0}}, "'jawOpenn' is no expression of this head"),
    ],
)
def test_what_only_the_avatar_or_the_motion_can_tell_is_said_at_the_end(
    stored: Path, tmp_path: Path, name: str, options: dict[str, object], words: str
) -> None:
    if "frame" in options:
        options = {**options, "motion": str(stored / "motion.json")}
    said = perform(task(stored, tmp_path / "job", name, **options), TOOLS, Quiet())
    assert isinstance(said, Failed) and said.theirs and words in said.reason and str(tmp_path) not in said.reason
    assert "--" not in said.reason
