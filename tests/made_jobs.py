"""Jobs for the tests of crews: each leaves a mark when it begins and one when it has ended, in a folder of its own."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Piece:
    """A piece of work that takes ``seconds``, and what goes wrong in it."""

    name: str
    folder: Path
    seconds: float = 0.0
    kill: int = 0  # so many workers that take it kill themselves
    fail: bool = False


def work(piece: Piece) -> str:
    """Does a piece unless it is done already; ``NAME.done`` is its product."""
    product = piece.folder / f"{piece.name}.done"
    if product.exists():
        return product.read_text()
    begun = piece.folder / f"{piece.name}.begun.{os.getpid()}.{time.monotonic_ns()}"
    begun.touch()
    if len(list(piece.folder.glob(f"{piece.name}.begun.*"))) <= piece.kill:
        os.kill(os.getpid(), signal.SIGKILL)
    if piece.fail:
        raise ValueError(f"{piece.name} cannot be done")
    time.sleep(piece.seconds)
    with (piece.folder / f"{piece.name}.ended").open("a") as log:
        log.write("once\n")
    temporary = piece.folder / f"{piece.name}.part"
    temporary.write_text(f"{piece.name} by {os.getpid()}")
    temporary.rename(product)
    return product.read_text()


def unpicklable(number: int) -> object:
    return lambda: number


def begun(folder: Path) -> dict[str, int]:
    """How often each piece was begun."""
    names = [path.name.split(".")[0] for path in folder.glob("*.begun.*")]
    return {name: names.count(name) for name in sorted(set(names))}


def ended(folder: Path) -> dict[str, int]:
    """How often each piece was carried through."""
    return {path.stem: path.read_text().count("once") for path in sorted(folder.glob("*.ended"))}
