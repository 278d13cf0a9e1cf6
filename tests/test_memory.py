"""Freed memory goes back to the system."""

import os
import platform
from pathlib import Path

import pytest

from ffavatar.memory import give_back

BLOCK = 100_000  # bytes: below glibc's threshold, so that blocks come from the heap


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the call is glibc's")
def test_pages_between_blocks_in_use_are_given_back():
    blocks = [b"\1" * BLOCK for _ in range(2000)]
    kept = blocks[::2]  # every other one stays
    del blocks
    before = resident()
    give_back()
    assert before - resident() > 0.8 * 1000 * BLOCK
    assert all(block == kept[0] for block in kept)


def test_where_there_is_no_such_call_nothing_happens(monkeypatch):
    def no_library(name):
        raise OSError

    monkeypatch.setattr("ctypes.CDLL", no_library)
    give_back()
