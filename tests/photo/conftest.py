"""The one real photo of these tests: NASA's public-domain portrait of Eileen Collins, from scikit-image's wheel."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    import skimage.data

    return skimage.data.astronaut()


@pytest.fixture(scope="session")
def front_end():
    from ffavatar.photo import FrontEnd

    return FrontEnd()
