"""Pictures of a synthetic person with exact labels, in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ffavatar.data.synthetic import camera, lighting
from ffavatar.data.synthetic.artwork import Artwork
from ffavatar.data.synthetic.body import load_body
from ffavatar.data.synthetic.figure import build_figure, pose_figure
from ffavatar.data.synthetic.people import Person, Shot, sample_person, sample_shot
from ffavatar.data.synthetic.scenery import painted_place
from ffavatar.data.synthetic.variety import stream
from ffavatar.errors import InputError
from ffavatar.render.mesh import Array, Mesh, render_mesh
from ffavatar.types import HeadParams, Views

PLACE_ODDS = 0.6  # of painted light that it is a place's, not a studio's
PARAMETERS = ("root", "translation", "neck", "jaw", "eye_left", "eye_right", "expression")


@dataclass(frozen=True)
class SyntheticPerson:
    """P pictures of one person and the truth about them."""

    seed: int
    images: Array  # (P, H, W, 3) uint8, with background
    mattes: Array  # (P, H, W) uint8
    identity: Array  # (I,) float32
    params: HeadParams  # P rows, exact
    landmarks: Array  # (P, 478, 3) float32 crop units, exact; z as project_unit gives it
    # What the photo front end sees (store.detect), None until it was asked.
    detected: Array | None = None  # (P,) bool
    detected_landmarks: Array | None = None  # (P, 478, 3) crop units
    blendshapes: Array | None = None  # (P, 52)
    detected_matte: Array | None = None  # (P, H, W) uint8

    def __len__(self) -> int:
        return len(self.images)

    def views(self, rows: list[int] | None = None) -> Views:
        """Some of the shots as the photo front end would give them: what it detected where it did, else the truth."""
        index = list(range(len(self))) if rows is None else rows
        images = torch.from_numpy(self.images[index]).float() / 255
        mattes, landmarks = self.mattes[index].copy(), self.landmarks[index].copy()
        blendshapes = np.zeros((len(index), 52), np.float32)
        if self.detected is not None:
            assert self.detected_matte is not None and self.detected_landmarks is not None
            assert self.blendshapes is not None
            found = self.detected[index]
            mattes[found] = self.detected_matte[index][found]
            landmarks[found] = self.detected_landmarks[index][found]
            blendshapes = self.blendshapes[index]
        return Views(
            images, torch.from_numpy(mattes).float() / 255, torch.ones(images.shape[:3]), torch.from_numpy(landmarks),
            torch.from_numpy(blendshapes),
        )  # fmt: skip

    def arrays(self) -> dict[str, Array]:
        """What is stored: the fields above, parameters by name."""
        out = {"images": self.images, "mattes": self.mattes, "identity": self.identity, "landmarks": self.landmarks}
        out |= {name: getattr(self.params, name).numpy() for name in PARAMETERS}
        names = ("detected", "detected_landmarks", "blendshapes", "detected_matte")
        out |= {name: value for name in names if (value := getattr(self, name)) is not None}
        return out | {"seed": np.array(self.seed, np.int64)}


def shot_params(shots: list[Shot]) -> HeadParams:
    """The shots' pose and expression, the translation still zero."""

    def rows(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(s, name) for s in shots]).astype(np.float32))

    named = {name: rows(name) for name in PARAMETERS if name != "translation"}
    return HeadParams(translation=torch.zeros(len(shots), 3), **named)


def synthetic_person(
    seed: int,
    shots: int = 4,
    size: int = 256,
    assets: str | Path | Artwork | None = None,
    chosen: list[Shot] | None = None,
    person: Person | None = None,
    degrade: bool = True,
    supersample: int = 2,
    around: int = 0,
) -> SyntheticPerson:
    """Draw and picture one person.

    Args:
        seed: chooses the person and the shots; the same seed, size and artwork give the same bytes.
        shots: how many pictures; fewer shots are the first of more.
        size: side of the pictures in pixels.
        assets: folder of MakeHuman artwork; without it surfaces are procedural.
        chosen, person: replace what the seed would draw.
        degrade: False leaves out blur, noise, compression and colour casts, and pictures on plain grey.
        around: this many further pictures, the head turned anywhere about; none of them where ``chosen`` is given.
    """
    if not (1 <= shots and 0 <= around and 16 <= size <= 2048):
        raise InputError(
            f"cannot picture {shots} shots and {around} from all around of {size} px; ask for at least one shot of 16 "
            "to 2048 px"
        )
    body = load_body()
    artwork = Artwork(assets) if isinstance(assets, (str, Path)) else assets
    person = person or sample_person(seed, body.identities, artwork)
    plan = chosen or [
        sample_shot(person, k, body.expressions, artwork, around=k >= shots) for k in range(shots + around)
    ]
    with torch.no_grad():
        params, points = _frame(body, person, plan)
        figure = build_figure(body, person, artwork)
        meshes = pose_figure(body, figure, params)
    pictures = [_picture(person, shot, mesh, artwork, size, degrade, supersample) for shot, mesh in zip(plan, meshes)]
    return SyntheticPerson(
        seed, np.stack([p for p, _ in pictures]), np.stack([m for _, m in pictures]), person.identity, params,
        camera.project_unit(points).astype(np.float32),
    )  # fmt: skip


def _frame(body, person: Person, plan: list[Shot]) -> tuple[HeadParams, Array]:
    """Parameters with the translation that frames each head, and the landmarks (P, 478, 3) in the world."""
    params = shot_params(plan)
    neutral = body.neutral(person.identity)
    vertices = body.pose(neutral, params)[0][:, : len(body.template)]
    points = body.head.landmarks(torch.from_numpy(vertices).float()).numpy().astype(np.float64)
    shift = np.stack([camera.frame_head(p, s.zoom, s.shift) for p, s in zip(points, plan)]).astype(np.float32)
    moved = HeadParams(**{n: getattr(params, n) for n in PARAMETERS} | {"translation": torch.from_numpy(shift)})
    return moved, points + shift[:, None]


def _picture(
    person: Person, shot: Shot, mesh: Mesh, artwork: Artwork | None, size: int, degrade: bool, supersample: int
) -> tuple[Array, Array]:
    rng = np.random.default_rng([person.seed, 9, shot.seed])
    light_rng = np.random.default_rng([person.seed, 10] if person.light_fixed else [person.seed, 10, shot.seed])
    outside = artwork if shot.surrounding is not None else None
    place = stream(person.seed, "place", *([] if person.light_fixed else [shot.seed]))
    if outside:
        radiance = outside.light_map(str(shot.surrounding))
    else:
        studio = lighting.painted_studio(light_rng)
        radiance = painted_place(place) if place.random() < PLACE_ODDS else studio
    light = lighting.make_lighting(light_rng, radiance, shot.exposure)
    drawn = render_mesh(mesh, light, size, supersample=supersample)
    if not degrade:
        alpha = drawn[..., 3]
        plain = drawn[..., :3] + (1 - alpha[..., None]) * 0.5
        encoded = np.clip(plain, 0, 1) ** (1 / camera.GAMMA) * 255 + 0.5
        return encoded.astype(np.uint8), (alpha * 255 + 0.5).astype(np.uint8)
    surrounding = outside.surrounding(str(shot.surrounding)) if outside and shot.background == "surrounding" else None
    background = camera.make_background(rng, shot.background, surrounding, size)
    return camera.take_picture(rng, drawn, background, shot)
