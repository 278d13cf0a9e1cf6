"""``synthetic-bench``: 64 held-out people, pinned by seed. Who they are, their shots, and that nobody trains on them.

Each person has 8 source views, of which the first 1, 2, 4 or 8 are used, and 24 target views all around the head with
expressions. One light per person and no camera noise: what differs between a target and an avatar is the avatar.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ffavatar.data.synthetic.artwork import Artwork
from ffavatar.data.synthetic.body import load_body
from ffavatar.data.synthetic.generate import synthetic_person
from ffavatar.data.synthetic.people import (
    Person,
    Shot,
    head_rotation,
    matrix_to_axis_angle,
    sample_expression,
    sample_person,
    sample_shot,
)
from ffavatar.data.synthetic.store import RESERVED, detect, person_path, write_npz
from ffavatar.data.synthetic.variety import Lens, individual_typology_angle, stream
from ffavatar.errors import InputError
from ffavatar.files import atomic_path

VERSION = 1  # with anything that changes a person, a shot or a picture of the bench
PEOPLE = 64
SIZE_PX = 512
SHEET = "bench.json"
# Sources: yaw and pitch in degrees, mood; the first 1, 2, 4 and 8 of them are the nested subsets.
SOURCES = (
    (0, 0, "neutral"), (35, 0, "speech"), (-35, 0, "speech"), (10, -15, "smile"), (-60, 5, "neutral"),
    (60, 5, "speech"), (-15, 15, "brows_up"), (20, 8, "laugh"),
)  # fmt: skip
TARGETS = 24
TARGET_MOODS = (
    "neutral", "speech", "smile", "speech", "laugh", "speech", "surprise", "frown", "kiss", "blink", "units", "wide",
)  # fmt: skip
# sha256 of everything that is drawn for the 64 people and their shots, to four decimals (``plan_digest``).
DIGEST = "cbcd47a64a5342e352840f18099f7d18c5bd0b43b1a8a262b2cafabd3ceb8826"


@dataclass(frozen=True)
class Labels:
    """Groups that scores are split by."""

    skin: str  # light, intermediate, brown, dark: by the individual typology angle of the mean albedo
    age: str  # young, middle, old
    sex: str  # female, male: of the artwork and the odds of looks
    hair: str  # none, short, long, covered
    glasses: str  # none, clear, dark
    beard: str  # none, stubble, beard


def labels_of(person: Person) -> Labels:
    """The groups of a person, from what was drawn for it."""
    angle = individual_typology_angle(person.skin_color)
    skin = "light" if angle > 41 else "intermediate" if angle > 10 else "brown" if angle > -30 else "dark"
    frames, beard = person.variety.frames, person.variety.beard
    covered = person.variety.headwear is not None
    return Labels(
        skin,
        "young" if person.age < 0.35 else "middle" if person.age < 0.65 else "old",
        "male" if person.male else "female",
        "covered" if covered else "none" if person.hair is None else "long" if person.long_hair else "short",
        "none" if not person.glasses else "dark" if frames.style == "sun" else "clear",
        "beard" if beard is not None else "stubble" if person.stubble > 0.2 else "none",
    )


def target_yaws_deg() -> np.ndarray:
    """(24,) from -172.5 to 172.5: all around, none straight ahead and none straight behind."""
    return (np.arange(TARGETS) - (TARGETS - 1) / 2) * 360 / TARGETS


def bench_person(seed: int, identities: int, artwork: Artwork | None) -> Person:
    """A person of the bench: as ``sample_person`` draws it, under one light."""
    return replace(sample_person(seed, identities, artwork), light_fixed=True)


def bench_shots(person: Person, names: list[str], artwork: Artwork | None) -> tuple[list[Shot], np.ndarray]:
    """The 8 source and 24 target shots of a person, and the yaw (32,) of each head in degrees."""
    first = sample_shot(person, 0, names, artwork)
    order = stream(person.seed, "bench moods").permutation(np.repeat(TARGET_MOODS, TARGETS // len(TARGET_MOODS)))
    plan = [*SOURCES, *((yaw, None, str(mood)) for yaw, mood in zip(target_yaws_deg(), order))]
    shots, yaws = [], []
    for number, (yaw_deg, pitch_deg, mood) in enumerate(plan):
        rng = stream(person.seed, "bench", number)
        expression, jaw = sample_expression(rng, mood, names)
        yaw = np.radians(yaw_deg + rng.uniform(-4, 4))
        pitch = np.radians(np.clip(rng.normal(0, 9), -20, 20) if pitch_deg is None else pitch_deg + rng.uniform(-4, 4))
        roll = rng.normal(0, 0.06)
        own = head_rotation(
            0.5 * pitch + rng.normal(0, 0.05), np.clip(0.3 * yaw, -0.45, 0.45) + rng.normal(0, 0.1), 0.6 * roll
        )
        gaze = np.array([np.clip(rng.normal(0, 0.08), -0.3, 0.3), np.clip(rng.normal(0, 0.15), -0.45, 0.45), 0.0])
        near = np.array([0.0, rng.uniform(0, 0.02), 0.0])
        background = sample_shot(person, number + 1, names, artwork).background
        shots.append(
            replace(
                first,
                seed=person.seed * 1009 + number,
                mood=mood,
                neck=matrix_to_axis_angle(own),
                root=matrix_to_axis_angle(head_rotation(pitch, yaw, roll) @ own.T),
                jaw=np.array([jaw, 0.0, 0.0]),
                eye_left=gaze - near,
                eye_right=gaze + near,
                expression=expression,
                zoom=1.0,
                shift=np.zeros(2),
                background=background,
                blur_px=0.0,
                noise=0.0,
                jpeg_quality=100,
                white_balance=np.ones(3),
                contrast=1.0,
                lens=Lens(),
            )
        )
        yaws.append(np.degrees(yaw))
    return shots, np.array(yaws)


def plan_digest(people: int = PEOPLE) -> str:
    """sha256 of the identities, looks' labels and shots of the first ``people``, without artwork."""
    body, digest = load_body(), hashlib.sha256()
    for seed in RESERVED[:people]:
        person = bench_person(seed, body.identities, None)
        shots, yaws = bench_shots(person, body.expressions, None)
        rows = [person.identity, yaws, *(v for s in shots for v in (s.root, s.neck, s.jaw, s.eye_left, s.expression))]
        for row in rows:
            digest.update(np.round(np.asarray(row, np.float64) * 1e4).astype(np.int64).tobytes())
        digest.update(repr(labels_of(person)).encode())
    return digest.hexdigest()


def write_bench(
    folder: Path,
    people: int = PEOPLE,
    size: int = SIZE_PX,
    assets: str | None = None,
    workers: int = 1,
    report: Callable[[int, int, float], None] | None = None,
) -> int:
    """Draw the first ``people`` of the bench that the folder lacks; returns how many were drawn.

    ``person_SEED.npz`` are as those of training people, with the front end's view of every picture and ``yaw_deg``
    (32,); ``bench.json`` holds version, size, artwork and everybody's labels. Raises ``InputError`` for more people
    than there are, and for a folder of another version, size or artwork.
    """
    if not 1 <= people <= PEOPLE or workers < 1:
        raise InputError(f"the bench has {PEOPLE} people; ask for 1 to {PEOPLE} of them and at least one worker")
    folder.mkdir(parents=True, exist_ok=True)
    artwork = None if assets is None else sorted(p.name for p in Path(assets).glob("makehuman/*/*"))
    body, art = load_body(), None if assets is None else Artwork(assets)
    labels = {
        str(seed): asdict(labels_of(bench_person(seed, body.identities, art))) for seed in RESERVED[:PEOPLE]
    }  # fmt: skip
    settings: dict[str, Any] = {"version": VERSION, "size": size, "artwork": artwork, "labels": labels}
    sheet = folder / SHEET
    if sheet.exists() and json.loads(sheet.read_text(encoding="utf-8")) != settings:
        raise InputError(f"{folder} holds a bench of another version, size or artwork; choose another output folder.")
    with atomic_path(sheet) as path:
        path.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    jobs = [(folder, seed, size, assets) for seed in RESERVED[:people] if not person_path(folder, seed).exists()]
    start = time.monotonic()
    pool = None
    if workers > 1 and len(jobs) > 1:
        pool = multiprocessing.get_context("spawn").Pool(workers, torch.set_num_threads, (1,))
    try:
        for done, _ in enumerate(pool.imap_unordered(_draw, jobs) if pool else map(_draw, jobs), 1):
            if report is not None:
                report(done, len(jobs), time.monotonic() - start)
    finally:
        if pool is not None:
            pool.terminate()
    return len(jobs)


def _draw(job: tuple[Path, int, int, str | None]) -> int:
    folder, seed, size, assets = job
    body, artwork = load_body(), None if assets is None else Artwork(assets)
    person = bench_person(seed, body.identities, artwork)
    shots, yaws = bench_shots(person, body.expressions, artwork)
    made = synthetic_person(seed, size=size, assets=artwork, chosen=shots, person=person)
    arrays = made.arrays() | detect(made.images, made.landmarks) | {"yaw_deg": yaws.astype(np.float32)}
    write_npz(person_path(folder, seed), arrays)
    return seed


def read_sheet(folder: Path) -> tuple[dict[int, Labels], int]:
    """Everybody's labels by seed, and the size of the pictures. Raises ``InputError`` where the folder is no bench."""
    try:
        sheet = json.loads((folder / SHEET).read_text(encoding="utf-8"))
        if sheet["version"] != VERSION:
            raise ValueError(f"version {sheet['version']}, {VERSION} is read")
        return {int(seed): Labels(**row) for seed, row in sheet["labels"].items()}, int(sheet["size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} is no synthetic-bench ({error!r}); make one with `ffavatar prepare synthetic-bench`."
        ) from error
