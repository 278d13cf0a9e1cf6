"""Options that nothing would heed, and outputs that would destroy what is read: refused in one sentence."""

from __future__ import annotations

import os
import re
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from made_avatar import StandInModel, small_avatar
from PIL import Image
from typer.testing import CliRunner

from ffavatar.commands.avatars import inspect, reconstruct, render
from ffavatar.commands.driving import animate, live, motion
from ffavatar.commands.exporting import export
from ffavatar.commands.personal import personalize
from ffavatar.drive.formats import read_motion, write_motion
from ffavatar.drive.motion import demo_motion
from ffavatar.drive.video import FrameReader
from ffavatar.errors import InputError
from ffavatar.files import refuse_overwriting

sys.path += [str(Path(__file__).parents[1] / name) for name in ("drive", "head")]
from made_films import make_film
from made_motions import arkit_track, flame_track

Run = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An avatar, a film, a motion, an ARKit track and a sound."""
    folder = tmp_path_factory.mktemp("given")
    small_avatar().save(folder / "me.safetensors")
    make_film(folder / "film.mp4", frames=4)
    Image.new("RGB", (64, 64), "green").save(folder / "p.png")
    demo_motion(small_avatar().rig.head, 0.2, 10).save(folder / "m.json")
    write_motion(arkit_track(3), folder / "a.json", "arkit-json")
    with wave.open(str(folder / "tone.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((9000 * np.sin(np.arange(8000) / 20)).astype("<i2").tobytes())
    return folder


@pytest.fixture
def run(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in a folder that links to what is given; its exceptions come out."""
    for path in shared.iterdir():
        (tmp_path / path.name).hardlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ffavatar.api.model_for", lambda *_: StandInModel(small_avatar().rig.head))
    app = typer.Typer()
    for command in (reconstruct, personalize, render, inspect, animate, live, motion, export):
        app.command()(command)

    def call(line: str) -> tuple[str, str]:
        result = CliRunner().invoke(app, line.split())
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout, result.stderr

    return call


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("export me.safetensors -o h.ply --size 256", "--size: ply is no picture"),
        ("export me.safetensors -o h.ply --background white", "--background: ply has none"),
        ("export me.safetensors -o h.png --scale 2", "--scale: png has none"),
        ("export me.safetensors -o h.mesh.glb --size 256", "--size: mesh.glb is no picture"),
        ("export me.safetensors -o folder --scale 2 --motion m.json", "--scale: a folder of pictures has none"),
        ("export me.safetensors -o h.mp4 --motion m.json --size 97", "give --size 96 or 98"),
        ("export me.safetensors -o h.ply --flame f.pkl", "--flame is for a --motion"),
        ("export me.safetensors -o h.mp4 --motion a.json --flame f.pkl", "--flame is for FLAME tracks, and a.json is"),
        ("animate me.safetensors --driver film.mp4 -o o.mp4 --edition flame9", "--edition is for motion files"),
        ("animate me.safetensors --driver film.mp4 -o o.mp4 --flame none.pkl", "--flame is for motion files"),
        ("animate me.safetensors --driver tone.wav -o o.mp4 --fps 20", "--fps is for motion files, and tone.wav is s"),
        ("animate me.safetensors --driver m.json -o o.mp4 --same-person", "--same-person is for drivers that are film"),
        ("animate me.safetensors --driver tone.wav -o o.mp4 --face 0", "--face is for .* tone.wav is sound"),
        ("animate me.safetensors --driver m.json -o o.mp4 --weights w", "--weights is for .* m.json is a motion"),
        ("animate me.safetensors --driver m.json -o o.mp4 --head-gain 2", "--head-gain is the factor of --head-motion"),
        ("animate me.safetensors --driver m.json -o o.gif --alpha --background green", "--alpha and --background gr"),
        ("animate me.safetensors --driver m.json -o o.webm --alpha --background blue", "background blue exclude each"),
        ("render me.safetensors -o o.mp4", "o.mp4 is named like a film: add --turntable for one"),
        ("animate me.safetensors --driver m.json -o o.mp4 --size 65", "give --size 64 or 66 instead of 65"),
        ("animate me.safetensors --driver me.safetensors -o o.mp4", "me.safetensors is an avatar or weights"),
        ("animate me.safetensors --driver tone.wav -o o.mp4 --side-by-side", "tone.wav is sound, which holds no pict"),
        ("live me.safetensors --head-gain 1", "--head-gain is the factor"),
        ("render me.safetensors -o o.png --seconds 2", "--seconds is for --turntable"),
        ("render me.safetensors -o o.mp4 --turntable --size 99", "give --size 98 or 100"),
        ("render me.safetensors -o o.png --expression foo=1", r"there are \d+, and 11 turns of jaw and eyes"),
        ("reconstruct a.jpg -o x.safetensors --steps 5", "--steps is for --personalize"),
        ("reconstruct a.jpg -o x.safetensors --workers 2", "--workers is for --many"),
        ("reconstruct a.jpg -o x.safetensors --ray local", "--ray is for --many"),
        ("reconstruct --many . -o out --personalize --steps 5", "does not personalize; .* `ffavatar personalize`"),
        ("reconstruct --many . -o out --identity", "leave out .* --identity"),
        ("reconstruct --many . -o many.safetensors", "with --many the output is a folder of avatars; give many."),
        ("reconstruct https://some.where/a.jpg -o x.safetensors", "https://some.where/a.jpg is an address"),
        ("motion m.json -o a.csv --to arkit-json", "arkit-json is written as .json; change"),
        ("motion a.json -o a.json --to arkit-json", "a.json is what is read"),
        ("animate me.safetensors --driver film.mp4 -o film.mp4", "film.mp4 is what is read"),
        ("export m.json -o x.glb", "m.json is a motion file, not an avatar; give .*animate AVATAR --driver m.json`"),
        ("render a.json -o x.png", "a.json is a motion file, not an avatar; give"),
        ("render p.png -o x.png", "p.png is a picture, not .* first: ffavatar reconstruct p.png -o me.safetensors"),
        ("render film.mp4 -o x.png", "film.mp4 is a film, not an avatar; make an avatar of it first"),
        ("personalize p.png me.safetensors -o x.safetensors", "p.png is a picture, not an avatar; make"),
        ("reconstruct me.safetensors -o x.safetensors", "me.safetensors is an avatar, not a photo: give photos of the"),
        ("reconstruct m.json -o x.safetensors", "m.json is a motion file, not a photo: give photos of the person"),
        ("personalize me.safetensors a.jpg -o me.safetensors", "me.safetensors is what is read"),
        ("live me.safetensors --source film.mp4 -o film.mp4", "film.mp4 is what is read"),
    ],
)  # fmt: skip
def test_refused(run: Run, shared: Path, line: str, words: str) -> None:
    before = {path.name: path.read_bytes() for path in shared.iterdir()}
    with pytest.raises(InputError, match=words):
        run(line)
    assert {path.name: path.read_bytes() for path in shared.iterdir()} == before


def test_overwriting_is_seen_through_links(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    one = tmp_path / "photos" / "a.png"
    one.touch()
    (tmp_path / "link.png").symlink_to(one)
    os.link(one, tmp_path / "hard.png")
    for output, given in (("link.png", one), ("hard.png", one), ("photos/a.png", one.parent), ("photos", one.parent)):
        with pytest.raises(InputError, match="give another name for the output"):
            refuse_overwriting(tmp_path / output, None, given)
    refuse_overwriting(tmp_path / "photos" / "new.png", one.parent, one, tmp_path / "none")


def test_a_csv_is_written_as_one_without_being_told(run: Run) -> None:
    out, _ = run("motion m.json -o face.csv")
    assert "live-link-csv" in out and len(read_motion("face.csv")) == 2


@pytest.mark.parametrize("layout", ["arkit-json", "flame-npz"])
def test_export_takes_motions_of_other_programs(run: Run, layout: str) -> None:
    track = arkit_track(3) if layout == "arkit-json" else flame_track(3)
    write_motion(track, "track.npz" if layout == "flame-npz" else "track.json", layout)  # type: ignore[arg-type]
    name = "track.npz" if layout == "flame-npz" else "track.json"
    out, err = run(f"export me.safetensors -o o.mp4 --motion {name} --size 64")
    assert f"3 frames, {3 / track.fps:.1f} s, " in out and out.strip().endswith("KB")
    assert len(list(FrameReader("o.mp4"))) == 3 and ("left out" in err) == (layout == "flame-npz")


def test_films_say_how_long_they_are_and_small_files_their_kilobytes(run: Run) -> None:
    out, _ = run("animate me.safetensors --driver a.json -o o.mp4 --size 64")
    assert out.startswith("o.mp4: 3 frames, 0.1 s, ") and out.strip().endswith(" KB")
    out, _ = run("render me.safetensors -o o.png --size 64")
    assert out.startswith("o.png: 64 x 64 px, ") and out.strip().endswith(" KB")


@pytest.mark.parametrize("name", ["o.gif", "frames"])
def test_odd_sides_where_the_format_has_them(run: Run, name: str) -> None:
    run(f"animate me.safetensors --driver a.json -o {name} --size 65")
    assert next(iter(FrameReader(name))).image.shape == (65, 65, 3)


def test_inspect_names_looks_and_turns(run: Run) -> None:
    from dataclasses import replace

    from ffavatar.pipeline import LOOK

    replace(small_avatar(), about={LOOK: "3 4"}).save("looks.safetensors")
    out, _ = run("inspect looks.safetensors")
    assert "hair and clothes" in out and "of view 4, 5, counted from 1" in out and "and 11 turns of jaw and eyes" in out


def test_inspect_lists_the_names_that_expression_takes(run: Run) -> None:
    head = small_avatar().rig.head
    for line, names in (
        ("inspect me.safetensors", (*head.expression_names, *head.arkit_pose)),
        ("inspect m.json", head.expression_names),
    ):
        short, _ = run(line)
        long, _ = run(f"{line} --names")
        assert set(names) <= set(re.split(r"[,\s]+", long)) and not set(names) <= set(re.split(r"[,\s]+", short))
        assert max(map(len, long.removeprefix(short).splitlines())) <= 100
    with pytest.raises(InputError, match="`ffavatar inspect` lists them"):
        run("render me.safetensors -o o.png --expression smile=1")
