"""VFHQ-Test as it comes (Xie et al., CVPR workshops 2022): a folder of clips, each a folder of frames or a film."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ffavatar.drive.video import VIDEO_SUFFIXES, FrameReader, list_pictures
from ffavatar.errors import InputError
from ffavatar.evaluate.clips import Clip


def vfhq_clips(folder: Path, frames: int) -> list[Clip]:
    """A clip per subfolder of pictures or film: ``frames`` evenly spread over it, the first the source, the others
    targets.

    Clips named as the data set names them (``Clip+VIDEO+P1+C0+F100-200``) have VIDEO+P1 as their person. Raises
    ``InputError`` for fewer than two frames asked for, and a folder without clips or with one that is too short.
    """
    if frames < 2:
        raise InputError(f"{frames} frames of a clip leave no target; give at least 2.")
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give a folder of clips.")
    clips = []
    for place in sorted(folder.iterdir()):
        if place.name.startswith("."):
            continue
        if place.is_dir():
            count = len(list_pictures(place))
        elif place.suffix.lower() in VIDEO_SUFFIXES:
            count = sum(1 for _ in FrameReader(place))
        else:
            continue
        if count == 0 and place.is_dir():
            continue
        if count < 2:
            raise InputError(f"{place} has {count} frame; a source and a target are needed: leave it out.")
        chosen = np.unique(np.linspace(0, count - 1, min(frames, count)).round().astype(int)).tolist()
        name = place.stem if place.is_file() else place.name
        clips.append(Clip(name, place, (chosen[0],), tuple(chosen[1:]), _person(name)))
    if not clips:
        raise InputError(f"{folder} holds no clips (folders of pictures, or films); give the folder of VFHQ-Test.")
    if len({clip.id for clip in clips}) != len(clips):
        raise InputError(f"{folder} holds a film and a folder of one name; remove one of them.")
    return clips


def _person(name: str) -> str:
    parts = name.split("+")
    return "+".join(parts[1:3]) if len(parts) >= 4 and parts[0] == "Clip" else ""
