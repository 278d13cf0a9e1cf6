"""The evaluation protocol: every method reconstructs from a clip's source views and shows its held-out target views.

Pictures are compared on white with the pixels outside the photo excluded. A method is any function from source and
target views to pictures, so baselines and avatars go through the same loop and the same figures. Which of a target a
method may look at is part of its name: ``copy`` and ``warp`` its landmarks, ``driven`` one estimator pass over its
picture, ``tracked`` 100 refinement steps against its picture on top of that, the avatar being frozen.

Results are kept per clip, method and number of views, so that a broken run goes on where it stopped; results of other
code, weights or data are never taken over.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from torch import Tensor

import ffavatar
from ffavatar.avatar import Avatar
from ffavatar.evaluate import baselines
from ffavatar.evaluate.clips import Clip, ClipViews, FrontEndLike, code_revision, load_clip
from ffavatar.evaluate.identity import IdentityNet, load_identity
from ffavatar.evaluate.lpips import LPIPS, load_lpips
from ffavatar.evaluate.metrics import check_pair, landmark_error, psnr, ssim
from ffavatar.evaluate.sheet import strip
from ffavatar.files import atomic_path
from ffavatar.geometry import normalised_camera, project
from ffavatar.model import FFAvatar
from ffavatar.pipeline import animate, drive, reconstruct, track
from ffavatar.types import HeadParams, Views

METRICS = ("psnr", "ssim", "lpips", "identity", "ceiling", "landmarks")
"""dB; 0 to 1; 0 is equal; cosine; cosine of nearest source and target; percent of the face width."""
TRACK_STEPS = 100


@dataclass(frozen=True)
class Prediction:
    """What a method shows for T targets, and where it believes the landmarks are (crop units; None: no belief)."""

    images: Tensor  # (T, H, W, 3) on white, in [0, 1]
    landmarks: Tensor | None = None  # (T, 478, 2)


@dataclass(frozen=True)
class Method:
    """A row of the table. ``revision``: what the result depends on besides the package's code, such as weights."""

    name: str
    run: Callable[[Views, Views], Prediction]
    revision: str = ""


@dataclass(frozen=True)
class ClipResult:
    """Scores of one method on one clip: per metric one figure for each target (no figures: not defined for it)."""

    clip: str
    method: str
    views: int  # source views asked for; ``refused`` ones among them were not there to give
    size: int  # side of the pictures in pixels
    scores: dict[str, list[float]]
    seconds: float  # reconstruct, drive and render all targets
    refused: tuple[str, ...]  # frames that the front end gave back
    key: str

    def mean(self, metric: str) -> float | None:
        values = self.scores.get(metric, [])
        return sum(values) / len(values) if values else None


def baseline_methods() -> list[Method]:
    """``copy`` and ``warp``; see :mod:`ffavatar.evaluate.baselines`."""
    return [
        Method("copy", lambda source, target: Prediction(baselines.copy(source, target))),
        Method("warp", lambda source, target: Prediction(baselines.warp(source, target))),
    ]


def avatar_methods(model: FFAvatar, revision: str, level: int | None = None, steps: int = TRACK_STEPS) -> list[Method]:
    """``driven`` and ``tracked`` of a model; both use one reconstruction per set of sources.

    ``revision`` names the model's weights, for example by their sha256; ``level`` as in ``pipeline.reconstruct``.
    """
    last: list[tuple[Views, Avatar]] = []

    def avatar_of(source: Views) -> Avatar:
        if not last or last[0][0] is not source:
            last[:] = [(source, reconstruct(model, source, level))]
        return last[0][1]

    def driven(source: Views, target: Views) -> Prediction:
        avatar = avatar_of(source)
        return _shown(model, avatar, drive(model, avatar, target), target)

    def tracked(source: Views, target: Views) -> Prediction:
        avatar = avatar_of(source)
        return _shown(model, avatar, track(model, avatar, target, steps=steps), target)

    tag = f"{revision} level {level}"
    return [Method("driven", driven, tag), Method("tracked", tracked, f"{tag} steps {steps}")]


@torch.no_grad()
def _shown(model: FFAvatar, avatar: Avatar, params: HeadParams, target: Views) -> Prediction:
    images = animate(avatar, params, size=target.images.shape[1]).images
    return Prediction(images.clamp(0, 1), projected_landmarks(model, avatar, params))


def projected_landmarks(model: FFAvatar, avatar: Avatar, params: HeadParams) -> Tensor:
    """(B, 478, 2) where the posed head's landmarks appear in the normalised camera, in crop units."""
    frames = len(params)
    rig = avatar.rig
    posed = rig.head.pose(rig.neutral.expand(frames, -1, -1), rig.joints.expand(frames, -1, -1), params)
    points = model.head.landmarks(posed.vertices)
    return project(points, normalised_camera(1, frames, points.device))[0]


class Scorer:
    """Computes the figures of a prediction. Networks may be given; else their weights are fetched on first use."""

    def __init__(self, lpips: LPIPS | None = None, identity: IdentityNet | None = None):
        self.lpips = lpips or load_lpips("alex")
        self.identity = identity or load_identity()

    @torch.no_grad()
    def score(self, prediction: Prediction, source: Views, target: Views) -> dict[str, list[float]]:
        """One figure per target for each of ``METRICS``; ``source`` are the views that the method was given.

        Raises ``ValueError`` for pictures of another shape than the targets', or outside [0, 1].
        """
        shown, wanted, valid = prediction.images, target.on_white(), target.valid
        check_pair(shown, wanted, valid)
        nearest = source[baselines.nearest_source(source, target)]
        scores: dict[str, list[float]] = {metric: [] for metric in METRICS}
        for index in range(len(target)):  # one by one: the planes of a picture then stay in the processor's cache
            row = slice(index, index + 1)
            photo = wanted[row]
            face = self.identity.embed(photo, target.landmarks[row])
            inside = valid[row, ..., None] != 0
            masked = torch.where(inside, shown[row], 1.0)
            same = (self.identity.embed(masked, target.landmarks[row]) * face).sum()
            source_face = self.identity.embed(nearest.on_white()[row], nearest.landmarks[row])
            scores["psnr"].append(float(psnr(shown[row], photo, valid[row])))
            scores["ssim"].append(float(ssim(shown[row], photo, valid[row])))
            scores["lpips"].append(float(self.lpips(shown[row], photo, valid[row])))
            scores["identity"].append(float(same))
            scores["ceiling"].append(float((source_face * face).sum()))
        if prediction.landmarks is not None:
            scores["landmarks"] = landmark_error(prediction.landmarks, target.landmarks).tolist()
        return scores


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{60 * task.speed:.1f}/min" if task.speed else "-/min")


@dataclass(frozen=True)
class Run:
    """Where a benchmark reads and writes; nothing is written elsewhere."""

    out: Path  # results, one JSON and one strip of pictures per clip, method and number of views
    cache: Path  # head crops of the clips
    size: int = 512


def evaluate(
    clips: Sequence[Clip],
    methods: Sequence[Method],
    view_counts: Sequence[int],
    front_end: FrontEndLike,
    scorer: Scorer | Callable[[], Scorer],
    run: Run,
    console: Console | None = None,
) -> list[ClipResult]:
    """All methods on all clips, with the first ``n`` source views for each n of ``view_counts``.

    Results that are there already, made by the same code from the same data, are taken as they are. ``scorer`` may be
    a function that makes one, called only if something is left to score.
    """
    code = code_revision(Path(ffavatar.__file__).parent)
    results = []
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, speed_estimate_period=600) as progress:
        task = progress.add_task("clips", total=len(clips) * len(methods) * len(view_counts))
        for clip in clips:
            progress.update(task, description=f"{clip.id}: crops")
            views = load_clip(clip, front_end, run.size, run.cache)
            for count in sorted({min(n, len(clip.source_frames)) for n in view_counts}, reverse=True):
                given = replace(views, source=views.source[:count])
                save_strips(run, clip.id, count, given)
                for method in methods:
                    progress.update(task, description=f"{clip.id}: {method.name}, {count} views")
                    key = hashlib.sha256(repr((views.key, code, method.name, method.revision, count)).encode())
                    place = result_place(run, clip.id, method.name, count)
                    result = read_result(place, key.hexdigest())
                    if result is None:
                        scorer = scorer if isinstance(scorer, Scorer) else scorer()
                        result = _evaluate_one(clip.id, count, given, method, scorer, run, key.hexdigest())
                    results.append(result)
                    progress.advance(task)
    return results


def _evaluate_one(
    clip: str, count: int, views: ClipViews, method: Method, scorer: Scorer, run: Run, key: str
) -> ClipResult:
    start = time.perf_counter()
    prediction = method.run(views.source, views.target)
    seconds = time.perf_counter() - start
    scores = scorer.score(prediction, views.source, views.target)
    result = ClipResult(clip, method.name, count, run.size, scores, seconds, views.refused, key)
    place = result_place(run, clip, method.name, count)
    with atomic_path(place.with_suffix(".png")) as temporary:
        strip(prediction.images).save(temporary)
    with atomic_path(place) as temporary:  # last: its presence says that all is done
        temporary.write_text(json.dumps(asdict(result), indent=1), encoding="utf-8")
    return result


def result_place(run: Run, clip: str, method: str, views: int) -> Path:
    """The JSON file of one result; the strip of its pictures has the same name and ``.png``."""
    folder = run.out / "results" / str(run.size) / clip
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{method}-{views}.json"


def read_result(place: Path, key: str) -> ClipResult | None:
    """A kept result with this key, or None where there is none, or one of other code, data or weights."""
    try:
        result = ClipResult(**json.loads(place.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    if result.key != key or not place.with_suffix(".png").is_file():
        return None
    return replace(result, refused=tuple(result.refused))


def save_strips(run: Run, clip: str, count: int, views: ClipViews) -> None:
    """The rows ``sources`` and ``targets`` of a clip's contact sheet, beside the results for ``count`` sources."""
    for name, side in (("sources", views.source), ("targets", views.target)):
        with atomic_path(result_place(run, clip, name, count).with_suffix(".png")) as temporary:
            strip(side.on_white()).save(temporary)
