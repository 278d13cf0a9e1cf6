"""The demo: an avatar of a real photo and one of a synthetic person, and films of both, without any network."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch

from ffavatar.api import choose_device, model_for
from ffavatar.avatar import Avatar
from ffavatar.data.synthetic import synthetic_person
from ffavatar.drive.film import FilmStyle, film_motion
from ffavatar.drive.marks import save_still
from ffavatar.drive.motion import demo_motion
from ffavatar.errors import InputError
from ffavatar.photo import FrontEnd, load_views
from ffavatar.pipeline import reconstruct
from ffavatar.types import Views

Bars = Callable[[str], AbstractContextManager[Callable[[int, int | None], None]]]
SYNTHETIC_SEED = 7


def astronaut_photo() -> Path:
    """NASA's public-domain portrait of Eileen Collins, as it lies in scikit-image's package.

    Raises:
        InputError: scikit-image is not installed.
    """
    found = importlib.util.find_spec("skimage")
    if found is not None and found.origin is not None:
        photo = Path(found.origin).parent / "data" / "astronaut.png"
        if photo.is_file():
            return photo
    raise InputError("The demo's portrait is in scikit-image: pip install scikit-image, or give --photo PHOTO.")


def synthetic_views(count: int = 4, size: int = 512, seed: int = SYNTHETIC_SEED) -> Views:
    """Pictures of a synthetic person, read by the photo front end as if they were photos."""
    person = synthetic_person(seed, shots=2 * count, size=size, degrade=False)
    front_end = FrontEnd("cpu")
    found = []
    for number, image in enumerate(person.images):
        result = front_end.analyse(np.asarray(image), f"synthetic view {number + 1}", size=size)
        if result.views is not None:
            found.append(result.views)
    if not found:
        raise InputError("No face was found in the synthetic pictures; choose another seed.")
    return Views.cat(found[:count])


def run_demo(folder: Path, photo: Path | None, seconds: float, size: int, device: str, bars: Bars) -> Iterator[str]:
    """Make everything into ``folder``; yields a line for the user after each step."""
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    model = model_for(None, device)
    where = choose_device(device)

    def person(name: str, views: Views) -> Iterator[str]:
        begun = time.monotonic()
        avatar = reconstruct(model, views.to(where))
        made = time.monotonic() - begun
        avatar.save(folder / f"{name}.safetensors")
        yield f"{folder / name}.safetensors: {len(avatar):,} Gaussians from {len(views)} photo(s) in {made:.1f} s"
        motion = demo_motion(avatar.rig.head, seconds)
        with bars(f"filming {name}") as progress:
            begun = time.monotonic()
            report = film_motion(avatar, motion, folder / f"{name}.mp4", FilmStyle(size=size), progress)
        rate = report.frames / (time.monotonic() - begun)
        yield f"{folder / name}.mp4: {report.frames} frames of {size} px at {rate:.1f} frames/s"
        save_still(folder / f"{name}.png", _sheet(avatar, views, size))
        yield f"{folder / name}.png: photos above, avatar below"

    views, reports = load_views([photo or astronaut_photo()])
    yield str(reports[0])
    yield from person("portrait" if photo else "astronaut", views)
    yield from person("synthetic", synthetic_views())
    yield f"All in {time.monotonic() - start:.0f} s. Next: ffavatar reconstruct YOUR_PHOTO.jpg -o me.safetensors"


def _sheet(avatar: Avatar, views: Views, size: int) -> np.ndarray:
    """The photos on white, and below them the avatar: neutral, turned, smiling, talking. (2 S, 4 S, 3) uint8."""
    side = min(size, 384)
    params = avatar.neutral_params(4)
    params.neck[1, 1], params.root[1, 1] = 0.35, 0.15
    names = avatar.expression_names
    for name in ("mouthSmileLeft", "mouthSmileRight"):
        if name in names:
            params.expression[2, names.index(name)] = 0.8
    params.jaw[3, 0], params.neck[3, 1] = 0.22, -0.3
    drawn = avatar.render(params, side).images.cpu()
    photos = torch.nn.functional.interpolate(
        views.on_white().permute(0, 3, 1, 2), (side, side), mode="bilinear", antialias=True
    ).permute(0, 2, 3, 1)[:4]
    empty = torch.ones(4 - len(photos), side, side, 3)
    rows = [torch.cat(list(torch.cat([photos, empty])), 1), torch.cat(list(drawn), 1)]
    return (torch.cat(rows, 0).clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()
