"""A motion of any head model, for the head of an avatar.

FLAME -> embedded head: let A be the turn from the embedded template to FLAME's (a nod of about 4 degrees, since the two
resting faces do not look in the same direction). The face keeps its direction in the world (R_root R_neck A), the gaze
its own (A' R_eye), and the middle of the face its place, so that the differing joints do not matter. FLAME's root and
neck joints are in its model file only; without it they are estimated from its template, to about 3 cm, which misplaces
the face by up to 3 cm x the turn in radians: 1 cm at 20 degrees.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ffavatar.animate import Rig
from ffavatar.drive.arkit import EDITION as ARKIT
from ffavatar.drive.arkit import from_arkit
from ffavatar.drive.flame_map import (
    EMBEDDED,
    ExpressionTransfer,
    embedded_head,
    is_flame,
    load_flame_map,
    on_face,
)
from ffavatar.drive.motion import Motion
from ffavatar.drive.options import DriveOptions, Torso
from ffavatar.errors import InputError
from ffavatar.geometry import axis_angle_to_matrix, matrix_to_quat, quat_to_axis_angle
from ffavatar.head import HeadModel, load_head
from ffavatar.types import HeadParams

DISTANCE_M = 1.15  # of a resting avatar from the normalised camera
TORSO_SHARE = 0.35  # of the head's turn that the torso makes: as in the estimator's proposal


@dataclass(frozen=True)
class Retargeted:
    """Parameters for the avatar's head (CPU), what could not be carried over (sentences), and how well the
    expressions were: root mean square over the face in mm, of what remains and of the motion; None where exact."""

    params: HeadParams
    notes: tuple[str, ...] = ()
    residual_mm: float | None = None
    moved_mm: float | None = None


def retarget(motion: Motion, rig: Rig, options: DriveOptions | None = None) -> Retargeted:
    """``motion`` for the head of ``rig``.

    FLAME's expression coefficients need the basis they belong to: ``options.flame``, or the avatar's own head where it
    is of the same edition; otherwise they are left out, and a note gives the remedy. Raises ``InputError`` where the
    FLAME file is of another edition than the track.
    """
    options = options or DriveOptions()
    head, edition = rig.head, motion.head_edition
    if edition == head.edition:
        made = Retargeted(motion.for_head(head), _unmatched(motion, head))
        whole = made.params
        if not motion.placed or motion.camera is not None:
            whole = _place(whole, whole, rig, motion, rig.joints.cpu(), _face_centre(rig))
        return replace(made, params=share_turn(whole, rig, options.torso, "follow"))
    if edition == ARKIT:
        return _from_arkit(motion, rig, options)
    if is_flame(edition):
        return _from_flame(motion, rig, options)
    if is_flame(head.edition) and edition == EMBEDDED:
        return _embedded_to_flame(motion, rig, options)
    params = motion.for_head(head)
    return Retargeted(share_turn(params, rig, options.torso, "follow"), _unmatched(motion, head))


def carried_over(motion: Motion, rig: Rig, options: DriveOptions | None = None) -> tuple[Motion, tuple[str, ...]]:
    """:func:`retarget` as a motion of the rig's own head, which stands before the normalised camera; and what is to be
    said of it. One that is so already stays what it is."""
    head = rig.head
    if motion.head_edition == head.edition and motion.placed and motion.camera is None:
        return motion, (*motion.notes, *_unmatched(motion, head))
    made = retarget(motion, rig, options)
    whole = Motion(motion.fps, made.params, head.edition, tuple(head.expression_names), motion.source)
    return whole, (*motion.notes, *made.notes)


def _unmatched(motion: Motion, head: HeadModel) -> tuple[str, ...]:
    missing = motion.unmatched(head)
    if not missing:
        return ()
    return (f"{len(missing)} expressions of the motion are unknown to this head, such as {', '.join(missing[:3])}.",)


def _from_arkit(motion: Motion, rig: Rig, options: DriveOptions) -> Retargeted:
    if is_flame(rig.head.edition):
        own = embedded_head()
        params, lost = from_arkit(motion, own)
        between = replace(motion, params=params, head_edition=own.edition, expression_names=tuple(own.expression_names))
        made = _embedded_to_flame(between, rig, options)
        return replace(made, notes=(*_lost(lost), *made.notes))
    params, lost = from_arkit(motion, rig.head)
    placed = _place(params, params, rig, motion, rig.joints.cpu(), _face_centre(rig))
    return Retargeted(share_turn(placed, rig, options.torso, "split"), _lost(lost))


def _lost(names: list[str]) -> tuple[str, ...]:
    return (f"this head has no shape or joint for {', '.join(names[:3])}.",) if names else ()


def _from_flame(motion: Motion, rig: Rig, options: DriveOptions) -> Retargeted:
    basis = load_flame_basis(motion, options)
    notes: list[str] = []
    p, head = motion.params, rig.head
    named = motion.for_head(head).expression  # eyelids, which some trackers have by ARKit's name
    columns = [i for i, name in enumerate(motion.expression_names) if name.startswith("expression_")]
    wanted = p.expression[:, columns]
    jaw_shift, residual, moved = torch.zeros(len(motion)), None, None
    if basis is not None:
        no_jaw = motion.head_edition == "flame2023_no_jaw" and not is_flame(head.edition)
        carried, residual, moved = ExpressionTransfer.between(basis, head, no_jaw).carry(wanted)
        if no_jaw:
            carried, jaw_shift = carried[:, :-1], carried[:, -1].clamp(0, 0.6)
        expression = named + carried
        notes.append(
            f"FLAME's expressions were carried over by least squares: {residual:.2f} mm rms remain of {moved:.2f} mm."
        )
    else:
        expression = named
        if wanted.numel() and float(wanted.abs().max()) > 1e-4:
            what = f"{wanted.shape[1]} expression coefficients of {motion.head_edition} were left out"
            notes.append(f"{what}: give that FLAME model file (--flame FILE); head, jaw and eyes drive without it.")
    joints = rig.joints.cpu()
    centre = _face_centre(rig)
    if is_flame(head.edition):
        turned = p
        flame_joints, flame_centre = joints, centre
    else:
        table = load_flame_map()
        nod = table.rotation
        flame_joints = table.joints if basis is None else (basis.J_regressor @ basis.v_template).cpu()
        flame_centre = table.face_centre
        if basis is not None:
            corners = basis.v_template.cpu()[table.corners]
            flame_centre = (corners * table.barycentric[..., None]).sum(1)[on_face()].mean(0)
        turned = replace(
            p,
            neck=_axis_angle(axis_angle_to_matrix(p.neck) @ nod),
            jaw=p.jaw @ nod,  # the axis of the turn, seen from the embedded head's frame
            eye_left=_axis_angle(nod.T @ axis_angle_to_matrix(p.eye_left)),
            eye_right=_axis_angle(nod.T @ axis_angle_to_matrix(p.eye_right)),
        )
    jaw = turned.jaw.clone()
    jaw[:, 0] += jaw_shift
    turned = replace(turned, jaw=jaw, expression=expression)
    placed = _place(p, turned, rig, motion, flame_joints, flame_centre)
    return Retargeted(share_turn(placed, rig, options.torso, "split"), tuple(notes), residual, moved)


def _embedded_to_flame(motion: Motion, rig: Rig, options: DriveOptions) -> Retargeted:
    own, table = embedded_head(), load_flame_map()
    carried, residual, moved = ExpressionTransfer.between(own, rig.head).carry(motion.for_head(own).expression)
    p, nod = motion.params, table.rotation
    turned = replace(
        p,
        neck=_axis_angle(axis_angle_to_matrix(p.neck) @ nod.T),
        jaw=p.jaw @ nod.T,
        eye_left=_axis_angle(nod @ axis_angle_to_matrix(p.eye_left)),
        eye_right=_axis_angle(nod @ axis_angle_to_matrix(p.eye_right)),
        expression=carried,
    )
    own_joints = own.J_regressor @ own.v_template
    own_centre = own.v_template[table.vertex][on_face()].mean(0)
    placed = _place(p, turned, rig, motion, own_joints, own_centre)
    note = f"the expressions were carried over by least squares: {residual:.2f} mm rms remain of {moved:.2f} mm."
    return Retargeted(share_turn(placed, rig, options.torso, "follow"), (note,), residual, moved)


def load_flame_basis(motion: Motion, options: DriveOptions) -> HeadModel | None:
    """The user's FLAME file for this motion. ``InputError`` where the editions differ or cannot be compared."""
    if options.flame is None:
        return None
    basis = load_head(options.flame, None)
    if not is_flame(basis.edition):
        raise InputError(f"{options.flame} is no FLAME model file; give the one of {motion.head_edition}.")
    if motion.head_edition == "flame_unknown":
        raise InputError("The track does not say which FLAME it was made with; say it, such as --edition flame2020.")
    if basis.edition == "flame_unknown":
        basis = load_head(options.flame, motion.head_edition)  # a renamed file: the user vouches for it
    if basis.edition != motion.head_edition:
        words = f"is {basis.edition}, the track is {motion.head_edition}"
        raise InputError(f"{options.flame} {words}; give the FLAME file of that edition, or correct --edition.")
    return basis


def _face_centre(rig: Rig) -> Tensor:
    """Middle of the face of the resting avatar (3,)."""
    table = load_flame_map()
    neutral = rig.neutral.cpu()
    if is_flame(rig.head.edition):
        points = (neutral[table.corners] * table.barycentric[..., None]).sum(1)
        return points[on_face()].mean(0)
    return neutral[table.vertex][on_face()].mean(0)


def point_of_head(params: HeadParams, joints: Tensor, point: Tensor, pivot: Tensor | None = None) -> Tensor:
    """Where a point (3,) of the resting head is in each frame (T, 3): turned by neck and root, then translated."""
    root, neck = axis_angle_to_matrix(params.root), axis_angle_to_matrix(params.neck)
    about = joints[0] if pivot is None else pivot
    on_torso = neck @ (point - joints[1]) + joints[1]
    return (root @ (on_torso - about)[..., None])[..., 0] + about + params.translation


def _place(
    driver: HeadParams, turned: HeadParams, rig: Rig, motion: Motion, joints: Tensor, centre: Tensor
) -> HeadParams:
    """``turned`` with its root seen by the driver's camera and the face where the driver's is, in the avatar's frame.

    ``joints`` and ``centre`` are the driver's head model's. A window is fixed around the head: the median place of the
    face is that of the resting avatar, its median size in the picture the avatar's own.
    """
    if motion.placed and motion.camera is None:
        # both are in the world of the normalised camera: the face stays where it is
        face = point_of_head(driver, joints, centre)
        return replace(turned, translation=face - _moved(turned, rig))
    pivot = None if motion.root_pivot_m is None else torch.tensor(motion.root_pivot_m)
    face = point_of_head(driver, joints, centre, pivot)
    root = axis_angle_to_matrix(turned.root)
    if motion.camera is not None:
        flip = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
        view = flip @ motion.camera.world_to_cam[:, :3, :3]
        root = view @ root
        face = (view @ face[..., None])[..., 0] + motion.camera.world_to_cam[:, :3, 3] @ flip
        side = max(motion.camera.width, motion.camera.height)
        focal = motion.camera.K[:, 0, 0] / side
        depth = (-face[:, 2]).clamp_min(0.05)
        across = motion.camera.K[:, :2, 2] / side - 0.5 * torch.tensor(
            [motion.camera.width / side, motion.camera.height / side]
        )
        seen = face[:, :2] / depth[:, None] * focal[:, None] + across * torch.tensor([1.0, -1.0])
        # sideways in metres from the median; depths so that the head's size in the picture is on average the avatar's
        plane = (seen - seen.median(0).values) * depth[:, None] / focal[:, None]
        at = DISTANCE_M - float(_face_centre(rig)[2])
        depth = depth / focal
        face = torch.cat([plane, at - depth[:, None] * at / depth.median()], 1)
    else:
        face = face - face.median(0).values
    turned = replace(turned, root=_axis_angle(root))
    middle = _face_centre(rig) + torch.tensor([0.0, 0.0, -DISTANCE_M])
    return replace(turned, translation=face + middle - _moved(turned, rig))


def _moved(params: HeadParams, rig: Rig) -> Tensor:
    """Where the avatar's face goes by its turns alone (T, 3)."""
    still = replace(params, translation=torch.zeros_like(params.translation))
    return point_of_head(still, rig.joints.cpu(), _face_centre(rig))


def share_turn(params: HeadParams, rig: Rig, torso: Torso, own: Torso = "follow") -> HeadParams:
    """Divide the head's whole turn between torso and neck (CPU); the face stays where it is.

    ``own`` is what ``torso="own"`` stands for with this driver; ``follow`` leaves the division as it is.
    """
    way = own if torso == "own" else torso
    if way == "follow":
        return params
    joints, centre = rig.joints.cpu(), _face_centre(rig)
    face = point_of_head(params, joints, centre)
    whole = axis_angle_to_matrix(params.root) @ axis_angle_to_matrix(params.neck)
    part = TORSO_SHARE if way == "split" else 0.0
    root = _axis_angle(whole) * part
    neck = _axis_angle(axis_angle_to_matrix(root).mT @ whole)
    shared = replace(params, root=root, neck=neck)
    return replace(shared, translation=face - _moved(shared, rig))


def _axis_angle(matrix: Tensor) -> Tensor:
    return quat_to_axis_angle(matrix_to_quat(matrix))
