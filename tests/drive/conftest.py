"""Fixtures of the tests of ``ffavatar.drive``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from made_films import make_film

sys.path.append(str(Path(__file__).parents[1] / "head"))  # made_flame: a generated file in FLAME's layout


@pytest.fixture
def film(tmp_path: Path) -> Callable[..., Path]:
    """Makes a film in the test's folder: ``film("name.mp4", frames=..., sound=...)``."""
    return lambda name, **options: make_film(tmp_path / name, **options)
