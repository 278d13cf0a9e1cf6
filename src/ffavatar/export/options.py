"""What of an avatar goes into an exported file, and in which frame.

Exported files live in *head space*: metres, +x the person's left, +y up, +z out of the face, the resting head where the
head model has it. A pose or motion is given in the world of the normalised camera; the resting place of
``Avatar.neutral_params`` (1.15 m in front of it) becomes the origin, so nothing jumps between a canonical and a posed
file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ffavatar.animate import pose_gaussians
from ffavatar.avatar import Avatar
from ffavatar.drive.film import FilmStyle
from ffavatar.drive.marks import SENTENCE, SOURCE_TYPE
from ffavatar.drive.motion import Motion
from ffavatar.errors import InputError
from ffavatar.geometry import quat_multiply, quat_rotate
from ffavatar.types import Gaussians, HeadParams

HALF_TURN_ABOUT_X = (0.0, 1.0, 0.0, 0.0)  # wxyz: y up, z towards the viewer <-> y down, z away (OpenCV, COLMAP)


@dataclass(frozen=True)
class ExportOptions:
    """What goes into the file; the defaults are the resting avatar.

    Files that hold one moment take ``pose``, or frame ``frame`` of ``motion``; films and animated GLB take all of
    ``motion``. ``style`` is for pictures and films alone.
    """

    pose: HeadParams | None = None  # one row, in the normalised camera's world as ``Avatar.render`` takes it
    motion: Motion | None = None
    frame: int | None = None  # counted from 0; negative ones from the end
    scale: float = 1.0  # units of the file per metre, for 3D formats
    allow_flame: bool = False  # write 3D files of an avatar on a FLAME basis, for the user's own use only
    style: FilmStyle = field(default_factory=FilmStyle)

    def moment(self, avatar: Avatar, path: Path) -> HeadParams | None:
        """One row of parameters on the CPU, or None for the resting avatar.

        Raises:
            InputError: a motion without a frame, a frame that the motion has not, or a pose and a motion at once.
        """
        if self.pose is not None:
            if self.motion is not None:
                raise InputError(f"{path}: give a pose by hand or a motion, not both.")
            if len(self.pose) != 1:
                raise InputError(f"{path}: a pose is one frame, not {len(self.pose)}.")
            return self.pose.to("cpu")
        if self.motion is None:
            if self.frame is not None:
                raise InputError(f"{path}: frame {self.frame} of what? Give the motion with --motion.")
            return None
        if self.frame is None:
            raise InputError(f"{path} holds one moment: choose it from the motion's {len(self.motion)} with --frame.")
        if not -len(self.motion) <= self.frame < len(self.motion):
            raise InputError(f"Frame {self.frame} is not in the motion, which has {len(self.motion)} (0 is the first).")
        row = self.frame % len(self.motion)
        return self.motion.for_head(avatar.rig.head)[row : row + 1]


def refuse_flame(avatar: Avatar, path: Path, options: ExportOptions) -> None:
    """Raises ``InputError`` for an avatar whose head may not be passed on, unless ``options.allow_flame``."""
    head = avatar.rig.head
    if not head.edition.startswith("embedded") and not options.allow_flame:
        raise InputError(
            f"{path}: this avatar stands on {head.edition} ({head.licence}), which may not be passed on; "
            "set allow_flame (on the command line, --allow-flame) to write it for your own use."
        )


def head_space(params: HeadParams, avatar: Avatar) -> HeadParams:
    """The same pose with the avatar's resting place as the origin."""
    rest = avatar.neutral_params().translation.to(params.translation)
    return replace(params, translation=params.translation - rest)


def posed_splats(avatar: Avatar, params: HeadParams | None, scale: float = 1.0, y_down: bool = False) -> Gaussians:
    """The avatar's Gaussians in head space, float32 on the CPU, quaternions normalised; colours as in this pose.

    ``params`` is one row in the normalised camera's world, None for the resting head. ``scale`` multiplies positions
    and sizes. ``y_down`` gives the axes of COLMAP and the first Gaussian-splatting programs: x right, y down, z away
    from who looks at the face.
    """
    avatar = avatar.to("cpu")
    if params is None:
        params = HeadParams.neutral(1, len(avatar.expression_names), distance_m=0.0)
    else:
        params = head_space(params, avatar)
    with torch.no_grad():
        posed = pose_gaussians(avatar.rig, avatar.canonical, params)
    means, quats = posed.means[0], torch.nn.functional.normalize(posed.quats[0], dim=-1)
    if y_down:
        turn = torch.tensor(HALF_TURN_ABOUT_X)
        means, quats = quat_rotate(turn, means), quat_multiply(turn.expand_as(quats), quats)
    colors = posed.colors if avatar.rig.shades is None else posed.colors[0]
    return Gaussians(means * scale, quats, posed.scales * scale, posed.opacities, colors)


def provenance(avatar: Avatar) -> dict[str, str]:
    """What the file says about itself: that it is synthetic, who made it, and the head's licence."""
    head = avatar.rig.head
    return {
        "notice": SENTENCE,
        "digitalSourceType": SOURCE_TYPE,
        "head": head.edition,
        "headLicence": " ".join(head.licence.split()),
    }


def numpy32(values: Tensor) -> np.ndarray:
    """A C-ordered little-endian float32 array."""
    return values.detach().cpu().numpy().astype("<f4", order="C")
