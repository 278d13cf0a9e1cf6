"""Personalization from beginning to end: tracking, the trial with a held-out view, the fit."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ffavatar.animate import Rig, render_avatar
from ffavatar.avatar import Avatar
from ffavatar.errors import InputError
from ffavatar.files import atomic_path
from ffavatar.head import Surface
from ffavatar.model import FFAvatar
from ffavatar.personal.fit import Fit, Perceptual, photo_loss
from ffavatar.personal.goals import Goals, Reading, read_views
from ffavatar.personal.recipe import PersonalRecipe
from ffavatar.personal.starts import grey, level_of, unprojected
from ffavatar.pipeline import reconstruct, track
from ffavatar.types import CanonicalGaussians, HeadParams, Shades, Views

Progress = Callable[[int, int], None]  # steps done and to do; what is to do shrinks when the trial ends early
OnSnapshot = Callable[[Avatar, int], None]  # the avatar as it stands, and the steps done so far (as in Progress)

GUARDED = 3  # views from which one is held out
HELD_TRIES = 3  # views of which one is held out that shows the look of the others
_SNAPSHOT = 20  # steps after which an interruption finds a newer state to return to
_SAVE = 100  # steps between writings of the checkpoint


@dataclass(frozen=True)
class Check:
    """What the held-out view said after some steps of the trial."""

    step: int
    loss: float


@dataclass(frozen=True)
class Personalized:
    """The avatar of the person, and how it came about."""

    avatar: Avatar
    params: HeadParams  # of the views, refined
    gains: Tensor  # (S, 3) exposure and white balance of the views
    steps: int  # taken, of the run over all views
    finished: bool  # False: interrupted, the best so far
    checks: tuple[Check, ...]  # of the held-out view; empty where nothing was held out


@torch.inference_mode(False)
@torch.enable_grad()
def personalize(
    model: FFAvatar,
    avatar: Avatar,
    views: Views,
    recipe: PersonalRecipe | None = None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    perceptual: Perceptual | None = None,
    on_snapshot: OnSnapshot | None = None,
) -> Personalized:
    """The avatar with residuals learned from ``views`` (S >= 1) of the same person.

    The same inputs and seed give the same result. Ctrl-C returns the best so far; with ``checkpoint``, a file, the next
    call with the same inputs goes on from there and ends as if nothing had happened. The file is removed at the end.

    ``on_snapshot(avatar, step)`` is called, in the caller's thread, with the avatar as it stands after every 20 steps:
    a preview that may be rendered, sent or saved, and is not changed later. ``step`` counts all steps done and never
    falls. Whatever it raises ends the run; ``KeyboardInterrupt`` ends it as Ctrl-C does.

    Raises:
        InputError: no view, or a checkpoint of another run.
    """
    recipe = recipe or PersonalRecipe()
    if not len(views):
        raise InputError("No view to personalize from; give at least one photo with a face.")
    if recipe.guard and len(views) < GUARDED:
        recipe = replace(recipe, steps=min(recipe.steps, recipe.unguarded_steps))
    return _Run(model, avatar, views, recipe, progress, checkpoint, perceptual, on_snapshot).result()


class _Run:
    """The state of one call."""

    def __init__(
        self,
        model: FFAvatar,
        avatar: Avatar,
        views: Views,
        recipe: PersonalRecipe,
        progress: Progress | None,
        checkpoint: Path | None,
        perceptual: Perceptual | None,
        on_snapshot: OnSnapshot | None,
    ):
        self.model, self.avatar, self.views, self.recipe = model, avatar, views, recipe
        self.checkpoint, self.perceptual, self.on_snapshot = checkpoint, perceptual, on_snapshot
        self.guarded = recipe.guard and len(views) >= GUARDED
        self.trial_steps = recipe.steps if self.guarded else 0
        self.progress = progress or (lambda done, total: None)
        self.origin = _origin(avatar, views, recipe, perceptual is not None)
        reading = read_views(model, avatar, views, recipe.size)
        self.read, self.goals = reading.params, reading.goals
        self.avatar = self._begun(avatar, self.read, self.goals)
        self.start = self.read
        self.checks: list[Check] = []
        self.chosen: int | None = None if self.guarded else recipe.steps
        self.fit: Fit | None = None
        self.last: dict[str, Any] | None = None  # state of the fit at the latest snapshot
        self.best: Avatar | None = None  # of the trial

    def result(self) -> Personalized:
        kept = self._read_checkpoint()
        finished = True
        try:
            if kept is None:
                if self.recipe.track_steps:
                    self.start = track(self.model, self.avatar, self.views, self.recipe.track_steps)
            else:
                self.start = HeadParams(**kept["start"])
                self.checks = [Check(*pair) for pair in kept["checks"]]
                self.chosen = kept["chosen"]
                self.best = _unpacked(self.model, kept.get("best"))
            if self.chosen is None:
                self._trial(kept["fit"] if kept else None)
                kept = None
            self._whole(kept["fit"] if kept else None)
        except KeyboardInterrupt:
            finished = False
            self._save()
        return self._outcome(finished)

    def _begun(self, avatar: Avatar, read: HeadParams, goals: Goals) -> Avatar:
        """What the residuals are laid upon, of an avatar whose views ``goals`` were read as ``read``."""
        if self.recipe.start == "grey":
            return grey(avatar)
        if self.recipe.start == "unprojected":
            return unprojected(avatar, read, goals.images, goals.mattes)
        return avatar

    def _new_fit(
        self, avatar: Avatar, start: HeadParams, read: HeadParams, goals: Goals, state: dict[str, Any] | None
    ) -> Fit:
        fit = Fit(avatar, start, read, goals, self.recipe, self.perceptual)
        if state is not None:
            fit.restore(state)
        self.last = fit.state()
        self.fit = fit
        return fit

    def _trial(self, state: dict[str, Any] | None) -> None:
        """Learn from all views but one, and see for how many steps that helps it.

        The trial has an avatar of its own, made without the view held out: against one that has seen this view, every
        step on the others would look like harm.
        """
        recipe = self.recipe
        held, avatar, reading = self._set_apart()
        index = [i for i in range(len(self.views)) if i != held]
        read, goals, unseen = reading.params[index], reading.goals[index], reading.goals[[held]]
        own = bool(reading.alike[held])
        start = track(self.model, avatar, self.views[index], recipe.track_steps) if recipe.track_steps else read
        fit = self._new_fit(self._begun(avatar, read, goals), start, read, goals, state)
        every = max(1, recipe.steps // recipe.guard_checks)
        if not self.checks:
            self._check(fit, held, unseen, own)
        while fit.step < recipe.steps and not self._lost_patience():
            fit.advance()
            if fit.step % every == 0:
                self._check(fit, held, unseen, own)
            self._note(fit)
        self.trial_steps = fit.step
        self.chosen = [check.step for check in self.checks if self._holds(check)][-1]
        self.fit, self.last = None, None

    def _set_apart(self) -> tuple[int, Avatar, Reading]:
        """The view held out, the avatar of the others, and how that reads all views.

        A view of middle turn, for then others lie on both sides of it. If it shows another look than their avatar does,
        its face alone could be compared, which says little: then the next ones are tried.
        """
        yaw = self.read.root[:, 1] + self.read.neck[:, 1]
        order = yaw.argsort(stable=True).tolist()
        middle = len(order) // 2
        first = None
        for rank in sorted(range(len(order)), key=lambda rank: abs(rank - middle))[:HELD_TRIES]:
            held = order[rank]
            seen = self.views[[i for i in range(len(order)) if i != held]]
            level = level_of(self.model.head, len(self.avatar), self.model.config.surface_level)
            avatar = reconstruct(self.model, seen, level)
            apart = held, avatar, read_views(self.model, avatar, self.views, self.recipe.size)
            if apart[2].alike[held]:
                return apart
            first = first or apart
        assert first is not None
        return first

    def _check(self, fit: Fit, held: int, goals: Goals, own: bool) -> None:
        """``goals`` of the view ``held``; ``own``: its outline is the avatar's."""
        changed = replace(fit.avatar, canonical=fit.canonical())
        # An error of the reading would outweigh what the check is for: whether detail helps a view that it is not from.
        params = track(self.model, changed, self.views[[held]], self.recipe.check_steps, own=own)
        with torch.no_grad():
            drawn = render_avatar(changed.rig, changed.canonical, params, self.recipe.size)
            loss = float(photo_loss(drawn.images, drawn.alphas, goals, self.recipe))
            if self.perceptual is not None:
                net, inside = self.perceptual, (drawn.images * goals.valid + 1 - goals.valid).clamp(0, 1)
                unlike = net.distance(net.prepare(inside), net.prepare(goals.images))
                loss += self.recipe.guard_lpips * float(unlike.mean())
        if self.checks and all(loss < check.loss for check in self.checks):
            self.best = changed
        self.checks.append(Check(fit.step, loss))

    def _holds(self, check: Check) -> bool:
        """Whether so many steps still show the held-out view clearly better than none did."""
        first = self.checks[0].loss
        most = first - min(c.loss for c in self.checks)
        return first - check.loss >= self.recipe.guard_keeps * most

    def _lost_patience(self) -> bool:
        latest = self.checks[-self.recipe.patience :]
        return len(self.checks) > self.recipe.patience and not any(self._holds(check) for check in latest)

    def _whole(self, state: dict[str, Any] | None) -> None:
        assert self.chosen is not None
        fit = self._new_fit(self.avatar, self.start, self.read, self.goals, state)
        if self.guarded and state is None:
            self._save()  # a killed run need not repeat the trial
        while fit.step < self.chosen:
            fit.advance()
            self._note(fit)

    def _note(self, fit: Fit) -> None:
        """After each step: the state to return to, the checkpoint, and the caller."""
        if fit.step % _SNAPSHOT == 0:
            self.last = fit.state()
        if fit.step % _SAVE == 0:
            self._save()
        before, to_do = (0, self.recipe.steps) if self.chosen is None else (self.trial_steps, self.chosen)
        if fit.step % _SNAPSHOT == 0 and self.on_snapshot is not None:
            self.on_snapshot(replace(fit.avatar, canonical=fit.canonical()), before + fit.step)
        self.progress(before + fit.step, self.trial_steps + to_do)

    def _save(self) -> None:
        if self.checkpoint is None or self.last is None:
            return
        done = self.last["step"]
        # a trial goes on from its snapshot: checks after it will be made again
        checks = [(c.step, c.loss) for c in self.checks if self.chosen is not None or c.step <= done]
        with atomic_path(self.checkpoint) as path:
            torch.save(
                {
                    "origin": self.origin,
                    "start": dict(vars(self.start)),
                    "checks": checks,
                    "chosen": self.chosen,
                    "fit": self.last,
                    "best": _packed(self.best),
                },
                path,
            )

    def _read_checkpoint(self) -> dict[str, Any] | None:
        if self.checkpoint is None or not self.checkpoint.exists():
            return None
        try:
            kept = torch.load(self.checkpoint, weights_only=True, map_location=self.views.images.device)
            other = _differences(kept["origin"], self.origin)
        except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, AttributeError, EOFError, OSError):
            raise InputError(f"{self.checkpoint} is not a readable checkpoint; remove it and run again.") from None
        if other:
            raise InputError(
                f"{self.checkpoint} is of a run with other {other}; run with the same again, remove it, or give "
                "another file."
            )
        return kept

    def _outcome(self, finished: bool) -> Personalized:
        params, gains, steps = self.start, self.goals.images.new_ones(len(self.views), 3), 0
        avatar = self.avatar
        if not finished and self.fit is not None and self.last is not None:
            self.fit.restore(self.last)  # whole steps only
        half_way = self.chosen is not None and self.fit is not None and self.fit.step >= self.chosen / 2
        if self.fit is not None and (finished or half_way or (self.best is None and self.chosen is not None)):
            avatar, params = replace(avatar, canonical=self.fit.canonical()), self.fit.pose()
            gains, steps = self.fit.gains().detach(), self.fit.step
        elif self.best is not None:
            avatar = self.best
        if finished and self.checkpoint is not None:
            self.checkpoint.unlink(missing_ok=True)
        about = {**self.avatar.about, "personalized": f"{steps} steps over {len(self.views)} views"}
        made = replace(avatar, canonical=avatar.canonical.detach(), about=about)
        return Personalized(made, params.detach(), gains, steps, finished, tuple(self.checks))


def _packed(avatar: Avatar | None) -> dict[str, Any] | None:
    """An avatar that the model made, but for the head, which the model has."""
    if avatar is None:
        return None
    rig = avatar.rig
    records = {"surface": rig.surface, "canonical": avatar.canonical, "shades": rig.shades}
    return {
        "neutral": rig.neutral, "joints": rig.joints, "identity": avatar.identity,
        **{name: None if record is None else dict(vars(record)) for name, record in records.items()},
    }  # fmt: skip


def _unpacked(model: FFAvatar, kept: dict[str, Any] | None) -> Avatar | None:
    if kept is None:
        return None
    shades = None if kept["shades"] is None else Shades(**kept["shades"])
    rig = Rig(model.head, kept["neutral"], kept["joints"], Surface(**kept["surface"]), shades)
    return Avatar(rig, CanonicalGaussians(**kept["canonical"]), kept["identity"])


def _origin(avatar: Avatar, views: Views, recipe: PersonalRecipe, perceptual: bool) -> dict[str, Any]:
    """All that decides a run, by the names that users know, for a checkpoint to be compared with."""
    return {
        "avatar": _digest(avatar.canonical, *filter(None, [avatar.rig.shades])),
        "photos": _digest(views),
        "perceptual net": perceptual,
        **asdict(recipe),
    }


def _differences(then: dict[str, Any], now: dict[str, Any]) -> str:
    """Names what two runs were not made from alike, and settings' values; empty where they are of one origin."""
    said = []
    for name in [name for name in now | then if then.get(name) != now.get(name)]:
        value, other = then.get(name), now.get(name)
        digests = isinstance(value, str) and len(value) == 64
        said.append(name if digests else f"{name} ({value} there, {other} here)")
    return ", ".join(said)


def _digest(*records: object) -> str:
    """Of their tensors."""
    digest = hashlib.sha256()
    for record in records:
        for value in vars(record).values():
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
