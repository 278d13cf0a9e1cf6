"""What can be evaluated: baselines, avatars of a model, and the rendered pictures of any other method."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ffavatar.avatar import Avatar
from ffavatar.data.captures.geometry import rigid_align, triangulate
from ffavatar.errors import InputError
from ffavatar.evaluate import baselines
from ffavatar.evaluate.clips import ClipViews, Side, Truth
from ffavatar.evaluate.lpips import ALEX, load_lpips
from ffavatar.evaluate.metrics import MESH_POINTS
from ffavatar.evaluate.windows import cut_windows, into_windows, window_camera, windows_of
from ffavatar.geometry import normalised_camera, project
from ffavatar.model import Estimate, FFAvatar
from ffavatar.personal import PersonalRecipe, Start, personalize
from ffavatar.photo import read_photo
from ffavatar.photo.crop import CropBox, cut_square
from ffavatar.pipeline import animate, decode, drive, reconstruct, track
from ffavatar.types import Camera, HeadParams, Views
from ffavatar.weights import sha256_of

TRACK_STEPS = 100


@dataclass(frozen=True)
class Task:
    """What a method is asked: the person of ``source`` as ``target`` shows them, or the pose of another person."""

    case: str  # id of the clip, or of the pair of clips
    count: int  # source views asked for; ``source`` has fewer where the front end refused some
    source: Views
    target: Side
    frame_size: tuple[int, int]  # of the target's film, width and height in pixels
    cameras: tuple[Camera, Camera] | None = None  # of sources and targets, world is head space
    truth: Truth | None = None
    own: bool = True  # whether the targets show the sources' person
    shown: Side | None = None  # the targets in the square in which they are compared; None: the head crop

    @property
    def compared(self) -> Side:
        """The targets as the pictures asked for must show them."""
        return self.shown or self.target

    @property
    def windows(self) -> Tensor | None:
        """(T, 3) the square to be shown, in units of each target's head crop; None: the whole crop."""
        return None if self.shown is None else windows_of(self.target.boxes, self.shown.boxes)


@dataclass(frozen=True)
class Prediction:
    """What a method shows for T targets, and where it believes the landmarks are (crop units; None: no belief)."""

    images: Tensor  # (T, H, W, 3) on white, in [0, 1]
    landmarks: Tensor | None = None  # (T, 478, 2)
    mattes: Tensor | None = None  # (T, H, W) in [0, 1], the person; None: not told
    timing: dict[str, float] = field(default_factory=dict)  # by the names of ``figures.TIMING``


@dataclass(frozen=True)
class Method:
    """A row of the table. ``revision``: what the result depends on besides the package's code, such as weights."""

    name: str
    run: Callable[[Task], Prediction]
    revision: str = ""
    # Whether it is also asked for the consecutive frames that show shaking; what is given as pictures says it by them.
    films: bool | Callable[[Task, Sequence[int]], bool] = True

    def shows(self, task: Task, frames: Sequence[int]) -> bool:
        """Whether it can show these consecutive frames of the task's film."""
        return self.films(task, frames) if callable(self.films) else self.films


def baseline_methods() -> list[Method]:
    """``copy`` and ``warp``; see :mod:`ffavatar.evaluate.baselines`."""

    def baseline(show: Callable[[Views, Views], Tensor]) -> Callable[[Task], Prediction]:
        def run(task: Task) -> Prediction:
            # The matte goes the way of the picture: shown in black on the white that ``on_white`` lays around it.
            black = Views(
                torch.zeros_like(task.source.images), task.source.mattes, task.source.valid, task.source.landmarks,
                task.source.blendshapes,
            )  # fmt: skip
            target, windows = task.target.views, task.windows
            images, mattes = show(task.source, target), 1 - show(black, target)[..., :1]
            if windows is not None:
                size = images.shape[1]
                images, mattes = 1 - cut_windows(1 - images, windows, size), cut_windows(mattes, windows, size)
            return Prediction(images.clamp(0, 1), mattes=mattes[..., 0])

        return run

    return [Method("copy", baseline(baselines.copy)), Method("warp", baseline(baselines.warp))]


AvatarOf = Callable[[Views], tuple[Avatar, float]]
"""Sources -> their avatar and the seconds that it took."""


def _of_last(make: AvatarOf) -> AvatarOf:
    """``make``, keeping what it gave for the last set of sources: methods that share an avatar ask in turn."""
    last: list[tuple[Views, tuple[Avatar, float]]] = []

    def avatar_of(source: Views) -> tuple[Avatar, float]:
        if not last or last[0][0] is not source:
            last[:] = [(source, make(source))]
        return last[0][1]

    return avatar_of


def _driven_and_tracked(
    model: FFAvatar, avatar_of: AvatarOf, steps: int
) -> tuple[Callable[[Task], Prediction], Callable[[Task], Prediction]]:
    """The two ways in which an avatar is posed like the targets."""

    def driven(task: Task) -> Prediction:
        avatar, seconds = avatar_of(task.source)
        return _shown(model, avatar, seconds, drive(model, avatar, task.target.views, task.own), task)

    def tracked(task: Task) -> Prediction:
        avatar, seconds = avatar_of(task.source)
        return _shown(model, avatar, seconds, track(model, avatar, task.target.views, steps=steps, own=task.own), task)

    return driven, tracked


def avatar_methods(model: FFAvatar, revision: str, level: int | None = None, steps: int = TRACK_STEPS) -> list[Method]:
    """``driven``, ``tracked``, ``placed`` and ``true`` of a model; the first three share one reconstruction per set of
    sources, ``true`` is given the exact identity and parameters of sources and targets.

    ``revision`` names the model's weights, for example by their sha256; ``level`` as in ``pipeline.reconstruct``.
    """

    @_of_last
    def avatar_of(source: Views) -> tuple[Avatar, float]:
        start = time.perf_counter()
        return reconstruct(model, source, level), time.perf_counter() - start

    driven, tracked = _driven_and_tracked(model, avatar_of, steps)

    def placed(task: Task) -> Prediction:
        avatar, seconds = avatar_of(task.source)
        if task.cameras is None:
            raise InputError(f"{task.case}: the method placed needs known cameras; use the protocol novel.")
        params = drive(model, avatar, task.source[:1])  # the first source looks most from the front
        camera = head_space_camera(model, avatar, params, task)
        start = time.perf_counter()
        drawn = animate(avatar, params[[0] * len(camera.K)], camera=camera)
        fps = len(drawn.images) / (time.perf_counter() - start)
        images, mattes = drawn.images.clamp(0, 1), drawn.alphas.clamp(0, 1)
        return Prediction(images, None, mattes, {"avatar_s": seconds, "fps": fps})

    def true(task: Task) -> Prediction:
        truth = task.truth
        if truth is None:
            raise InputError(f"{task.case}: the method true needs exact labels; use the protocol synthetic-bench.")
        start = time.perf_counter()
        avatar = decode(model, task.source, level, Estimate(truth.source[: len(task.source)], truth.identity))
        return _shown(model, avatar, time.perf_counter() - start, truth.target, task)

    tag = f"{revision} level {level}"
    return [
        Method("true", true, tag, films=False),
        Method("driven", driven, tag),
        Method("tracked", tracked, f"{tag} steps {steps}", films=False),
        Method("placed", placed, tag, films=False),
    ]


PERSONAL_STARTS: dict[str, Start] = {"personalized": "avatar", "grey": "grey", "unprojected": "unprojected"}
"""What each personalised method lays the residuals upon (``PersonalRecipe.start``)."""


def personal_methods(
    model: FFAvatar,
    revision: str,
    level: int | None = None,
    steps: int = TRACK_STEPS,
    recipe: PersonalRecipe | None = None,
) -> list[Method]:
    """``personalized`` and ``personalized_tracked``: as ``driven`` and ``tracked``, after personalization on the
    sources; ``grey``, ``unprojected`` and the same with ``_tracked``: the same optimisation from the bare head.

    The perceptual net is used where it is in the cache; ``recipe`` takes the default one for None.
    """
    return [
        method
        for name, start in PERSONAL_STARTS.items()
        for method in _personal_pair(
            name, model, revision, level, steps, replace(recipe or PersonalRecipe(), start=start)
        )
    ]


def _personal_pair(
    name: str, model: FFAvatar, revision: str, level: int | None, steps: int, recipe: PersonalRecipe
) -> list[Method]:
    """One row driven and one tracked, of one avatar."""
    perceptual = ALEX.path.is_file()

    @_of_last
    def avatar_of(source: Views) -> tuple[Avatar, float]:
        net = load_lpips("alex", source.images.device) if perceptual else None
        start = time.perf_counter()
        made = personalize(model, reconstruct(model, source, level), source, recipe, perceptual=net)
        if not made.finished:
            raise KeyboardInterrupt
        return made.avatar, time.perf_counter() - start

    driven, tracked = _driven_and_tracked(model, avatar_of, steps)
    tag = f"{revision} level {level} {recipe} perceptual {perceptual}"
    return [
        Method(name, driven, tag),
        Method(f"{name}_tracked", tracked, f"{tag} steps {steps}", films=False),
    ]


def head_space_camera(model: FFAvatar, avatar: Avatar, params: HeadParams, task: Task) -> Camera:
    """The target cameras for an avatar posed by ``params`` (one row), whose own world is that of a crop's fixed camera.

    The sources' landmarks are triangulated in head space and the posed avatar's laid on them by a similarity: a crop
    does not tell the size of a head, the calibrated cameras do. Nothing of the targets but their cameras is read.
    """
    assert task.cameras is not None
    source, target = task.cameras
    size = source.width
    pixels = task.source.landmarks[:, :MESH_POINTS, :2].double().cpu().numpy() * size
    if len(pixels) < 2:
        raise InputError(f"{task.case}: placing an avatar in head space needs two source views; ask for more views.")
    count = len(pixels)
    points = triangulate(pixels, source.K[:count].double().numpy(), source.world_to_cam[:count].double().numpy())
    own = posed_landmarks(model, avatar, params)[0, :MESH_POINTS].double().cpu().numpy()
    scale = float(np.linalg.norm(points - points.mean(0)) / np.linalg.norm(own - own.mean(0)))
    # A camera of a world that is scaled about the camera sees the same: divide by the scale, and no length changes.
    place = torch.from_numpy(rigid_align(own * scale, points))
    moved = target.world_to_cam.double() @ place
    moved[..., :3, 3] /= scale
    return Camera(moved.float(), target.K, target.width, target.height)


@torch.no_grad()
def _shown(model: FFAvatar, avatar: Avatar, seconds: float, params: HeadParams, task: Task) -> Prediction:
    size, windows = task.target.views.images.shape[1], task.windows
    camera = None if windows is None else window_camera(windows.to(params.root.device), size)
    start = time.perf_counter()
    drawn = animate(avatar, params, size=size, camera=camera)
    fps = len(params) / (time.perf_counter() - start)
    landmarks = projected_landmarks(model, avatar, params)
    return Prediction(
        drawn.images.clamp(0, 1),
        landmarks if windows is None else into_windows(landmarks, windows.to(landmarks.device)),
        drawn.alphas.clamp(0, 1),
        {"avatar_s": seconds, "fps": fps},
    )


def projected_landmarks(model: FFAvatar, avatar: Avatar, params: HeadParams) -> Tensor:
    """(B, 478, 2) where the posed head's landmarks appear in the normalised camera, in crop units."""
    points = posed_landmarks(model, avatar, params)
    return project(points, normalised_camera(1, len(params), points.device))[0]


def posed_landmarks(model: FFAvatar, avatar: Avatar, params: HeadParams) -> Tensor:
    """(B, 478, 3) landmarks of the posed head in the world of the normalised camera, metres."""
    frames, rig = len(params), avatar.rig
    posed = rig.head.pose(rig.neutral.expand(frames, -1, -1), rig.joints.expand(frames, -1, -1), params)
    return model.head.landmarks(posed.vertices)


def images_method(name: str, folder: Path) -> Method:
    """Any other method by its rendered pictures: ``FOLDER/[views-N/]CASE/FRAME.png`` or ``CASE_FRAME.png`` for each
    target frame (``picture_of``).

    CASE is the clip's id (cross-reenactment: SOURCE--DRIVER), FRAME the frame's number. A picture of the size of the
    film's frames is cut like the target; a square one is taken as the target's crop at any size (``export_crops``
    writes them). Where the consecutive frames are there too, shaking is measured. Transparency is laid on white.
    Raises ``InputError`` where the folder is missing.
    """
    if not folder.is_dir():
        raise InputError(f"The folder {folder} of the method {name} does not exist; give NAME=FOLDER.")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES)
    digest = hashlib.sha256("".join(f"{f.relative_to(folder)}{sha256_of(f)}" for f in files).encode())

    def place_of(task: Task) -> Path:
        place = folder / f"views-{task.count}"
        return (place if place.is_dir() else folder) / task.case

    def run(task: Task) -> Prediction:
        size = task.compared.views.images.shape[1]
        shown = [
            _other_picture(picture_of(place_of(task), frame), task, box, size)
            for frame, box in zip(task.compared.frames, task.compared.boxes.tolist())
        ]
        return Prediction(torch.stack(shown))

    def has(task: Task, frames: Sequence[int]) -> bool:
        if task.shown is not None:
            return False  # its pictures show another square than the film's head crops
        try:
            return all(picture_of(place_of(task), frame) for frame in frames)
        except InputError:
            return False

    return Method(name, run, digest.hexdigest(), films=has)


MEANINGS = {
    "copy": "the nearest source frame (least landmark distance after a similarity)",
    "warp": "the nearest source frame, bent to the target's landmarks, piecewise affine",
    "true": "the avatar made and shown with the exact identity, parameters and camera of the drawn person",
    "driven": "the avatar posed by one estimator pass over each target; nothing is optimised",
    "tracked": f"as driven, then {TRACK_STEPS} Adam steps on the frame's parameters against the target, avatar frozen",
    "placed": "the avatar laid on the sources' triangulated landmarks, seen by each target's known camera",
    "personalized": "the avatar optimised on its source frames, then posed as driven",
    "grey": "the same optimisation from the bare head in grey, posed as driven",
    "unprojected": "the same optimisation from the bare head with the sources' colours, posed as driven",
}


def meaning(method: str) -> str:
    """What a row of the tables is, in a sentence."""
    plain = method.removesuffix("_tracked")
    if method in MEANINGS:
        return MEANINGS[method]
    if plain in MEANINGS:
        return f"as {plain}, then the frame's parameters refined as under tracked"
    return "pictures of another program, given as a folder"


PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def picture_of(place: Path, frame: int) -> Path:
    """The picture of a frame: ``PLACE/FRAME.png``, or beside it ``PLACE_FRAME.png`` (also with - or .), the number
    with any zeros before it, png, jpg or webp. Raises ``InputError`` where there is none, or more than one.
    """
    number = rf"0*{frame}({'|'.join(re.escape(ending) for ending in PICTURES)})"
    beside = re.compile(rf"{re.escape(place.name)}[-_.]{number}", re.IGNORECASE)
    found = [p for p in _listing(place) if re.fullmatch(number, p.name, re.IGNORECASE)]
    found += [p for p in _listing(place.parent) if beside.fullmatch(p.name)]
    if len(found) != 1:
        what = "is missing" if not found else f"is there {len(found)} times ({', '.join(p.name for p in found)})"
        raise InputError(f"{place / f'{frame:06d}.png'} {what}; give one picture for each target frame.")
    return found[0]


def _listing(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _other_picture(file: Path, task: Task, box: list[float], size: int) -> Tensor:
    picture = read_photo(file)
    height, width = picture.shape[:2]
    if (width, height) == task.frame_size:
        square = CropBox(*box)
    elif width == height:
        square = CropBox(0, 0, width)
    else:
        raise InputError(
            f"{file} is {width} x {height} px; give a square head crop, or the film's whole frame "
            f"({task.frame_size[0]} x {task.frame_size[1]} px)."
        )
    if square.side == width == height == size:
        return torch.from_numpy(picture).float() / 255
    return torch.from_numpy(cut_square(picture, square, size)).float() / 255


def export_crops(clip: str, views: ClipViews, folder: Path) -> int:
    """Write ``FOLDER/CLIP/{source,target,film}/FRAME.png`` on white, for methods that run elsewhere; returns how many.
    ``film``: the consecutive frames for the figure of motion, where there are any.
    """
    from PIL import Image

    from ffavatar.files import atomic_path

    count = 0
    sides = {"source": views.source, "target": views.shown or views.target}
    if views.run is not None and views.shown is None:
        sides["film"] = views.run
    for name, side in sides.items():
        place = folder / clip / name
        place.mkdir(parents=True, exist_ok=True)
        pictures = (side.views.on_white() * 255).round().to(torch.uint8).numpy()
        for frame, picture in zip(side.frames, pictures):
            with atomic_path(place / f"{frame:06d}.png") as temporary:
                Image.fromarray(picture).save(temporary)
            count += 1
    return count
