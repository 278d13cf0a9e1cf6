"""Where to compute."""

from __future__ import annotations

import torch

from ffavatar.errors import InputError


def choose_device(name: str | torch.device = "auto") -> str:
    """``auto`` takes CUDA where there is one, else the CPU. A GPU of several may be numbered, as in ``cuda:1``.

    Raises:
        InputError: the device is not there.
    """
    name, cuda = str(name), torch.cuda.is_available()
    available = {"cpu": True, "cuda": cuda, "mps": torch.backends.mps.is_available()}
    available |= {f"cuda:{number}": cuda for number in range(torch.cuda.device_count())}
    if name == "auto":
        return "cuda" if cuda else "cpu"
    if not available.get(name, False):
        there = ", ".join(device for device, found in available.items() if found)
        raise InputError(f"The device {name!r} is not available here; choose auto or one of: {there}.")
    return name
