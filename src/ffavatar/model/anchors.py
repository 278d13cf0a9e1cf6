"""Anchor vertices of a head, and how the points of a subdivided surface hang on them.

Computed from the head alone, without learned values, so that one set of weights serves every subdivision level.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from ffavatar.geometry import vertex_normals
from ffavatar.head import HeadModel, Surface
from ffavatar.model.ears import auricles, hollows, skull_at_ears

NEIGHBOURS = 4
_FOREIGN_KIND = 0.002  # weight with which hair borrows from skin, or skin from cloth, where both are near
_INNER_PARTS = ("mouth_interior", "eyeballs", "teeth", "tongue")  # later names win where they overlap
# per part (skin first): teeth must not take the colour of the lips before them; tongue and cheeks are read by feedback
_SLACK_M = torch.tensor([0.008, -1.0, 0.008, 0.002, -1.0])
SCALP_SINKS_M, SKIN_SINKS_M = 0.06, 0.02  # how deep what mattes carve away may sink: hair hides more than skin
NAPE_BELOW_EARS_M, NAPE_FROM_REAR_M = 0.02, 0.015  # of the ears: where hair at the nape ends, and where it begins
FORWARD = (0.45, 0.65)  # cosines between skin and straight ahead, up to which a face has no features, and from which
MOUTH_LIT_M = 0.025  # depth in which the light in a mouth falls to 1/e
MOUTH_DARK = torch.tensor([0.18, 0.09, 0.09])  # what is left of it deep inside: red, from walls and tongue
_CROWN_M, _GUMLINE_M, _TOOTH_M = 0.008, 0.0015, 0.006  # height of what is seen of a tooth, its end, and its width
_GUM_OF_TOOTH = torch.tensor([0.68, 0.42, 0.46])
# metres (up, forward) from where the head has them, which is too high and leaves no room: the lower teeth stood before
# the parted lips, the upper ones behind the lip, and the tongue filled the mouth
_IN_MOUTH_M = {"teeth_upper": (-0.003, 0.0), "teeth_lower": (-0.0035, 0.0), "tongue": (-0.005, -0.005)}
_FOREIGN_PART_M = 0.2  # added to the distance to an anchor of another part, so that teeth never borrow from lips


@dataclass(frozen=True)
class SurfaceTable:
    """One subdivision level, seen from the anchors."""

    surface: Surface
    points: Tensor  # (N, 3) template
    spacing: Tensor  # (N,) metres between neighbouring points
    anchors: Tensor  # (N, 4) int64
    weights: Tensor  # (N, 4), sum 1
    inner: Tensor  # (N,) bool: inside of the mouth, eyeballs, teeth, tongue
    sinks: Tensor  # (N,) metres that a point which the mattes carve away may sink into the head, rather than vanish
    hairy: Tensor  # (N,) bool: scalp and nape, where hair is usual
    teeth: Tensor  # (N,) bool
    tint: Tensor  # (N, 3) factors that make what lies deep in mouth and ears dark, and gums of teeth; 1 elsewhere
    slack: Tensor  # (N,) metres by which a point may lie behind what a view shows and still be seen; < 0: never
    moved: Tensor  # (N, 3) metres by which the mouth's parts stand elsewhere than the head has them

    def spread(self, values: Tensor) -> Tensor:
        """Interpolate anchor values (A, D) -> (N, D)."""
        # embedding_bag is the fused form of (values[anchors] * weights).sum(1), in half the time both ways
        return embedding_bag(self.anchors, values, per_sample_weights=self.weights, mode="sum")

    def gather(self, values: Tensor, count: int) -> Tensor:
        """The transpose: sum point values (N, D) at their anchors -> (A, D)."""
        share = (values[:, None] * self.weights[..., None]).flatten(0, 1)
        out = torch.zeros(count, values.shape[1], device=values.device, dtype=values.dtype)
        return out.index_add(0, self.anchors.reshape(-1), share)


def part_labels(head: HeadModel) -> Tensor:
    """(V,) 0 for skin, then one number for each inner part."""
    labels = torch.zeros(len(head.v_template), dtype=torch.long, device=head.v_template.device)
    for number, name in enumerate(_INNER_PARTS, 1):
        if name in head.regions:
            labels[head.regions[name]] = number
    return labels


def choose_anchors(head: HeadModel, count: int) -> Tensor:
    """Farthest-point sampling of base vertices; the face counts double, the torso half. (A,) int64, deterministic."""
    points = head.v_template.double()
    density = torch.ones_like(points[:, 0])
    for name, factor in (("face", 2.0), ("torso", 0.5)):
        if name in head.regions:
            density[head.regions[name]] = factor
    count = min(count, len(points))
    chosen = [int((points[:, 2]).argmax())]
    distance = torch.full_like(density, torch.inf)
    for _ in range(count - 1):
        distance = torch.minimum(distance, (points - points[chosen[-1]]).norm(dim=1))
        chosen.append(int((distance * density).argmax()))
    return torch.tensor(chosen, device=points.device)


def surface_table(head: HeadModel, anchors: Tensor, level: int) -> SurfaceTable:
    surface = head.surface(level)
    labels = part_labels(head)
    points = surface.interpolate(head.v_template)
    label = labels[surface.parents[:, 0]]
    nearest, weight, anchored = [], [], []
    for start in range(0, len(points), 8192):
        part = slice(start, start + 8192)
        distance = torch.cdist(points[part], head.v_template[anchors])
        distance = distance + _FOREIGN_PART_M * (label[part, None] != labels[anchors][None])
        best, index = distance.topk(NEIGHBOURS, largest=False)
        width = best[:, -1:].clamp_min(1e-4) * 0.6
        raw = torch.exp(-0.5 * (best / width) ** 2)
        own = labels[anchors][index] == label[part, None]
        has_own = own.any(1, keepdim=True)
        raw = torch.where(own | ~has_own, raw, 0.0)  # a part with few anchors makes do with them
        anchored.append(has_own)
        nearest.append(index)
        weight.append(raw / raw.sum(1, keepdim=True))
    spacing = point_spacing(points, surface.faces)
    slack = _SLACK_M.to(points)[label]
    sinks = surface.interpolate(_sinking(head, labels)[:, None])[:, 0]  # towards ears and hairlines without a step
    sinks = sinks.masked_fill((labels[surface.parents] > 0).any(1), 0.0)
    hairy = hairy_vertices(head)[surface.parents].all(1)
    teeth = label == _INNER_PARTS.index("teeth") + 1
    gums = torch.lerp(torch.ones_like(points), _GUM_OF_TOOTH.to(points), _in_gums(head, surface, points)[:, None])
    tint = torch.where(torch.cat(anchored), gums * _mouth_light(head, points, label), 1.0)  # others lend to the skin
    tint = tint * (1 - surface.interpolate(hollows(head, labels == 0)[:, None]))
    moved = _moved(head)[surface.parents[:, 0]]
    return SurfaceTable(
        surface, points, spacing, torch.cat(nearest), torch.cat(weight), label > 0, sinks, hairy, teeth, tint, slack,
        moved,
    )  # fmt: skip


def _in_gums(head: HeadModel, surface: Surface, points: Tensor) -> Tensor:
    """(N,) in [0, 1]: how far points (N, 3) of the arcs of teeth, one sheet each, lie beyond the teeth's crowns."""
    inside = torch.zeros_like(points[:, 0])
    for name, up in (("teeth_upper", -1.0), ("teeth_lower", 1.0)):
        if name not in head.regions:
            continue
        arc = head.v_template[head.regions[name]]
        which = head.regions[name][surface.parents].all(1).nonzero()[:, 0]
        near = torch.cdist(points[which][:, [0, 2]], arc[:, [0, 2]]) < _TOOTH_M
        edge = torch.where(near, up * arc[:, 1], -torch.inf).amax(1)  # the biting edge is the end towards the other arc
        inside[which] = ((edge - up * points[which, 1] - _CROWN_M) / _GUMLINE_M + 0.5).clamp(0, 1)
    return inside


def _moved(head: HeadModel) -> Tensor:
    """(V, 3): ``_IN_MOUTH_M`` on the parts that the head has."""
    moved = torch.zeros_like(head.v_template)
    for name, (up, forward) in _IN_MOUTH_M.items():
        if name in head.regions:
            moved[head.regions[name]] = moved.new_tensor([0.0, up, forward])
    return moved


def hairy_vertices(head: HeadModel) -> Tensor:
    """(V,) bool: the scalp, and the nape down to where hair usually ends; nothing on a head without such regions."""
    none = torch.zeros(len(head.v_template), dtype=torch.bool, device=head.v_template.device)
    scalp = head.regions.get("scalp", none)
    ears, neck = head.regions.get("ears", none), head.regions.get("neck", none)
    if not ears.any():
        return scalp
    scalp = scalp | skull_at_ears(head)
    low, rear = (
        head.v_template[ears][:, 1].min() - NAPE_BELOW_EARS_M,
        head.v_template[ears][:, 2].min() + NAPE_FROM_REAR_M,
    )
    return scalp | (neck & (head.v_template[:, 1] > low) & (head.v_template[:, 2] < rear))


def bare_skin(head: HeadModel) -> Tensor:
    """(V,) bool: skin of head and neck that is neither hair nor lips nor lids."""
    skin = (part_labels(head) == 0) & ~hairy_vertices(head) & (head.lbs_weights[:, 0] <= 0.5)
    for name in ("lips", "eyelids"):
        if name in head.regions:
            skin &= ~head.regions[name]
    return skin


def plain_skin(head: HeadModel) -> Tensor:
    """(V,) in [0, 1]: how far bare skin has no features of its own: neck, ears, and what lies behind the eyes and is
    turned sideways or down. None on a head without such regions."""
    points, ears = head.v_template, auricles(head)
    if "eyelids" not in head.regions:
        return ears.to(points)
    behind = points[:, 2] < points[head.regions["eyelids"]][:, 2].min()
    low, high = FORWARD
    aside = ((high - vertex_normals(points, head.faces)[:, 2]) / (high - low)).clamp(0, 1)
    return torch.maximum(aside * behind, ears.to(points)) * bare_skin(head)


def _sinking(head: HeadModel, labels: Tensor) -> Tensor:
    """(V,) metres: scalp under hair far, skin and clothes a little, thin ears and what lies inside not at all."""
    depth = head.v_template.new_full((len(labels),), SKIN_SINKS_M)
    for name, far in (("scalp", SCALP_SINKS_M), ("ears", 0.0)):
        if name in head.regions:
            depth[head.regions[name]] = far
    depth[auricles(head)] = 0.0
    depth[skull_at_ears(head)] = SCALP_SINKS_M
    return depth.masked_fill(labels > 0, 0.0)


def point_spacing(points: Tensor, faces: Tensor) -> Tensor:
    """Mean distance of every point to its neighbours along the edges of ``faces``. (N, 3) -> (N,) metres."""
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    length = (points.index_select(0, edges[:, 0]) - points.index_select(0, edges[:, 1])).norm(dim=1)
    ends, both = edges.T.reshape(-1), length.repeat(2)
    total = points.new_zeros(len(points)).index_add(0, ends, both)
    return total / points.new_zeros(len(points)).index_add(0, ends, torch.ones_like(both)).clamp_min(1)


def fill_kernel(head: HeadModel, anchors: Tensor) -> Tensor:
    """(A, A) weights with which unseen anchors borrow colour from seen ones: near ones first, the mirror image of the
    face at a third of the weight, far ones when there is nothing else. Hair borrows from hair, cloth from cloth, skin
    from skin, and inner parts only from their own kind."""
    points = head.v_template[anchors]
    mirrored = points * points.new_tensor([-1.0, 1.0, 1.0])
    part = part_labels(head)[anchors]
    kind = torch.zeros_like(part)
    kind[hairy_vertices(head)[anchors]] = 1
    if "torso" in head.regions:
        kind[head.regions["torso"][anchors]] = 2

    def heavy_tail(distance: Tensor) -> Tensor:
        return torch.exp(-0.5 * (distance / 0.008) ** 2) + 1e-2 * torch.exp(-distance / 0.02) + 1e-4 / (1 + distance)

    kernel = heavy_tail(torch.cdist(points, points)) + 0.3 * heavy_tail(torch.cdist(points, mirrored))
    kernel = kernel * torch.where(kind[:, None] == kind[None], 1.0, _FOREIGN_KIND)
    return kernel * (part[:, None] == part[None]).float()


def _mouth_light(head: HeadModel, points: Tensor, label: Tensor) -> Tensor:
    """(N, 3) in (0, 1]: how much light reaches points (N, 3) of the parts ``label`` (N,), less the further behind the
    front teeth; 1 outside of the mouth."""
    teeth = head.v_template[part_labels(head) == _INNER_PARTS.index("teeth") + 1]
    inside = (label > 0) & (label != _INNER_PARTS.index("eyeballs") + 1)
    if not len(teeth):
        return torch.ones_like(points)
    depth = (teeth[:, 2].max() - points[:, 2]).clamp_min(0)
    dark = MOUTH_DARK.to(points)
    light = dark + (1 - dark) * torch.exp(-((depth / MOUTH_LIT_M) ** 2))[:, None]
    return torch.where(inside[:, None], light, 1.0)


def default_colors(head: HeadModel) -> Tensor:
    """(V, 3) sRGB of what no photo may show, in full light: the mouth's inside and eyeballs; grey elsewhere."""
    palette = head.v_template.new_tensor(
        [[0.5, 0.5, 0.5], [0.3, 0.13, 0.12], [0.78, 0.75, 0.74], [0.78, 0.72, 0.66], [0.55, 0.27, 0.27]]
    )
    return palette[part_labels(head)]


def smoothing_kernel(head: HeadModel, anchors: Tensor, sigma_m: float) -> Tensor:
    """(A, A) Gaussian smoothing over the skin, not normalised."""
    points = head.v_template[anchors]
    return torch.exp(-0.5 * (torch.cdist(points, points) / sigma_m) ** 2)


def nearness_kernel(head: HeadModel, anchors: Tensor) -> Tensor:
    """(A, A) weights of anchors for each other that fall steeply, and further off gently: the nearest of those that
    have something to say are heard."""
    distance = torch.cdist(head.v_template[anchors], head.v_template[anchors])
    return torch.exp(-distance / 0.008) + 1e-2 * torch.exp(-distance / 0.03)


def lift_mask(head: HeadModel, anchors: Tensor) -> Tensor:
    """(A,) in [0, 1]: where the outline may move away from the skin (hair, cap, collar), softly fading into
    the face."""
    closed = torch.zeros_like(head.v_template[:, 0], dtype=torch.bool)
    for name in (*_INNER_PARTS, "face", "lips", "eyelids"):
        if name in head.regions:
            closed |= head.regions[name]
    points = head.v_template[anchors]
    shut = head.v_template[closed]
    distance = torch.cdist(points, shut).min(1).values if len(shut) else torch.ones_like(points[:, 0])
    return (distance / 0.03).clamp(0, 1) * (~closed[anchors]).float()
