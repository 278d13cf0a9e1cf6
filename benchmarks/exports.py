"""Every export format on one avatar: size, seconds to write (median of three), and what a reader gets back.

    python benchmarks/exports.py [AVATAR.safetensors] [--threads 2] [--markdown FILE]

Without an avatar, one of about 94,000 Gaussians is made of four synthetic pictures. The readers are those of the
tests, written from the formats' specifications; PSNR is against the avatar's own rendering at 512 px on white, at rest
and in a pose, through the same rasteriser.
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
from readers import Gltf, ply_gaussians, read_ply, read_splat, read_spz

from ffavatar.animate import pose_gaussians, render_gaussians
from ffavatar.avatar import Avatar
from ffavatar.drive.motion import demo_motion
from ffavatar.drive.pose import posed
from ffavatar.export.formats import export
from ffavatar.export.options import ExportOptions, head_space
from ffavatar.geometry import normalised_camera
from ffavatar.types import Camera, Gaussians, HeadParams

SIZE_PX = 512
Read = Callable[[Path], Gaussians]
READERS: dict[str, tuple[Read, bool]] = {  # how to read a file, and whether y points down in it
    "a.ply": (lambda path: ply_gaussians(read_ply(path.read_bytes())[0]), True),
    "a.spz": (read_spz, False),
    "a.splat": (read_splat, True),
    "a.glb": (lambda path: first_gaussians(Gltf(path.read_bytes())), False),
}


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


def write_seconds(avatar: Avatar, path: Path, options: ExportOptions) -> float:
    times = []
    for _ in range(3):
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("avatar", nargs="?", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    avatar = Avatar.load(options.avatar) if options.avatar else synthetic_avatar()
    whole = demo_motion(avatar.rig.head, 2.0)
    track = whole.for_head(avatar.rig.head)
    pose = posed(avatar, (25, 10, -5), {"jawOpen": 0.6, "mouthSmileLeft": 0.8})
    rest, moving, still = ExportOptions(), ExportOptions(motion=whole), ExportOptions(pose=pose)

    machine = f"{platform.processor() or platform.machine()}, {options.threads} threads"
    lines = [
        f"{date.today()}, {machine}, Python {platform.python_version()}, torch {torch.__version__}; "
        f"{len(avatar):,} Gaussians, a motion of {len(whole)} frames",
        "",
        "| file | MB | seconds | PSNR at rest, posed |",
        "| --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        jobs = [(name, rest) for name in ("a.ply", "a.spz", "a.splat", "a.glb")]
        jobs += [
            ("moving.glb", moving),
            ("posed.glb", still),
            ("moving.mesh.glb", moving),
            ("posed.mesh.glb", still),
            ("a.obj", still),
        ]
        jobs += [("a.zip", rest), ("a.usda", rest), ("a.png", rest), ("a.webp", moving), ("a.mp4", moving)]
        jobs += [("a.webm", moving), ("a.gif", moving), ("frames", moving)]
        for name, wanted in jobs:
            seconds = write_seconds(avatar, place / name, wanted)
            path = place / name
            files = path.iterdir() if path.is_dir() else [path]
            size = sum(file.stat().st_size for file in files) / 1e6
            scores = ""
            if name in READERS:
                read, y_down = READERS[name]
                found = [decibels(avatar, avatar.neutral_params(), read(path), y_down)]
                export(avatar, path, still)
                found.append(decibels(avatar, pose, read(path), y_down))
                scores = ", ".join(f"{value:.1f} dB" for value in found)
            lines.append(f"| `{name}` | {size:.1f} | {seconds:.1f} | {scores} |")
            print(lines[-1], flush=True)
        lines += ["", f"`moving.glb` under glTF's skinning: {skinning_error(avatar, place / 'moving.glb', track)}."]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.markdown:
        options.markdown.write_text(f"# Exports\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
