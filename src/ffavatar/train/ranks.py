"""Several processes as one trainer: who does what, and tensors that lie on all of them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ffavatar.errors import InputError
from ffavatar.model.encoder import DinoV2
from ffavatar.model.query_former import QueryFormer

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        return self.rank == 0

    def slots(self, batch: int) -> list[int]:
        """The examples of a step that are this rank's.

        Raises:
            InputError: ``batch`` cannot be divided evenly among the ranks.
        """
        if batch % self.world:
            raise InputError(f"{batch} examples per step cannot be divided among {self.world} ranks; change batch.")
        return list(range(self.rank, batch, self.world))

    def gather(self, thing: T) -> list[T]:
        """What every rank has, in the order of the ranks; all must call it."""
        if self.world == 1:
            return [thing]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, thing, group=_talk())
        return found


_talks: list[Any] = []


def _talk() -> Any:
    """A group on the CPU: small objects need not pass through a GPU."""
    if not _talks:
        _talks.append(dist.new_group(backend="gloo"))
    return _talks[0]


@contextmanager
def joined(device: str = "auto") -> Iterator[Ranks]:
    """This process' place among those that torchrun started, or alone. ``device``: auto, cpu or cuda.

    Raises:
        InputError: there is no such device.
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError("There is no CUDA device here; train with --device cpu.")
    local = int(os.environ.get("LOCAL_RANK", 0))
    place = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(place)
    if "WORLD_SIZE" not in os.environ:
        yield Ranks(device=place)
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), place)
    finally:
        _talks.clear()
        dist.destroy_process_group()


def spread(work: nn.Module, ranks: Ranks, fsdp: bool) -> nn.Module:
    """``work`` on all ranks, its gradients averaged over them: copied (DDP), or with ``fsdp`` sharded (FSDP2).

    Sharded are the transformers' blocks, one by one, and the rest together; single numbers cannot be and are copied.
    Every rank must hold the same values. After a backward pass, ``average_copied`` must be called.
    """
    if ranks.world == 1:
        return work
    if not fsdp:
        # buffers never change; newer torch has renamed the switch that says so
        known = inspect.signature(nn.parallel.DistributedDataParallel).parameters
        still: dict[str, Any] = {
            "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False
        }
        return nn.parallel.DistributedDataParallel(work, find_unused_parameters=True, **still)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    for module in list(work.modules()):
        if isinstance(module, DinoV2 | QueryFormer):
            for block in module.blocks:
                fully_shard(block, mesh=mesh)
    fully_shard(work, mesh=mesh, ignored_params={p for p in work.parameters() if not p.dim()})
    return work


def average_copied(runner: nn.Module, ranks: Ranks) -> None:
    """Average the gradients of those parameters that FSDP2 leaves alone."""
    if _sharded(runner) is None:
        return
    for parameter in runner.parameters():
        if parameter.requires_grad and not isinstance(parameter, DTensor):
            if parameter.grad is None:  # this rank's example did without it
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
            parameter.grad /= ranks.world


def clip_gradients(parameters: list[nn.Parameter], largest: float) -> float:
    """Scale gradients whose norm over all ``parameters`` is above ``largest`` down to it; returns the norm."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not any(isinstance(gradient, DTensor) for gradient in gradients):
        return float(nn.utils.clip_grad_norm_(parameters, largest))
    # torch does not mix sharded and whole gradients
    kinds = [[p for p in parameters if isinstance(p, DTensor) is sharded] for sharded in (True, False)]
    norms = [nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None]) for kind in kinds]
    whole_norms = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    total = torch.stack([norm.to(whole_norms[0]) for norm in whole_norms]).norm()
    for kind in kinds:
        nn.utils.clip_grads_with_norm_(kind, largest, total)
    return float(total)


def _sharded(runner: nn.Module) -> Any:
    """The runner as FSDP2 sees it, or None."""
    return runner if hasattr(runner, "set_requires_gradient_sync") else None


@contextmanager
def gradients_stay(runner: nn.Module, stay: bool) -> Iterator[None]:
    """While ``stay``, backward passes add to this rank's own gradients without averaging over the ranks."""
    sharded = _sharded(runner)
    if sharded is not None:
        sharded.set_requires_gradient_sync(not stay)
        yield
        return
    keep = runner.no_sync() if stay and isinstance(runner, nn.parallel.DistributedDataParallel) else nullcontext()
    with keep:
        yield


def whole(value: Any) -> Any:
    """Nested tensors with the shards put together, on the CPU; all ranks must call it."""
    if isinstance(value, DTensor):
        return value.full_tensor().detach().cpu()
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole(item) for item in value)
    return value


def laid_like(value: Tensor, model: Tensor) -> Tensor:
    """A whole tensor, known to all ranks, on the device and in the shards of ``model``."""
    if isinstance(model, DTensor):
        return distribute_tensor(value.to(model.device), model.device_mesh, model.placements, src_data_rank=None)
    return value.to(model.device)
