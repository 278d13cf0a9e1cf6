"""Time the native rasteriser against a pure-torch one in the same run: ``python benchmarks/rasterizer.py [--write]``.

The opponent is the fastest plain torch we know: the flat list of (pixel, Gaussian) pairs with alpha >= 1/255, sorted by
pixel and depth, composited with segmented scans and an analytic backward pass. ``--write`` puts the table into
``benchmarks/results/rasterizer.md``.
"""

from __future__ import annotations

import argparse
import datetime
import math
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ffavatar.geometry import quat_to_matrix
from ffavatar.render import native_backend, rasterize

ATTRIBUTES = ("means", "quats", "scales", "opacities", "colors")
AXES_M = (0.105, 0.135, 0.12)
SLABS = 8  # depth slabs of the pair list; pixels that are full drop out between them


def head_scene(count: int, size: int, spread: float = 1.2) -> dict:
    """Flat, mostly opaque splats on an ellipsoid of a head's size that fills 80 % of the picture."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.tensor(AXES_M)
    normals = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    spacing = math.sqrt(4 * math.pi * math.prod(AXES_M) ** (2 / 3) / count)
    outward = torch.nn.functional.normalize(normals / axes, dim=-1)
    quats = torch.stack([1 + outward[:, 2], -outward[:, 1], outward[:, 0], torch.zeros(count)], -1)  # z -> outward
    scales = spread * spacing * torch.exp(0.15 * torch.randn(count, 3, generator=generator))
    scales[:, 2] *= 0.4
    means = normals * axes
    viewmat = torch.eye(4)
    turn = torch.tensor(0.3)
    viewmat[0, 0] = viewmat[2, 2] = turn.cos()
    viewmat[0, 2], viewmat[2, 0] = turn.sin(), -turn.sin()
    viewmat[2, 3] = 1.0
    focal = 0.8 * size / (2 * AXES_M[1])
    return {
        "means": means + 0.15 * spacing * torch.randn(count, 3, generator=generator),
        "quats": torch.nn.functional.normalize(quats + 1e-6, dim=-1),
        "scales": scales,
        "opacities": (0.9 + 0.05 * torch.randn(count, generator=generator)).clamp(0.3, 0.995),
        "colors": (0.5 + 0.35 * torch.sin(40 * means + torch.arange(3.0))).clamp(0, 1),
        "viewmats": viewmat[None],
        "Ks": torch.tensor([[[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]]]),
        "width": size,
        "height": size,
    }


def project(scene: dict) -> tuple[Tensor, Tensor, Tensor]:
    """Centres (N, 2), inverse covariances (N, 3) and depths (N,) of a scene wholly inside the picture."""
    view, K = scene["viewmats"][0], scene["Ks"][0]
    seen = scene["means"] @ view[:3, :3].T + view[:3, 3]
    x, y, z = seen.unbind(-1)
    zero = torch.zeros_like(z)
    jacobian = torch.stack([K[0, 0] / z, zero, -K[0, 0] * x / z**2, zero, K[1, 1] / z, -K[1, 1] * y / z**2], -1)
    axes = quat_to_matrix(torch.nn.functional.normalize(scene["quats"], dim=-1)) * scene["scales"][:, None]
    half = jacobian.unflatten(-1, (2, 3)) @ view[:3, :3] @ axes
    covariance = half @ half.transpose(1, 2)
    xx, xy, yy = covariance[:, 0, 0] + 0.3, covariance[:, 0, 1], covariance[:, 1, 1] + 0.3
    conics = torch.stack([yy, -xy, xx], -1) / (xx * yy - xy * xy)[:, None]
    return torch.stack([K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]], -1), conics, z


def _runs(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """For runs of the given lengths, one after the other: which run an element is in, and its place there."""
    run = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    return run, torch.arange(len(run)) - (lengths.cumsum(0) - lengths)[run]


def _before(values: Tensor, pixels: Tensor) -> Tensor:
    """Sums of the earlier values of the same pixel (``pixels`` sorted), in float64."""
    sums = values.double().cumsum(0) - values
    starts = torch.cat([torch.tensor([0]), (pixels[1:] != pixels[:-1]).nonzero()[:, 0] + 1])
    lengths = torch.diff(starts, append=torch.tensor([len(pixels)]))
    return sums - torch.repeat_interleave(sums[starts], lengths)


def _alphas(centers: Tensor, conics: Tensor, opacities: Tensor, index: Tensor, pixels: Tensor, width: int):
    dx = centers[index, 0] - (pixels % width + 0.5)
    dy = centers[index, 1] - (torch.div(pixels, width, rounding_mode="floor") + 0.5)
    a, b, c = conics[index].unbind(-1)
    unclamped = opacities[index] * torch.exp(-(a * dx * dx + c * dy * dy) / 2 - b * dx * dy)
    return unclamped.clamp_max(0.999), unclamped, dx, dy


@torch.no_grad()
def list_pairs(centers: Tensor, conics: Tensor, opacities: Tensor, depths: Tensor, width: int, height: int):
    """The composited pairs (Gaussian, pixel), by pixel, then depth; each pixel row's span is solved for exactly."""
    order = depths.argsort(stable=True)
    rest = torch.ones(width * height, dtype=torch.float64)
    gaussians, places = [], []
    for slab in order.chunk(SLABS):
        a, b, c = conics[slab].unbind(-1)
        limit = 2 * torch.log(opacities[slab] * 255)
        mx, my = centers[slab].unbind(-1)
        half = torch.sqrt(limit * a / (a * c - b * b))
        first = torch.ceil(my - half - 0.5).clamp_min(0).long()
        last = torch.floor(my + half - 0.5).clamp_max(height - 1).long()
        row, step = _runs((last - first + 1).clamp_min(0))
        y = first[row] + step
        dy = my[row] - (y + 0.5)
        root = (b[row] * dy) ** 2 - a[row] * (c[row] * dy * dy - limit[row])
        middle, reach = mx[row] + b[row] * dy / a[row], root.clamp_min(0).sqrt() / a[row]
        first = torch.ceil(middle - reach - 0.5).clamp_min(0).long()
        last = torch.floor(middle + reach - 0.5).clamp_max(width - 1).long()
        span, step = _runs((last - first + 1).clamp_min(0) * (root >= 0))
        pixels, index = y[span] * width + first[span] + step, slab[row[span]]
        keep = rest[pixels] > 1e-4
        pixels, into = pixels[keep].sort(stable=True)
        index = index[keep][into]
        alphas = _alphas(centers, conics, opacities, index, pixels, width)[0]
        keep = alphas >= 1 / 255
        pixels, index, alphas = pixels[keep], index[keep], alphas[keep]
        if not len(pixels):
            continue
        after = rest[pixels] * torch.exp(_before(torch.log1p(-alphas.double()), pixels)) * (1 - alphas.double())
        live = after > 1e-4
        rest.scatter_reduce_(0, pixels[live], after[live], "amin")
        rest[pixels[~live]] = 0
        gaussians.append(index[live])
        places.append(pixels[live])
    pixels, into = torch.cat(places).sort(stable=True)
    return torch.cat(gaussians)[into], pixels


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, centers, conics, opacities, colors, index, pixels, width, height):
        alphas = _alphas(centers, conics, opacities, index, pixels, width)[0]
        before = torch.exp(_before(torch.log1p(-alphas.double()), pixels)).float()
        weights = alphas * before
        picture = torch.zeros(width * height, colors.shape[1]).index_add_(0, pixels, weights[:, None] * colors[index])
        ctx.save_for_backward(centers, conics, opacities, colors, index, pixels, before, picture)
        ctx.width = width
        return picture

    @staticmethod
    def backward(ctx, v_picture):
        centers, conics, opacities, colors, index, pixels, before, picture = ctx.saved_tensors
        alphas, unclamped, dx, dy = _alphas(centers, conics, opacities, index, pixels, ctx.width)
        a, b, c = conics[index].unbind(-1)
        weights, v_pairs = alphas * before, v_picture[pixels]
        q = (v_pairs * colors[index]).sum(-1)
        behind = (v_picture * picture).sum(-1)[pixels] - _before(weights * q, pixels).float() - weights * q
        s = torch.where(unclamped <= 0.999, -unclamped * (before * q - behind / (1 - alphas)), 0.0)
        parts = [s * (a * dx + b * dy), s * (b * dx + c * dy), s * dx * dx / 2, s * dx * dy, s * dy * dy / 2, -s]
        sums = torch.zeros(len(opacities), 6).index_add_(0, index, torch.stack(parts, -1))
        v_colors = torch.zeros_like(colors).index_add_(0, index, weights[:, None] * v_pairs)
        return sums[:, :2], sums[:, 2:5], sums[:, 5] / opacities, v_colors, None, None, None, None


def rasterize_pair_list(scene: dict) -> Tensor:
    """(1, H, W, D) colours on black of one view; float32, CPU."""
    width, height = scene["width"], scene["height"]
    centers, conics, depths = project(scene)
    index, pixels = list_pairs(centers, conics, scene["opacities"], depths, width, height)
    picture = _Composite.apply(centers, conics, scene["opacities"], scene["colors"], index, pixels, width, height)
    return picture.view(1, height, width, -1)


def milliseconds(function: Callable[[], object], budget_s: float) -> tuple[float, float]:
    """Minima of the wall time and of the CPU time (all threads) of a call; at least three calls.

    On a machine that others use too, the CPU time is the steadier of the two.
    """
    function()
    wall, cpu = [], []
    end = time.perf_counter() + budget_s
    while len(wall) < 3 or time.perf_counter() < end:
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        function()
        wall.append((time.perf_counter() - wall_start) * 1e3)
        cpu.append((time.process_time() - cpu_start) * 1e3)
    return min(wall), min(cpu)


def measure(count: int, size: int, threads: int) -> list[str]:
    scene = head_scene(count, size)
    leaves = scene | {name: scene[name].clone().requires_grad_() for name in ATTRIBUTES}
    cotangent = torch.randn(1, size, size, 3, generator=torch.Generator().manual_seed(1))

    def native(arguments: dict) -> Tensor:
        return rasterize(**arguments, backend="native", threads=threads)[0]

    def with_backward(render: Callable[[dict], Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(render(leaves), [leaves[name] for name in ATTRIBUTES], cotangent)

    with torch.no_grad():
        difference = (native(scene) - rasterize_pair_list(scene)).square().mean()
    psnr = -10 * math.log10(float(difference))
    gradients = zip(with_backward(native), with_backward(rasterize_pair_list))
    worst = max(float((a - b).norm() / b.norm()) for a, b in gradients)
    rows = []
    for name, ours, theirs in (
        ("forward", lambda: native(scene), lambda: rasterize_pair_list(scene)),
        ("forward + backward", lambda: with_backward(native), lambda: with_backward(rasterize_pair_list)),
    ):
        wall, cpu = milliseconds(ours, 3.0)
        pair_wall, pair_cpu = milliseconds(theirs, 3.0)
        rows.append(
            f"| {count:,} | {size} | {name} | {wall:.1f} | {cpu:.1f} | {pair_wall:.0f} | {pair_cpu:.0f} "
            f"| {pair_wall / wall:.0f}x | {pair_cpu / cpu:.0f}x | {psnr:.0f} dB, {worst:.0e} |"
        )
    return rows


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.*)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/rasterizer.md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    head = (
        f"{datetime.date.today()}; {_cpu_name()}, {options.threads} threads, "
        f"{native_backend.instruction_set()} kernels; Python {platform.python_version()}, "
        f"torch {torch.__version__}.\n\n"
        "| Gaussians | px | pass | native wall, ms | native CPU | pair list wall, ms | pair list CPU | wall ratio "
        "| CPU ratio | agreement |\n| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    )
    print(head)
    rows = []
    for count, size in ((20_000, 256), (80_000, 512)):
        rows += measure(count, size, options.threads)
        print("\n".join(rows[-2:]), flush=True)
    table = "\n".join([head, *rows])
    if options.write:
        target = Path(__file__).parent / "results" / "rasterizer.md"
        target.parent.mkdir(exist_ok=True)
        kept = target.read_text().split("\n## ", 1)[1:] if target.exists() else []
        text = (
            "# Native rasteriser against pure torch\n\n`python benchmarks/rasterizer.py --write`; minima of the "
            "calls that fit into 3 s (CPU: sum over threads), one view, 3 channels, classic.\nAgreement: PSNR of the "
            "pictures, worst "
            f"relative L2 of the five gradients.\n\n{table}\n"
        )
        target.write_text(text + "".join(f"\n## {section}" for section in kept))


if __name__ == "__main__":
    main()
