"""What makes people and pictures differ beyond face, skin and cut: small records, each drawn from a stream of its own.

A stream is named (``stream``), so that a new feature, or another draw of an old one, changes no other feature of
anybody. Colours are linear RGB.
"""

from __future__ import annotations

import colorsys
import zlib
from dataclasses import dataclass

import numpy as np

from ffavatar.render.mesh import Array

GARMENTS = ("tee", "crew", "collar", "turtleneck", "hood", "scarf", "jacket")
GARMENT_ODDS = (0.2, 0.22, 0.2, 0.07, 0.12, 0.06, 0.13)
HEADWEAR = ("cap", "beanie", "headscarf")
BEARDS = ("full", "goatee", "moustache", "chin")
TINTS = np.array(
    [[0.58, 0.385, 0.29], [0.5, 0.31, 0.205], [0.36, 0.19, 0.11], [0.19, 0.09, 0.05], [0.075, 0.038, 0.025]]
)


def stream(seed: int, name: str, *more: int) -> np.random.Generator:
    """The random numbers of one feature of one person (and, with ``more``, of one shot).

    numpy takes a trailing 0 for nothing: shot 0 has the numbers of no shot, so one name is used with or without.
    """
    return np.random.default_rng([seed, zlib.crc32(name.encode()), *more])


@dataclass(frozen=True)
class Skin:
    """Detail of the skin. Strengths are in [0, 1]."""

    lines: float  # age lines of forehead, eyes and mouth
    pores: float
    blemishes: int  # red spots
    tired: float  # dark under the eyes
    liner: float  # drawn along the lids
    blush: float


@dataclass(frozen=True)
class Beard:
    """Hair of the face that stands off it."""

    style: str  # among BEARDS
    length_m: float
    density: float
    color: Array  # (3,)


@dataclass(frozen=True)
class Cut:
    """Procedural hair: cards that hang from the scalp."""

    length_m: float  # of the longest strands, from the root
    parting: float  # radians from the middle, on the crown
    wave: float  # metres
    curls: float  # waves per metre
    fringe: float  # share of the forehead that strands fall over
    lift_m: float  # of the outermost strands above the scalp
    bun: bool  # tied up instead of hanging
    tips: Array  # (3,) colour of the ends


@dataclass(frozen=True)
class Clothes:
    """What is worn at the neck, over or instead of the painted shirt."""

    kind: str  # among GARMENTS
    color: Array  # (3,) of the outer garment
    second: Array  # (3,) of lining, stripes, cords
    pattern: str  # plain, rib, knit, checks, stripes
    gap: float  # radians that a collar stands open at the front
    height_m: float  # of a collar
    fold_m: float  # depth of folds
    lift_m: float  # of the outer garment above the skin


@dataclass(frozen=True)
class Headwear:
    kind: str  # among HEADWEAR
    color: Array  # (3,)
    second: Array  # (3,)
    pattern: str
    tilt: float  # radians, how far back it sits
    backwards: bool  # a cap's brim
    slack_m: float  # of a beanie's top


@dataclass(frozen=True)
class Frames:
    """Spectacles: how their rims and lenses look."""

    style: str  # wire, plastic, half, sun
    color: Array  # (3,)
    thick_m: float
    glare: float  # share of the lens that mirrors


@dataclass(frozen=True)
class Variety:
    """Everything above, for one person."""

    skin: Skin
    beard: Beard | None
    cut: Cut | None
    clothes: Clothes
    headwear: Headwear | None
    frames: Frames


@dataclass(frozen=True)
class Lens:
    """What a camera does beyond blur, noise and compression; the defaults do nothing."""

    saturation: float = 1.0
    vignette: float = 0.0  # darkening of the corners
    sharpen: float = 0.0
    resolution: float = 1.0  # side of the sensor's picture over that of the crop
    motion_px: tuple[float, float] = (0.0, 0.0)  # blur along x and y


def skin_color(tone: float, rng: np.random.Generator) -> Array:
    """(3,) mean albedo of a tone in [0, 1], light to dark, with the spread of undertones at one tone."""
    place = float(np.clip(tone, 0, 1)) * (len(TINTS) - 1)
    low = min(int(place), len(TINTS) - 2)
    logs = np.log(TINTS)
    mean = logs[low] + (place - low) * (logs[low + 1] - logs[low])
    warm = rng.normal(0, 0.05)
    return np.exp(mean + rng.normal(0, 0.06) + warm * np.array([0.3, -0.2, -1.0]))


def individual_typology_angle(color: Array) -> float:
    """Degrees of the individual typology angle arctan((L* - 50) / b*) of a linear RGB colour (sRGB primaries, D65).

    Above 41 skin is called light, to 10 intermediate or tan, to -30 brown, below dark (Chardon 1991, Del Bino 2006).
    """
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = matrix @ np.asarray(color, np.float64) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return float(np.degrees(np.arctan2(116 * f[1] - 16 - 50, 200 * (f[1] - f[2]))))


def cloth_color(rng: np.random.Generator) -> Array:
    """(3,): dark, grey, white or dull colours, and few bright ones, as people wear them."""
    value = rng.choice([rng.uniform(0.008, 0.06), rng.uniform(0.05, 0.3), rng.uniform(0.5, 0.85)], p=[0.45, 0.35, 0.2])
    saturation = rng.choice([rng.uniform(0, 0.15), rng.uniform(0.15, 0.6), rng.uniform(0.6, 0.9)], p=[0.5, 0.38, 0.12])
    hue = rng.choice([rng.normal(0.6, 0.05) % 1, rng.random()], p=[0.4, 0.6])
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def sample_variety(seed: int, age: float, male: bool, hair_color: Array, painted: bool) -> Variety:
    """Draw a person's variety. ``painted``: there is no artwork, so that all long hair is procedural."""
    rng = stream(seed, "skin detail")
    skin = Skin(
        lines=float(np.clip(1.3 * age - 0.35 + rng.normal(0, 0.12), 0, 1)),
        pores=float(rng.uniform(0.2, 1.0)),
        blemishes=int(rng.poisson(1.5 if age < 0.4 else 0.5)) if rng.random() < 0.5 else 0,
        tired=float(rng.beta(1.5, 2.5)),
        liner=0.0 if male or rng.random() < 0.55 else float(rng.uniform(0.3, 1.0)),
        blush=0.0 if male or rng.random() < 0.6 else float(rng.uniform(0.2, 1.0)),
    )
    return Variety(
        skin,
        _beard(stream(seed, "beard"), male, age, hair_color),
        _cut(stream(seed, "cut"), male, hair_color, painted),
        _clothes(stream(seed, "clothes")),
        _headwear(stream(seed, "headwear"), male),
        _frames(stream(seed, "frames")),
    )


def _beard(rng: np.random.Generator, male: bool, age: float, hair_color: Array) -> Beard | None:
    worn, style = rng.random() < 0.38, str(rng.choice(BEARDS, p=[0.55, 0.2, 0.15, 0.1]))
    length = float(rng.choice([rng.uniform(0.002, 0.006), rng.uniform(0.006, 0.014), rng.uniform(0.014, 0.022)],
                              p=[0.5, 0.35, 0.15]))  # fmt: skip
    grey = np.clip(rng.normal(2.2 * age - 1.1, 0.25), 0, 1)  # beards turn grey before the head does
    color = np.minimum(hair_color * rng.uniform(0.8, 1.5), 0.6) * (1 - grey) + grey * np.array([0.32, 0.31, 0.3])
    if not (male and worn and age > 0.08):
        return None
    return Beard(style, length, float(rng.uniform(0.6, 1.0)), color)


def _cut(rng: np.random.Generator, male: bool, hair_color: Array, painted: bool) -> Cut | None:
    worn = rng.random() < (0.06 if male else 0.42 if not painted else 0.65)
    length = float(rng.choice([rng.uniform(0.16, 0.26), rng.uniform(0.26, 0.36), rng.uniform(0.36, 0.5)]))
    curly = rng.random() < 0.35
    cut = Cut(
        length_m=length,
        parting=float(rng.choice([0.0, rng.normal(0, 0.25), rng.choice([-1, 1]) * rng.uniform(0.25, 0.5)])),
        wave=float(rng.uniform(0.004, 0.012) if curly else rng.uniform(0.0, 0.004)),
        curls=float(rng.uniform(12, 34) if curly else rng.uniform(4, 12)),
        fringe=float(rng.uniform(0.5, 1.0)) if rng.random() < 0.22 else 0.0,
        lift_m=float(rng.uniform(0.008, 0.02) + (0.01 if curly else 0)),
        bun=bool(rng.random() < 0.22),
        tips=hair_color * rng.uniform(0.9, 1.5) + (rng.uniform(0, 0.2) if rng.random() < 0.15 else 0.0),
    )
    return cut if worn else None


def _clothes(rng: np.random.Generator) -> Clothes:
    kind = str(rng.choice(GARMENTS, p=GARMENT_ODDS))
    plain = {"turtleneck": "rib", "scarf": "knit", "crew": "rib"}.get(kind, "plain")
    return Clothes(
        kind=kind,
        color=cloth_color(rng),
        second=cloth_color(rng),
        pattern=str(rng.choice([plain, "checks", "stripes", "knit"], p=[0.7, 0.1, 0.12, 0.08])),
        gap=float(rng.uniform(0.05, 0.6)),
        height_m=float(rng.uniform(0.026, 0.042)),
        fold_m=float(rng.uniform(0.0005, 0.005)),
        lift_m=float(rng.uniform(0.004, 0.008) if kind in ("tee", "crew") else rng.uniform(0.006, 0.016)),
    )


def _headwear(rng: np.random.Generator, male: bool) -> Headwear | None:
    draw, kind = rng.random(), str(rng.choice(HEADWEAR, p=[0.5, 0.42, 0.08] if male else [0.2, 0.28, 0.52]))
    worn = draw < (0.1 if male else 0.12)
    if kind == "headscarf" and male:  # drawn, so that the stream stays the same, but not worn
        worn = False
    made = Headwear(
        kind=kind,
        color=cloth_color(rng),
        second=cloth_color(rng),
        pattern={"beanie": "rib"}.get(kind, str(rng.choice(["plain", "plain", "stripes"]))),
        tilt=float(rng.uniform(-0.05, 0.3)),
        backwards=bool(rng.random() < 0.2),
        slack_m=float(max(0.0, rng.normal(0.012, 0.02))),
    )
    return made if worn else None


def _frames(rng: np.random.Generator) -> Frames:
    style = str(rng.choice(["wire", "plastic", "half", "sun"], p=[0.35, 0.47, 0.1, 0.08]))
    dark = np.array([0.02, 0.018, 0.016]) * rng.uniform(0.3, 3)
    color = dark if rng.random() < 0.65 else np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.2, 0.8), 0.2))
    if style == "wire":
        color = np.array([0.35, 0.3, 0.22]) * rng.uniform(0.2, 1.4)
    thick = rng.uniform(0.0007, 0.0013) if style == "wire" else rng.uniform(0.0016, 0.0032)
    return Frames(style, color, float(thick), float(max(0.0, rng.random() - 0.6)))


def wears_glasses(seed: int) -> bool:
    """Whether glasses are worn by somebody for whom the first draw of ``sample_person`` gave none."""
    return bool(stream(seed, "glasses").random() < 0.13)


def sample_lens(rng: np.random.Generator) -> Lens:
    """What the camera does beyond the rest, mostly little."""
    motion = rng.normal(0, 1, 2) * rng.uniform(0.5, 2.0) if rng.random() < 0.1 else np.zeros(2)
    return Lens(
        saturation=float(np.clip(rng.normal(1.0, 0.15), 0.0 if rng.random() < 0.02 else 0.6, 1.5)),
        vignette=float(max(0.0, rng.normal(0.05, 0.12))),
        sharpen=float(rng.uniform(0.2, 1.0)) if rng.random() < 0.35 else 0.0,
        resolution=float(rng.uniform(0.35, 0.9)) if rng.random() < 0.25 else 1.0,
        motion_px=(float(abs(motion[0])), float(abs(motion[1]))),
    )
