"""A head as glTF sees it: joints, skin, morph targets and their motion.

glTF morphs first and skins then, as the head model does. Three things need care:

- Pose correctives depend on joint rotations. They become morph targets (``corrective_00`` ...) whose weights the
  animation carries, one per entry of R - 1 of joints 1 to 4.
- ARKit's names that are joint rotations with this head (jawOpen, eyeLook...) are baked as morph targets too, linear in
  their weight, for programs that know nothing but the 52 names. The animation leaves them at zero and turns the joints.
- FLAME's expressions move the joints. Each joint's node follows the skinning matrix exactly, so its translation is
  animated wherever it changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ffavatar.animate import Rig
from ffavatar.avatar import Avatar
from ffavatar.export.gltf import VERTICES, Glb
from ffavatar.geometry import axis_angle_to_matrix, axis_angle_to_quat
from ffavatar.head.model import JOINTS, PARENTS
from ffavatar.types import HeadParams

LEAST_M = 1e-5  # a morph target leaves out what moves less than a hundredth of a millimetre
LEAST_WEIGHT = 1e-4


@dataclass(frozen=True)
class Targets:
    """Morph targets at base vertices, and their weights over time where there is a motion."""

    names: tuple[str, ...]
    offsets: Tensor  # (K, V, 3) metres at weight 1
    weights: Tensor  # (T, K); T = 0 without a motion

    def __len__(self) -> int:
        return len(self.names)


def morph_targets(rig: Rig, motion: HeadParams | None = None) -> Targets:
    """All of the head's expressions but MakeHuman's own (``mh_...``), and ARKit's names that are turns of joints.

    With ``motion`` also what else it uses: other expressions, and pose correctives.
    """
    head = rig.head
    names = list(head.expression_names)
    frames = 0 if motion is None else len(motion)
    expression = torch.zeros(0, len(names)) if motion is None else motion.expression.cpu()
    always = [not name.startswith("mh_") for name in names]
    used = expression.abs().amax(0) > LEAST_WEIGHT if frames else torch.zeros(len(names), dtype=torch.bool)
    kept = [i for i in range(len(names)) if always[i] or used[i]]
    parts = [head.expdirs[..., kept].permute(2, 0, 1)]
    weights = [expression[:, kept]]
    chosen = [names[i] for i in kept]

    turned = [name for name in head.arkit_pose if name not in names]
    if turned:
        parts.append(torch.stack([_baked(rig, head.arkit_pose[name]) for name in turned]))
        weights.append(torch.zeros(frames, len(turned)))
        chosen += turned

    if motion is not None:
        turns = axis_angle_to_matrix(motion.joint_rotations().cpu()[:, 1:]) - torch.eye(3)
        feature = turns.flatten(1)  # (T, 36)
        moving = [
            k
            for k in range(feature.shape[1])
            if feature[:, k].abs().max() > LEAST_WEIGHT and head.posedirs[..., k].abs().max() > LEAST_M
        ]
        parts.append(head.posedirs[..., moving].permute(2, 0, 1))
        weights.append(feature[:, moving])
        chosen += [f"corrective_{k:02d}" for k in moving]
    return Targets(tuple(chosen), torch.cat(parts).contiguous(), torch.cat(weights, 1))


def _baked(rig: Rig, rotations: Tensor) -> Tensor:
    """(V, 3): how far the resting head's vertices go when the joints turn by ``rotations`` (5, 3) axis-angle."""
    params = HeadParams.neutral(1, rig.head.expression_size, distance_m=0.0)
    root, neck, jaw, left, right = rotations.to(params.root)[None].unbind(1)
    params = replace(params, root=root, neck=neck, jaw=jaw, eye_left=left, eye_right=right)
    with torch.no_grad():
        return rig.head.pose(rig.neutral[None], rig.joints[None], params).vertices[0] - rig.neutral


@dataclass(frozen=True)
class Places:
    """Where a primitive's vertices lie: at the surface points of Gaussians ``rows``, or at the base vertices."""

    rows: Tensor | None  # (M,) int64; None: the base vertices

    @staticmethod
    def all(avatar: Avatar) -> Places:
        return Places(torch.arange(len(avatar)))

    @staticmethod
    def base() -> Places:
        return Places(None)

    def pick(self, rig: Rig, values: Tensor) -> Tensor:
        """Values at base vertices (V, C), blended for these places: (M, C)."""
        return values if self.rows is None else rig.surface.interpolate(values)[self.rows]


def add_targets(glb: Glb, targets: Targets, rig: Rig, places: Places, scale: float = 1.0) -> list[dict[str, int]]:
    """The ``targets`` of a primitive, one sparse accessor each; ``scale`` is in units of the file per metre."""
    made = []
    for offsets in targets.offsets:
        moved = places.pick(rig, offsets).numpy()
        rows = np.flatnonzero(np.abs(moved).max(1) > LEAST_M)
        made.append({"POSITION": glb.add_sparse(len(moved), rows, moved[rows] * scale)})
    return made


def add_influences(glb: Glb, weights: Tensor) -> dict[str, int]:
    """Skinning weights (N, 5) as the attributes JOINTS_0 and WEIGHTS_0: the four largest of each row; sum 1."""
    values, joints = weights.double().topk(4, dim=1)
    share = values / values.sum(1, keepdim=True)
    whole = (share * 65535).round().long()
    whole[:, 0] += 65535 - whole.sum(1)  # rounding goes to the largest; the specification asks for an exact sum
    joints = torch.where(whole > 0, joints, torch.zeros_like(joints))  # unused slots must name joint 0
    return {
        "JOINTS_0": glb.add(joints.numpy().astype("u1"), VERTICES),
        "WEIGHTS_0": glb.add(whole.numpy().astype("<u2"), VERTICES, normalized=True),
    }


def add_joints(glb: Glb, joints: Tensor, names: tuple[str, ...] = JOINTS) -> tuple[int, list[int]]:
    """Nodes and a skin for the five joints at ``joints`` (5, 3). Returns the skin and the nodes."""
    places = joints.double().numpy()
    nodes = []
    for joint, name in enumerate(names):
        origin = places[PARENTS[joint]] if PARENTS[joint] >= 0 else 0
        nodes.append(glb.put("nodes", {"name": name, "translation": (places[joint] - origin).tolist()}))
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            glb.json["nodes"][nodes[parent]].setdefault("children", []).append(nodes[joint])
    inverse = np.tile(np.eye(4, dtype="<f4"), (5, 1, 1))
    inverse[:, 3, :3] = -places  # by columns: the last row here is the last column there
    skin = {"joints": nodes, "skeleton": nodes[0], "inverseBindMatrices": glb.add(inverse.reshape(5, 16))}
    return glb.put("skins", skin), nodes


def joint_tracks(rig: Rig, motion: HeadParams) -> tuple[np.ndarray, np.ndarray]:
    """Local rotations (T, 5, 4) xyzw and translations (T, 5, 3) of the joints' nodes, in the motion's own world."""
    transforms = rig.head.joint_transforms(rig.joints[None], motion.to("cpu"))
    turns = transforms.rotations.double()
    where = (turns @ rig.joints.double()[..., None])[..., 0] + transforms.translations.double()
    local = where.clone()
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            apart = where[:, joint] - where[:, parent]
            local[:, joint] = (turns[:, parent].mT @ apart[..., None])[..., 0]
    quats = axis_angle_to_quat(motion.joint_rotations().cpu().double())
    return _continuous(quats.numpy())[..., [1, 2, 3, 0]], local.numpy()


def _continuous(quats: np.ndarray) -> np.ndarray:
    """The same rotations without jumps of sign from frame to frame, so that interpolation takes the short way."""
    dots = (quats[1:] * quats[:-1]).sum(-1, keepdims=True)
    signs = np.cumprod(np.where(dots < 0, -1.0, 1.0), axis=0)
    return np.concatenate([quats[:1], quats[1:] * signs])


def add_animation(
    glb: Glb,
    name: str,
    fps: float,
    nodes: list[int],
    tracks: tuple[np.ndarray, np.ndarray],
    weights: Tensor,
    morphed: list[int],
    scale: float = 1.0,
) -> None:
    """A clip: joints turn (and move, where they do), ``morphed`` nodes get the morph weights (T, K).

    ``tracks`` are in metres, as :func:`joint_tracks` gives them; ``scale`` is in units of the file per metre.
    """
    rotations, translations = tracks
    times = glb.add((np.arange(len(rotations)) / fps).astype("<f4"), bounds=True)
    samplers: list[dict[str, int | str]] = []
    channels = []

    def channel(node: int, path: str, values: np.ndarray) -> None:
        samplers.append({"input": times, "output": glb.add(values.astype("<f4")), "interpolation": "LINEAR"})
        channels.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": path}})

    for joint, node in enumerate(nodes):
        channel(node, "rotation", rotations[:, joint])
        rest = np.array(glb.json["nodes"][node]["translation"]) / scale
        if np.abs(translations[:, joint] - rest).max() > LEAST_M / 10:
            channel(node, "translation", translations[:, joint] * scale)
    if weights.shape[1]:
        for node in morphed:
            channel(node, "weights", weights.numpy().reshape(-1))
    glb.put("animations", {"name": name, "samplers": samplers, "channels": channels})
