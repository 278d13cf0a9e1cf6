"""Ears: what a photo tells of them, and what they look like where none does.

From the front an ear is a few pixels wide, all rims; drawn over its side they are smears, and with them whatever hides
the ear or stands beside it. So an ear is seen as a whole or not at all, by how far its side is turned to the camera.
Unseen, it has the colour of the skin around it, darker in its hollows; or of the hair, where that hides it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ffavatar.animate import Rig
from ffavatar.geometry import quat_rotate, vertex_normals
from ffavatar.head import HeadModel
from ffavatar.model.reading import known_mattes, mattes_at
from ffavatar.model.trimming import carved
from ffavatar.types import HeadParams, Views

AURICLE_BEYOND_M = 0.0015  # of the ears' region, what lies further out than the scalp by this is auricle
AURICLE_ROOT_M = 0.01  # how far under an auricle, from its rear edge on, the skull counts as hairy
RIM_M, LEAST_OUT_M = 0.0015, 0.05  # around the auricles' outline from the side; and from the middle of the head
SPLAYED_RAD = 0.436  # by which an ear's side is turned forward: ears stand off
AVERTED, FACING = 0.5, 0.75  # cosines between an ear's side and a view: from which it is told of, and fully
HOLLOW_M, NEAR_M, DARKENING, DARKEST = 0.012, 0.003, 1.6, 0.75  # how far light is shut out, and how much of it
BIN_M, WINDOW = 0.002, 4  # height of what is told of together, and how many of these to either side
UNHIDDEN, HIDDEN = 0.5, 0.7  # parts of what is seen of an ear that is hair: up to which it is bare, and from which not
ROOT = 0.2  # part of an ear's points that lie on the head or in it
FLATTENING = tuple(k / 10 for k in range(10))  # parts of an ear's height that may be taken from it
SPARE = 0.03  # part of its points that may be cut for less flattening
_DIRECTIONS = 32


def skull_at_ears(head: HeadModel) -> Tensor:
    """(V,) bool: of the ears' region what is skull, above and behind the auricles, where hair usually grows."""
    points, sticks_out = head.v_template, _sticking_out(head)
    if not sticks_out.any():
        return sticks_out
    ears = head.regions["ears"]
    top, back = points[sticks_out][:, 1].max(), points[sticks_out][:, 2].min() + AURICLE_ROOT_M
    return ears & ~sticks_out & ((points[:, 1] > top) | (points[:, 2] < back))


def auricles(head: HeadModel) -> Tensor:
    """(V,) bool: the ears and what lies in them, as seen from the side; nothing on a head without such regions."""
    points, sticks_out = head.v_template, _sticking_out(head)
    if not sticks_out.any():
        return sticks_out
    angle = torch.arange(_DIRECTIONS, device=points.device, dtype=points.dtype) * (2 * torch.pi / _DIRECTIONS)
    reach = points[:, 1:] @ torch.stack([angle.cos(), angle.sin()])
    within = (reach < reach[sticks_out].amax(0) + RIM_M).all(1) & (points[:, 0].abs() > LEAST_OUT_M)
    return within & ~skull_at_ears(head) & ~head.regions["scalp"]


def sides(head: HeadModel) -> Tensor:
    """(V, 3): the direction in which each point's ear, left or right, is turned. Unit length."""
    right = head.v_template[:, :1] < 0
    outward = torch.where(right, -math.cos(SPLAYED_RAD), math.cos(SPLAYED_RAD)).to(head.v_template)
    return torch.cat([outward, torch.zeros_like(outward), torch.full_like(outward, math.sin(SPLAYED_RAD))], 1)


def hollows(head: HeadModel, skin: Tensor) -> Tensor:
    """(V,) in [0, 1): light that the ears' folds keep from their hollows, on ``skin`` (V,) bool; 0 elsewhere.

    A point loses as much as what lies around it rises above its tangent plane, by area and nearness.
    """
    points, dark = head.v_template, torch.zeros_like(head.v_template[:, 0])
    index = (auricles(head) & skin).nonzero()[:, 0]
    a, b, c = (points[head.faces[:, corner]] for corner in range(3))
    third = torch.linalg.cross(b - a, c - a).norm(dim=-1) / 6
    area = dark.index_add(0, head.faces.flatten(), third.repeat_interleave(3)) * skin
    normals = vertex_normals(points, head.faces)[index]
    for part, normal in zip(index.split(64), normals.split(64), strict=True):
        way = points - points[part, None]
        distance = way.norm(dim=-1)
        rise = torch.einsum("pvk,pk->pv", way, normal) / distance.clamp_min(1e-9)
        weight = area / (distance**2 + NEAR_M**2) * (distance < HOLLOW_M)
        dark[part] = (rise.clamp_min(0) * weight).sum(1) / weight.sum(1).clamp_min(1e-9)
    return (DARKENING * dark).clamp(0, DARKEST)


@torch.no_grad()
def pressed(rig: Rig, ears: Tensor, sides: Tensor, views: Views, params: HeadParams) -> Tensor:
    """Offsets (V, 3) metres that lay each ear flat on the head, so little that no more could save much of it from the
    views' mattes.

    The head's ears stand off as usual people's do; where a matte shows less, they would be cut away, and in profile one
    would look into the head. ``ears`` (V, 1) marks them, ``sides`` as from :func:`sides`.
    """
    offsets = torch.zeros_like(rig.neutral)
    count = len(params)
    posed = rig.head.pose(rig.neutral.expand(count, -1, -1), rig.joints.expand(count, -1, -1), params)
    known = known_mattes(views)
    for on_side in (sides[:, 0] > 0, sides[:, 0] < 0):
        index = ((ears[:, 0] > 0.5) & on_side).nonzero()[:, 0]
        if not len(index):
            continue
        height = (rig.neutral[index] * sides[index]).sum(-1)
        flat = -(height - height.quantile(ROOT)).clamp_min(0)[:, None] * sides[index]
        places, turns = posed.vertices[:, index], posed.quats[:, index]
        share = torch.stack(
            [carved(mattes_at(known, places + quat_rotate(turns, part * flat))).mean() for part in FLATTENING]
        )
        offsets[index] = FLATTENING[int((share >= share.max() - SPARE).float().argmax())] * flat
    return offsets


def told_of(ear: Tensor, facing: Tensor) -> Tensor:
    """In [0, 1]: how far views that see points at cosines ``facing`` (..., N) tell what they look like. ``ear`` (N,) in
    [0, 1]: how far they are an ear's, whose side ``facing`` then speaks of."""
    return torch.lerp(torch.ones_like(facing), ((facing - AVERTED) / (FACING - AVERTED)).clamp(0, 1), ear)


def hidden_by_hair(points: Tensor, ear: Tensor, hair: Tensor, seen: Tensor) -> Tensor:
    """(N,) in [0, 1]: how far hair lies over the ears, of which it hides the top first.

    ``points`` (N, 3) of the template, ``ear`` (N,) as above, ``hair`` (N,) bool: whether what is seen there is hair,
    and ``seen`` (N,) how well it is.
    """
    index = (ear > 0).nonzero()[:, 0]
    hidden = torch.zeros_like(ear)
    if not len(index):
        return hidden
    place, weight = points[index], (seen * ear)[index]
    row = ((place[:, 1].max() - place[:, 1]) / BIN_M).long()
    height = int(row.max()) + 1
    row = row + height * (place[:, 0] > 0)
    counted = torch.stack([weight * hair[index], weight]).to(ear)
    bins = ear.new_zeros(2, 2 * height).index_add(1, row, counted).view(2, 2, height)
    above = bins.cumsum(-1)
    padded = F.pad(above, (WINDOW + 1, WINDOW), mode="replicate")
    padded[..., : WINDOW + 1] = 0
    around = padded[..., 2 * WINDOW + 1 :] - padded[..., : -2 * WINDOW - 1]
    part = torch.minimum(*(one[0] / one[1].clamp_min(1e-6) for one in (above, around)))
    hidden[index] = ((part - UNHIDDEN) / (HIDDEN - UNHIDDEN)).clamp(0, 1).flatten()[row]
    return hidden * ear


def _sticking_out(head: HeadModel) -> Tensor:
    """(V,) bool: of the ears' region what lies further out than the scalp."""
    none = torch.zeros(len(head.v_template), dtype=torch.bool, device=head.v_template.device)
    scalp, ears = head.regions.get("scalp", none), head.regions.get("ears", none)
    if not (scalp.any() and ears.any()):
        return none
    out = head.v_template[:, 0].abs()
    return ears & (out > out[scalp].max() + AURICLE_BEYOND_M)
