"""A model made ready for a recipe: what learns, in which precision, with which activations kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ffavatar.model import FFAvatar
from ffavatar.model.encoder import DinoEncoder, DinoV2, Encoded
from ffavatar.model.estimator import DinoEstimator
from ffavatar.train.discriminator import ProjectedDiscriminator
from ffavatar.train.recipe import Recipe


def prepare_model(model: FFAvatar, recipe: Recipe, device: torch.device | str = "cpu") -> FFAvatar:
    """Freeze what does not learn, set precision and checkpointing, move to ``device``; the state's layout stays.

    Only transformers and convolutions run in bfloat16: a pose read in it would be wrong by millimetres, so the
    estimator's last layers, the geometry, the rasteriser and the losses stay in float32.
    """
    model.train().to(device)
    avatar_learns = recipe.stage == "avatar" and recipe.learn in ("avatar", "both")
    estimator_learns = recipe.stage == "estimator" or recipe.learn in ("estimator", "both")
    model.estimator.requires_grad_(estimator_learns)
    for part in (model.encoder, model.former, model.decoder):
        part.requires_grad_(avatar_learns)
    if isinstance(model.encoder, DinoEncoder):
        model.encoder.vit.requires_grad_(False)
    reader = model.estimator.vit if isinstance(model.estimator, DinoEstimator) else model.estimator.outline.body
    if recipe.checkpointing:
        model.former.checkpointing = True
        if isinstance(reader, DinoV2):
            _checkpoint_blocks(reader)
    if recipe.precision == "bfloat16":
        for network in (model.encoder, model.former, reader):
            network.forward = _in_bfloat16(network.forward, torch.device(device).type)  # type: ignore[method-assign]
    return model


def _checkpoint_blocks(vit: DinoV2) -> None:
    for block in vit.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]


def _in_bfloat16(forward: Callable[..., Any], device: str) -> Callable[..., Any]:
    """The call under autocast; what comes out is float32 again."""

    @wraps(forward)
    def run(*arguments: Any) -> Any:
        with torch.autocast(device, torch.bfloat16):
            made = forward(*arguments)
        if isinstance(made, Encoded):
            return Encoded(made.tokens.float(), None if made.feature_map is None else made.feature_map.float())
        return made.float()

    return run


def parameter_groups(
    model: FFAvatar, recipe: Recipe, critic: ProjectedDiscriminator | None = None
) -> list[dict[str, Any]]:
    """Adam's groups: parameters that learn, each group with its ``rate`` and ``name``; those of the critic last."""

    def learned(*parts: nn.Module) -> list[nn.Parameter]:
        return [p for part in parts for p in part.parameters() if p.requires_grad]

    share = recipe.rate_estimator if recipe.stage == "avatar" and recipe.learn == "both" else 1.0
    betas = (0.9, 0.98)
    groups = [
        {"name": "avatar", "params": learned(model.encoder, model.former, model.decoder), "rate": recipe.rate,
         "betas": betas},
        {"name": "estimator", "params": learned(model.estimator), "rate": share * recipe.rate, "betas": betas},
    ]  # fmt: skip
    if critic is not None:
        groups.append(
            {"name": "critic", "params": learned(critic), "rate": recipe.rate_critic, "betas": (0.0, 0.99)}
        )  # fmt: skip
    return [group for group in groups if group["params"]]


def trainable_state(model: FFAvatar) -> dict[str, Tensor]:
    """The state that weights files hold: all but the head model's own buffers."""
    return {name: value for name, value in model.state_dict().items() if not name.startswith("head.")}
