"""Skin beside the face, and what photos show in its place.

Ears, neck, temples and the sides of jaw and cheeks are seen edge on in most photos, and there a photo shows as well
what stands beside or before them: ear rings, a collar, strands of hair, a shadow. Painted onto the skin these are
blotches as soon as the head turns. The face's own skin near by tells what it should look like; what differs too much is
not believed, and that place borrows its colour (in the photo's own view it comes back as a shade, ``feedback.py``).
What is dark over a whole place, or in most views, is believed: a beard, or hair that hangs over the temple.
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
LEAST = 1e-4  # of a view's trust is left where it is not believed


@dataclass(frozen=True)
class Skin:
    """What the plain skin of the taken look is like about each of V base vertices."""

    color: Tensor  # (V, 3)
    asked: Tensor  # (V,) in [0, 1]: how far what is shown there must be such skin
    whole: Tensor  # (V,) in [0, 1]: how far the taken look shows something else all around, and is believed
    strange: Tensor  # (S, V) in [0, 1]: how far each view shows something else around it

    def likeness(self, colors: Tensor, facing: Tensor, taken: Tensor, surface: Surface) -> Tensor:
        """In (0, 1], (S, N): how far to believe the ``colors`` (S, N, 3) that views show of a surface's N points, which
        they see at cosines ``facing`` (S, N); ``taken`` (S,) bool: the views of the look that is taken."""
        about = torch.cat([self.color, self.asked[:, None], self.whole[:, None], self.strange.T], 1)
        color, asked, whole, around = surface.interpolate(about).split((3, 1, 1, len(taken)), 1)
        doubted = (1 - _ramp(facing, (EDGE_ON, SQUARE))) * (1 - whole[:, 0])
        doubted = torch.where(taken[:, None], doubted, 1.0) * asked[:, 0]
        strange = torch.maximum(around.T, _ramp(_unlike(colors, color).abs().amax(-1), STRANGE))
        return 1 - (1 - LEAST) * strange * doubted


def read_skin(
    colors: Tensor,
    trust: Tensor,
    facing: Tensor,
    taken: Tensor,
    bare: Tensor,
    plain: Tensor,
    around: Callable[[Tensor], Tensor],
) -> Skin:
    """The skin of S views' person, from what they show of V base vertices.

    ``colors`` (S, V, 3) in the taken look's light, ``trust`` and ``facing`` (S, V), ``taken`` (S,) bool, ``bare`` and
    ``plain`` (V,) as from ``bare_skin`` and ``plain_skin``. ``around`` sums values (V, D) over what lies near.
    """
    surely = trust[taken] ** 2 * _ramp(facing[taken], (AVERTED, FACING)) * bare
    told = torch.cat([(surely[..., None] * colors[taken]).sum(0), surely.sum(0)[:, None]], -1)
    told = around(told)
    color = told[:, :3] / told[:, 3:].clamp_min(1e-9)

    unlike = _unlike(colors, color)
    odd = _ramp(unlike.abs().amax(-1), STRANGE_AROUND)
    dark = _ramp(-unlike.mean(-1), STRANGE_AROUND)
    seen = trust * bare
    seen = seen / (seen + SEEN)
    told = torch.stack([around(one) for one in seen[..., None] * torch.stack([odd, dark, torch.ones_like(odd)], -1)])
    odd, dark = (_ramp(part, MOSTLY) for part in (told[..., :2] / told[..., 2:].clamp_min(1e-9)).unbind(-1))
    own = told[taken].sum(0)
    agreed = _ramp((seen * dark).sum(0) / (seen.sum(0) + ALONE), AGREED)
    return Skin(color, plain * (1 - agreed), _ramp(own[:, 1] / own[:, 2].clamp_min(1e-9), WHOLE), odd)


def taught(facing: Tensor, plain: Tensor) -> Tensor:
    """In [0, 1], (N,): how far photos that see points at cosines ``facing`` (N,) at best teach them lasting colours;
    ``plain`` (N,): how far these are such skin."""
    return 1 - plain * (1 - _ramp(facing, TAUGHT))


def _unlike(colors: Tensor, skin: Tensor) -> Tensor:
    """Logarithms of the ratio of sRGB colours (..., 3) to ``skin``'s."""
    return ((colors + LEAST_LIGHT) / (skin + LEAST_LIGHT)).log()


def _ramp(values: Tensor, bounds: tuple[float, float]) -> Tensor:
    low, high = bounds
    return ((values - low) / (high - low)).clamp(0, 1)
