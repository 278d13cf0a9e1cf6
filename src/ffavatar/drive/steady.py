"""Between the estimator and the picture of a film: gaps bridged, tremble filtered, options applied.

Poses refer to head crops that move with the face; filters need one frame of reference. ``to_window`` leads into that of
a fixed crop and back.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from ffavatar.drive.adjust import Adjuster, Neutral
from ffavatar.drive.motion import ROTATIONS, slerp_axis_angle
from ffavatar.drive.options import DriveOptions
from ffavatar.drive.smooth import ParamsFilter
from ffavatar.drive.window import Box, is_cut, to_window
from ffavatar.types import HeadParams

MOST_BRIDGED = 15  # frames without a face that are interpolated; in longer gaps the pose before is held
CALIBRATION_S, MOST_WAITING = 1.0, 30  # the frames that wait for the calm face: their pictures take memory


@dataclass(frozen=True)
class Moment:
    """One frame of a performance: pose, the head crop it refers to, and the picture it was read from."""

    params: HeadParams  # one row
    crop: Box
    image: np.ndarray  # (H, W, 3) uint8
    times: int  # how often it is shown at the film's rate
    seen: bool  # False: no face in this frame
    bridged: bool = False  # no face, but the pose is interpolated between those around the gap


def steadied(
    moments: Generator[Moment], fps: float, options: DriveOptions, names: tuple[str, ...]
) -> Generator[Moment]:
    """The same moments with ``options`` applied; at most a second of frames waits (relative driving, gaps)."""
    chain = bridge(moments)
    if options.smooth:
        chain = smooth(chain, fps)
    return adjust(chain, fps, options, names)


def mix(start: HeadParams, end: HeadParams, part: float) -> HeadParams:
    """``part`` of the way between two rows: rotations by slerp, the rest linearly."""
    weight = torch.full((1, 1), part)
    mixed = {}
    for f in fields(HeadParams):
        a, b = getattr(start, f.name), getattr(end, f.name)
        mixed[f.name] = slerp_axis_angle(a, b, weight.to(a)) if f.name in ROTATIONS else a + (b - a) * part
    return HeadParams(**mixed)


def _mix_boxes(a: Box, b: Box, part: float) -> Box:
    values = zip((a.left, a.top, a.width, a.height), (b.left, b.top, b.width, b.height))
    return Box(*(x + (y - x) * part for x, y in values))


def bridge(moments: Generator[Moment], most: int = MOST_BRIDGED) -> Generator[Moment]:
    """Interpolate pose and crop over gaps of up to ``most`` frames that have a face before and after."""
    last: Moment | None = None
    gap: list[Moment] = []
    with closing(moments):
        for moment in moments:
            if not moment.seen:
                if last is None or len(gap) >= most:
                    yield from gap  # too long, or nothing before: held
                    gap = []
                    last = None
                    yield moment
                else:
                    gap.append(moment)
                continue
            if gap and last is not None and not is_cut(last.crop, moment.crop):
                for index, lost in enumerate(gap, 1):
                    part = index / (len(gap) + 1)
                    row, box = mix(last.params, moment.params, part), _mix_boxes(last.crop, moment.crop, part)
                    yield replace(lost, params=row, crop=box, bridged=True)
            else:
                yield from gap
            gap, last = [], moment
            yield moment
        yield from gap


def smooth(moments: Generator[Moment], fps: float) -> Generator[Moment]:
    """One Euro on the poses, begun anew at cuts."""
    filters, reference, before = ParamsFilter(), None, None
    with closing(moments):
        for moment in moments:
            if reference is None or before is None or is_cut(before, moment.crop):
                filters.reset()
                reference = moment.crop
            before = moment.crop
            row = filters(to_window(moment.params, [moment.crop], [reference]), max(moment.times, 1) / fps)
            yield replace(moment, params=to_window(row, [reference], [moment.crop]))


def adjust(moments: Generator[Moment], fps: float, options: DriveOptions, names: tuple[str, ...]) -> Generator[Moment]:
    """Calm face, gains and head motion. With ``relative`` the first second waits for the calm face found in it."""
    waiting: list[Moment] = []
    adjuster = None if options.relative else Adjuster(options, names)
    fixed: Box | None = None

    def apply(moment: Moment, with_: Adjuster) -> Moment:
        nonlocal fixed
        if options.head_motion == "on":
            return replace(moment, params=with_(moment.params))
        fixed = fixed or moment.crop  # the camera stands still too
        return replace(moment, params=with_(to_window(moment.params, [moment.crop], [fixed])), crop=fixed)

    with closing(moments):
        for moment in moments:
            if adjuster is not None:
                yield apply(moment, adjuster)
                continue
            waiting.append(moment)
            if len(waiting) >= min(max(round(CALIBRATION_S * fps), 1), MOST_WAITING):
                adjuster = _calibrated(waiting, options, names)
                yield from (apply(one, adjuster) for one in waiting)
                waiting = []
        if waiting:
            adjuster = _calibrated(waiting, options, names)
            yield from (apply(one, adjuster) for one in waiting)


def _calibrated(waiting: list[Moment], options: DriveOptions, names: tuple[str, ...]) -> Adjuster:
    rows = [moment.params for moment in waiting if moment.seen] or [moment.params for moment in waiting]
    return Adjuster(options, names, Neutral.of(HeadParams.cat(rows)))
