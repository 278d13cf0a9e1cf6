"""The correspondence between FLAME's surface and the embedded head's, and carrying expressions across it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ffavatar.head import HeadModel, load_head
from ffavatar.types import HeadParams

DATA = Path(__file__).parent / "data" / "flame_map.npz"
EMBEDDED = "embedded-1"
# a coefficient may cost this part of what an average one explains: ties among 90 overlapping shapes go to small values
REGULARISATION = 0.02
BOUNDS = (-0.3, 1.3)  # of the embedded head's coefficients: its shapes are made for 0 to 1
WEIGHTS = {"lips": 4.0, "eyelids": 4.0, "face": 1.0}  # of squared distances; the rest of the skin counts 0.1
_JAW_STEP = 0.1  # rad, for the jaw's effect in a transfer from heads without one


@dataclass(frozen=True)
class FlameMap:
    """``vertex`` of the embedded head lies on FLAME at ``barycentric`` of the vertices ``corners`` (template heads).

    FLAME's template is about scale x rotation x the embedded one, shifted; ``joints`` are estimates of FLAME's in its
    template (its files have the true ones), good to about 3 cm for root and neck.
    """

    vertex: Tensor  # (P,) int64
    corners: Tensor  # (P, 3) int64
    barycentric: Tensor  # (P, 3)
    scale: float
    rotation: Tensor  # (3, 3)
    joints: Tensor  # (5, 3) metres
    face_centre: Tensor  # (3,) metres: the mean of the face's points on FLAME's template


@lru_cache(maxsize=1)
def load_flame_map() -> FlameMap:
    """The shipped map, made by ``register_flame``."""
    with np.load(DATA, allow_pickle=False) as data:
        arrays = {name: torch.from_numpy(data[name].astype(np.float32)) for name in data.files}
    weights = arrays["barycentric"]
    return FlameMap(
        arrays["vertex"].long(), arrays["corners"].long(), weights / weights.sum(1, keepdim=True),
        float(arrays["scale"]), arrays["rotation"], arrays["joints"], arrays["face_centre"],
    )  # fmt: skip


@lru_cache(maxsize=1)
def embedded_head() -> HeadModel:
    """The embedded head on the CPU: an avatar's own head has no regions."""
    return load_head()


@lru_cache(maxsize=1)
def on_face() -> Tensor:
    """(P,) bool: which of the map's points belong to the face."""
    return embedded_head().regions["face"][load_flame_map().vertex]


def is_flame(edition: str) -> bool:
    return edition.startswith("flame")


@dataclass(frozen=True)
class ExpressionTransfer:
    """Least squares from one head's expression coefficients to another's, over corresponding points.

    ``target @ x`` shall equal ``source @ e`` at P points: (3 P, E) metres each, in the target's frame and size;
    ``weight`` (3 P,). With ``jaw`` the last target column is the jaw's pitch in radians.
    """

    source: Tensor
    target: Tensor
    weight: Tensor
    bounded: bool
    jaw: bool = False

    @staticmethod
    def between(source: HeadModel, target: HeadModel, with_jaw: bool = False) -> ExpressionTransfer:
        """From ``source`` to ``target``: the embedded head and FLAME, either way, or two editions of FLAME."""
        weight: Tensor
        if is_flame(source.edition) and is_flame(target.edition):
            src, dst = source.expdirs.cpu(), target.expdirs.cpu()
            weight = torch.ones(len(src))
        else:
            table = load_flame_map()
            weight = torch.full((len(table.vertex),), 0.1)
            for name, value in reversed(WEIGHTS.items()):
                weight[embedded_head().regions[name][table.vertex]] = value
            src, dst = _at_points(source, table), _at_points(target, table)
            if is_flame(source.edition):  # its displacements turn and shrink into the embedded head's frame
                src = torch.einsum("yx,pye->pxe", table.rotation, src) / table.scale
            else:
                src = torch.einsum("xy,pye->pxe", table.rotation, src) * table.scale
        if with_jaw:
            dst = torch.cat([dst, _jaw_effect(target)[..., None]], -1)
        bounded = not is_flame(target.edition)
        return ExpressionTransfer(src.flatten(0, 1), dst.flatten(0, 1), weight.repeat_interleave(3), bounded, with_jaw)

    def carry(self, coefficients: Tensor) -> tuple[Tensor, float, float]:
        """(T, <= E) -> (T, E'), the root mean square distance that remains and that of the motion itself, in mm.

        Without bounds the regularised normal equations; with them, accelerated projected gradient on the same.
        """
        wanted = self.source[:, : coefficients.shape[1]].double()
        basis, weight = self.target.double(), self.weight.double()[:, None]
        normal = basis.T @ (weight * basis)
        normal += torch.eye(len(normal), dtype=normal.dtype) * (REGULARISATION * normal.diagonal().mean())
        right = (basis.T @ (weight * wanted)) @ coefficients.double().T
        solved = torch.linalg.solve(normal, right)
        if self.bounded:
            solved = _within(normal, right, solved, *BOUNDS)
        remains = basis @ solved - wanted @ coefficients.double().T
        face = self.weight >= 0.5
        moved = (wanted @ coefficients.double().T)[face]

        def rms_mm(rows: Tensor) -> float:
            return float(1e3 * (3 * rows.square().mean()).sqrt()) if rows.numel() else 0.0

        return solved.T.float(), rms_mm(remains[face]), rms_mm(moved)


def _within(normal: Tensor, right: Tensor, start: Tensor, low: float, high: float, steps: int = 300) -> Tensor:
    """min x'Nx/2 - r'x for low <= x <= high, per column, with Nesterov's steps (FISTA; Beck and Teboulle 2009)."""
    step = 1 / float(torch.linalg.matrix_norm(normal, 2))
    x = start.clamp(low, high)
    ahead, momentum = x, 1.0
    for _ in range(steps):
        new = (ahead - step * (normal @ ahead - right)).clamp(low, high)
        next_momentum = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = new + (momentum - 1) / next_momentum * (new - x)
        x, momentum = new, next_momentum
    return x


def _at_points(head: HeadModel, table: FlameMap) -> Tensor:
    """(P, 3, E) expression displacements of a head at the map's points, in its own frame."""
    if is_flame(head.edition):
        return (head.expdirs.cpu()[table.corners] * table.barycentric[..., None, None]).sum(1)
    return head.expdirs.cpu()[table.vertex]


def _jaw_effect(head: HeadModel) -> Tensor:
    """(P, 3) metres per radian of the embedded head's jaw, at the map's points."""
    device = head.v_template.device
    neutral, joints = head.neutral(torch.zeros(1, 0, device=device))
    params = HeadParams.neutral(2, head.expression_size, device, distance_m=0.0)
    params.jaw[1, 0] = _JAW_STEP
    vertices = head.pose(neutral, joints, params).vertices.cpu()
    return (vertices[1] - vertices[0])[load_flame_map().vertex] / _JAW_STEP
