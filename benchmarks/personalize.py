"""Where the time of a personalization goes: milliseconds of processor time per part of a step, against readable forms.

    python benchmarks/personalize.py [--photos A B C D] [--size 256 --level 1] [--steps 40] [--markdown FILE]

Without photos, four synthetic ones are made. Parts are timed by processor time on one thread, so that other work on the
machine does not count; whole steps also by the clock with ``--threads`` threads. The perceptual net is used where it is
in the cache.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch
from torch import Tensor

from ffavatar.animate import pose_gaussians, pose_surface, render_gaussians
from ffavatar.avatar import Avatar
from ffavatar.evaluate.lpips import ALEX, load_lpips
from ffavatar.geometry import normalised_camera, quat_multiply, quat_rotate
from ffavatar.model import FFAvatar, load_model
from ffavatar.personal import PersonalRecipe, personalize
from ffavatar.personal.fit import Fit, Perceptual
from ffavatar.personal.goals import Goals
from ffavatar.pipeline import drive, reconstruct, targets_on_white
from ffavatar.render import mean_ssim
from ffavatar.ssim import ssim_map
from ffavatar.types import HeadParams, Views

REPEATS = 5
Row = tuple[str, float, float, str]  # part, milliseconds forward and backward, remark


def processor_ms(forward: Callable[[], list[Tensor]]) -> tuple[float, float]:
    """Median processor milliseconds of a call and of its backward pass, after one warm-up."""
    times: list[tuple[float, float]] = []
    for _ in range(REPEATS + 1):
        start = time.process_time()
        made = [t for t in forward() if t.requires_grad]
        middle = time.process_time()
        torch.autograd.backward(made, [torch.ones_like(t) for t in made])
        times.append((middle - start, time.process_time() - middle))
    ahead, back = (statistics.median(pair[i] for pair in times[1:]) for i in (0, 1))
    return 1e3 * ahead, 1e3 * back


def leaves(record):
    """The record with its tensors as leaves that want gradients."""
    return replace(
        record, **{name: value.detach().clone().requires_grad_(True) for name, value in vars(record).items()}
    )


def parts(fit: Fit, avatar: Avatar, net: Perceptual | None, size: int) -> list[Row]:
    """Rows of the table; where there is a readable form, its time stands beside."""
    rows: list[Row] = []
    canonical = leaves(fit.residuals.apply()[0])
    params = leaves(HeadParams(**fit.params)[[0]])
    posed = leaves(pose_gaussians(avatar.rig, canonical, params))
    camera = normalised_camera(size)
    drawn = render_gaussians(posed, camera)
    seen, goal = leaves(drawn).images.detach().clamp(0, 1).requires_grad_(True), fit.goals.images[[0]]

    def fields(record) -> list[Tensor]:
        return list(vars(record).values())

    def readable_pose() -> list[Tensor]:
        points, turn = pose_surface(avatar.rig, params)
        return [points + quat_rotate(turn, canonical.offsets), quat_multiply(turn, canonical.quats)]

    def fused_residuals() -> list[Tensor]:
        changed, prior = fit.residuals.apply()
        return [*fields(changed), prior]

    def readable_residuals() -> list[Tensor]:
        residuals = fit.residuals
        return [*fields(residuals._changed()), *[residuals._prior(name) for name in residuals.values]]

    def add(name: str, fused: Callable[[], list[Tensor]], readable: Callable[[], list[Tensor]] | None = None) -> None:
        ahead, back = processor_ms(fused)
        remark = ""
        if readable is not None:
            total = sum(processor_ms(readable))
            remark = f"{total:.1f} ms in the readable form, {total / (ahead + back):.1f}x"
        rows.append((name, ahead, back, remark))

    add("residuals and prior", fused_residuals, readable_residuals)
    add(
        "posing (the head, then what hangs on it)",
        lambda: fields(pose_gaussians(avatar.rig, canonical, params))[:2],
        readable_pose,
    )
    add("rasterising", lambda: fields(render_gaussians(posed, camera)))
    add("SSIM", lambda: [mean_ssim(seen, goal)], lambda: [ssim_map(seen, goal).mean((1, 2, 3))])
    if net is not None:
        share = f"in {fit.recipe.lpips_share:.0%} of the steps"
        add("LPIPS", lambda: [fit._perceived(net, seen, [0])])
        rows[-1] = (*rows[-1][:3], share)
    return rows


def whole_steps(fit: Fit, count: int) -> tuple[float, float]:
    """Milliseconds per step by the clock and of processor time."""
    clock, used = time.perf_counter(), time.process_time()
    for _ in range(count):
        fit.advance()
    return 1e3 * (time.perf_counter() - clock) / count, 1e3 * (time.process_time() - used) / count


def first_preview(
    model: FFAvatar, avatar: Avatar, views: Views, recipe: PersonalRecipe, net: Perceptual | None
) -> float:
    """Processor seconds until the first snapshot of a run."""
    start, found = time.process_time(), 0.0

    def stop(avatar: Avatar, step: int) -> None:
        nonlocal found
        found = time.process_time() - start
        raise KeyboardInterrupt

    personalize(model, avatar, views, recipe, perceptual=net, on_snapshot=stop)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--photos", nargs="*", default=[])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--level", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40, help="whole steps that are timed")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.photos:
        from ffavatar.photo import load_views

        views = load_views(options.photos)[0]
    else:
        from ffavatar.demo import synthetic_views

        views = synthetic_views(4, 512)
    model = load_model("lite")
    avatar = reconstruct(model, views, options.level)
    recipe = PersonalRecipe(size=options.size)
    net = load_lpips("alex") if ALEX.path.is_file() else None
    read = drive(model, avatar, views)
    fit = Fit(avatar, read, read, Goals(*targets_on_white(views, options.size)), recipe, net)
    rows = parts(fit, avatar, net, options.size)
    preview = first_preview(model, avatar, views, recipe, net)
    fit.advance()
    torch.set_num_threads(options.threads)
    clock, used = whole_steps(fit, options.steps)

    lines = [
        f"{len(avatar):,} Gaussians, {len(views)} views, {options.size} px; {date.today()}, {processor()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}.",
        "",
        "| part of a step, one thread | forward ms | backward ms | |",
        "| --- | --- | --- | --- |",
        *[f"| {name} | {ahead:.1f} | {back:.1f} | {remark} |" for name, ahead, back, remark in rows],
        "",
        f"A step with everything in it, {options.threads} threads: {used:.0f} ms of processor time, {clock:.0f} ms by "
        f"the clock; 500 steps {used / 2:.0f} s of processor time. First preview after {preview:.1f} s of it.",
    ]
    print("\n".join(lines))
    if options.markdown:
        options.markdown.write_text("# Personalization\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


def processor() -> str:
    """The machine's processor and how many cores this process may use."""
    import os

    name = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        name = next(
            (l.split(":")[1].strip() for l in info.read_text().splitlines() if l.startswith("model name")), name
        )
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


if __name__ == "__main__":
    main()
