"""Whose avatar is it? Its face, drawn from the front, as the identity network sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ffavatar.drive.film import FilmStyle, render_uint8

if TYPE_CHECKING:
    from ffavatar.avatar import Avatar
    from ffavatar.drive.choose import Embed
    from ffavatar.photo import FrontEnd

_SIDE_PX = 512


def avatar_embedding(avatar: Avatar, front_end: FrontEnd, embed: Embed) -> Tensor | None:
    """Identity embedding (D,) of the resting avatar; None where no face is found in its picture."""
    picture = render_uint8(avatar, avatar.neutral_params(), FilmStyle(), _SIDE_PX)[0]
    views = front_end.analyse(picture, "the avatar's picture", "largest", _SIDE_PX).views
    return None if views is None else embed(views)[0]
