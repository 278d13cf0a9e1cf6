"""GLB: Gaussians under KHR_gaussian_splatting, with the rig and motion beside them or baked in one pose.

Scene 0 (shown first) holds the Gaussians; a program that does not know the extension shows them as coloured points.
Scene 1 of a rigged file holds the base mesh on the same joints, with the same morph targets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ffavatar.avatar import Avatar
from ffavatar.export.gltf import INDICES, POINTS, TRIANGLES, VERTICES, Glb, srgb_to_linear
from ffavatar.export.mesh import posed_mesh, vertex_colours, vertex_normals
from ffavatar.export.options import ExportOptions, head_space, numpy32, posed_splats, provenance, refuse_flame
from ffavatar.export.rig import (
    Targets,
    add_animation,
    add_influences,
    add_joints,
    add_targets,
    joint_tracks,
    morph_targets,
)
from ffavatar.export.splats import SH_C0
from ffavatar.files import atomic_path
from ffavatar.types import Gaussians

SPLATTING = "KHR_gaussian_splatting"
UNLIT = "KHR_materials_unlit"  # light is baked into an avatar's colours


def write_glb(avatar: Avatar, path: Path, options: ExportOptions) -> None:
    """The resting avatar with joints, skin and ARKit morph targets, animated if there is a motion; or one pose, baked.

    With a pose or a frame the Gaussians are written where that pose puts them, without a rig.
    """
    refuse_flame(avatar, path, options)
    avatar = avatar.to("cpu")
    glb = Glb(provenance(avatar))
    params = options.moment(avatar, path) if options.pose is not None or options.frame is not None else None
    if params is not None:
        made = posed_splats(avatar, params, options.scale)
        mesh = _splat_mesh(glb, made, {}, None)
        glb.put("scenes", {"name": "avatar", "nodes": [glb.put("nodes", {"name": "avatar", "mesh": mesh})]})
    else:
        _add_rigged(glb, avatar, options)
    glb.json["scene"] = 0
    with atomic_path(path) as temporary:
        temporary.write_bytes(glb.content())


def _add_rigged(glb: Glb, avatar: Avatar, options: ExportOptions) -> None:
    rig = avatar.rig
    motion = None
    if options.motion is not None:
        motion = head_space(options.motion.for_head(rig.head), avatar)
    targets = morph_targets(rig, motion)
    skin, joints = add_joints(glb, rig.joints)

    made = posed_splats(avatar, None)
    influences = add_influences(glb, rig.surface.interpolate(rig.head.lbs_weights))
    splat_mesh = _splat_mesh(glb, made, influences, targets, add_targets(glb, targets, rig))
    splats = glb.put("nodes", {"name": "avatar", "mesh": splat_mesh, "skin": skin})
    base = glb.put("nodes", {"name": "base mesh", "mesh": _base_mesh(glb, avatar, targets), "skin": skin})

    top = joints[0]
    if options.scale != 1.0:
        # joints carry the skinned meshes with them: one node above scales everything, motion included
        top = glb.put("nodes", {"name": "scale", "scale": [options.scale] * 3, "children": [joints[0]]})
    glb.put("scenes", {"name": "avatar", "nodes": [splats, top]})
    glb.put("scenes", {"name": "base mesh", "nodes": [base, top]})
    if motion is not None and options.motion is not None:
        name, fps = options.motion.source or "motion", options.motion.fps
        add_animation(glb, name, fps, joints, joint_tracks(rig, motion), targets.weights, [splats, base])


def _splat_mesh(
    glb: Glb,
    made: Gaussians,
    influences: dict[str, int],
    targets: Targets | None,
    accessors: list[dict[str, int]] | None = None,
) -> int:
    """A mesh of one primitive of points. Scales are linear, rotations xyzw, COLOR_0 is what other programs show."""
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
    primitive: dict[str, Any] = {"attributes": attributes | influences, "mode": POINTS, "extensions": {SPLATTING: kind}}
    return _mesh(glb, "avatar", primitive, targets, accessors)


def _base_mesh(glb: Glb, avatar: Avatar, targets: Targets) -> int:
    rig = avatar.rig
    faces = rig.head.faces.numpy()
    colours = np.concatenate([srgb_to_linear(vertex_colours(avatar)), np.ones((len(rig.neutral), 1))], 1)
    attributes = {
        "POSITION": glb.add(numpy32(rig.neutral), VERTICES, bounds=True),
        "NORMAL": glb.add(vertex_normals(rig.neutral.numpy(), faces), VERTICES),
        "COLOR_0": glb.add(np.round(colours * 65535).astype("<u2"), VERTICES, normalized=True),
    }
    attributes |= add_influences(glb, rig.head.lbs_weights)
    primitive = {
        "attributes": attributes,
        "indices": glb.add(faces.astype("<u4").reshape(-1), INDICES),
        "mode": TRIANGLES,
        "material": unlit_material(glb),
    }
    return _mesh(glb, "base mesh", primitive, targets, add_targets(glb, targets, None))


def _mesh(
    glb: Glb,
    name: str,
    primitive: dict[str, Any],
    targets: Targets | None,
    accessors: list[dict[str, int]] | None,
) -> int:
    item: dict[str, Any] = {"name": name, "primitives": [primitive]}
    if targets is not None and len(targets):
        primitive["targets"] = accessors
        item |= {"weights": [0.0] * len(targets), "extras": {"targetNames": list(targets.names)}}
    return glb.put("meshes", item)


def unlit_material(glb: Glb) -> int:
    """White, without lighting, seen from both sides: the mesh shows its vertex colours."""
    glb.uses(UNLIT)
    surface = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    item = {"name": "skin", "pbrMetallicRoughness": surface, "doubleSided": True, "extensions": {UNLIT: {}}}
    return glb.put("materials", item)


def write_mesh_glb(avatar: Avatar, path: Path, options: ExportOptions) -> None:
    """The posed mesh (see ``export.mesh``) with vertex colours, unlit."""
    refuse_flame(avatar, path, options)
    made = posed_mesh(avatar, options.moment(avatar, path), options.scale)
    glb = Glb(provenance(avatar))
    colours = np.concatenate([srgb_to_linear(made.colours), np.ones((len(made.colours), 1))], 1)
    attributes = {
        "POSITION": glb.add(made.vertices, VERTICES, bounds=True),
        "NORMAL": glb.add(vertex_normals(made.vertices, made.faces), VERTICES),
        "COLOR_0": glb.add(np.round(colours * 65535).astype("<u2"), VERTICES, normalized=True),
    }
    primitive = {
        "attributes": attributes,
        "indices": glb.add(made.faces.astype("<u4").reshape(-1), INDICES),
        "mode": TRIANGLES,
        "material": unlit_material(glb),
    }
    node = glb.put("nodes", {"name": "head", "mesh": glb.put("meshes", {"name": "head", "primitives": [primitive]})})
    glb.put("scenes", {"name": "head", "nodes": [node]})
    glb.json["scene"] = 0
    with atomic_path(path) as temporary:
        temporary.write_bytes(glb.content())
