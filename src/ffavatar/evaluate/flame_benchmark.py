"""Our avatars for the NeRSemble benchmark's monocular task: made of a person's training frames, driven by the
benchmark's FLAME tracks, drawn by its cameras.

A FLAME track says where FLAME's head is in the capture's world, not where ours is: the two resting heads differ in
size, tilt and place, and FLAME's joints stand in its licensed file. So a fixed similarity from the avatar's resting
head to FLAME's is found once per person from training frames, of which both the track and the picture are known: posed
by the track and seen by the calibrated camera, the avatar's landmarks must fall on the picture's. Held-out sequences
give nothing but their tracks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ffavatar.avatar import Avatar
from ffavatar.data.captures.nersemble import frames_of
from ffavatar.drive.choose import Candidate, choose_among
from ffavatar.drive.flame_map import is_flame, load_flame_map, on_face
from ffavatar.drive.flame_tracks import motion_from_arrays, nersemble_scale
from ffavatar.drive.motion import Motion
from ffavatar.drive.options import DriveOptions
from ffavatar.drive.retarget import TORSO_SHARE, load_flame_basis, point_of_head, retarget
from ffavatar.drive.unpack import read_npz
from ffavatar.drive.video import FrameReader
from ffavatar.errors import InputError
from ffavatar.evaluate.methods import posed_landmarks
from ffavatar.evaluate.metrics import MESH_POINTS
from ffavatar.evaluate.sheet import contact_sheet
from ffavatar.evaluate.submission import Task, mono_avatar, person_folder, tracking_file
from ffavatar.files import atomic_folder, atomic_path
from ffavatar.geometry import axis_angle_to_matrix, matrix_to_quat, quat_to_axis_angle
from ffavatar.model import FFAvatar
from ffavatar.photo import FrontEnd, PhotoReport
from ffavatar.photo.crop import CropBox, cut_square
from ffavatar.pipeline import animate, drive, reconstruct
from ffavatar.types import Camera, HeadParams, Views

Progress = Callable[[int, int | None], None]
LOOKED_AT = 48  # training frames of a person, evenly over the sequences
MOST_ALIGNED = 16  # of them that the alignment is found from
LARGEST_MISFIT = 0.05  # of the face's width, root mean square: beyond, track and calibration do not belong together
STEPS = 30
BATCH = 8  # frames drawn at once
STAMP = "rendered.json"


@dataclass(frozen=True)
class RenderPlan:
    """What decides the pictures."""

    views: int = 4  # training frames that an avatar is made of
    size: int = 512  # side of the crops that it is made of, pixels
    level: int | None = None  # as in ``pipeline.reconstruct``
    flame: Path | None = None  # the user's FLAME 2023 file: the meaning of the tracks' expressions
    revision: str = "shipped"  # names the weights


@dataclass(frozen=True)
class Seen:
    """A training frame in which the front end found a usable face."""

    name: str
    views: Views  # one row
    pixels: Tensor  # (468, 2) landmarks in the film's pixels
    sequence: str
    frame: int
    image: np.ndarray  # (H, W, 3) uint8
    report: PhotoReport


@dataclass(frozen=True)
class Alignment:
    """x -> scale rotation x + offset, from the avatar's resting head to FLAME's (metres of FLAME's own size).

    ``torso`` (3, 3) is the mean turn of the torso in the world, ``error_px`` the root mean square distance of landmarks
    that remains, ``error`` the same in widths of the face.
    """

    scale: float
    rotation: Tensor
    offset: Tensor
    torso: Tensor
    error_px: float
    error: float


@dataclass(frozen=True)
class Drawn:
    """What came of a person: notes say what of the tracks drives the avatar."""

    person: str
    frames: int  # that the avatar was made of
    alignment: Alignment
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Track:
    """A sequence's FLAME track: ``motion`` in FLAME's own size, the world being ``scale`` times larger."""

    motion: Motion
    scale: float

    def __getitem__(self, rows: list[int]) -> Track:
        return replace(self, motion=replace(self.motion, params=self.motion.params[rows]))


def read_track(data: Path, person: str, sequence: str) -> Track:
    """Raises ``InputError`` where the track is missing or is no NeRSemble track."""
    place = tracking_file(data, person, sequence)
    if place is None:
        raise InputError(f"{data} has no tracking of {person}/{sequence}; give the folder of the benchmark's download.")
    arrays = read_npz(place)
    return Track(motion_from_arrays(arrays, place, "nersemble", fps=24.3), nersemble_scale(arrays, place))


def read_cameras(data: Path, person: str, task: Task) -> dict[str, tuple[Tensor, Tensor]]:
    """serial -> (world_to_cam (4, 4), K (3, 3) of the benchmark's square pictures), float64.

    Raises ``InputError`` where a camera of the task is missing or its lens is that of the uncut films.
    """
    place = person_folder(data, person) / "calibration" / "camera_params.json"
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
        poses, lenses = content["world_2_cam"], content["intrinsics"]
        if not isinstance(lenses, dict):
            raise ValueError("one lens for all cameras: this is the calibration of the uncut films")
        found = {}
        for serial in task.cameras:
            pose, lens = (torch.tensor(value[serial], dtype=torch.float64) for value in (poses, lenses))
            if pose.shape != (4, 4) or lens.shape != (3, 3) or abs(float(pose[:3, :3].det()) - 1) > 1e-2:
                raise ValueError(f"matrices of camera {serial} of another kind")
            found[serial] = (pose, lens)
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{place} is no calibration of the benchmark ({error}); download it again.") from error


def training_frames(data: Path, person: str, task: Task, front_end: FrontEnd, size: int) -> list[Candidate | Seen]:
    """What the front end makes of frames of the training camera's films; a ``Candidate`` says why one was refused.

    Held-out sequences are left out, whatever lies in the folder. Mattes are those of ``alpha_maps`` where there are
    any. Raises ``InputError`` where there is no training film with a track.
    """
    folder, serial = person_folder(data, person) / "sequences", task.cameras[0]
    films = [
        film
        for film in sorted(folder.glob(f"*/images/cam_{serial}.mp4"))
        if film.parent.parent.name not in task.sequences
        and tracking_file(data, person, film.parent.parent.name) is not None
    ]
    if not films:
        raise InputError(f"{folder} has no training film cam_{serial}.mp4 with a FLAME track; download the benchmark.")
    looked_at: list[Candidate | Seen] = []
    for film in films:
        sequence = film.parent.parent.name
        reader = FrameReader(film)
        count = min(reader.count or 1, len(read_track(data, person, sequence).motion))
        wanted = np.unique(np.linspace(0, count - 1, -(-LOOKED_AT // len(films))).round().astype(int)).tolist()
        alpha_film = film.parent.parent / "alpha_maps" / film.name
        alphas = frames_of(FrameReader(alpha_film), wanted) if alpha_film.is_file() else {}
        for number, image in frames_of(reader, wanted).items():
            name = f"{person}/{sequence} frame {number}"
            result = front_end.analyse(image, name, size=size)
            if result.views is None or result.landmarks is None or result.report.crop_box is None:
                looked_at.append(Candidate(name, None, result.report.reason, result.report))
                continue
            views = result.views
            if number in alphas:
                matte = cut_square(alphas[number], CropBox(*result.report.crop_box), size)[..., 0]
                views = replace(
                    views, mattes=torch.from_numpy(matte).float()[None].to(views.mattes) / 255 * views.valid
                )
            pixels = result.landmarks[:MESH_POINTS, :2].double().cpu()
            looked_at.append(Seen(name, views, pixels, sequence, number, image, result.report))
    return looked_at


def head_place(track: Track, flame_joints: Tensor) -> tuple[Tensor, Tensor]:
    """(T, 3, 3), (T, 3), float64: FLAME's resting head x is at R x + t, in units of FLAME's own size.

    The neck turns about its joint ``flame_joints[1]``, the root about FLAME's origin.
    """
    p, joint = track.motion.params, flame_joints[1].double()
    root, neck = axis_angle_to_matrix(p.root.double()), axis_angle_to_matrix(p.neck.double())
    return root @ neck, (root @ (joint - neck @ joint)[..., None])[..., 0] + p.translation.double()


def align(
    points: Tensor, pixels: Tensor, place: tuple[Tensor, Tensor], K: Tensor, world_to_cam: Tensor,
    start: tuple[float, Tensor, Tensor],
) -> tuple[float, Tensor, Tensor, Tensor]:  # fmt: skip
    """The similarity (scale, rotation, offset) that lays landmarks on pictures, and their distances (F, P) in pixels.

    ``points`` (F, P, 3) of the avatar's resting head, ``pixels`` (F, P, 2), ``place`` as ``head_place`` gives it,
    ``world_to_cam`` (F, 4, 4) with translations in FLAME's size. Levenberg-Marquardt on seven numbers, float64; errors
    count in widths of each face.
    """
    scale, rotation, offset = start
    turns, shifts = place
    width = (pixels[..., 0].amax(1) - pixels[..., 0].amin(1))[:, None, None]

    def away(x: Tensor) -> Tensor:
        moved = scale * x[0].exp() * (points @ (rotation @ axis_angle_to_matrix(x[1:4])).mT) + offset + x[4:]
        world = torch.einsum("fij,fpj->fpi", turns, moved) + shifts[:, None]
        seen = torch.einsum("fij,fpj->fpi", world_to_cam[:, :3, :3], world) + world_to_cam[:, None, :3, 3]
        flat = seen @ K.mT
        return flat[..., :2] / flat[..., 2:].clamp_min(1e-3) - pixels

    def residual(x: Tensor) -> Tensor:
        return (away(x) / width).flatten()

    x, damping = torch.zeros(7, dtype=torch.float64), 1e-3
    cost = residual(x).square().sum()
    for _ in range(STEPS):
        jacobian = torch.func.jacfwd(residual)(x)
        normal, right = jacobian.mT @ jacobian, jacobian.mT @ residual(x)
        step = torch.linalg.solve(normal + damping * torch.diag(normal.diagonal() + 1e-9), right)
        new = residual(x - step).square().sum()
        if new < cost:
            done = bool(cost - new < 1e-9 * cost)
            x, cost, damping = x - step, new, damping / 5
            if done:
                break
        else:
            damping *= 10
    turned = rotation @ axis_angle_to_matrix(x[1:4])
    return float(scale * x[0].exp()), turned, offset + x[4:], away(x).norm(dim=-1)


def flame_joints_of(track: Track, options: DriveOptions) -> tuple[Tensor, Tensor]:
    """(5, 3) FLAME's joints and (3,) the middle of its face: from the user's file, else estimated from its template."""
    table, basis = load_flame_map(), load_flame_basis(track.motion, options)
    if basis is None:
        return table.joints.double(), table.face_centre.double()
    corners = basis.v_template.cpu()[table.corners]
    centre = (corners * table.barycentric[..., None]).sum(1)[on_face()].mean(0)
    return (basis.J_regressor @ basis.v_template).cpu().double(), centre.double()


def align_avatar(
    model: FFAvatar, avatar: Avatar, seen: Sequence[Seen], tracks: dict[str, Track], camera: tuple[Tensor, Tensor],
    options: DriveOptions,
) -> Alignment:  # fmt: skip
    """Where the avatar's head is on FLAME's, from training frames. Raises ``InputError`` where nothing fits."""
    spread = np.unique(np.linspace(0, len(seen) - 1, MOST_ALIGNED).round().astype(int))
    used = [seen[index] for index in spread]
    params = drive(model, avatar, Views.cat([one.views for one in used]).to(avatar.identity.device)).to("cpu")
    zero = torch.zeros_like(params.root)
    still = replace(params, root=zero, neck=zero, translation=zero)
    points = posed_landmarks(model, avatar, still.to(avatar.identity.device))[:, :MESH_POINTS].double().cpu()
    first = tracks[used[0].sequence]
    joints, centre = flame_joints_of(first, options)
    places = [head_place(tracks[one.sequence][[one.frame]], joints) for one in used]
    place = torch.cat([turn for turn, _ in places]), torch.cat([shift for _, shift in places])
    pose, K = camera
    views = []
    for one in used:
        view = pose.clone()
        view[:3, 3] /= tracks[one.sequence].scale
        views.append(view)
    table = load_flame_map()
    scale, rotation = (1.0, torch.eye(3)) if is_flame(avatar.rig.head.edition) else (table.scale, table.rotation)
    turn = rotation.double()
    offset = centre - scale * turn @ points.mean((0, 1))
    pixels = torch.stack([one.pixels for one in used])
    scale, turn, offset, away = align(points, pixels, place, K, torch.stack(views), (scale, turn, offset))
    width = (pixels[..., 0].amax(1) - pixels[..., 0].amin(1))[:, None]
    error = float((away / width).square().mean().sqrt())
    if not error <= LARGEST_MISFIT or scale <= 0:
        person = used[0].name.split("/")[0]
        raise InputError(
            f"{person}: the FLAME track misses the face in the training frames by {error:.0%} of its width; track, "
            "films and calibration do not belong together, download them again."
        )
    torso = place[0] @ turn @ axis_angle_to_matrix(params.neck.double()).mT
    return Alignment(scale, turn, offset, nearest_rotation(torso.mean(0)), float(away.square().mean().sqrt()), error)


def nearest_rotation(matrix: Tensor) -> Tensor:
    """The rotation (3, 3) nearest to a matrix: of a mean of rotations their chordal mean."""
    u, _, vt = torch.linalg.svd(matrix)
    return u @ torch.diag(torch.stack([torch.ones(()), torch.ones(()), torch.det(u @ vt).sign()]).to(u)) @ vt


def placed_params(
    avatar: Avatar, track: Track, alignment: Alignment, options: DriveOptions
) -> tuple[HeadParams, tuple[str, ...]]:
    """The avatar's parameters in the capture's world, in units of the avatar's own size, and what was left out.

    The head goes where the track has FLAME's; a third of its turn away from the training frames' mean torso is the
    torso's.
    """
    made = retarget(track.motion, avatar.rig, options)
    joints, _ = flame_joints_of(track, options)
    turns, shifts = head_place(track, joints)
    whole = turns @ alignment.rotation
    away = _axis_angle(alignment.torso.mT @ whole)
    root = alignment.torso @ axis_angle_to_matrix(away * TORSO_SHARE)
    neck = root.mT @ whole
    own = avatar.rig.joints.cpu().double()
    centre = avatar.rig.neutral.cpu().double().mean(0)
    at = (turns @ (alignment.scale * alignment.rotation @ centre + alignment.offset) + shifts) / alignment.scale
    params = replace(made.params, root=_axis_angle(root), neck=_axis_angle(neck), translation=torch.zeros_like(at))
    translation = at - point_of_head(params, own, centre)
    floats = {name: value.float() for name, value in vars(replace(params, translation=translation)).items()}
    return HeadParams(**floats), made.notes


def placed_camera(camera: tuple[Tensor, Tensor], track: Track, alignment: Alignment, frames: int, size: int) -> Camera:
    """A calibrated camera for an avatar of ``placed_params``: a world that is scaled about a camera looks the same."""
    pose, K = camera
    view = pose.clone()
    view[:3, 3] /= track.scale * alignment.scale
    return Camera(view.float().expand(frames, -1, -1), K.float().expand(frames, -1, -1), size, size)


def _axis_angle(matrix: Tensor) -> Tensor:
    return quat_to_axis_angle(matrix_to_quat(matrix))


def draw(avatar: Avatar, params: HeadParams, camera: Camera) -> tuple[Tensor, Tensor]:
    """(B, H, W, 3) colours over black and (B, H, W) alphas, in [0, 1]."""
    device = avatar.identity.device
    drawn = animate(avatar, params.to(device), background=(0.0, 0.0, 0.0), camera=camera.to(device))
    return drawn.images.clamp(0, 1).cpu(), drawn.alphas.clamp(0, 1).cpu()


def render_benchmark(
    data: Path,
    out: Path,
    model: FFAvatar,
    plan: RenderPlan | None = None,
    task: Task | None = None,
    progress: Progress | None = None,
) -> list[Drawn]:
    """``OUT/ID/SEQUENCE/cam_SERIAL/000000.png`` (with transparency) for ``write_submission``.

    Films that are there are left alone, so a stopped run goes on. Beside each person's ``OUT/ID/alignment.png`` shows
    training frames over the avatar posed by their tracks. Returns a row for each person drawn in this run.

    Raises ``InputError`` for a download that is not whole, and for an ``out`` of other settings.
    """
    plan, task = plan or RenderPlan(), task or mono_avatar()
    options = DriveOptions(flame=plan.flame)
    _stamp(out, plan, task)
    films = len(task.films())
    done, drawn, front_end = 0, [], None
    for person in task.people:
        folder = out / person
        missing = [
            (sequence, serial)
            for sequence in task.sequences
            for serial in task.cameras
            if not (folder / sequence / f"cam_{serial}").is_dir()
        ]
        done += len(task.sequences) * len(task.cameras) - len(missing)
        if not missing:
            continue
        cameras = read_cameras(data, person, task)
        tracks = {sequence: read_track(data, person, sequence) for sequence in task.sequences}
        front_end = front_end or FrontEnd(next(model.parameters()).device)
        avatar, seen, chosen = _avatar(data, person, task, front_end, model, plan)
        known = {name: read_track(data, person, name) for name in dict.fromkeys(one.sequence for one in seen)}
        alignment = align_avatar(model, avatar, seen, known, cameras[task.cameras[0]], options)
        folder.mkdir(parents=True, exist_ok=True)
        _alignment_sheet(folder / "alignment.png", avatar, chosen, known, alignment, cameras[task.cameras[0]], options)
        notes: tuple[str, ...] = ()
        for sequence, serial in missing:
            track = tracks[sequence]
            params, notes = placed_params(avatar, track, alignment, options)
            (folder / sequence).mkdir(exist_ok=True)
            with atomic_folder(folder / sequence / f"cam_{serial}") as temporary:
                for start in range(0, len(params), BATCH):
                    rows = params[start : start + BATCH]
                    camera = placed_camera(cameras[serial], track, alignment, len(rows), task.size)
                    for number, (colour, alpha) in enumerate(zip(*draw(avatar, rows, camera)), start):
                        straight = colour / alpha.clamp_min(1e-6)[..., None]
                        rgba = torch.cat([straight.clamp(0, 1), alpha[..., None]], -1)
                        picture = Image.fromarray((rgba * 255).round().to(torch.uint8).numpy())
                        picture.save(temporary / f"{number:06d}.png", compress_level=1)
            done += 1
            if progress is not None:
                progress(done, films)
        drawn.append(Drawn(person, len(chosen), alignment, notes))
    return drawn


def _avatar(
    data: Path, person: str, task: Task, front_end: FrontEnd, model: FFAvatar, plan: RenderPlan
) -> tuple[Avatar, list[Seen], list[Seen]]:
    """The avatar, all usable training frames, and those that it was made of."""
    looked_at = training_frames(data, person, task, front_end, plan.size)
    seen = [one for one in looked_at if isinstance(one, Seen)]
    if not seen:
        reasons = [one.reason for one in looked_at if isinstance(one, Candidate)]
        raise InputError(f"{person}: no training frame shows a usable face; the first: {reasons[0]}")
    candidates = [Candidate(one.name, one.views, "", one.report) for one in seen]
    choice = choose_among(candidates, plan.views)
    kept = {candidate.name for candidate, taken in choice.rows if taken}
    chosen = [one for one in seen if one.name in kept]
    return reconstruct(model, choice.views, plan.level), seen, chosen


def _alignment_sheet(
    place: Path, avatar: Avatar, chosen: Sequence[Seen], tracks: dict[str, Track], alignment: Alignment,
    camera: tuple[Tensor, Tensor], options: DriveOptions,
) -> None:  # fmt: skip
    pictures, shown, mixed = [], [], []
    for one in chosen:
        track = tracks[one.sequence][[one.frame]]
        params, _ = placed_params(avatar, track, alignment, options)
        size = one.image.shape[0]
        colour, alpha = draw(avatar, params, placed_camera(camera, track, alignment, 1, size))
        pictures.append(torch.from_numpy(one.image).float() / 255)
        shown.append(colour[0] + 1 - alpha[0, ..., None])
        mixed.append((pictures[-1] + shown[-1]) / 2)
    rows = [("film", torch.stack(pictures)), ("by its\ntrack", torch.stack(shown)), ("both", torch.stack(mixed))]
    contact_sheet(place, rows, f"landmarks within {alignment.error_px:.1f} px of the track's")


def _stamp(out: Path, plan: RenderPlan, task: Task) -> None:
    """Refuse to mix pictures of different settings in one folder."""
    settings = {
        "views": plan.views, "crop_px": plan.size, "level": plan.level, "weights": plan.revision,
        "flame": None if plan.flame is None else plan.flame.name, "picture_px": task.size,
    }  # fmt: skip
    place = out / STAMP
    if place.is_file():
        try:
            before = json.loads(place.read_text(encoding="utf-8"))
        except ValueError:
            before = None
        if before != settings:
            raise InputError(f"{out} holds pictures of other settings or weights; give another folder.")
        return
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(place) as temporary:
        temporary.write_text(json.dumps(settings), encoding="utf-8")
