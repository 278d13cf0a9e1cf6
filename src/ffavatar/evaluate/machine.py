"""What a figure was measured on, and the peak memory of a piece of work."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import torch

import ffavatar


def environment() -> dict[str, str]:
    """Date, hardware and versions, as every published figure states them."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ffavatar": ffavatar.__version__,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


class PeakMemory:
    """Filled when the block ends. ``megabytes`` is None where the system does not tell."""

    megabytes: float | None = None


@contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """The largest resident memory of this process while the block runs: models and libraries included.

    Linux only: the kernel's high-water mark is set back at the start (proc(5), ``clear_refs``).
    """
    peak = PeakMemory()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        known = True
    except OSError:
        known = False
    yield peak
    if known:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                peak.megabytes = int(line.split()[1]) / 1000
