"""One torch thread, and shapes checked: what the annotations of the public functions say holds wherever a test goes.

One torch thread, because workers of pytest-xdist and spinning OpenMP threads would fight over few cores.
"""

from collections.abc import Iterator

import pytest
import torch
from jaxtyping import config, install_import_hook

torch.set_num_threads(1)

CHECKED = (
    "ffavatar.types", "ffavatar.geometry", "ffavatar.head.model", "ffavatar.photo.landmarks",
    "ffavatar.photo.front_end", "ffavatar.render.rasterizer", "ffavatar.animate", "ffavatar.pipeline",
    "ffavatar.evaluate.metrics",
)  # fmt: skip
install_import_hook(CHECKED, "shape_checks.checked")  # before anything imports them


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As at run time, when nothing is checked but by the functions themselves: for tests of what those say."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
