"""Who is pictured and how: small typed records, sampled by seed. Everything that the pictures show is decided here.

A person's looks and the shots of it are drawn from separate streams, so that asking for more shots changes no earlier
one. Statistics of speech follow a 973-frame ARKit recording (mean and spread of the common units). What came later than
the first draws has named streams of its own (``variety.py``).
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ffavatar.data.synthetic import variety
from ffavatar.data.synthetic.artwork import LONG_STYLES, Artwork
from ffavatar.data.synthetic.variety import Lens, Variety, sample_lens, sample_variety, stream
from ffavatar.render.mesh import Array

IDENTITY_SPREAD = 0.8  # of the unit-variance basis: the tails of a linear face space leave what people look like
IDENTITY_LIMIT = 2.2
POSE_LIKE = ("jaw", "eyeLook", "tongue", "mouthClose")  # said by joints, or only sensible together with them

# Mean and standard deviation of ARKit units while a person speaks; the rest is near zero.
SPEECH = {
    "mouthSmile": (0.2, 0.15), "mouthLowerDown": (0.23, 0.2), "mouthShrugUpper": (0.15, 0.15),
    "mouthDimple": (0.15, 0.12), "eyeSquint": (0.1, 0.08), "eyeWide": (0.07, 0.05), "mouthRollUpper": (0.06, 0.05),
    "browInnerUp": (0.07, 0.09), "noseSneer": (0.06, 0.03), "mouthFunnel": (0.06, 0.12), "mouthPucker": (0.06, 0.14),
    "browDown": (0.04, 0.07), "mouthUpperUp": (0.05, 0.08), "browOuterUp": (0.04, 0.07), "mouthPress": (0.03, 0.06),
    "mouthRollLower": (0.03, 0.05), "cheekPuff": (0.02, 0.04), "mouthShrugLower": (0.03, 0.05),
    "cheekSquint": (0.04, 0.06), "mouthStretch": (0.03, 0.05),
}  # fmt: skip
MOODS = ("neutral", "speech", "smile", "laugh", "brows_up", "frown", "surprise", "kiss", "blink", "units", "random")
MOOD_ODDS = (0.12, 0.34, 0.1, 0.06, 0.06, 0.07, 0.05, 0.04, 0.05, 0.05, 0.06)
RARE_MOODS = ("tongue", "wide", "aside", "puff", "shout")  # drawn instead, from a stream of their own
RARE_MOOD_ODDS = 0.09
BEHIND_ODDS = 0.07  # of shots in which the head is turned beyond the profile
SCENERY_ODDS = 0.55  # of shots before a painted place instead of a studio backdrop
SCENERY = ("room", "wall", "lights", "leaves")
SCENERY_KINDS = (0.45, 0.25, 0.1, 0.2)


@dataclass(frozen=True)
class Person:
    """Identity and looks, fixed over a person's shots. Colours are linear RGB; names refer to the artwork."""

    seed: int
    identity: Array  # (I,) float32
    age: float  # 0 young, 1 old
    male: bool
    skin_color: Array  # (3,) mean albedo where no artwork is given
    skins: tuple[str, str] | None  # two artwork skins, mixed
    skin_mix: float
    skin_tone: Array  # (3,) factor on the artwork's skin
    redness: float
    freckles: float
    moles: int
    stubble: float  # 0 none, 1 dense
    lip_tint: Array  # (3,) factor
    makeup: float
    gloss: float
    hair: str | None  # artwork style, "fur" or "cards" (procedural), "buzz" (painted) or None (bald)
    hair_color: Array  # (3,)
    hair_mirrored: bool
    hair_volume: float
    fur_length_m: float
    hairline: float  # metres the hairline lies behind its usual place
    brows: str | None
    brow_strength: float
    lashes: str | None
    iris: str | None
    iris_color: Array  # (3,)
    teeth: str | None
    teeth_tint: Array  # (3,)
    shirt_color: Array  # (3,)
    shirt_second: Array  # (3,)
    shirt_pattern: str  # plain, stripes, checks, noise
    collar: tuple[float, float, float]  # half width and depth of the neckline (m), depth of its notch
    glasses: bool
    glasses_color: Array  # (3,)
    light_fixed: bool  # one light for all shots, as in one photo session
    crown: float  # 0: full hair, 1: bald on top
    variety: Variety

    @cached_property
    def long_hair(self) -> bool:
        return self.hair in LONG_STYLES or self.hair == "cards"


@dataclass(frozen=True)
class Shot:
    """One picture: pose, expression, framing, light and what the camera does to it."""

    seed: int
    mood: str
    root: Array  # (3,) axis-angle
    neck: Array  # (3,)
    jaw: Array  # (3,)
    eye_left: Array  # (3,)
    eye_right: Array  # (3,)
    expression: Array  # (E,)
    zoom: float  # 1: the crop convention exactly
    shift: Array  # (2,) of the crop, in sides
    surrounding: str | None
    exposure: float
    background: str  # plain, gradient, noise, surrounding, or one of SCENERY
    blur_px: float
    noise: float
    jpeg_quality: int  # 100: not compressed
    white_balance: Array  # (3,)
    contrast: float
    lens: Lens = field(default_factory=Lens)


def head_rotation(pitch: float, yaw: float, roll: float) -> Array:
    """Rz(roll) Rx(pitch) Ry(yaw) as a matrix: the head turns first, then nods, then tilts in the picture."""
    cx, sx, cy, sy, cz, sz = np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw), np.cos(roll), np.sin(roll)
    rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return rz @ rx @ ry


def matrix_to_axis_angle(matrix: Array) -> Array:
    """(3, 3) rotation -> (3,) radians; for angles below pi."""
    axis = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]])
    sine, cosine = np.linalg.norm(axis) / 2, (np.trace(matrix) - 1) / 2
    return axis * 0.5 if sine < 1e-8 else axis / (2 * sine) * np.arctan2(sine, cosine)


def _pick_hair(rng: np.random.Generator, styles: list[str], male: bool) -> str:
    """An artwork style. Those that hang over half of the face are rarer: an eye that is never seen cannot be learnt."""
    usual = [s.startswith("short") if male else s not in ("short01", "short04") for s in styles]
    odds = np.array([(1.0 if u else 0.15) * (0.3 if s in ("short03", "bob02") else 1.0) for s, u in zip(styles, usual)])
    return str(styles[int(rng.choice(len(styles), p=odds / odds.sum()))])


def sample_person(seed: int, identities: int, artwork: Artwork | None) -> Person:
    """Draw a person. The same seed gives the same body with or without artwork; only the surfaces differ."""
    rng = np.random.default_rng([seed, 1])
    identity = np.clip(rng.normal(0, IDENTITY_SPREAD, identities), -IDENTITY_LIMIT, IDENTITY_LIMIT).astype(np.float32)
    male, age, dark = bool(rng.random() < 0.5), float(rng.beta(1.6, 2.0)), bool(rng.random() < 0.32)
    fair = bool(rng.random() < 0.45) and not dark
    tone = rng.uniform(0.25, 1.0) if dark else rng.uniform(0, 0.35) if fair else rng.uniform(0.15, 0.6)
    skin_color = np.array([0.60, 0.39, 0.28]) * (1 - tone) + np.array([0.085, 0.045, 0.028]) * tone
    skins = None
    looks = np.random.default_rng([seed, 2])
    pick = lambda names: str(names[int(looks.integers(len(names)))])  # noqa: E731
    if artwork is not None:
        wanted = [s for s in artwork.skins() if ("dark" in s) == dark and ("_male" in s) == male] or artwork.skins()
        aged = [s for s in wanted if s.startswith("young" if age < 0.45 else "middleage" if age < 0.75 else "old")]
        first, second = pick(aged or wanted), pick(wanted)
        if looks.random() < 0.3:  # the artwork's skins are light or dark: most of the world's lie between
            second = pick([s for s in artwork.skins() if ("dark" in s) != dark] or wanted)
        skins = (first, second)
    if dark or rng.random() < 0.3:
        hair_color = np.array([0.016, 0.012, 0.010])
    else:
        choices = np.array(
            [[0.03, 0.02, 0.014], [0.07, 0.04, 0.022], [0.14, 0.08, 0.04], [0.38, 0.25, 0.12], [0.22, 0.07, 0.025]]
        )
        hair_color = choices[int(rng.choice(5, p=[0.28, 0.26, 0.2, 0.17, 0.09]))]
    if age > 0.7 and rng.random() < 0.7:
        hair_color = np.array([0.3, 0.295, 0.29]) * rng.uniform(0.4, 1.1)
    elif rng.random() < 0.03:
        hair_color = np.array(colorsys.hsv_to_rgb(rng.random(), 0.6, 0.35))
    hair_color = hair_color * rng.uniform(0.7, 1.35) * np.clip(1 + rng.normal(0, 0.06, 3), 0.8, 1.2)
    draw = rng.random()
    hair: str | None = "fur"
    if draw < 0.1:
        hair = None
    elif draw < 0.16:
        hair = "buzz"
    elif artwork is not None and draw < 0.76:
        hair = _pick_hair(looks, artwork.proxies("hair"), male)
    eye_hue = rng.choice(5, p=[0.5, 0.15, 0.13, 0.17, 0.05]) if not dark else 0
    iris_color = np.array(
        [[0.08, 0.035, 0.015], [0.16, 0.09, 0.035], [0.1, 0.14, 0.07], [0.1, 0.19, 0.3], [0.2, 0.22, 0.23]]
    )[eye_hue]
    iris = None
    if artwork is not None and artwork.irises():
        browns = [n for n in artwork.irises() if "brown" in n]
        iris = pick(browns if eye_hue < 2 and browns else artwork.irises())

    def cloth() -> Array:
        value = rng.choice([rng.uniform(0.0, 0.12), rng.uniform(0.1, 0.5), rng.uniform(0.6, 0.9)])
        return np.array(colorsys.hsv_to_rgb(rng.random(), rng.random() * 0.75, value))

    more = sample_variety(seed, age, male, hair_color, artwork is None)
    tone_rng = stream(seed, "tone")
    skin_color = variety.skin_color(tone + tone_rng.normal(0, 0.06), tone_rng)
    fur = stream(seed, "fur")
    tall = float(fur.uniform(0.022, 0.05)) if fur.random() < (0.4 if dark else 0.2) else 0.0
    crown = float(fur.uniform(0.3, 1.0)) if fur.random() < (0.35 if male and age > 0.4 else 0.01) else 0.0
    if hair is not None and more.cut is not None:
        hair = "cards"
    elif hair is not None and crown:
        hair, tall = "fur", 0.0
    if more.headwear is not None and more.headwear.kind == "headscarf":
        hair = None

    person = Person(
        seed=seed,
        identity=identity,
        age=age,
        male=male,
        skin_color=skin_color,
        skins=skins,
        skin_mix=float(rng.uniform(0, 0.6)),
        skin_tone=np.exp(rng.normal(0, 0.12))
        * np.array([1, np.exp(rng.normal(0, 0.035)), np.exp(rng.normal(0, 0.06))]),
        redness=float(rng.beta(1.5, 3)),
        freckles=float(rng.random() ** 4 * (0.3 if dark else 1)),
        moles=int(rng.poisson(2.5)),
        stubble=float(rng.beta(1.2, 1.6)) if male and rng.random() < 0.55 else 0.0,
        lip_tint=np.array([1, 1, 1])
        if male or rng.random() < 0.5
        else np.array([1.05, rng.uniform(0.35, 0.8), rng.uniform(0.4, 0.9)]),
        makeup=0.0 if male or rng.random() < 0.6 else float(rng.uniform(0.2, 0.8)),
        gloss=float(rng.uniform(0.4, 1.3)),
        hair=hair,
        hair_color=hair_color,
        hair_mirrored=bool(rng.random() < 0.5),
        hair_volume=float(rng.uniform(1.0, 1.06)),
        fur_length_m=float(rng.choice([rng.uniform(0.006, 0.014), rng.uniform(0.014, 0.026)])),
        hairline=float(np.clip(rng.normal(0.004 if male else 0, 0.008), -0.012, 0.03)),
        brows=pick(artwork.proxies("eyebrows")) if artwork is not None else None,
        brow_strength=float(rng.uniform(0.6, 1.0)),
        lashes=pick(artwork.proxies("eyelashes")) if artwork is not None else None,
        iris=iris,
        iris_color=iris_color,
        teeth=pick(artwork.proxies("teeth")) if artwork is not None else None,
        teeth_tint=np.array([1, rng.uniform(0.9, 1), rng.uniform(0.72, 0.98)]) * rng.uniform(0.7, 0.95),
        shirt_color=cloth(),
        shirt_second=cloth(),
        shirt_pattern=str(rng.choice(["plain", "stripes", "checks", "noise"], p=[0.6, 0.16, 0.08, 0.16])),
        collar=(
            float(rng.uniform(0.062, 0.1)),
            float(rng.uniform(0.02, 0.075)),
            float(rng.uniform(0, 0.05) if rng.random() < 0.35 else 0),
        ),
        glasses=bool(rng.random() < 0.1),
        glasses_color=np.array([0.02, 0.018, 0.016]) * rng.uniform(0.4, 8),
        light_fixed=bool(rng.random() < 0.5),
        crown=crown,
        variety=more,
    )
    changes: dict[str, Any] = {"glasses": person.glasses or variety.wears_glasses(seed)}
    if more.headwear is not None or crown:
        changes["fur_length_m"] = min(person.fur_length_m, 0.008)
    elif tall:
        changes["fur_length_m"] = tall
    if more.clothes.kind not in ("tee", "crew"):  # what is worn at the neck needs a neckline that it hides
        changes["collar"] = (0.068 if more.clothes.kind != "hood" else 0.08, 0.03, 0.0)
    if more.clothes.kind in ("crew", "turtleneck", "collar", "hood"):
        changes |= {"shirt_color": more.clothes.color, "shirt_second": more.clothes.second}
    return replace(person, **changes)


def sample_expression(rng: np.random.Generator, mood: str, names: list[str]) -> tuple[Array, float]:
    """Expression coefficients (E,) in [0, 1] of a mood and how far the jaw opens (rad)."""
    index = {n: i for i, n in enumerate(names)}
    out = np.zeros(len(names), np.float32)

    def add(name: str, amount: float) -> None:
        for full in (name, f"{name}Left", f"{name}Right"):
            if full in index:
                wobble = 1 if full == name else rng.uniform(0.85, 1.05)
                out[index[full]] = np.clip(out[index[full]] + amount * wobble, 0, 1)

    a, jaw = rng.uniform(0.35, 1.0), max(0.0, rng.normal(0.0, 0.015))
    if mood == "speech":
        for name, (mean, spread) in SPEECH.items():
            add(name, max(0.0, rng.normal(mean, spread)))
        jaw = abs(rng.normal(0.03, 0.055))
    elif mood in ("smile", "laugh"):
        for name, weight in (("mouthSmile", 1.0), ("cheekSquint", 0.6), ("mouthUpperUp", 0.3), ("eyeSquint", 0.35)):
            add(name, a * weight)
        jaw = a * rng.uniform(0.1, 0.25) if mood == "laugh" else jaw
        if mood == "laugh":
            add("mouthLowerDown", a * 0.4)
    elif mood == "brows_up":
        for name, weight in (("browInnerUp", 1.0), ("browOuterUp", 1.0), ("eyeWide", 0.6)):
            add(name, a * weight)
    elif mood == "frown":
        for name, weight in (
            ("browDown", 1.0),
            ("eyeSquint", 0.5),
            ("noseSneer", 0.5),
            ("mouthFrown", 0.6),
            ("mouthPress", 0.4),
        ):
            add(name, a * weight)
    elif mood == "surprise":
        for name, weight in (("browInnerUp", 0.9), ("browOuterUp", 0.8), ("eyeWide", 0.9)):
            add(name, a * weight)
        jaw = a * rng.uniform(0.15, 0.35)
    elif mood == "kiss":
        add(str(rng.choice(["mouthPucker", "mouthFunnel"])), a)
        jaw = rng.uniform(0, 0.06)
    elif mood == "tongue":
        add("tongueOut", a)
        jaw = rng.uniform(0.1, 0.25)
    elif mood == "wide":  # everything at once, as actors warm up
        for name, weight in (("browInnerUp", 0.8), ("eyeWide", 1.0), ("mouthStretch", 0.7), ("mouthLowerDown", 0.8)):
            add(name, a * weight)
        jaw = a * rng.uniform(0.2, 0.4)
    elif mood == "shout":
        for name, weight in (("browDown", 0.7), ("noseSneer", 0.7), ("mouthUpperUp", 0.6), ("mouthLowerDown", 0.7)):
            add(name, a * weight)
        jaw = a * rng.uniform(0.15, 0.4)
    elif mood == "aside":
        way = str(rng.choice(["Left", "Right"]))
        for name, weight in ((f"mouth{way}", 1.0), (f"mouthSmile{way}", 0.6), (f"eyeSquint{way}", 0.6)):
            if name in index:
                out[index[name]] = a * weight
    elif mood == "puff":
        add("cheekPuff", a)
        add("mouthPress", 0.4 * a)
    elif mood in ("units", "random"):
        own = [n for n in names if not n.startswith("mh_") and not n.startswith(POSE_LIKE)]
        extra = [n for n in names if n.startswith("mh_") and "closure" not in n and "open" not in n]
        chosen = rng.permutation(np.array(extra if mood == "units" and extra else own))[: 2 if mood == "units" else 4]
        for name in chosen:
            out[index[str(name)]] = rng.uniform(0.15, 0.8)
        jaw = max(0.0, rng.normal(0.03, 0.08))
    if mood == "blink":
        out[[index[n] for n in ("eyeBlinkLeft", "eyeBlinkRight") if n in index]] = rng.uniform(0.4, 1.0)
    elif rng.random() < 0.06:
        add("eyeBlink", rng.uniform(0.2, 0.9))
    # Both lids of one eye must not be driven past closed.
    for side in ("Left", "Right"):
        blink, squint = index.get(f"eyeBlink{side}"), index.get(f"eyeSquint{side}")
        if blink is not None and squint is not None:
            out[squint] = min(out[squint], 1 - out[blink])
    return out, float(jaw)


def sample_shot(person: Person, number: int, names: list[str], artwork: Artwork | None, around: bool = False) -> Shot:
    """Draw shot ``number`` of a person. The first one is a calm look into the camera; ``around`` draws the head's yaw
    from the full circle."""
    seed = person.seed * 1009 + number
    rng = np.random.default_rng([person.seed, 3, number])
    mood = str(rng.choice(MOODS, p=MOOD_ODDS)) if number else "neutral"
    expression, jaw = sample_expression(rng, mood, names)
    rare = stream(person.seed, "rare moods", number)
    if number and rare.random() < RARE_MOOD_ODDS:
        mood = str(rare.choice(RARE_MOODS))
        expression, jaw = sample_expression(rare, mood, names)
    wide = rng.random()
    if wide < 0.72:
        yaw = rng.normal(0, 0.42)
    else:
        yaw = rng.uniform(-0.9, 0.9) if wide < 0.88 else rng.choice([-1, 1]) * rng.uniform(0.8, 1.57)
    pitch, roll = np.clip(rng.normal(0, 0.17), -0.44, 0.44), np.clip(rng.normal(0, 0.1), -0.26, 0.26)
    behind = stream(person.seed, "behind", number)
    if behind.random() < BEHIND_ODDS:
        yaw = behind.choice([-1, 1]) * behind.uniform(np.pi / 2, 3.1)
    if number == 0:
        yaw, pitch, roll = rng.normal(0, 0.08), rng.normal(0, 0.05), rng.normal(0, 0.03)
    if around:
        yaw = stream(person.seed, "around", number).uniform(-np.pi, np.pi)
    # People turn the head more than the chest, and mostly the same way.
    own_yaw = np.clip(0.35 * yaw + rng.normal(0, 0.16), -0.8, 0.8)
    own_pitch, own_roll = np.clip(0.5 * pitch + rng.normal(0, 0.08), -0.35, 0.35), 0.6 * roll + rng.normal(0, 0.04)
    head, neck = head_rotation(pitch, yaw, roll), head_rotation(own_pitch, own_yaw, own_roll)
    gaze = np.array([rng.normal(0, 0.1), np.clip(rng.normal(0, 0.18), -0.5, 0.5), 0.0])
    if rng.random() < 0.5 and abs(yaw) < 0.5:  # looks into the camera
        gaze = np.array([np.clip(-pitch, -0.3, 0.3), np.clip(-yaw, -0.5, 0.5), 0.0])
    vergence = np.array([0.0, rng.uniform(0, 0.03), 0.0])
    light_rng = np.random.default_rng([person.seed, 4]) if person.light_fixed else rng
    surrounding = None
    if artwork is not None and (names_of := artwork.surroundings()) and light_rng.random() < 0.65:
        surrounding = str(names_of[int(light_rng.integers(len(names_of)))])
    backgrounds = ["plain", "gradient", "noise"] + (["surrounding"] if surrounding else [])
    background, scenery = str(rng.choice(backgrounds)), stream(person.seed, "scenery", number)
    if background != "surrounding" and scenery.random() < SCENERY_ODDS:
        background = str(scenery.choice(SCENERY, p=SCENERY_KINDS))
    return Shot(
        seed=seed,
        mood=mood,
        root=matrix_to_axis_angle(head @ neck.T),
        neck=matrix_to_axis_angle(neck),
        jaw=np.array([jaw, rng.normal(0, 0.012), 0.0]),
        eye_left=gaze - vergence,
        eye_right=gaze + vergence,
        expression=expression,
        zoom=float(rng.uniform(0.96, 1.04)),
        shift=rng.uniform(-0.04, 0.04, 2),
        surrounding=surrounding,
        exposure=float(np.exp(rng.normal(np.log(0.85), 0.18))),
        background=background,
        blur_px=float(max(0.0, rng.normal(0.2, 0.4))),
        noise=float(rng.random() ** 2 * 0.03),
        jpeg_quality=int(rng.integers(55, 97)) if rng.random() < 0.7 else 100,
        white_balance=np.clip(1 + rng.normal(0, 0.035, 3), 0.88, 1.12),
        contrast=float(rng.uniform(0.85, 1.2)),
        lens=sample_lens(stream(person.seed, "lens", number)),
    )
