"""The training loop: one resumable record of state, a deterministic stream of steps.

Which people and views a step sees depends on the seed, the step's number and (streamed) the reader's saved place alone,
so a run that was killed goes on as if it had not been, on as many ranks as one likes.
"""

from __future__ import annotations

import json
import math
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ffavatar.errors import InputError
from ffavatar.files import atomic_path, in_order
from ffavatar.model import FFAvatar
from ffavatar.model.weights import CONFIG
from ffavatar.train.discriminator import ProjectedDiscriminator
from ffavatar.train.journal import Journal
from ffavatar.train.networks import parameter_groups, trainable_state
from ffavatar.train.origin import Origin
from ffavatar.train.ranks import Ranks, average_copied, clip_gradients, gradients_stay, laid_like, spread, whole
from ffavatar.train.recipe import Recipe, recipe_of
from ffavatar.train.sources import Example, Source
from ffavatar.train.stages import Outcome, Step

MOST_SKIPPED = 50  # bad steps one after the other: the run has diverged
# what torch and we raise of a checkpoint that is damaged, or of something else
_UNREADABLE = (OSError, RuntimeError, pickle.UnpicklingError, TypeError, AttributeError, ValueError, EOFError)


@dataclass(frozen=True)
class Pace:
    """How a run is watched and saved; changes nothing of its result."""

    save_every_s: float = 120.0
    save_every: int = 0
    """Steps; 0: by the clock alone."""
    log_every: int = 25
    pictures_every: int = 0
    """Steps; 0: none."""
    tensorboard: bool = False


class Work(nn.Module):
    """Everything that learns, with one example's loss as its forward pass: what DDP and FSDP2 wrap."""

    def __init__(self, model: FFAvatar, step: Step, critic: ProjectedDiscriminator | None = None):
        super().__init__()
        self.model, self.critic, self._step = model, critic, step
        self.outcome: Outcome | None = None
        self.sharded = False

    def forward(self, example: Example) -> Tensor:
        """The example's loss; ``outcome`` keeps the rest. A solver that fails on a hopeless estimate makes a loss that
        is not a number, for then all ranks skip the step together."""
        try:
            self.outcome = self._step(self.model, example)
        except torch.linalg.LinAlgError:
            self.outcome = Outcome(self._touched() * math.nan, {})
        if self.sharded:
            # FSDP2 exchanges what has a gradient, which must be the same on all ranks, whatever their examples used.
            # So, other than elsewhere, Adam's momentum moves the estimator also in steps that read labels alone.
            return self.outcome.loss + 0 * self._touched()
        return self.outcome.loss

    def _touched(self) -> Tensor:
        """A number that hangs on every parameter here that learns."""
        here = [p for p in self.parameters() if p.requires_grad and not isinstance(p, DTensor)]
        return torch.stack([p.sum() for p in here]).sum()


@dataclass(frozen=True)
class _Share:
    """What one rank tells the others after its part of a step."""

    losses: list[float]
    terms: list[dict[str, float]]
    finite: bool
    stop: bool
    due: bool
    state: dict[int, dict[str, Any]] = field(default_factory=dict)


class Trainer:
    """Model, optimiser and running mean of one run, with atomic checkpoints in ``folder``.

    ``work.model`` must be prepared (``networks.prepare_model``). Every rank makes one with the same values. ``origin``:
    with which data and files the run is begun; without it a checkpoint's are not compared with any.
    """

    def __init__(
        self, work: Work, recipe: Recipe, folder: Path, source: Source | None = None, ranks: Ranks | None = None,
        origin: Origin | None = None,
    ):  # fmt: skip
        self.work, self.recipe, self.folder, self.source, self.origin = work, recipe, folder, source, origin
        self.ranks = Ranks() if ranks is None else ranks
        self.slots = self.ranks.slots(recipe.batch)
        self.runner = spread(work, self.ranks, recipe.fsdp)
        work.sharded = recipe.fsdp and self.ranks.world > 1
        self.model = work.model
        groups = parameter_groups(self.model, recipe, work.critic)
        self.optimiser = torch.optim.Adam(groups, lr=recipe.rate)
        self.mean = {name: value.detach().clone() for name, value in trainable_state(self.model).items()}
        self.step = 0
        self.skipped = 0
        self._bad_in_a_row = 0
        self._saved: int | None = None  # step of the folder's checkpoint
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimiser.param_groups for p in group["params"]]

    def resume(self) -> bool:
        """Go on from the folder's checkpoint, if there is one; recipe and origin must be the same. One of an older
        version tells no origin, which is said.

        Raises:
            InputError: the checkpoint is of another recipe, data or files, or damaged.
        """
        if not self.checkpoint.exists():
            return False
        with self._readable():
            state = torch.load(self.checkpoint, weights_only=True, map_location="cpu")
            if not isinstance(state, dict):
                raise TypeError(f"it holds a {type(state).__name__}")
            recipe = recipe_of(state["recipe"])
            origin = None if state.get("origin") is None else Origin(**state["origin"])
        if recipe != self.recipe:
            raise InputError(f"{self.checkpoint} was made by another recipe; choose another folder to train in.")
        if origin is None:
            if self.origin is not None and self.ranks.first:
                print(f"{self.checkpoint} does not tell its data and start weights: it goes on with those given now")
        elif self.origin is not None and (differing := self.origin.differences(origin)):
            raise InputError(
                f"{self.checkpoint} was begun with other {' and '.join(differing)}; give the same again, or choose "
                "another folder to train in."
            )
        self.origin = self.origin or origin
        with self._readable():
            self._restore(state)
        if self.source is not None:
            self.source.restore(state.get("source", {}))
        return True

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """What a damaged checkpoint, or one that lacks something, raises as ``InputError``."""
        try:
            yield
        except KeyError as error:
            raise InputError(f"{self.checkpoint} lacks {error}; choose another folder to train in.") from error
        except _UNREADABLE as error:
            what = str(error).partition("\n")[0]
            raise InputError(f"{self.checkpoint} cannot be read ({what}); choose another folder.") from error

    def _restore(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for mine, saved in ((trainable_state(self.model), state["model"]), (self.mean, state["mean"])):
                for name, value in mine.items():
                    value.copy_(laid_like(saved[name], value))
            if self.work.critic is not None:
                for name, value in self.work.critic.state_dict().items():
                    value.copy_(laid_like(state["critic"][name], value))
        self._load_optimiser(state["optimiser"])
        self.step, self.skipped = state["step"], state["skipped"]
        self._saved = self.step

    def _load_optimiser(self, state: dict[str, Any]) -> None:
        for number, parameter in enumerate(self.parameters):
            moments = state["state"].get(number, {})
            for name, value in moments.items():
                if isinstance(value, Tensor) and value.dim():
                    moments[name] = laid_like(value, parameter)
        for mine, saved in zip(self.optimiser.param_groups, state["param_groups"], strict=True):
            for name in ("name", "rate"):  # older checkpoints name neither
                saved.setdefault(name, mine[name])
        self.optimiser.load_state_dict(state)

    def save(self, source: dict[int, dict[str, Any]] | None = None) -> None:
        """Write the checkpoint; all ranks must call it. ``source``: the state of all ranks' slots."""
        if source is None:
            own = {} if self.source is None else self.source.state()
            source = {slot: at for share in self.ranks.gather(own) for slot, at in share.items()}
        state = {
            "recipe": asdict(self.recipe),
            "model": whole(trainable_state(self.model)),
            "critic": {} if self.work.critic is None else whole(self.work.critic.state_dict()),
            "optimiser": whole(self.optimiser.state_dict()),
            "mean": whole(self.mean),
            "step": self.step,
            "skipped": self.skipped,
            "source": source,
            "origin": None if self.origin is None else asdict(self.origin),
        }
        if self.ranks.first:
            with atomic_path(self.checkpoint) as path:
                torch.save(state, path)
        self._saved = self.step

    def rate(self) -> float:
        """Of the main parameters at this step: linear warm-up, then a cosine to a hundredth."""
        return self._rate(self.recipe.rate)

    def _rate(self, highest: float) -> float:
        done = self.step / self.recipe.steps
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1)))
        return highest * min(1, (self.step + 1) / self.recipe.warmup) * cosine

    def run(self, pace: Pace | None = None) -> None:
        """Train to the recipe's last step. Ctrl-C and SIGTERM end it after the step in progress, with a checkpoint.

        Raises:
            KeyboardInterrupt: it was stopped.
            InputError: 50 steps in a row were not finite.
        """
        pace = Pace() if pace is None else pace
        journal = Journal(self.folder, self.step, pace.tensorboard) if self.ranks.first else None
        start, first, saved = time.monotonic(), self.step, time.monotonic()
        try:
            with _stop_wanted() as stop:
                while self.step < self.recipe.steps:
                    due = time.monotonic() - saved > pace.save_every_s
                    shares = self.advance(stop, due, journal, pace)
                    stopped = any(share.stop for share in shares)
                    by_count = pace.save_every > 0 and self.step % pace.save_every == 0
                    if stopped or by_count or shares[0].due or self.step == self.recipe.steps:
                        if journal is not None:
                            journal.flush(disk=True)
                        self.save({slot: at for share in shares for slot, at in share.state.items()})
                        saved = time.monotonic()
                    if journal is not None and (self.step % pace.log_every == 0 or self.step == self.recipe.steps):
                        journal.flush()
                        self._say(shares, (self.step - first) / (time.monotonic() - start))
                    if stopped and self.step < self.recipe.steps:
                        raise KeyboardInterrupt
        finally:
            if journal is not None:
                journal.close()

    def advance(
        self, stop: threading.Event | None = None, due: bool = False, journal: Journal | None = None,
        pace: Pace | None = None,
    ) -> list[_Share]:  # fmt: skip
        """One step of all ranks; one whose loss or gradient is not finite on any of them changes nothing on all of
        them, and is counted."""
        rate = self.rate()
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(group["rate"])
        self.optimiser.zero_grad(set_to_none=True)
        losses, terms = [], []
        for number, slot in enumerate(self.slots):
            example = Example.of(self.recipe.seed, self.step, slot)
            with gradients_stay(self.runner, number + 1 < len(self.slots)):
                loss = self.runner(example)
                (loss if len(self.slots) == 1 else loss / len(self.slots)).backward()
            outcome = self.work.outcome
            assert outcome is not None
            losses.append(float(loss.detach()) - outcome.terms.get("critic", 0.0))
            terms.append(outcome.terms)
        average_copied(self.runner, self.ranks)
        norms = [self._clip(group["params"]) for group in self.optimiser.param_groups if group["name"] == "critic"]
        norm = self._clip([p for g in self.optimiser.param_groups if g["name"] != "critic" for p in g["params"]])
        finite = all(math.isfinite(value) for value in (*losses, *norms, norm))
        state = {} if self.source is None else self.source.state()
        stopping = stop is not None and stop.is_set()
        shares = self.ranks.gather(_Share(losses, terms, finite, stopping, due, state))
        if all(share.finite for share in shares):
            self.optimiser.step()
            self._bad_in_a_row = 0
        else:
            self.skipped += 1
            self._bad_in_a_row += 1
            if self._bad_in_a_row >= MOST_SKIPPED:
                raise InputError(self._diverged())
        self.step += 1
        decay = min(self.recipe.ema, self.step / (self.step + 10))
        with torch.no_grad():
            for name, value in trainable_state(self.model).items():
                self.mean[name].lerp_(value.detach(), 1 - decay)
        if journal is not None:
            journal.row({"step": self.step, "loss": _mean_loss(shares), "norm": norm, "rate": rate,
                         "skipped": self.skipped, **_mean_terms(shares)})  # fmt: skip
            pictures = self.work.outcome.pictures if self.work.outcome is not None else None
            if (
                pictures is not None
                and pace is not None
                and pace.pictures_every
                and self.step % pace.pictures_every == 0
            ):
                journal.pictures(self.step, pictures)
        self.work.outcome = None  # frees the example's graph
        return shares

    def _diverged(self) -> str:
        kept = "nothing was saved" if self._saved is None else f"{self.checkpoint} is as of step {self._saved}"
        return (
            f"The run has diverged: {MOST_SKIPPED} steps in a row, up to step {self.step + 1}, were not finite; check "
            f"the data, or train at a lower rate than {self.recipe.rate:g} (--set rate=) in another folder; {kept}, "
            "and no weights were written."
        )

    def _clip(self, parameters: list[nn.Parameter]) -> float:
        return clip_gradients(parameters, self.recipe.clip)

    def _say(self, shares: list[_Share], speed: float) -> None:
        left = (self.recipe.steps - self.step) / speed
        shown = " ".join(f"{name} {value:.4f}" for name, value in _mean_terms(shares).items())
        print(f"step {self.step}/{self.recipe.steps} loss {_mean_loss(shares):.4f} {shown} | {speed:.2f} steps/s, "
              f"{left / 60:.1f} min left, {self.skipped} skipped", flush=True)  # fmt: skip

    def export(self, path: Path) -> None:
        """The running mean as a weights file in half precision, the same bytes for the same values; one that holds them
        already is left alone. The estimator's stage writes the estimator alone. All ranks must call it."""
        part = "estimator." if self.recipe.stage == "estimator" else ""
        mean = whole({name: value for name, value in self.mean.items() if name.startswith(part)})
        if self.ranks.first:
            config = json.dumps(asdict(self.recipe.model_config()))
            about = {"recipe": json.dumps(asdict(self.recipe)), "step": str(self.step), CONFIG: config}
            tensors = {name: value.half().contiguous() for name, value in mean.items()}
            content = in_order(save(tensors, metadata=about))
            if path.is_file() and path.read_bytes() == content:
                return
            with atomic_path(path) as temporary:
                temporary.write_bytes(content)


def _mean_loss(shares: list[_Share]) -> float:
    losses = [loss for share in shares for loss in share.losses]
    return sum(losses) / len(losses)


def _mean_terms(shares: list[_Share]) -> dict[str, float]:
    """The mean of every term over the examples that have it."""
    rows = [row for share in shares for row in share.terms]
    names = dict.fromkeys(name for row in rows for name in row)
    found = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}


@contextmanager
def _stop_wanted() -> Iterator[threading.Event]:
    """Set by the first SIGINT or SIGTERM; the second SIGINT breaks off at once. Without effect in side threads."""
    wanted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield wanted
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if wanted.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        wanted.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wanted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
