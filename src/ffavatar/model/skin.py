"""Skin beside the face, and what photos show in its place.

Ears, neck, temples and the sides of jaw and cheeks are seen edge on in most photos, and there a photo shows as well
what stands beside or before them: ear rings, a collar, strands of hair, a shadow. Painted onto the skin these are
blotches as soon as the head turns. The face's own skin near by tells what it should look like; what differs too much is
not believed, and that place borrows its colour (in the photo's own view it comes back as a shade, ``feedback.py``).
What is dark over a whole place, or in most views, is believed: a beard, or hair that hangs over the temple.

Lids are folded away while eyes are open. Where no view shows them otherwise, what is read in the fold, lashes and
shadow, would be drawn out over the closed eye; they have the colour of the skin around them for the most part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ffavatar.head import Surface
from ffavatar.model.looks import AVERTED, FACING, LEAST_LIGHT

STRANGE = (0.3, 0.6)  # logarithms of the ratio of two colours: up to which it is skin, and from which something else
STRANGE_AROUND = (0.15, 0.35)  # the same of what is looked at with all that lies around it
MOSTLY = (0.3, 0.6)  # parts of what lies around that are strange, up to which a place is not, and from which it is
EDGE_ON, SQUARE = 0.35, 0.6  # cosines between skin and view: up to which the taken look is doubted, and from which not
TAUGHT = (0.3, 0.7)  # the same: up to which feedback teaches such skin no lasting colour, and from which fully
WHOLE = (0.35, 0.55)  # parts of a place that are dark in the taken look: up to which it is doubted, from which it is so
AGREED = (0.4, 0.6)  # the same of the views that see it
ALONE = 0.7  # views that are taken to show skin there, lest one alone should agree with itself
SEEN = 0.02  # trust that makes a view half count where it is asked what it shows at all
BRIGHTER, SHADED = 10.0, 0.9  # how much more what is bright tells of a lid's colour, and how much darker that is
LIDS = 0.7  # at most, of a lid's colour that is guessed
LEAST = 1e-4  # of a view's trust is left where it is not believed


@dataclass(frozen=True)
class Skin:
    """What the plain skin of the taken look is like about each of V base vertices."""

    color: Tensor  # (V, 3)
    asked: Tensor  # (V,) in [0, 1]: how far what is shown there must be such skin
    whole: Tensor  # (V,) in [0, 1]: how far the taken look shows something else all around, and is believed
    strange: Tensor  # (S, V) in [0, 1]: how far each view shows something else around it
    folded: Tensor  # (V,) in [0, 1]: how far it is a lid's, which every view shows folded away
    lids: Tensor  # (V, 3) its colour there

    def likeness(self, colors: Tensor, facing: Tensor, taken: Tensor, surface: Surface) -> Tensor:
        """In (0, 1], (S, N): how far to believe the ``colors`` (S, N, 3) that views show of a surface's N points, which
        they see at cosines ``facing`` (S, N); ``taken`` (S,) bool: the views of the look that is taken."""
        about = torch.cat([self.color, self.asked[:, None], self.whole[:, None], self.strange.T], 1)
        color, asked, whole, around = surface.interpolate(about).split((3, 1, 1, len(taken)), 1)
        doubted = (1 - _ramp(facing, (EDGE_ON, SQUARE))) * (1 - whole[:, 0])
        doubted = torch.where(taken[:, None], doubted, 1.0) * asked[:, 0]
        strange = torch.maximum(around.T, _ramp(_unlike(colors, color).abs().amax(-1), STRANGE))
        return 1 - (1 - LEAST) * strange * doubted

    def with_lids(self, colors: Tensor, surface: Surface) -> Tensor:
        """``colors`` (N, 3) of a surface's points with the lids' where no view shows them unfolded: in the fold are
        lashes and shadow."""
        about = surface.interpolate(torch.cat([self.lids, self.folded[:, None]], 1))
        return torch.lerp(colors, about[:, :3], LIDS * about[:, 3:])

    def taught(self, facing: Tensor, surface: Surface) -> Tensor:
        """In [0, 1], (N,): how far photos that see a surface's points at cosines ``facing`` (N,) at best teach them
        lasting colours by feedback."""
        asked, folded = surface.interpolate(torch.stack([self.asked, self.folded], 1)).unbind(1)
        return (1 - asked * (1 - _ramp(facing, TAUGHT))) * (1 - folded)


def read_skin(
    colors: Tensor,
    trust: Tensor,
    facing: Tensor,
    taken: Tensor,
    bare: Tensor,
    plain: Tensor,
    folded: Tensor,
    around: Callable[[Tensor], Tensor],
) -> Skin:
    """The skin of S views' person, from what they show of V base vertices.

    ``colors`` (S, V, 3) in the taken look's light, ``trust`` and ``facing`` (S, V), ``taken`` (S,) bool, ``bare``,
    ``plain`` and ``folded`` (V,) as from ``bare_skin``, ``plain_skin`` (``anchors.py``) and ``folded_lids``
    (``steadiness.py``). ``around`` sums values (V, D) over what lies near.
    """
    surely = trust[taken] ** 2 * _ramp(facing[taken], (AVERTED, FACING)) * bare
    color = _mean(colors[taken], surely, around)
    bright = (BRIGHTER * colors[taken].mean(-1)).exp()  # brows are no skin
    lids = SHADED * _mean(colors[taken], surely * bright, around)

    unlike = _unlike(colors, color)
    odd = _ramp(unlike.abs().amax(-1), STRANGE_AROUND)
    dark = _ramp(-unlike.mean(-1), STRANGE_AROUND)
    seen = trust * bare
    seen = seen / (seen + SEEN)
    told = torch.stack([around(one) for one in seen[..., None] * torch.stack([odd, dark, torch.ones_like(odd)], -1)])
    odd, dark = (_ramp(part, MOSTLY) for part in (told[..., :2] / told[..., 2:].clamp_min(1e-9)).unbind(-1))
    own = told[taken].sum(0)
    agreed = _ramp((seen * dark).sum(0) / (seen.sum(0) + ALONE), AGREED)
    return Skin(color, plain * (1 - agreed), _ramp(own[:, 1] / own[:, 2].clamp_min(1e-9), WHOLE), odd, folded, lids)


def _mean(colors: Tensor, weights: Tensor, around: Callable[[Tensor], Tensor]) -> Tensor:
    """Of colours (S, V, 3), weighted (S, V), over all views and what lies ``around``: (V, 3)."""
    told = around(torch.cat([(weights[..., None] * colors).sum(0), weights.sum(0)[:, None]], -1))
    return told[:, :3] / told[:, 3:].clamp_min(1e-9)


def _unlike(colors: Tensor, skin: Tensor) -> Tensor:
    """Logarithms of the ratio of sRGB colours (..., 3) to ``skin``'s."""
    return ((colors + LEAST_LIGHT) / (skin + LEAST_LIGHT)).log()


def _ramp(values: Tensor, bounds: tuple[float, float]) -> Tensor:
    low, high = bounds
    return ((values - low) / (high - low)).clamp(0, 1)
