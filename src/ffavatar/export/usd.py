"""OpenUSD, as text: Gaussians as a ``ParticleField3DGaussianSplat`` (OpenUSD 26 and later).

Written by hand, since the schema is a few arrays and text needs no library. One pose; y up, head space.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ffavatar.avatar import Avatar
from ffavatar.export.options import ExportOptions, numpy32, posed_splats, provenance, refuse_flame
from ffavatar.export.splats import SH_C0
from ffavatar.files import atomic_path


def write_usda(avatar: Avatar, path: Path, options: ExportOptions) -> None:
    """A stage whose default prim is the cloud. Scales are linear, quaternions wxyz, colours one harmonic each."""
    refuse_flame(avatar, path, options)
    made = posed_splats(avatar, options.moment(avatar, path), options.scale)
    notice = provenance(avatar)
    reach = 3 * numpy32(made.scales).max(1, keepdims=True)  # three standard deviations of the widest axis
    means = numpy32(made.means)
    extent = np.stack([(means - reach).min(0), (means + reach).max(0)])
    lines = [
        "#usda 1.0",
        "(",
        f'    doc = "{_quoted(notice["notice"])}"',
        "    customLayerData = {",
        *(f'        string {key} = "{_quoted(value)}"' for key, value in notice.items()),
        "    }",
        '    defaultPrim = "Avatar"',
        f"    metersPerUnit = {1 / options.scale:.9g}",
        '    upAxis = "Y"',
        ")",
        "",
        'def ParticleField3DGaussianSplat "Avatar"',
        "{",
        f"    float3[] extent = {_tuples(extent)}",
        f"    float[] opacities = [{', '.join(f'{value:.5g}' for value in numpy32(made.opacities).tolist())}]",
        f"    quatf[] orientations = {_tuples(numpy32(made.quats))}",
        f"    point3f[] positions = {_tuples(means)}",
        f"    float3[] radiance:sphericalHarmonicsCoefficients = {_tuples((numpy32(made.colors) - 0.5) / SH_C0)}",
        "    int radiance:sphericalHarmonicsDegree = 0",
        f"    float3[] scales = {_tuples(numpy32(made.scales))}",
        "}",
        "",
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")


def _tuples(rows: np.ndarray) -> str:
    form = "(" + ", ".join(["{:.6g}"] * rows.shape[1]) + ")"
    return "[" + ", ".join(form.format(*row) for row in rows.tolist()) + "]"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
