"""GLB: Gaussians under KHR_gaussian_splatting, and meshes; each with rig and motion, or baked in one pose.

Gaussians and mesh are files of their own: programs such as PlayCanvas show every scene of a file at once. A program
that does not know the extension shows the Gaussians as coloured points.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ffavatar.avatar import Avatar
from ffavatar.export.gltf import INDICES, POINTS, TRIANGLES, VERTICES, Glb, srgb_to_linear
from ffavatar.export.mesh import ColouredMesh, posed_mesh, vertex_normals
from ffavatar.export.options import ExportOptions, head_space, numpy32, posed_splats, provenance, refuse_flame
from ffavatar.export.rig import (
    Places,
    add_animation,
    add_influences,
    add_joints,
    add_targets,
    joint_tracks,
    morph_targets,
)
from ffavatar.export.splats import SH_C0
from ffavatar.files import atomic_path
from ffavatar.types import Gaussians, HeadParams

SPLATTING = "KHR_gaussian_splatting"
UNLIT = "KHR_materials_unlit"  # light is baked into an avatar's colours


def write_glb(avatar: Avatar, path: Path, options: ExportOptions) -> None:
    """The resting avatar with joints, skin and ARKit morph targets, animated if there is a motion; or one pose, baked.

    With a pose or a frame the Gaussians are written where that pose puts them, without a rig.
    """
    refuse_flame(avatar, path, options)
    avatar = avatar.to("cpu")
    glb = Glb(provenance(avatar))
    params = _baked(avatar, path, options)
    if params is not None:
        _finish(glb, "avatar", _splat_primitive(glb, posed_splats(avatar, params, options.scale)))
    else:
        points = _splat_primitive(glb, posed_splats(avatar, None, options.scale))
        _finish_rigged(glb, "avatar", avatar, options, points, Places.all(avatar))
    with atomic_path(path) as temporary:
        temporary.write_bytes(glb.content())


def write_mesh_glb(avatar: Avatar, path: Path, options: ExportOptions) -> None:
    """The mesh (see ``export.mesh``) with vertex colours, unlit: rigged as in ``write_glb``, or baked in one pose."""
    refuse_flame(avatar, path, options)
    avatar = avatar.to("cpu")
    glb = Glb(provenance(avatar))
    params = _baked(avatar, path, options)
    if params is not None:
        _finish(glb, "head", _triangles(glb, posed_mesh(avatar, params, options.scale)))
    else:
        made = posed_mesh(avatar, None, options.scale)
        places = Places.base() if made.points is None else Places(torch.from_numpy(made.points))
        _finish_rigged(glb, "head", avatar, options, _triangles(glb, made), places)
    with atomic_path(path) as temporary:
        temporary.write_bytes(glb.content())


def _baked(avatar: Avatar, path: Path, options: ExportOptions) -> HeadParams | None:
    chosen = options.pose is not None or options.frame is not None
    return options.moment(avatar, path) if chosen else None


def _finish(glb: Glb, name: str, primitive: dict[str, Any]) -> None:
    """One node with one mesh in one scene."""
    mesh = glb.put("meshes", {"name": name, "primitives": [primitive]})
    glb.put("scenes", {"name": name, "nodes": [glb.put("nodes", {"name": name, "mesh": mesh})]})
    glb.json["scene"] = 0


def _finish_rigged(
    glb: Glb, name: str, avatar: Avatar, options: ExportOptions, primitive: dict[str, Any], places: Places
) -> None:
    """The same with joints, skin, morph targets and, if there is a motion, an animation.

    ``options.scale`` is already in the ``primitive`` and goes into the joints, targets and tracks here: a node that
    scales the joints alone would be lost on programs that show the points and ignore the skin.
    """
    rig, scale = avatar.rig, options.scale
    motion = None
    if options.motion is not None:
        motion = head_space(options.motion.for_head(rig.head), avatar)
    targets = morph_targets(rig, motion)
    skin, joints = add_joints(glb, rig.joints * scale)
    primitive["attributes"] |= add_influences(glb, places.pick(rig, rig.head.lbs_weights))
    primitive["targets"] = add_targets(glb, targets, rig, places, scale)
    extras = {"targetNames": list(targets.names)}
    mesh = {"name": name, "primitives": [primitive], "weights": [0.0] * len(targets), "extras": extras}
    node = glb.put("nodes", {"name": name, "mesh": glb.put("meshes", mesh), "skin": skin})
    glb.put("scenes", {"name": name, "nodes": [node, joints[0]]})
    glb.json["scene"] = 0
    if motion is not None and options.motion is not None:
        title, fps = options.motion.source or "motion", options.motion.fps
        add_animation(glb, title, fps, joints, joint_tracks(rig, motion), targets.weights, [node], scale)


def _splat_primitive(glb: Glb, made: Gaussians) -> dict[str, Any]:
    """Points. Scales are linear, rotations xyzw, COLOR_0 is what other programs show."""
    glb.uses(SPLATTING)
    colours = numpy32(made.colors)
    opacities = np.clip(numpy32(made.opacities), 0, 1)
    fallback = np.concatenate([srgb_to_linear(colours), opacities[:, None]], 1)
    rotations = np.round(made.quats[:, [1, 2, 3, 0]].double().numpy() * 32767).astype("<i2")
    attributes = {
        "POSITION": glb.add(numpy32(made.means), VERTICES, bounds=True),
        "COLOR_0": glb.add(np.round(fallback * 65535).astype("<u2"), VERTICES, normalized=True),
        f"{SPLATTING}:ROTATION": glb.add(rotations, VERTICES, normalized=True),
        f"{SPLATTING}:SCALE": glb.add(numpy32(made.scales), VERTICES),
        f"{SPLATTING}:OPACITY": glb.add(opacities.astype("<f4"), VERTICES),
        f"{SPLATTING}:SH_DEGREE_0_COEF_0": glb.add(((colours - 0.5) / SH_C0).astype("<f4"), VERTICES),
    }
    kind = {
        "kernel": "ellipse",
        "colorSpace": "srgb_rec709_display",
        "sortingMethod": "cameraDistance",
        "projection": "perspective",
    }
    return {"attributes": attributes, "mode": POINTS, "extensions": {SPLATTING: kind}}


def _triangles(glb: Glb, made: ColouredMesh) -> dict[str, Any]:
    """A mesh that shows its vertex colours without lighting, from both sides."""
    colours = np.concatenate([srgb_to_linear(made.colours), np.ones((len(made.colours), 1))], 1)
    attributes = {
        "POSITION": glb.add(made.vertices, VERTICES, bounds=True),
        "NORMAL": glb.add(vertex_normals(made.vertices, made.faces), VERTICES),
        "COLOR_0": glb.add(np.round(colours * 65535).astype("<u2"), VERTICES, normalized=True),
    }
    glb.uses(UNLIT)
    surface = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    skin = {"name": "skin", "pbrMetallicRoughness": surface, "doubleSided": True, "extensions": {UNLIT: {}}}
    return {
        "attributes": attributes,
        "indices": glb.add(made.faces.astype("<u4").reshape(-1), INDICES),
        "mode": TRIANGLES,
        "material": glb.put("materials", skin),
    }
