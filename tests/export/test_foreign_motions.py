"""Motions of other programs, exported: as they are after they were carried over, not as they stand in their files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffavatar.avatar import Avatar
from ffavatar.drive.arkit import EDITION
from ffavatar.drive.film import FilmStyle
from ffavatar.drive.retarget import carried_over
from ffavatar.export.formats import export
from ffavatar.export.options import ExportOptions

sys.path.append(str(Path(__file__).parents[1] / "drive"))

from made_motions import arkit_track


@pytest.mark.parametrize("name", ["a.png", "a.ply", "a.glb", "a.html"])
def test_a_track_without_a_place_is_exported_as_it_plays(avatar: Avatar, tmp_path: Path, name: str) -> None:
    track = arkit_track(3)
    assert track.head_edition == EDITION and not track.placed
    own, _ = carried_over(track, avatar.rig)
    assert own.placed and own.head_edition == avatar.rig.head.edition
    frame = None if name in ("a.glb", "a.html") else 1
    written = []
    for folder, motion in (("given", track), ("own", own)):
        (tmp_path / folder).mkdir()
        style = FilmStyle(size=64)
        written.append(export(avatar, tmp_path / folder / name, ExportOptions(motion=motion, frame=frame, style=style)))
    if name == "a.png":
        assert np.asarray(Image.open(written[0])).std() > 1
    assert written[0].read_bytes() == written[1].read_bytes()


def test_what_is_the_avatars_own_stays_what_it_is(avatar: Avatar) -> None:
    own, _ = carried_over(arkit_track(3), avatar.rig)
    assert carried_over(own, avatar.rig) == (own, ())
