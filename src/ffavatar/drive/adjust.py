"""What a driver's motion keeps on its way to another person: calm face subtracted, head motion and groups scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ffavatar.drive.options import DriveOptions, group_of
from ffavatar.drive.retarget import DISTANCE_M
from ffavatar.types import HeadParams

CALM_SHARE = 0.2  # of the frames, the calmest, are averaged
MOST_JAW_RAD = 0.04  # a jaw that is further open in the calmest frames is open: that driver speaks all the time
_JAW_WEIGHT = 5.0  # a radian of jaw counts as so many units of expression


@dataclass(frozen=True)
class Neutral:
    """A driver's calm face: what is left of its owner's features in the estimates, since no expression is meant."""

    expression: Tensor  # (E,)
    jaw: Tensor  # (3,)

    @staticmethod
    def of(params: HeadParams) -> Neutral:
        """From the calmest fifth of the frames: near the median face, the jaw shut, and little change."""
        expression, jaw = params.expression, params.jaw
        away = expression - expression.median(0).values
        change = torch.zeros_like(expression)
        if len(params) > 1:
            change[1:] = expression.diff(dim=0)
            change[0] = change[1]
        unrest = away.square().sum(1) + change.square().sum(1) + (_JAW_WEIGHT * jaw[:, 0]).square()
        calm = unrest.argsort()[: max(1, round(CALM_SHARE * len(params)))]
        return Neutral(expression[calm].mean(0), jaw[calm].mean(0).clamp(-MOST_JAW_RAD, MOST_JAW_RAD))


class Adjuster:
    """Applies ``DriveOptions`` to rows of parameters. ``names`` are those of the expressions."""

    def __init__(self, options: DriveOptions, names: Sequence[str], neutral: Neutral | None = None) -> None:
        self.options = options
        self.neutral = neutral if options.relative else None
        gains = options.gains
        self._gain = torch.tensor([gains.get(group_of(name) or "", 1.0) for name in names])

    def __call__(self, params: HeadParams) -> HeadParams:
        """Rows in the world of the normalised camera -> the same, adjusted."""
        expression, jaw = params.expression, params.jaw
        if self.neutral is not None:
            expression = expression - self.neutral.expression
            jaw = jaw - self.neutral.jaw
        gaze = self.options.gains.get("gaze", 1.0)
        made = replace(
            params,
            expression=expression * self._gain.to(expression),
            jaw=jaw * self.options.gains.get("jaw", 1.0),
            eye_left=params.eye_left * gaze,
            eye_right=params.eye_right * gaze,
        )
        if self.options.head_motion == "on":
            return made
        part = 0.0 if self.options.head_motion == "off" else self.options.head_gain
        rest = torch.tensor([0.0, 0.0, -DISTANCE_M]).to(made.translation)
        return replace(
            made, root=part * made.root, neck=part * made.neck, translation=rest + part * (made.translation - rest)
        )


def adjust_params(params: HeadParams, options: DriveOptions, names: Sequence[str]) -> HeadParams:
    """A whole motion (T rows) adjusted; with ``relative`` its calmest fifth counts as the calm face."""
    return Adjuster(options, names, Neutral.of(params) if options.relative else None)(params)
