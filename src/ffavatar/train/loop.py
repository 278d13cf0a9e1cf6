"""The training loop: one resumable record of state, a deterministic stream of steps.

Which people and views a step sees depends on the seed and the step's number alone, so a run that was killed goes on as
if it had not been.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from ffavatar.files import atomic_path
from ffavatar.model import FFAvatar
from ffavatar.train.recipe import Recipe

Step = Callable[[FFAvatar, np.random.Generator], tuple[Tensor, dict[str, float]]]


class Trainer:
    """Model, optimiser and running mean of one run, with atomic checkpoints in ``folder``."""

    def __init__(self, model: FFAvatar, parameters: list[nn.Parameter], recipe: Recipe, folder: Path):
        self.model, self.recipe, self.folder = model, recipe, folder
        self.parameters = parameters
        self.optimiser = torch.optim.Adam(parameters, lr=recipe.rate, betas=(0.9, 0.98))
        self.mean = {name: value.detach().clone() for name, value in trainable_state(model).items()}
        self.step = 0
        self.skipped = 0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def resume(self) -> bool:
        """Go on from the folder's checkpoint, if there is one; the recipe must be the same."""
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, weights_only=True)
        if state["recipe"] != asdict(self.recipe):
            raise ValueError(f"{self.checkpoint} was made by another recipe; choose another folder to train in.")
        self.model.load_state_dict(state["model"], strict=False)
        self.optimiser.load_state_dict(state["optimiser"])
        self.mean, self.step, self.skipped = state["mean"], state["step"], state["skipped"]
        return True

    def save(self) -> None:
        with atomic_path(self.checkpoint) as path:
            torch.save(
                {
                    "recipe": asdict(self.recipe),
                    "model": trainable_state(self.model),
                    "optimiser": self.optimiser.state_dict(),
                    "mean": self.mean,
                    "step": self.step,
                    "skipped": self.skipped,
                },
                path,
            )

    def rate(self) -> float:
        done = self.step / self.recipe.steps
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1)))
        return self.recipe.rate * min(1, (self.step + 1) / self.recipe.warmup) * cosine

    def run(self, step: Step, save_every_s: float = 120, log_every: int = 25) -> None:
        """Train to the recipe's last step; Ctrl-C saves and re-raises."""
        log = (self.folder / "log.jsonl").open("a")
        start, first, saved = time.monotonic(), self.step, time.monotonic()
        try:
            while self.step < self.recipe.steps:
                self.one(step, log, log_every, start, first)
                if time.monotonic() - saved > save_every_s:
                    self.save()
                    saved = time.monotonic()
        finally:
            self.save()
            log.close()

    def one(self, step: Step, log, log_every: int, start: float, first: int) -> None:
        """One step; a step whose loss or gradient is not finite changes nothing and is counted."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        loss, terms = step(self.model, np.random.default_rng([self.recipe.seed, self.step]))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        if torch.isfinite(norm) and torch.isfinite(loss):
            self.optimiser.step()
        else:
            self.skipped += 1
        self.step += 1
        decay = min(self.recipe.ema, self.step / (self.step + 10))
        with torch.no_grad():
            for name, value in trainable_state(self.model).items():
                self.mean[name].lerp_(value.detach(), 1 - decay)
        row = {"step": self.step, "loss": float(loss.detach()), "norm": float(norm), "rate": self.rate(), **terms}
        log.write(json.dumps(row) + "\n")
        if self.step % log_every == 0 or self.step == self.recipe.steps:
            log.flush()
            speed = (self.step - first) / (time.monotonic() - start)
            left = (self.recipe.steps - self.step) / speed
            shown = " ".join(f"{name} {value:.4f}" for name, value in terms.items())
            print(f"step {self.step}/{self.recipe.steps} loss {row['loss']:.4f} {shown} | {speed:.2f} steps/s, "
                  f"{left / 60:.1f} min left, {self.skipped} skipped", flush=True)  # fmt: skip

    def export(self, path: Path) -> None:
        """The running mean as a weights file in half precision; the estimator's stage writes the estimator alone."""
        part = "estimator." if self.recipe.stage == "estimator" else ""
        tensors = {name: value.half().contiguous() for name, value in self.mean.items() if name.startswith(part)}
        with atomic_path(path) as temporary:
            about = {"recipe": json.dumps(asdict(self.recipe)), "step": str(self.step)}
            temporary.write_bytes(save(tensors, metadata=about))


def trainable_state(model: FFAvatar) -> dict[str, Tensor]:
    """The state that weights files hold: all but the head model's own buffers."""
    return {name: value for name, value in model.state_dict().items() if not name.startswith("head.")}
