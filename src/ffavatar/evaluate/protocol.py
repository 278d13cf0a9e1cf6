"""The evaluation loop: every method reconstructs from a case's source views and shows its target views.

Pictures are compared on white with the pixels outside the photo excluded. A method is any function from a task to
pictures, so baselines, avatars and the pictures of other programs go through the same loop and the same figures. Which
of a target a method may look at is part of its name: ``copy`` and ``warp`` its landmarks, ``driven`` one estimator pass
over its picture, ``tracked`` 100 refinement steps against its picture on top of that, the avatar being frozen.

Results are kept per case, method and number of views, so that a broken run goes on where it stopped; results of other
code, weights or data are never taken over. On one CPU the same command gives the same scores; only ``timing`` differs.
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
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as Bar
from rich.text import Text

import ffavatar
from ffavatar.evaluate import ruler
from ffavatar.evaluate.clips import ClipViews, FrontEndLike, code_revision, load_clip
from ffavatar.evaluate.figures import Scores, mean
from ffavatar.evaluate.machine import peak_memory
from ffavatar.evaluate.methods import Method, Task
from ffavatar.evaluate.rules import Case, Rules
from ffavatar.evaluate.scorer import Scorer
from ffavatar.evaluate.sheet import strip
from ffavatar.files import atomic_path
from ffavatar.jobs import Crew, run_jobs


@dataclass(frozen=True)
class ClipResult:
    """Scores of one method on one case: per figure one value for each target (None: no face was found in it)."""

    clip: str  # the case's id
    subject: str  # the person whose avatar it is
    method: str
    views: int  # source views asked for; ``refused`` ones among them were not there to give
    size: int  # side of the pictures in pixels
    protocol: str  # name and version
    scores: Scores
    timing: dict[str, float]  # by the names of ``figures.TIMING``, and ``seconds`` for the whole case
    refused: tuple[str, ...]  # frames that the front end gave back
    key: str

    def mean(self, figure: str) -> float | None:
        """Mean over the targets; None where the figure is not defined for the method."""
        return mean(self.scores.get(figure, []))


@dataclass(frozen=True)
class Run:
    """Where an evaluation reads and writes; nothing is written elsewhere."""

    out: Path  # results, one JSON and one strip of pictures per case, method and number of views
    cache: Path  # head crops of the clips
    rules: Rules
    figures: str = "all"  # as ``scorer.load_scorer``; part of what results depend on


class _Rate(ProgressColumn):
    def render(self, task: Bar) -> Text:
        return Text(f"{60 * task.speed:.1f}/min" if task.speed else "-/min")


def evaluate(
    rows: Sequence[Case],
    methods: Sequence[Method],
    front_end: FrontEndLike,
    scorer: Scorer | Callable[[], Scorer],
    run: Run,
    console: Console | None = None,
    views_of: Callable[[Case, FrontEndLike, Run], ClipViews] | None = None,
) -> list[ClipResult]:
    """All methods on all cases, with the first ``n`` source views for each n of the rules' ``views``.

    Results that are there already, made by the same code from the same data, are taken as they are. ``scorer`` may be
    a function that makes one, called only if something is left to score. ``views_of`` gives a case's pictures
    (:func:`case_views`).
    """
    code = code_revision(Path(ffavatar.__file__).parent)
    rules = run.rules
    results = []
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, speed_estimate_period=600) as progress:
        bar = progress.add_task("clips", total=len(rows) * len(methods) * len(rules.views))
        for row in rows:
            progress.update(bar, description=f"{row.id}: crops")
            views = (views_of or case_views)(row, front_end, run)
            for count in sorted({min(n, len(row.source.source_frames)) for n in rules.views}, reverse=True):
                given = replace(views, source=views.source.first(count))
                save_strips(run, row.id, count, given)
                for method in methods:
                    progress.update(bar, description=f"{row.id}: {method.name}, {count} views")
                    parts = (views.key, code, method.name, method.revision, count, rules.kind, rules.box, run.figures)
                    key = hashlib.sha256(repr((*parts, ruler.REVISION)).encode()).hexdigest()
                    result = read_result(result_place(run, row.id, method.name, count), key)
                    if result is None:
                        scorer = scorer() if callable(scorer) else scorer
                        result = _evaluate_one(row, count, given, method, scorer, run, key)
                    results.append(result)
                    progress.advance(bar)
    return results


def evaluate_parallel(
    share: Callable[[tuple[int, int]], None], whole: Callable[[], list[ClipResult]], workers: int
) -> list[ClipResult]:
    """``whole()`` after ``workers`` processes have each made their share of the results.

    ``share((number, workers))`` must be picklable and evaluate every ``workers``-th case into the same folder, from
    which ``whole`` then takes the results. Scores do not depend on the number of workers; a share whose process is
    killed is taken up by another, which finds what was finished.
    """
    if workers > 1:
        for _ in run_jobs(share, [(number, workers) for number in range(workers)], Crew(workers)):
            pass  # results are in the folder; ``whole`` makes what a lost share left over
    return whole()


def case_views(row: Case, front_end: FrontEndLike, run: Run) -> ClipViews:
    """The crops of a case: sources of one clip, targets (and the run of frames) of the same or another one."""
    rules = run.rules
    views = load_clip(row.source, front_end, rules.size, run.cache, rules.film_frames, rules.box)
    if row.target is row.source:
        return views
    driver = load_clip(row.target, front_end, rules.size, run.cache, rules.film_frames)
    return replace(
        driver,
        source=views.source,
        run=None,
        refused=(*views.refused, *driver.refused),
        key=hashlib.sha256((views.key + driver.key).encode()).hexdigest(),
    )


def _evaluate_one(
    row: Case, count: int, views: ClipViews, method: Method, scorer: Scorer, run: Run, key: str
) -> ClipResult:
    own = run.rules.kind != "cross"
    task = Task(
        row.id, count, views.source.views, views.target, views.frame_size, views.cameras, views.truth, own, views.shown
    )
    with peak_memory() as peak:
        start = time.perf_counter()
        prediction = method.run(task)
        seconds = time.perf_counter() - start
    target = task.compared.views
    if run.rules.kind == "cross":
        scores = scorer.score_cross(prediction, task.source, target)
        shown = prediction.images
    else:
        scores = scorer.score(prediction, task.source, target)
        shown = torch.where(target.valid[..., None] != 0, prediction.images, 1.0)
        if views.run is not None and method.shows(task, views.run.frames):
            scores |= scorer.jitter(method.run(replace(task, target=views.run, shown=None)), views.run.views)
    timing = prediction.timing | {"seconds": seconds}
    if peak.megabytes is not None and "avatar_s" in prediction.timing:
        timing["peak_mb"] = peak.megabytes
    result = ClipResult(
        row.id, row.source.subject, method.name, count, run.rules.size, f"{run.rules.name} {run.rules.version}",
        scores, timing, views.refused, key,
    )  # fmt: skip
    place = result_place(run, row.id, method.name, count)
    with atomic_path(place.with_suffix(".png")) as temporary:
        strip(shown).save(temporary)
    with atomic_path(place) as temporary:  # last: its presence says that all is done
        temporary.write_text(json.dumps(asdict(result), indent=1), encoding="utf-8")
    return result


def result_place(run: Run, case: str, method: str, views: int) -> Path:
    """The JSON file of one result; the strip of its pictures has the same name and ``.png``."""
    folder = run.out / "results" / f"{run.rules.name}-{run.rules.size}" / case
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


def save_strips(run: Run, case: str, count: int, views: ClipViews) -> None:
    """The rows ``sources`` and ``targets`` of a case's pictures, beside the results for ``count`` sources."""
    for name, side in (("sources", views.source), ("targets", views.shown or views.target)):
        with atomic_path(result_place(run, case, name, count).with_suffix(".png")) as temporary:
            strip(side.views.on_white()).save(temporary)
