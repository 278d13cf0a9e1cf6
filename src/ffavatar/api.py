"""The two calls that most users need: photos to an avatar, and a driver to a film."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from ffavatar.avatar import Avatar
from ffavatar.devices import choose_device
from ffavatar.errors import InputError
from ffavatar.model import FFAvatar, load_model

if TYPE_CHECKING:
    from ffavatar.drive.film import FilmReport


def model_for(weights: str | Path | None = None, device: str = "auto") -> FFAvatar:
    """The ``lite`` model with shipped weights, or the model of the weights file given; kept for later calls, until the
    file changes.

    Raises:
        InputError: the file or the device is not there, or the file does not fit.
    """
    place = choose_device(device)
    if weights is None:
        return _kept_model(None, None, place)
    path = Path(weights).absolute()
    try:
        found = path.stat()
    except OSError:  # which reading it puts into words
        return load_model(None, weights, place)
    return _kept_model(path, (found.st_mtime_ns, found.st_size), place)


@lru_cache(maxsize=2)
def _kept_model(weights: Path | None, stamp: tuple[int, int] | None, device: str) -> FFAvatar:
    return load_model(None, weights, device)


def reconstruct(
    photos: Sequence[str | Path] | str | Path,
    *,
    level: int | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    face: Literal["largest"] | int = "largest",
    look: str | Path | None = None,
    views: int | None = None,
) -> Avatar:
    """Photos of one person, folders of photos, or a video -> an avatar, in one forward pass.

    What ``ffavatar reconstruct`` does: of more usable pictures than ``views`` (6) those are taken that are sharp and
    far apart in direction. Where the identity network is in the cache (``ffavatar.evaluate.identity.load_identity``
    fetches it), photos of another person are refused. Each photo that cannot be used, how many were not needed, and
    what else is to be said of them, is a ``UserWarning``.

    ``level``: 0 about 7K, 1 about 27K, 2 about 150K Gaussians (the default). ``look``: the one of the photos whose hair
    and clothes are taken where photos of several days show different ones; by default those that are shown most.

    Raises:
        InputError: no photo shows a usable face, or not that of ``look``, or one is no file; the message says why. Or
            ``views`` is below 1.
    """
    from ffavatar.drive.choose import MOST_VIEWS, check_look, choose_views, view_named
    from ffavatar.evaluate.identity import cached_embedding
    from ffavatar.photo import FrontEnd
    from ffavatar.pipeline import reconstruct as run

    paths = _files(photos)
    if look is not None:
        check_look(look, paths)
    if views is not None and views < 1:
        raise InputError(f"views={views} leaves nothing to look at; give 1 or more, or None for {MOST_VIEWS}.")
    place = choose_device(device)
    choice = choose_views(
        paths,
        FrontEnd(place),
        face=face,
        most=MOST_VIEWS if views is None else views,
        embed=cached_embedding(place),
        must=look,
    )
    for photo, kept in choice.rows:
        if not kept and not photo.usable:
            reason = photo.reason.removeprefix(f"{photo.name}: ")
            warnings.warn(f"{photo.name} is not used: {reason}", stacklevel=2)
    for note in filter(None, (choice.spare, *choice.notes)):
        warnings.warn(note, stacklevel=2)
    like = None if look is None else view_named(look, [photo.name for photo, kept in choice.rows if kept])
    return run(model_for(weights, device), choice.views.to(place), level, like)


def _files(photos: object) -> list[str | Path]:
    """What was given as a list. Raises ``InputError`` for pictures that are no files."""
    one = isinstance(photos, str | Path | bytes) or not isinstance(photos, Iterable)
    given = [photos] if one else list(cast(Iterable[object], photos))
    for photo in given:
        if not isinstance(photo, str | os.PathLike):
            raise InputError(
                f"Photos are given by their files' names, and {type(photo).__name__} is none: save each picture as PNG "
                "and give its name."
            )
    return cast(list[str | Path], given)


def make_film(avatar: Avatar, driver: str | Path, out: str | Path, **options) -> FilmReport:
    """Drive the avatar with a video, a folder of pictures or a motion file, and write a film; options as in
    ``ffavatar.drive.film.make_film``. The report tells its frames, and in sentences what else is to be said of it."""
    from ffavatar.drive.film import make_film as run

    return run(avatar, driver, out, **options)
