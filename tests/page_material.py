"""What the server's page is tried with: photos of synthetic people in the formats people have, what the front end says
of them, and avatars made of them, refined twice. The mock server (viewer/test/mock.mjs) answers with these."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from ffavatar.api import model_for
from ffavatar.avatar import Avatar
from ffavatar.data.synthetic import synthetic_person
from ffavatar.drive.film import FilmStyle, film_motion
from ffavatar.drive.motion import demo_motion
from ffavatar.errors import InputError
from ffavatar.photo import FrontEnd, read_photo
from ffavatar.pipeline import reconstruct
from ffavatar.types import Views

SEED = 7
THUMB_PX = 256
FILM_S, FILM_PX = 2.0, 256


def _picture(values: torch.Tensor, path: Path) -> None:
    """(C, H, W) in [0, 1] as a WebP of 256 px."""
    small = interpolate(values[None].float(), (THUMB_PX, THUMB_PX), mode="area")[0]
    pixels = (small.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(path, quality=90)


def write_photos(folder: Path, extra: dict[str, Path] | None = None) -> list[Path]:
    """Three photos of one synthetic person (JPEG, PNG, WebP), two in one photo, a landscape without a face, and a file
    that is no picture; ``extra``: more photos by the name they get. The good ones first."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    person = synthetic_person(SEED, shots=6, size=768, degrade=False)
    paths = [photos / name for name in ("front.jpg", "left.png", "right.webp")]
    for path, image in zip(paths, person.images):
        Image.fromarray(np.asarray(image)).save(path, quality=92)
    for name, source in (extra or {}).items():
        Image.open(source).convert("RGB").save(photos / name, quality=92)
        paths.append(photos / name)
    pair = np.concatenate([np.asarray(image) for image in person.images[:2]], 1)
    Image.fromarray(pair).save(photos / "pair.jpg", quality=92)
    rows = np.linspace(0, 1, 480)[:, None, None]
    field = (np.array([110, 150, 200]) * (1 - rows) + np.array([90, 120, 70]) * rows) * np.ones((480, 640, 1))
    Image.fromarray(field.astype(np.uint8)).save(photos / "landscape.jpg")
    (photos / "notes.jpg").write_text("This is not a picture.")
    return paths


def write_answers(folder: Path) -> dict[str, Views]:
    """answers.json: sha256 of a photo -> what ``POST /api/photos`` says of each of its faces; crops and mattes beside
    it. The views of the photos that are kept."""
    front_end = FrontEnd("cpu")
    (folder / "crops").mkdir()
    answers: dict[str, list[dict[str, object]]] = {}
    views = {}
    for path in sorted((folder / "photos").iterdir()):
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        blank = {"name": path.name, "kept": False, "width": 0, "height": 0, "faces": 0}
        try:
            image = read_photo(data, path.name)
        except InputError as error:
            answers[digest] = [blank | {"id": f"{digest[:16]}-0", "reason": str(error)}]
            continue
        answers[digest] = []
        for face in range(max(1, len(front_end.faces(image)))):
            result = front_end.analyse(image, path.name, face if face else "largest")
            report, name = result.report, f"{digest[:16]}-{face}"
            answer = blank | {"id": name, "width": image.shape[1], "height": image.shape[0], "faces": report.faces}
            answer |= {"kept": report.kept, "reason": " ".join(report.notes) if report.kept else report.reason}
            answers[digest].append(answer)
            if result.views is not None:
                views.setdefault(path.name, result.views)
                _picture(result.views.images[0].permute(2, 0, 1), folder / "crops" / f"{name}-crop.webp")
                _picture(result.views.mattes[0, None], folder / "crops" / f"{name}-matte.webp")
                answer["crop"] = True
    (folder / "answers.json").write_text(json.dumps(answers, indent=1))
    return views


def write_avatars(folder: Path, views: list[Views], level: int = 1) -> None:
    """avatar-1 as the forward pass makes it; avatar-2 and -3 as a refinement would send them, in other colours."""
    avatar = reconstruct(model_for(None, "cpu"), Views.cat(views), level)
    for version in (1, 2, 3):
        tint = torch.tensor([1.0, 1.0 - 0.08 * (version - 1), 1.0 - 0.16 * (version - 1)])
        made = replace(avatar.canonical, colors=avatar.canonical.colors * tint)
        Avatar(avatar.rig, made, avatar.identity, avatar.about).save(folder / f"avatar-{version}.safetensors")
    _picture(avatar.render(size=512).images[0].permute(2, 0, 1), folder / "thumbnail.webp")
    motion = demo_motion(avatar.rig.head, FILM_S)
    motion.save(folder / "motion.json")
    film_motion(avatar, motion, folder / "film.mp4", FilmStyle(size=FILM_PX))


def write_material(folder: Path, level: int = 1, extra: dict[str, Path] | None = None) -> Path:
    """All of it, in a new folder."""
    write_photos(folder, extra)
    views = write_answers(folder)
    shown = extra or ("front.jpg", "left.png", "right.webp")
    write_avatars(folder, [views[name] for name in shown], level)
    return folder
