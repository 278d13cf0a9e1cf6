"""Seconds to an avatar, frames per second and peak memory of a warm process, with ratios to naive alternatives.

    python benchmarks/speed.py [--threads 2] [--photos A B C D] [--clip CLIP.mp4] [--markdown FILE]

Without photos, four synthetic ones are made. Compares, in the same run, the native posing and rasteriser with the
readable torch forms that a user could write in an afternoon.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch

from ffavatar.animate import pose_gaussians, pose_surface
from ffavatar.geometry import normalised_camera, quat_multiply, quat_rotate
from ffavatar.model import create_model, load_model
from ffavatar.model.weights import SHIPPED
from ffavatar.pipeline import animate, reconstruct
from ffavatar.render import rasterize


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median time of a call after one warm-up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--photos", nargs="*", default=[])
    parser.add_argument("--clip")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[tuple[str, str]] = []

    from ffavatar.photo import load_views

    model = load_model("lite") if "lite" in SHIPPED else create_model("lite").eval()
    if options.photos:

        def read():
            return load_views(options.photos)[0]

        views = read()
        rows.append((f"{len(views)} photos to views (detect, landmarks, crop, matte)", f"{seconds(read, 3):.2f} s"))
    else:
        from ffavatar.demo import synthetic_views

        views = synthetic_views(4, 512)
    made = seconds(lambda: reconstruct(model, views, 2), 3)
    avatar = reconstruct(model, views, 2)
    rows.append((f"{len(views)} views to {len(avatar):,} Gaussians", f"{made:.2f} s"))

    params = avatar.neutral_params(1)
    params.root[0, 1], params.jaw[0, 0] = 0.2, 0.1
    camera = normalised_camera(512)

    def draw(backend: str):
        posed = pose_gaussians(avatar.rig, avatar.canonical, params)
        return rasterize(posed.means, posed.quats, posed.scales, posed.opacities, posed.colors, camera.world_to_cam,
                         camera.K, 512, 512, backgrounds=torch.ones(1, 3), backend=backend)  # fmt: skip

    def readable_pose():
        points, turn = pose_surface(avatar.rig, params)
        return points + quat_rotate(turn, avatar.canonical.offsets), quat_multiply(turn, avatar.canonical.quats)

    with torch.no_grad():
        frame = seconds(lambda: animate(avatar, params, 512), 30)
        pose = seconds(lambda: pose_gaussians(avatar.rig, avatar.canonical, params), 30)
        slow_pose = seconds(readable_pose, 10)
        slow_frame = seconds(lambda: draw("torch"), 1)
    rate = f"{1 / frame:.1f} frames/s ({1e3 * frame:.1f} ms)"
    rows.append(("animate + render at 512 px, from given parameters", rate))
    rows.append(("of which posing", f"{1e3 * pose:.1f} ms, {slow_pose / pose:.1f}x the readable torch form"))
    rows.append(("against the pure torch rasteriser", f"{slow_frame / frame:.0f}x"))
    if options.clip:
        rows += film_rows(avatar, options.clip)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    rows.append(("peak memory of this process", f"{peak:.2f} GiB"))

    lines = [f"{date.today()}, {processor()}, {options.threads} threads, Python {platform.python_version()}, "
             f"torch {torch.__version__}", "", "| what | figure |", "| --- | --- |"]  # fmt: skip
    lines += [f"| {name} | {value} |" for name, value in rows]
    print("\n".join(lines))
    if options.markdown:
        options.markdown.write_text("# Speed\n\n" + "\n".join(lines) + "\n")


def film_rows(avatar, clip: str) -> list[tuple[str, str]]:
    """The whole film path, decoding to encoding: first with loading the networks, then warm.

    Seconds of processor time per frame say what a frame costs however busy the machine is: frames per second times
    these is the number of cores that were had.
    """
    import tempfile

    from ffavatar.drive.film import FilmStyle, make_film
    from ffavatar.model import load_model
    from ffavatar.photo import FrontEnd

    rows = []
    with tempfile.TemporaryDirectory() as folder:

        def film(name: str, **networks) -> None:
            start, used = time.perf_counter(), time.process_time()
            frames = make_film(avatar, clip, Path(folder) / "film.mp4", FilmStyle(size=512), **networks).frames
            rate, each = frames / (time.perf_counter() - start), (time.process_time() - used) / frames
            rows.append((f"animate from a video at 512 px, {name}, {frames} frames",
                         f"{rate:.1f} frames/s, {1e3 * each:.0f} ms of processor time per frame, "
                         f"{1 / each:.1f} frames/s per core"))  # fmt: skip

        film("with loading the networks")
        networks = {"model": load_model(), "front_end": FrontEnd()}
        film("warm", **networks)
        film("warm again", **networks)
    return rows


def processor() -> str:
    """Processor's name and core count, as the system tells them."""
    import os

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
