"""Which source views show the person in one look: the same hair and clothes.

Photos of different days agree on the face and on little else. Blended, their hair and collars are ghosts, and one
photo's outline cuts away what another shows. So hair and clothes are taken from the views of one look; the others help
with the face, in that look's light, and lend colour only where it shows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ffavatar.animate import Rig
from ffavatar.geometry import normalised_camera, project
from ffavatar.model.outgrowth import PERSON, extend, hung
from ffavatar.types import HeadParams, Views

OTHER_LOOK = 0.002  # weight of the next best look, squared for the one after: less than what is borrowed near by
BEYOND_M2 = 9e-4  # area beyond the head that one view shows, and another does not
CLOTHES, HAIR, DIM = 0.4, 0.3, 0.15  # mean difference of two views' colours, relative to their brightness and DIM
MOST_APART = 1.7  # sum of these three, in those units, between two views of one look
ENOUGH = 1.0  # trust, summed over vertices, below which two views show too little in common to be compared
MARGIN = 5 / 96  # crop sides by which an outline may be off: no pose is exact, and hair has no depth of its own
MOST_GAIN = 2.5  # of another look's light
LEAST_LIGHT = 0.03  # sRGB value added to both colours whose ratio is taken
UNLIKE, MOST_LIGHT = 0.5, 0.6  # logarithms of such a ratio: from which it is no light, and the most that is changed
NO_LIGHT = 1e-3  # weight of no change
FAINT = 0.005  # trust that says nothing
EDGE_ON, TURNED_TO = 0.25, 0.33  # of all views' trust: what the taken ones show edge on at best, and well enough
AVERTED, FACING = 0.1, 0.35  # cosines between skin and view: from which a taken view teaches it, and fully
SEEN, BRIGHT = 0.2, 0.98  # trust from which a face's colour counts, and the share of all values that is not blown out


@dataclass(frozen=True)
class Looks:
    """Of S views. Views of rank 0 show the look that is taken, in which nothing is changed."""

    rank: Tensor  # (S,) int64
    gains: Tensor  # (S, 3) what brings a view's colours into the light of rank 0

    @staticmethod
    def one(views: Views) -> Looks:
        """All views in one look."""
        count = len(views)
        return Looks(views.mattes.new_zeros(count, dtype=torch.long), views.mattes.new_ones(count, 3))

    @property
    def taken(self) -> Tensor:
        """(S,) bool: of rank 0."""
        return self.rank == 0

    @property
    def weights(self) -> Tensor:
        """(S,) with which the views' hair and clothes count."""
        return OTHER_LOOK ** self.rank.to(self.gains)

    def relit(self, views: Views) -> Views:
        """``views`` in the light of rank 0."""
        return replace(views, images=(views.images * self.gains[:, None, None]).clamp(0, 1))


@dataclass(frozen=True)
class Parts:
    """Which of V vertices say what of a look, each (V,) bool."""

    face: Tensor
    hair: Tensor
    clothes: Tensor


def read_looks(colors: Tensor, trust: Tensor, parts: Parts, beyond: Tensor, like: int | None = None) -> Looks:
    """The looks of S views of V vertices.

    ``colors`` (S, V, 3) and ``trust`` (S, V): what each view shows of each vertex, and how surely. ``beyond`` (S, S):
    as :func:`shown_beyond`. ``like``: number of the view whose look is taken; None takes the look that is shown most.
    The result follows the views when they are reordered.
    """
    count = len(colors)
    # an outline that its own view's hair does not keep to tells nothing
    beyond = (beyond - beyond.diagonal()[:, None]).clamp_min(0)
    apart = torch.maximum(beyond, beyond.T) / BEYOND_M2
    gains = colors.new_ones(count, count, 3)  # from the light of the first to that of the second
    for i in range(count):
        both = (trust[i] * trust).sqrt()  # (S, V)
        face = (both * parts.face)[..., None]
        gains[i] = ((face * colors).sum(1) + 1e-3) / ((face * colors[i]).sum(1) + 1e-3)
        own = colors[i] * gains[i][:, None]
        unlike = (own - colors).abs().mean(-1) / ((own + colors).mean(-1) / 2 + DIM)
        for part, usual in ((parts.hair, HAIR), (parts.clothes, CLOTHES)):
            total = (both * part).sum(1)
            mean = (both * part * unlike).sum(1) / total.clamp_min(ENOUGH)
            apart[i] += torch.where(total < ENOUGH, 0.0, mean / usual)
    same = torch.maximum(apart, apart.T) <= MOST_APART
    same.fill_diagonal_(True)

    # how much of its look a view shows; less where it shows what another does not: a raised hand, a microphone
    shown = (trust * (parts.hair | parts.clothes)).sum(1) / (1 + beyond.amax(1) / BEYOND_M2)
    rank = torch.full((count,), -1, device=colors.device)
    first = 0
    for place in range(count):
        left = rank < 0
        if not left.any():
            break
        worth = (same & left).to(shown) @ shown + 1e-3 * shown  # among equals the one that shows most
        chosen = int(torch.where(left, worth, -1.0).argmax())
        if place == 0:
            first = chosen = chosen if like is None else like
        rank[left & same[chosen]] = place
    # what is lit brightest keeps its detail
    face = torch.where(((trust > SEEN) & parts.face)[..., None], colors, torch.nan)
    most = (1 / face.nanquantile(BRIGHT, 1)).nan_to_num(1.0).clamp(1, MOST_GAIN)  # (S, 3)
    light = gains[:, first].clamp_min(1 / MOST_GAIN).minimum(most)
    light = torch.where((rank == 0)[:, None], 1.0, light)
    return Looks(rank, light)


def light_told(looks: Looks, colors: Tensor, trust: Tensor, skin: Tensor) -> Tensor:
    """What V vertices tell of the light of S views beside the taken look's, (S, V, 4): logarithms of the ratio of their
    colours, weighted, and the weight. ``colors`` (S, V, 3) and ``trust`` (S, V) as in :func:`read_looks`; ``skin`` (V,)
    in [0, 1].

    One gain for a whole photo leaves cheeks that the taken look shows edge on in a bright or dark strip. Where both
    show skin their ratio is known; the nearest such places speak for the rest (:func:`light_of` of near ones' sums).
    """
    own, kept = trust[looks.taken], colors[looks.taken]
    color = (own[..., None] * kept).sum(0) / own.sum(0).clamp_min(1e-6)[:, None]
    surely = own.amax(0) ** 2 * skin  # edge on, a collar or the background is read instead
    ratio = ((color + LEAST_LIGHT) / (colors + LEAST_LIGHT)).log()
    weight = (surely * trust).sqrt() * skin / (1 + (ratio.abs().amax(-1) / UNLIKE) ** 4)
    return torch.cat([ratio * weight[..., None], weight[..., None]], -1)


def light_of(told: Tensor) -> Tensor:
    """Sums of what :func:`light_told` gives, (..., 4), as factors of colours (..., 3)."""
    return (told[..., :3] / (told[..., 3:] + NO_LIGHT)).clamp(-MOST_LIGHT, MOST_LIGHT).exp()


def told_best(trust: Tensor, facing: Tensor, taken: Tensor, skin: Tensor) -> Tensor:
    """How far views of the look that is taken are the best to tell each point's colour, in [0, 1], (N,).

    ``taken`` (S,) of S views, with ``trust`` (S, N). 1 where they have as much trust as any, or nearly; 0 where they
    show edge on, and so perhaps hair or collar before it, what another view shows better. Of ``skin`` (N,) bool, which
    other looks tell as well, what the taken ones see edge on (cosine ``facing`` (S, N)) is never theirs to tell.
    """
    if taken.all():
        return trust.new_ones(trust.shape[1])
    told = (trust[taken].amax(0) + FAINT) / (trust.amax(0) + FAINT)
    told = ((told - EDGE_ON) / (TURNED_TO - EDGE_ON)).clamp(0, 1)
    squarely = ((facing[taken].amax(0) - AVERTED) / (FACING - AVERTED)).clamp(0, 1)
    return torch.where(skin, told * squarely, told)


def shown_beyond(rig: Rig, hangers: Tensor, views: Views, params: HeadParams, depth: Tensor) -> Tensor:
    """Area that each view shows beyond the bare head and that each other one shows as background. (S, S) square metres

    ``hangers`` (K,): base vertices on which hair and clothes hang. ``depth`` (S, 1, P, P) metres of the head as each
    view would see it, 1000 where nothing is. What lies outside a photo may be there.
    """
    count, grid = len(views), depth.shape[-1]
    size = (grid, grid)
    person = F.interpolate((views.mattes * views.valid)[:, None], size, mode="area")
    inside = F.interpolate(views.valid[:, None], size, mode="area") > 0.99
    reach = round(MARGIN * grid)
    wide = F.max_pool2d(torch.where(inside, person, 1.0), 2 * reach + 1, 1, reach)
    posed = rig.head.pose(rig.neutral.expand(count, -1, -1), rig.joints.expand(count, -1, -1), params)
    places, turns = posed.vertices[:, hangers], F.normalize(posed.quats[:, hangers], dim=-1)
    beyond = person.new_zeros(count, count)
    for view in range(count):
        head = depth[view, 0] < 100
        extended, known = extend(depth[view, 0] * head, head.to(depth))
        outside = (person[view, 0] > PERSON) & ~head & inside[view, 0] & known
        points = hung(outside, extended, places, turns, view, rig.neutral[hangers])
        uv, _ = project(points.posed, normalised_camera(1, count, depth.device))
        shown = F.grid_sample(wide, (uv * 2 - 1)[:, :, None], align_corners=False, padding_mode="border")[:, 0, :, 0]
        within = ((uv > 0) & (uv < 1)).all(-1)
        beyond[view] = ((1 - torch.where(within, shown, 1.0)) * points.cell**2).sum(1)
    return beyond
