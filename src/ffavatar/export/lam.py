"""A zip that LAM's web renderer plays (npm ``gaussian-splat-renderer-for-lam``, aigc3d/LAM).

One folder with ``offset.ply`` (colours raw in f_dc, offsets as positions), ``skin.glb`` (one vertex per Gaussian, 52
ARKit morph targets, skin), ``animation.glb`` (twelve clips in the order its state machine expects) and
``vertex_order.json``. What its code was read to need: a directory entry, bones named ``hip`` and ``head``, no animation
in ``skin.glb``, morph targets named as ARKit does, and a head about 1.6 m above the floor.

That renderer moves every Gaussian with the head bone alone and does not turn it, so shoulders follow the head there.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ffavatar.avatar import Avatar
from ffavatar.drive.motion import Motion, demo_motion
from ffavatar.errors import InputError
from ffavatar.export.gltf import INDICES, TRIANGLES, VERTICES, Glb
from ffavatar.export.mesh import dense_faces
from ffavatar.export.options import ExportOptions, numpy32, posed_splats, provenance, refuse_flame
from ffavatar.export.rig import (
    Places,
    add_animation,
    add_influences,
    add_joints,
    add_targets,
    joint_tracks,
    morph_targets,
)
from ffavatar.export.splats import ply_bytes
from ffavatar.files import atomic_path
from ffavatar.types import HeadParams

BONES = ("hip", "head", "jaw", "leftEye", "rightEye")
CLIPS = (*("hello",) * 2, "idle", *("speak",) * 6, *("think",) * 3)
CLIP_SECONDS = 4.0
EYE_HEIGHT_M = 1.63  # where the renderer's fixed camera looks: from 1.8 m up and 1 m away, 10 degrees downwards
MORE_NAMES = {"cheekPuff": "mouthCheekPuff"}  # the renderer's own list calls it so; both names are written


def write_lam(avatar: Avatar, path: Path, options: ExportOptions) -> None:
    """The resting avatar with clips cut from ``options.motion``, or from the look-around demonstration.

    Raises:
        InputError: a pose or a single frame is asked for, which this package does not hold.
    """
    if options.pose is not None or options.frame is not None:
        raise InputError(f"{path}: LAM's package holds the whole avatar, not a pose; leave pose and frame away.")
    refuse_flame(avatar, path, options)
    avatar = avatar.to("cpu")
    notice = provenance(avatar)
    motion = options.motion or demo_motion(avatar.rig.head, CLIP_SECONDS * len(CLIPS))
    resting = posed_splats(avatar, None)
    moved = replace(resting, means=resting.means - avatar.rig.points())
    folder = "".join(c if c.isalnum() or c in "-_" else "_" for c in path.stem) or "avatar"
    members = {
        "offset.ply": ply_bytes(moved, numpy32(avatar.canonical.colors), list(notice.values())),
        "skin.glb": _skin(avatar, notice),
        "animation.glb": _animation(avatar, motion, notice),
        "vertex_order.json": json.dumps(list(range(len(avatar)))).encode(),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        archive.comment = " ".join(notice.values()).encode()[:65535]
        archive.writestr(_dated(f"{folder}/"), b"")
        for name, content in members.items():
            archive.writestr(_dated(f"{folder}/{name}"), content)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def _dated(name: str) -> zipfile.ZipInfo:
    """An entry with a fixed date, so that the same avatar gives the same file."""
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (0o40755 << 16 | 0x10) if name.endswith("/") else 0o100644 << 16
    return entry


def _skin(avatar: Avatar, notice: dict[str, str]) -> bytes:
    """A skinned mesh whose vertex i is the surface point of Gaussian i."""
    rig = avatar.rig
    glb = Glb(notice)
    skin, joints = add_joints(glb, rig.joints, BONES)
    _raise_to_eye_height(glb, joints[0])
    targets = morph_targets(rig)
    points = numpy32(rig.points())
    faces = dense_faces(rig)
    if faces is None:
        # The renderer reads vertices and never draws the triangles; they only have to be there.
        faces = np.arange(len(points) // 3 * 3).reshape(-1, 3)
    accessors = add_targets(glb, targets, rig, Places.all(avatar))
    names = list(targets.names)
    for name, other in MORE_NAMES.items():
        if name in names and other not in names:
            accessors.append(accessors[names.index(name)])
            names.append(other)
    primitive = {
        "attributes": {"POSITION": glb.add(points, VERTICES, bounds=True)}
        | add_influences(glb, rig.surface.interpolate(rig.head.lbs_weights)),
        "indices": glb.add(faces.astype("<u4").reshape(-1), INDICES),
        "mode": TRIANGLES,
        "targets": accessors,
    }
    mesh = {"name": "head", "primitives": [primitive], "weights": [0.0] * len(names), "extras": {"targetNames": names}}
    node = glb.put("nodes", {"name": "avatar", "mesh": glb.put("meshes", mesh), "skin": skin})
    glb.put("scenes", {"nodes": [node, joints[0]]})
    glb.json["scene"] = 0
    return glb.content()


def _raise_to_eye_height(glb: Glb, root: int) -> None:
    place = glb.json["nodes"][root]["translation"]
    place[1] += EYE_HEIGHT_M


def _animation(avatar: Avatar, motion: Motion, notice: dict[str, str]) -> bytes:
    """The skeleton alone, and twelve clips in which it turns; expressions come from the program that drives it."""
    rig = avatar.rig
    glb = Glb(notice)
    _, joints = add_joints(glb, rig.joints, BONES)
    del glb.json["skins"]  # nothing here is skinned by it
    _raise_to_eye_height(glb, joints[0])
    glb.put("scenes", {"nodes": [joints[0]]})
    glb.json["scene"] = 0
    params = motion.for_head(rig.head)
    length = max(round(CLIP_SECONDS * motion.fps), 2)
    for number, name in enumerate(CLIPS):
        rows = (torch.arange(length) + number * length) % len(params)
        rotations, _ = joint_tracks(rig, _turning(params[rows]))
        still = np.tile([node["translation"] for node in glb.json["nodes"]], (length, 1, 1))
        label = f"{name} {number + 1}"
        add_animation(glb, label, motion.fps, joints, (rotations, still), torch.zeros(length, 0), [])
    return glb.content()


def _turning(params: HeadParams) -> HeadParams:
    """The same rotations, standing still and without expression: the renderer drives the face itself."""
    return replace(
        params, translation=torch.zeros_like(params.translation), expression=torch.zeros_like(params.expression)
    )
