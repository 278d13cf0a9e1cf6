"""FFAvatar: animatable 3D Gaussian head avatars from a few photos.

>>> import ffavatar
>>> avatar = ffavatar.reconstruct(["front.jpg", "side.jpg"])
>>> avatar.save("me.safetensors")
>>> ffavatar.make_film(avatar, "driver.mp4", "out.mp4")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ffavatar.api import make_film, reconstruct
    from ffavatar.avatar import Avatar
    from ffavatar.errors import InputError
    from ffavatar.model import load_model
    from ffavatar.types import Camera, HeadParams, Views

__all__ = [
    "Avatar", "Camera", "HeadParams", "InputError", "Views", "__version__", "load_model", "make_film", "reconstruct",
]  # fmt: skip

_PLACES = {
    "Avatar": "ffavatar.avatar",
    "Camera": "ffavatar.types",
    "HeadParams": "ffavatar.types",
    "InputError": "ffavatar.errors",
    "Views": "ffavatar.types",
    "load_model": "ffavatar.model",
    "make_film": "ffavatar.api",
    "reconstruct": "ffavatar.api",
}


def __dir__() -> list[str]:
    """The public names, which are not imported before they are used."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Names are imported when first used, so that ``import ffavatar`` is quick."""
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'ffavatar' has no attribute {name!r}")
