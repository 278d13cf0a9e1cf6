"""LAM's zip, USD, pictures and films; the table of formats; what is refused; the command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from readers import Gltf, film_psnr, read_film, read_lam, read_ply, read_usda, usd_gaussians
from typer.testing import CliRunner

from ffavatar.cli import _guarded
from ffavatar.commands.exporting import export as command
from ffavatar.commands.parsing import parse_expressions
from ffavatar.drive.background import parse_background
from ffavatar.drive.film import FilmStyle, render_uint8
from ffavatar.drive.pose import posed
from ffavatar.drive.video import FrameReader
from ffavatar.errors import InputError
from ffavatar.export.formats import FORMATS, export, format_of
from ffavatar.export.lam import BONES, CLIPS, EYE_HEIGHT_M
from ffavatar.export.options import ExportOptions, posed_splats

THREE_D = [suffix for suffix, made in FORMATS.items() if made.three_d]
SMALL = FilmStyle(size=96)


def left_behind(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# LAM


@pytest.fixture(scope="module")
def lam(avatar, tmp_path_factory) -> zipfile.ZipFile:
    path = tmp_path_factory.mktemp("lam") / "me you.zip"
    export(avatar, path)
    return zipfile.ZipFile(path)


def test_lam_zip_has_what_the_renderer_opens(avatar, lam) -> None:
    """A directory entry names the folder; the head is one skinned mesh with bones ``hip`` and ``head``."""
    assert lam.testzip() is None and b"AI-generated" in lam.comment
    members = ("", "offset.ply", "skin.glb", "animation.glb", "vertex_order.json")
    assert lam.namelist() == [f"me_you/{name}" for name in members]
    assert lam.infolist()[0].is_dir()
    assert json.loads(lam.read("me_you/vertex_order.json")) == list(range(len(avatar)))
    skin = Gltf(lam.read("me_you/skin.glb"))
    assert "animations" not in skin.json
    assert [skin.json["nodes"][j]["name"] for j in skin.json["skins"][0]["joints"]] == list(BONES)
    names = skin.target_names(skin.node("avatar"))
    assert len(names) == 53 and {"jawOpen", "tongueOut", "cheekPuff", "mouthCheekPuff"} <= set(names)


def test_lam_offsets_and_mesh_add_up_to_the_avatar(avatar, lam, draw, likeness) -> None:
    columns, _ = read_ply(lam.read("me_you/offset.ply"))
    assert max(np.abs(columns[k]).max() for k in "xyz") < 0.02
    back = read_lam(Path(str(lam.filename)))
    assert likeness(draw(back), avatar.render(avatar.neutral_params(), 192).images[0]) > 70


def test_lam_head_stands_at_eye_height(avatar, lam) -> None:
    """The renderer's camera is fixed; it applies the head bone to mesh + offset."""
    skin = Gltf(lam.read("me_you/skin.glb"))
    raised = skin.skinned(skin.node("avatar"), {}) - avatar.rig.points().numpy()
    np.testing.assert_allclose(raised, np.tile([0, EYE_HEIGHT_M, 0], (len(raised), 1)), atol=1e-5)


def test_lam_clips_turn_the_bones_of_the_skin(lam) -> None:
    moving, skin = Gltf(lam.read("me_you/animation.glb")), Gltf(lam.read("me_you/skin.glb"))
    clips = moving.json["animations"]
    assert [clip["name"].split()[0] for clip in clips] == list(CLIPS) and len(clips) == 12
    head = moving.node("head")
    turns = [moving.sample(clip, 30)[head, "rotation"] for clip in range(12)]
    assert max(abs(1 - abs(turn @ turns[0])) for turn in turns) > 1e-4  # not one clip twelve times
    for clip in clips:
        assert {channel["target"]["path"] for channel in clip["channels"]} == {"rotation"}
    rest = {n["name"]: n["translation"] for n in moving.json["nodes"]}
    assert rest == {n["name"]: n["translation"] for n in skin.json["nodes"] if n["name"] in BONES}


def test_lam_zip_is_the_same_every_time(avatar, motion, tmp_path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        export(avatar, tmp_path / name / "me.zip", ExportOptions(motion=motion))
    assert (tmp_path / "a/me.zip").read_bytes() == (tmp_path / "b/me.zip").read_bytes()


@pytest.mark.parametrize("suffix", [".zip", ".html"])
def test_what_holds_the_whole_avatar_takes_no_pose(avatar, motion, tmp_path, suffix) -> None:
    """It would be left out in silence."""
    for options in (ExportOptions(pose=avatar.neutral_params()), ExportOptions(motion=motion, frame=0)):
        with pytest.raises(InputError, match="holds the whole avatar, not a pose"):
            export(avatar, tmp_path / f"me{suffix}", options)
    assert not list(tmp_path.iterdir())


# USD


def test_usd_draws_the_avatar(avatar, draw, likeness, tmp_path) -> None:
    pose = posed(avatar, (25, 10, -5), {"jawOpen": 0.6})
    export(avatar, tmp_path / "a.usda", ExportOptions(pose=pose))
    text = (tmp_path / "a.usda").read_text()
    assert text.startswith("#usda 1.0") and "AI-generated" in text and 'upAxis = "Y"' in text
    back = read_usda(tmp_path / "a.usda")
    assert likeness(draw(back), avatar.render(pose, 192).images[0]) > 80


READ_USD = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from pxr import Usd, UsdGeom, UsdVol
stage = Usd.Stage.Open(sys.argv[2])
prim = stage.GetDefaultPrim()
cloud = UsdVol.ParticleField3DGaussianSplat(prim)
assert prim.GetTypeName() == "ParticleField3DGaussianSplat", prim.GetTypeName()
assert UsdGeom.GetStageUpAxis(stage) == "Y" and UsdGeom.GetStageMetersPerUnit(stage) == 1.0
assert cloud.GetRadianceSphericalHarmonicsDegreeAttr().Get() == 0
turns = [[q.real, *q.imaginary] for q in cloud.GetOrientationsAttr().Get()]
np.savez(
    sys.argv[3],
    positions=np.array(cloud.GetPositionsAttr().Get()),
    orientations=np.array(turns),
    scales=np.array(cloud.GetScalesAttr().Get()),
    opacities=np.array(cloud.GetOpacitiesAttr().Get()),
    coefficients=np.array(cloud.GetRadianceSphericalHarmonicsCoefficientsAttr().Get()),
    extent=np.array(cloud.GetExtentAttr().Get()),
)
"""


@pytest.mark.slow
def test_openusd_reads_it(avatar, draw, likeness, tmp_path) -> None:
    """With the types of the schema, by Pixar's own library, fetched for this test alone."""
    export(avatar, tmp_path / "a.usda")
    fetch = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "usd")]
    subprocess.run([*fetch, "usd-core>=26.3,<27"], check=True, capture_output=True, timeout=300)
    (tmp_path / "read.py").write_text(READ_USD)
    names = [str(tmp_path / name) for name in ("read.py", "usd", "a.usda", "back.npz")]
    done = subprocess.run([sys.executable, *names], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(tmp_path / "back.npz") as found:
        arrays = {name: found[name] for name in found.files}
    extent = arrays.pop("extent")
    assert (arrays["positions"] > extent[0]).all() and (arrays["positions"] < extent[1]).all()
    wanted = avatar.render(avatar.neutral_params(), 192).images[0]
    assert likeness(draw(usd_gaussians(**arrays)), wanted) > 80


# Pictures and films


def test_still_is_the_rendering(avatar, motion, tmp_path) -> None:
    params = motion.for_head(avatar.rig.head)[5:6]
    export(avatar, tmp_path / "a.png", ExportOptions(motion=motion, frame=5, style=replace(SMALL, alpha=True)))
    found = np.asarray(Image.open(tmp_path / "a.png"))
    assert np.array_equal(found, render_uint8(avatar, params, replace(SMALL, alpha=True), 96)[0])
    assert found.shape == (96, 96, 4) and 0 < (found[..., 3] == 0).mean() < 1


def test_animated_webp_keeps_time_alpha_and_mark(avatar, motion, tmp_path) -> None:
    track = replace(motion, fps=24.0, params=motion.params[:6])  # 41.67 ms a frame, in whole milliseconds
    export(avatar, tmp_path / "a.webp", ExportOptions(motion=track, style=replace(SMALL, alpha=True)))
    with Image.open(tmp_path / "a.webp") as picture:
        assert picture.n_frames == 6 and picture.size == (96, 96)
        assert b"trainedAlgorithmicMedia" in picture.info["xmp"]
        lengths, frames = [], []
        for number in range(6):
            picture.seek(number)
            picture.load()
            lengths.append(picture.info["duration"])
            frames.append(np.asarray(picture.convert("RGBA")).astype(float))
    assert sum(lengths) == 250 and set(lengths) <= {41, 42}
    wanted = render_uint8(avatar, track.for_head(avatar.rig.head), replace(SMALL, alpha=True), 96).astype(float)
    for found, original in zip(frames, wanted, strict=True):
        assert np.abs(found[..., 3] - original[..., 3]).max() <= 1  # WebP keeps alpha without loss
        covered = original[..., 3] > 250
        assert np.abs(found[covered] - original[covered]).mean() < 12


def test_webp_of_one_moment_is_a_still(avatar, motion, tmp_path) -> None:
    export(avatar, tmp_path / "a.webp", ExportOptions(motion=motion, frame=0, style=SMALL))
    with Image.open(tmp_path / "a.webp") as picture:
        assert getattr(picture, "n_frames", 1) == 1


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "frames"])
def test_films_have_every_frame(avatar, motion, tmp_path, name) -> None:
    export(avatar, tmp_path / name, ExportOptions(motion=motion, style=SMALL))
    assert sum(1 for _ in FrameReader(tmp_path / name)) == len(motion)


@pytest.mark.parametrize(
    ("name", "alpha", "least_db", "most_alpha"),
    [
        ("a.mp4", False, 30, 0),
        ("a.mov", False, 30, 0),
        ("a.webm", False, 30, 0),
        ("a.gif", False, 35, 0),
        ("a.webp", False, 33, 0),
        ("frames", False, 200, 0),
        ("a.mov", True, 58, 1),
        ("a.webm", True, 34, 30),
        ("a.gif", True, 22, 127),
        ("a.webp", True, 36, 0),
        ("frames", True, 200, 0),
    ],
)
def test_films_come_back_as_they_were_drawn(avatar, motion, tmp_path, name, alpha, least_db, most_alpha) -> None:
    """Every frame against the rendering, laid over white; and its transparency."""
    track, style = replace(motion, params=motion.params[:8]), replace(SMALL, alpha=alpha)
    export(avatar, tmp_path / name, ExportOptions(motion=track, style=style))
    found = read_film(tmp_path / name, alpha)
    wanted = render_uint8(avatar, track.for_head(avatar.rig.head), style, 96)
    assert len(found) == len(wanted)
    worst = min(film_psnr(a, b) for a, b in zip(found, wanted))
    off = max(int(np.abs(a[..., 3].astype(int) - b[..., 3]).max()) for a, b in zip(found, wanted)) if alpha else 0
    print(f"{name} {alpha}: {worst:.1f} dB, transparency {off}/255")
    assert worst >= least_db and off <= most_alpha


# The table, and what is refused


def test_every_ending_has_a_format() -> None:
    assert format_of("me.mesh.glb") is FORMATS[".mesh.glb"] and format_of("me.GLB") is FORMATS[".glb"]
    assert format_of("me.mesh.v2.glb") is FORMATS[".glb"] and format_of("frames") is FORMATS[""]
    assert len(THREE_D) == 9 and not FORMATS[".png"].three_d


@pytest.mark.parametrize("name", ["me.fbx", "me.ply.gz", "me.safetensors", "me.usdc"])
def test_unknown_endings_are_refused_in_one_sentence(avatar, tmp_path, name) -> None:
    with pytest.raises(InputError, match=r"exported as .*\.spz.*change the name's ending\.$"):
        export(avatar, tmp_path / name)


@pytest.mark.parametrize("suffix", [s for s in FORMATS if s])
def test_hostile_places_are_refused_before_work(avatar, motion, tmp_path, suffix) -> None:
    options = ExportOptions(motion=motion if FORMATS[suffix].film else None, style=SMALL)
    with pytest.raises(InputError, match="folder does not exist"):
        export(avatar, tmp_path / "missing" / f"a{suffix}", options)
    (tmp_path / f"a{suffix}").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        export(avatar, tmp_path / f"a{suffix}", options)
    assert left_behind(tmp_path) == [f"a{suffix}"]


@pytest.mark.parametrize("suffix", THREE_D)
def test_flame_is_written_on_request_alone(restless, tmp_path, suffix) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(InputError, match=r"flame2023.*--allow-flame"):
        export(restless, path)
    assert left_behind(tmp_path) == []
    export(restless, path, ExportOptions(allow_flame=True))
    content = path.read_bytes()
    if suffix == ".zip":
        content = zipfile.ZipFile(path).comment
    if suffix not in (".spz", ".splat"):  # these two have no place for words
        assert b"flame2023" in content and b"not to be passed on" in content


def test_pictures_of_a_flame_avatar_need_no_flag(restless, tmp_path) -> None:
    export(restless, tmp_path / "a.png", ExportOptions(style=SMALL))
    assert left_behind(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("a.ply", {"frame": None}, "choose it from the motion's 20 with --frame"),
        ("a.obj", {"frame": 20}, "Frame 20 is not in the motion, which has 20"),
        ("a.png", {"frame": -21}, "Frame -21 is not"),
        ("a.glb", {"frame": 3, "motion": None}, "frame 3 of what"),
        ("a.glb", {"pose": True}, "a pose by hand or a motion, not both"),
        ("a.mp4", {"motion": None}, "needs a motion"),
        ("a.mp4", {"frame": 3}, "whole motion"),
        ("a.spz", {"scale": 0.0, "motion": None}, "scale of 0"),
        ("a.splat", {"scale": float("nan"), "motion": None}, "scale of nan"),
        ("a.mp4", {"style": replace(SMALL, alpha=True)}, "mp4 cannot hold transparency"),
    ],
)
def test_what_does_not_fit_is_refused(avatar, motion, tmp_path, name, change, message) -> None:
    if change.get("pose"):
        change = {"pose": avatar.neutral_params()}
    with pytest.raises(InputError, match=re.escape(message)):
        export(avatar, tmp_path / name, replace(ExportOptions(motion=motion, style=SMALL), **change))
    assert left_behind(tmp_path) == []


def test_a_pose_is_one_frame(avatar, tmp_path) -> None:
    with pytest.raises(InputError, match="one frame, not 2"):
        export(avatar, tmp_path / "a.ply", ExportOptions(pose=avatar.neutral_params(2)))


def test_an_interrupted_export_leaves_the_old_file(avatar, tmp_path, monkeypatch) -> None:
    export(avatar, tmp_path / "a.glb")
    before = (tmp_path / "a.glb").read_bytes()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ffavatar.files.os.replace", interrupt)
    for suffix in THREE_D:
        with pytest.raises(KeyboardInterrupt):
            export(avatar, tmp_path / f"a{suffix}")
    assert left_behind(tmp_path) == ["a.glb"] and (tmp_path / "a.glb").read_bytes() == before


def test_head_space_is_where_the_neutral_pose_is(avatar) -> None:
    """A pose in front of the camera and no pose at all give the same file."""
    rest, given = posed_splats(avatar, None), posed_splats(avatar, avatar.neutral_params())
    torch.testing.assert_close(rest.means, given.means, atol=1e-6, rtol=0)
    torch.testing.assert_close(rest.quats, given.quats, atol=1e-6, rtol=0)


# The command


@pytest.fixture
def run(avatar, motion, tmp_path, monkeypatch):
    """Runs ``ffavatar export`` in a folder with an avatar and a motion: (exit code, output)."""
    avatar.save(tmp_path / "me.safetensors")
    motion.save(tmp_path / "motion.json")
    monkeypatch.chdir(tmp_path)
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(_guarded(command))

    def call(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["me.safetensors", *words])
        return done.exit_code, done.output

    return call


def test_command_writes_a_pose(run, tmp_path, likeness, draw) -> None:
    code, output = run("-o", "a.ply", "--yaw", "30", "--expression", "jawOpen=0.5", "--scale", "2")
    assert code == 0, output
    assert output.startswith("a.ply: 5,983 Gaussians, 408 KB")
    columns, _ = read_ply((tmp_path / "a.ply").read_bytes())
    assert 0.25 < np.ptp(columns["y"]) / 2 < 0.7  # metres, after the scale of 2


def test_command_writes_frames_and_animations(run, tmp_path) -> None:
    assert run("-o", "a.glb", "--motion", "motion.json")[0] == 0
    assert "animations" in Gltf((tmp_path / "a.glb").read_bytes()).json
    assert run("-o", "b.glb", "--motion", "motion.json", "--frame", "-1")[0] == 0
    assert "animations" not in Gltf((tmp_path / "b.glb").read_bytes()).json
    assert run("-o", "c.png", "--size", "64", "--background", "transparent")[0] == 0
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.size == (64, 64) and picture.mode == "RGBA"


@pytest.mark.parametrize(
    "words",
    [
        ("-o", "a.fbx"),
        ("-o", "missing/a.ply"),
        ("-o", "a.ply", "--motion", "none.json"),
        ("-o", "a.ply", "--expression", "jawOpen"),
        ("-o", "a.ply", "--expression", "nosuch=1"),
        ("-o", "a.png", "--background", "plaid"),
        ("-o", "a.mp4"),
        ("-o", "a.ply", "--yaw", "10", "--motion", "motion.json"),
    ],
)
def test_command_refuses_in_one_sentence(run, tmp_path, words) -> None:
    code, output = run(*words)
    assert code == 2 and output.startswith("ffavatar: ") and output.count("\n") == 1, output
    assert left_behind(tmp_path) == ["me.safetensors", "motion.json"]


def test_parsing() -> None:
    assert parse_background("#ff8000") == ((1.0, 128 / 255, 0.0), False)
    assert parse_background("transparent")[1]
    assert parse_expressions(["jawOpen=0.5", "mouthSmileLeft=-1"]) == {"jawOpen": 0.5, "mouthSmileLeft": -1.0}
    with pytest.raises(InputError, match="beyond"):
        parse_expressions(["jawOpen=nan"])
