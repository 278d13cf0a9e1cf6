"""Finds and loads the shared library that ``ffavatar.render.build`` makes; never builds it."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

from ffavatar.render.build import LIBRARY_NAME

INTERFACE_VERSION = 3  # ffa_interface_version() of native/parallel.cpp; raise both when an exported function changes
REMEDY = "run `python -m ffavatar.render.build` (needs a C++ compiler or `pip install ziglang`)"


@functools.cache
def _open() -> tuple[ctypes.CDLL | None, str]:
    path = Path(__file__).parent / LIBRARY_NAME
    if not path.exists():
        return None, f"the native library {LIBRARY_NAME} was not built; {REMEDY}"
    try:
        library = ctypes.CDLL(str(path))
        version = library.ffa_interface_version()
    except (OSError, AttributeError) as error:
        return None, f"the native library {LIBRARY_NAME} cannot be loaded ({error}); {REMEDY}"
    if version != INTERFACE_VERSION:
        return None, f"the native library {LIBRARY_NAME} is of another version of ffavatar; {REMEDY}"
    return library, ""


def load_library() -> ctypes.CDLL | None:
    """The loaded library, or None where it is missing or stale; ``why_missing`` then says why.

    Calls through it release Python's global lock.
    """
    return _open()[0]


def why_missing() -> str:
    """One clause that says why ``load_library`` gave None, and the remedy; empty if it did not."""
    return _open()[1]
