"""Small typed records that pass between the parts of FFAvatar.

Shapes: ``B`` frames or views, ``V`` base vertices, ``N`` Gaussians, ``E`` expression coefficients, ``I`` identity
coefficients, ``H, W`` picture size. Metres, radians, float32 unless said otherwise. See docs/conventions.md.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

T = TypeVar("T")


def _map_tensors(record: T, function) -> T:
    """Copy of a dataclass with ``function`` applied to its tensor fields."""
    changed = {
        f.name: function(value)
        for f in fields(record)  # type: ignore[arg-type]
        if isinstance(value := getattr(record, f.name), Tensor)
    }
    return replace(record, **changed)  # type: ignore[type-var]


class Brief:
    """A record that is printed by its shapes, not its numbers."""

    def __repr__(self) -> str:
        said = ", ".join(f"{name} {_shape(value)}" for name, value in vars(self).items())
        return f"{type(self).__name__}({said})"


def _shape(value: object) -> str:
    return "x".join(map(str, value.shape)) if isinstance(value, Tensor) else repr(value)


@dataclass(frozen=True, repr=False)
class Gaussians(Brief):
    """3D Gaussians after all activations, as ``ffavatar.render.rasterize`` takes them."""

    means: Float[Tensor, "... N 3"]  # metres
    quats: Float[Tensor, "... N 4"]  # wxyz, normalised
    scales: Float[Tensor, "... N 3"]  # metres, standard deviations
    opacities: Float[Tensor, "... N"]  # in [0, 1]
    colors: Float[Tensor, "... N C"]  # sRGB in [0, 1] for C = 3; shared by all frames, or with their axis

    def __len__(self) -> int:
        return self.means.shape[-2]

    def to(self, device: torch.device | str) -> Gaussians:
        return _map_tensors(self, lambda t: t.to(device))

    def detach(self) -> Gaussians:
        return _map_tensors(self, Tensor.detach)


@dataclass(frozen=True, repr=False)
class Camera(Brief):
    """OpenCV pinhole camera(s): x right, y down, z forward; pixel centres at +0.5."""

    world_to_cam: Float[Tensor, "*B 4 4"]
    K: Float[Tensor, "*B 3 3"]  # pixels
    width: int
    height: int

    def to(self, device: torch.device | str) -> Camera:
        return _map_tensors(self, lambda t: t.to(device))


@dataclass(frozen=True, repr=False)
class HeadParams(Brief):
    """Pose and expression of a head, one row per frame; all rotations are axis-angle in radians.

    ``root`` and ``translation`` place torso and head together in the world of the normalised camera (the paper's global
    pose); ``neck`` turns the head on the torso; the others turn on the head.
    """

    root: Float[Tensor, "B 3"]
    translation: Float[Tensor, "B 3"]  # metres
    neck: Float[Tensor, "B 3"]
    jaw: Float[Tensor, "B 3"]
    eye_left: Float[Tensor, "B 3"]
    eye_right: Float[Tensor, "B 3"]
    expression: Float[Tensor, "B E"]

    def __len__(self) -> int:
        return self.root.shape[0]

    def __getitem__(self, index: slice | Tensor | list[int]) -> HeadParams:
        """Some of the frames; ``index`` must keep the frame axis (a slice, list or tensor)."""
        return _map_tensors(self, lambda t: t[index])

    def to(self, device: torch.device | str) -> HeadParams:
        return _map_tensors(self, lambda t: t.to(device))

    def detach(self) -> HeadParams:
        return _map_tensors(self, Tensor.detach)

    def where(self, chosen: Bool[Tensor, " B"], other: HeadParams) -> HeadParams:
        """These frames where ``chosen``, ``other``'s elsewhere."""
        return HeadParams(**{name: torch.where(chosen[:, None], value, getattr(other, name))
                             for name, value in vars(self).items()})  # fmt: skip

    def joint_rotations(self) -> Float[Tensor, "B 5 3"]:
        """(B, 5, 3) axis-angle, in the order global, neck, jaw, eye_left, eye_right."""
        return torch.stack([self.root, self.neck, self.jaw, self.eye_left, self.eye_right], dim=1)

    @staticmethod
    def neutral(
        frames: int, expressions: int, device: torch.device | str = "cpu", distance_m: float = 1.0
    ) -> HeadParams:
        """The resting head, ``distance_m`` in front of the normalised camera."""
        root, translation, neck, jaw, left, right = torch.zeros(6, frames, 3, device=device)
        translation[:, 2] = -distance_m
        return HeadParams(root, translation, neck, jaw, left, right, torch.zeros(frames, expressions, device=device))

    @staticmethod
    def cat(parts: list[HeadParams]) -> HeadParams:
        return HeadParams(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(HeadParams)})


@dataclass(frozen=True, repr=False)
class Views(Brief):
    """Square head crops of one person (see ``ffavatar.photo``); row s is one photo.

    Outside the photo ``images`` is white and ``valid`` is 0. ``landmarks`` are the 478 face-landmarker points in crop
    units: x, y in [0, 1] from the crop's top left corner, z in the same unit.
    """

    images: Float[Tensor, "S H W 3"]  # sRGB in [0, 1], background kept
    mattes: Float[Tensor, "S H W"]  # in [0, 1], the person
    valid: Float[Tensor, "S H W"]  # 0 or 1, inside the photo
    landmarks: Float[Tensor, "S 478 3"]
    blendshapes: Float[Tensor, "S 52"]  # the landmarker's ARKit scores in [0, 1]

    def __len__(self) -> int:
        return self.images.shape[0]

    def __getitem__(self, index: slice | Tensor | list[int]) -> Views:
        return _map_tensors(self, lambda t: t[index])

    def to(self, device: torch.device | str) -> Views:
        return _map_tensors(self, lambda t: t.to(device))

    def on_white(self) -> Float[Tensor, "S H W 3"]:
        """(S, H, W, 3) the person matted on white."""
        matte = (self.mattes * self.valid)[..., None]
        return self.images * matte + (1 - matte)

    @staticmethod
    def cat(parts: list[Views]) -> Views:
        return Views(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Views)})


@dataclass(frozen=True)
class Batch:
    """One few-to-many training example: avatar from ``source``, supervision by the disjoint ``target``."""

    source: Views
    target: Views


@dataclass(frozen=True, repr=False)
class CanonicalGaussians(Brief):
    """What the network decodes: Gaussians bound to the points of a head's subdivided surface, in canonical space.

    The centre of Gaussian i is surface point i of the neutral head plus ``offsets[i]``.
    """

    offsets: Float[Tensor, "N 3"]  # metres
    quats: Float[Tensor, "N 4"]  # wxyz, normalised
    scales: Float[Tensor, "N 3"]  # metres
    opacities: Float[Tensor, " N"]  # in [0, 1]
    colors: Float[Tensor, "N 3"]  # sRGB in [0, 1]

    def __len__(self) -> int:
        return self.offsets.shape[0]

    def to(self, device: torch.device | str) -> CanonicalGaussians:
        return _map_tensors(self, lambda t: t.to(device))

    def detach(self) -> CanonicalGaussians:
        return _map_tensors(self, Tensor.detach)

    def extended(self, longer: CanonicalGaussians) -> CanonicalGaussians:
        """These, and what ``longer`` has beyond as many."""
        parts = {name: torch.cat([value, getattr(longer, name)[len(self) :]]) for name, value in vars(self).items()}
        return CanonicalGaussians(**parts)


@dataclass(frozen=True, repr=False)
class Shades(Brief):
    """What each of K views shows of N Gaussians beyond their lasting colours (see ``ffavatar.shades``)."""

    colors: Float[Tensor, "N K 3"]  # differences in sRGB, within [-0.5, 0.5]
    certainty: Float[Tensor, "N K"]  # in [0, 1]: how well the view shows a Gaussian, against the view that does best
    expression: Float[Tensor, "K E"]  # the head in the views
    jaw: Float[Tensor, "K 3"]
    turn: Float[Tensor, "K 3"]  # of the head, before the normalised camera; axis-angle in radians

    def __len__(self) -> int:
        """Number of views."""
        return self.jaw.shape[0]

    def to(self, device: torch.device | str) -> Shades:
        return _map_tensors(self, lambda t: t.to(device))


@dataclass(frozen=True, repr=False)
class Rendering(Brief):
    """Pictures of an avatar."""

    images: Float[Tensor, "B H W C"]  # over the background
    alphas: Float[Tensor, "B H W"]  # in [0, 1]
