"""Shipped weights of the presets, and reading of weight files."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ffavatar.errors import InputError
from ffavatar.model.config import ModelConfig
from ffavatar.weights import WeightsRecord, load_weights

CONFIG = "config"  # in a weights file's metadata: its model's configuration as JSON

LITE = WeightsRecord(
    name="lite",
    file="model/data/lite.safetensors",
    source="trained by ffavatar.train on 260 synthetic people, then damped (docs/training.md)",
    version="2",
    licence="Apache-2.0",
    sha256="2edb7b93198a629cdc8e838ab52cc7a3117145470d45c3c2232b4f88b096bd7a",
)
SHIPPED: dict[str, WeightsRecord] = {"lite": LITE}
"""One record per preset that ships with weights; docs/training.md tells how they were made."""


def shipped(preset: str) -> dict[str, Tensor]:
    """The weights that ship for a preset.

    Raises:
        InputError: none ship for it.
    """
    if preset not in SHIPPED:
        raise InputError(f"No weights ship for preset {preset!r}; give a weights file, or use {', '.join(SHIPPED)}.")
    return load_weights(SHIPPED[preset])


def config_in(path: str | Path) -> ModelConfig | None:
    """The configuration that a weights file of training says its model has; None where it says nothing.

    Raises:
        InputError: the file is missing or damaged, or tells of another version's configuration.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            said = (file.metadata() or {}).get(CONFIG)
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    if said is None:
        return None
    try:
        return ModelConfig(**json.loads(said))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The weights file {path} is of a model that this version does not know ({error}); train it anew."
        ) from error


def state_from(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a safetensors weights file.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: Exception) -> InputError:
    return InputError(f"The weights file {path} cannot be read ({error}); give a safetensors file of weights.")
