"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ffavatar.photo.front_end import FaceChoice


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Points(StrEnum):
    """How fine: subdivisions of the head, named after the points of FLAME's. The embedded head has 6K, 24K and 94K, and
    avatars have more."""

    k5 = "5k"
    k20 = "20k"
    k80 = "80k"


LEVELS = {Points.k5: 0, Points.k20: 1, Points.k80: 2}

POINTS_HELP = (
    "Points of the head's surface; finely split parts and hair come on top: "
    "about 6-8k, 26-29k and 140-170k Gaussians in all."
)

AvatarFile = Annotated[Path, typer.Argument(help="Avatar file (.safetensors) made by `ffavatar reconstruct`.")]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute; auto takes CUDA where there is one.")]
FaceOption = Annotated[int | None, typer.Option(min=0, help="Which face, counted from 0, the largest.")]
WeightsOption = Annotated[Path | None, typer.Option(help="Model weights (.safetensors) instead of the shipped ones.")]
AllowFlameOption = Annotated[bool, typer.Option(help="Write an avatar on a FLAME basis, for your own use only.")]
YawOption = Annotated[float, typer.Option(min=-180, max=180, help="Turn in degrees; positive to the person's left.")]
PitchOption = Annotated[float, typer.Option(min=-90, max=90, help="Nod in degrees; positive looks down.")]
RollOption = Annotated[float, typer.Option(min=-90, max=90, help="Tilt in degrees.")]
ExpressionOption = Annotated[
    list[str] | None,
    typer.Option(help="NAME=VALUE, such as mouthSmileLeft=0.6; can be given again; `inspect --names` lists the names."),
]
FlameOption = Annotated[Path | None, typer.Option(help="Your FLAME model file: the meaning of a track's expressions.")]
WorkersOption = Annotated[int, typer.Option(min=1, help="Processes.")]
RayOption = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="Work on Ray: local, auto, or HOST:PORT of a running cluster."),
]
BackgroundOption = Annotated[str, typer.Option(help="white, black, grey, green, #rrggbb or transparent.")]


def face_choice(number: int | None) -> FaceChoice:
    """The photo front end's word for ``--face``."""
    return "largest" if number is None else number
