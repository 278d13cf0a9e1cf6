"""Every export format on one avatar: size, seconds to write, and what a reader gets back.

    python benchmarks/exports.py [AVATAR.safetensors] [--threads 2] [--repeats 3] [--markdown FILE]

Without an avatar, one is made of four synthetic pictures. The readers are those of the tests, written from the formats'
specifications. PSNR of Gaussians is against the avatar's own rendering at 512 px on white, at rest and in a pose,
through the same rasteriser; that of films against the frames that went in, laid over white. What moves lasts a second.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "export"))
from readers import (
    Gltf,
    film_psnr,
    page_block,
    ply_gaussians,
    read_film,
    read_lam,
    read_obj,
    read_ply,
    read_splat,
    read_spz,
    read_usda,
)

from ffavatar.animate import pose_gaussians, render_gaussians
from ffavatar.avatar import Avatar
from ffavatar.drive.film import FilmStyle, render_uint8
from ffavatar.drive.motion import demo_motion
from ffavatar.drive.pose import posed
from ffavatar.export.formats import export
from ffavatar.export.mesh import posed_mesh
from ffavatar.export.options import ExportOptions, head_space
from ffavatar.geometry import normalised_camera
from ffavatar.types import Camera, Gaussians, HeadParams

SIZE_PX = 512
SECONDS = 1.0
Read = Callable[[Path], Gaussians]
READERS: dict[str, tuple[Read, bool]] = {  # how to read a file, and whether y points down in it
    "a.ply": (lambda path: ply_gaussians(read_ply(path.read_bytes())[0]), True),
    "a.spz": (read_spz, False),
    "a.splat": (read_splat, True),
    "a.glb": (lambda path: first_gaussians(Gltf(path.read_bytes())), False),
    "a.zip": (read_lam, False),
    "a.usda": (read_usda, False),
}
FILMS = ("a.mp4", "a.mov", "a.webm", "a.gif", "a.webp", "frames")
TRANSPARENT = ("alpha.mov", "alpha.webm", "alpha.gif", "alpha.webp", "alpha frames")


def first_gaussians(file: Gltf) -> Gaussians:
    return file.gaussians(file.node("avatar"))


def decibels(avatar: Avatar, params: HeadParams, made: Gaussians, y_down: bool) -> float:
    camera = normalised_camera(SIZE_PX)
    world_to_cam = torch.eye(4)[None].clone() if y_down else camera.world_to_cam.clone()
    world_to_cam[:, 2, 3] = 1.15
    seen = render_gaussians(made, Camera(world_to_cam, camera.K, SIZE_PX, SIZE_PX)).images
    return float(-10 * torch.log10((seen - avatar.render(params, SIZE_PX).images).square().mean().clamp_min(1e-20)))


def synthetic_avatar() -> Avatar:
    from ffavatar.demo import synthetic_views
    from ffavatar.model import load_model
    from ffavatar.pipeline import reconstruct

    return reconstruct(load_model("lite"), synthetic_views())


def write_seconds(avatar: Avatar, path: Path, options: ExportOptions, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        if path.is_dir():
            shutil.rmtree(path)
        start = time.perf_counter()
        export(avatar, path, options)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def skinning_error(avatar: Avatar, path: Path, params: HeadParams) -> str:
    """How far glTF's skinning puts the Gaussians from where the avatar has them, over some frames."""
    file, apart = Gltf(path.read_bytes()), []
    for frame in range(10, len(params), 10):
        row = head_space(params[frame : frame + 1], avatar)
        wanted = pose_gaussians(avatar.rig, avatar.canonical, row).means[0].numpy()
        found = file.skinned(file.node("avatar"), file.sample(0, frame))
        apart.append(np.linalg.norm(found - wanted, axis=1) * 1e3)
    rows = np.concatenate(apart)
    return f"Gaussians are {rows.mean():.4f} mm off on average, {rows.max():.3f} at most"


def render_all(avatar: Avatar, track: HeadParams, options: ExportOptions) -> np.ndarray:
    """The frames of a film before it is encoded, (T, H, W, 3 or 4) uint8."""
    rows = [render_uint8(avatar, track[i : i + 4], options.style, SIZE_PX) for i in range(0, len(track), 4)]
    return np.concatenate(rows)


def film_error(path: Path, wanted: np.ndarray, fps: float) -> str:
    """Worst and mean frame, and for transparency the most and the mean that it is off, of 255."""
    alpha = wanted.shape[3] == 4
    found = read_film(path, alpha, fps)
    assert len(found) == len(wanted), f"{path.name} has {len(found)} frames, {len(wanted)} went in"
    scores = [film_psnr(one, other) for one, other in zip(found, wanted)]
    said = "exact" if min(scores) > 200 else f"{np.mean(scores):.1f} dB, worst frame {min(scores):.1f}"
    if alpha and min(scores) <= 200:
        apart = np.abs(np.stack(found)[..., 3].astype(int) - wanted[..., 3])
        said += f"; transparency off by {apart.mean():.2f} of 255 on average, {apart.max()} at most"
    return said


def mesh_error(avatar: Avatar, obj: Path, glb: Path, pose: HeadParams) -> list[str]:
    """How far vertices and colours of posed meshes are from the avatar's Gaussians."""
    made = posed_mesh(avatar, pose)
    vertices, colours, faces = read_obj(obj)
    assert np.array_equal(faces, made.faces)
    rows = [("`a.obj`", vertices, colours)]
    file = Gltf(glb.read_bytes())
    node = file.node("head")
    linear = file.attribute(node, "COLOR_0")[:, :3]
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    rows.append(("`posed.mesh.glb`", file.attribute(node, "POSITION"), srgb))
    return [
        f"{name}: {len(made.vertices):,} vertices, off by {np.abs(places - made.vertices).max() * 1e3:.5f} mm and "
        f"{np.abs(shades - made.colours).max() * 255:.3f} of 255 in colour at most."
        for name, places, shades in rows
    ]


def page_error(avatar: Avatar, page: Path, folder: Path) -> str:
    avatar.save(folder / "same.safetensors")
    same = page_block(page.read_text(encoding="utf-8"), "avatar") == (folder / "same.safetensors").read_bytes()
    return f"`a.html` holds the container {'byte for byte' if same else 'CHANGED'}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("avatar", nargs="?", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="the median of so many times of writing")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    avatar = Avatar.load(options.avatar) if options.avatar else synthetic_avatar()
    whole = demo_motion(avatar.rig.head, SECONDS)
    track = whole.for_head(avatar.rig.head)
    pose = posed(avatar, (25, 10, -5), {"jawOpen": 0.6, "mouthSmileLeft": 0.8})
    rest, moving, still = ExportOptions(), ExportOptions(motion=whole), ExportOptions(pose=pose)
    clear = ExportOptions(motion=whole, style=FilmStyle(alpha=True))

    machine = f"{platform.processor() or platform.machine()}, {options.threads} threads"
    lines = [
        f"{date.today()}, {machine}, Python {platform.python_version()}, torch {torch.__version__}; "
        f"{len(avatar):,} Gaussians, a motion of {len(whole)} frames, median of {options.repeats}",
        "",
        "| file | MB | seconds | PSNR at rest, posed; of films over all frames |",
        "| --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        jobs = [(name, rest) for name in ("a.ply", "a.spz", "a.splat", "a.glb")]
        jobs += [("moving.glb", moving), ("posed.glb", still), ("moving.mesh.glb", moving), ("posed.mesh.glb", still)]
        jobs += [("a.obj", still), ("a.zip", rest), ("a.usda", rest), ("a.html", rest), ("a.png", rest)]
        jobs += [(name, moving) for name in FILMS] + [(name, clear) for name in TRANSPARENT]
        drawn = {True: render_all(avatar, track, clear), False: render_all(avatar, track, moving)}
        for name, wanted in jobs:
            seconds = write_seconds(avatar, place / name, wanted, options.repeats)
            path = place / name
            files = path.iterdir() if path.is_dir() else [path]
            size = sum(file.stat().st_size for file in files) / 1e6
            scores = ""
            if name in READERS:
                read, y_down = READERS[name]
                found = [decibels(avatar, avatar.neutral_params(), read(path), y_down)]
                if name != "a.zip":  # which holds the resting avatar alone
                    export(avatar, path, still)
                    found.append(decibels(avatar, pose, read(path), y_down))
                scores = ", ".join(f"{value:.1f} dB" for value in found)
            elif name in (*FILMS, *TRANSPARENT):
                scores = film_error(path, drawn[name in TRANSPARENT], whole.fps)
            lines.append(f"| `{name}` | {size:.1f} | {seconds:.1f} | {scores} |")
            print(lines[-1], flush=True)
        lines += ["", f"`moving.glb` under glTF's skinning: {skinning_error(avatar, place / 'moving.glb', track)}."]
        lines += mesh_error(avatar, place / "a.obj", place / "posed.mesh.glb", pose)
        lines += [page_error(avatar, place / "a.html", place)]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.markdown:
        options.markdown.write_text(f"# Exports\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
