"""The head model, FLAME's formulas (Li et al. 2017): template + blendshapes + pose correctives, then skinning.

Axes and units are FLAME's: metres, +x the person's left, +y up, +z out of the face. Five joints: global (the torso),
neck, jaw, eye_left, eye_right. ``V`` vertices, ``I`` identity and ``E`` expression coefficients.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ffavatar.errors import InputError
from ffavatar.geometry import axis_angle_to_matrix, axis_angle_to_quat, quat_multiply
from ffavatar.head.surface import Surface, subdivide
from ffavatar.types import HeadParams

JOINTS = ("global", "neck", "jaw", "eye_left", "eye_right")
PARENTS = (-1, 0, 1, 1, 1)


@dataclass
class HeadArrays:
    """What a head consists of, as numpy arrays; a loader fills it, :class:`HeadModel` uses it."""

    v_template: np.ndarray  # (V, 3)
    faces: np.ndarray  # (F, 3)
    shapedirs: np.ndarray  # (V, 3, I)
    expdirs: np.ndarray  # (V, 3, E)
    posedirs: np.ndarray  # (V, 3, 36)
    J_regressor: np.ndarray  # (5, V)
    lbs_weights: np.ndarray  # (V, 5)
    expression_names: tuple[str, ...]
    regions: dict[str, np.ndarray]  # name -> (V,) bool
    edition: str
    licence: str
    joints_follow_expression: bool  # FLAME regresses joints from the expressive shape
    uvs: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    faces_uv: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    landmark_faces: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    landmark_barycentric: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    landmark_weights: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    mh_vertex: np.ndarray | None = None  # (V,) MakeHuman base vertex, -1 for none
    mirror: np.ndarray | None = None  # (V,) mirror image of each vertex
    arkit_pose: dict[str, np.ndarray] = field(default_factory=dict)  # ARKit name -> (5, 3) axis-angle at 1

    def check(self, source: str) -> None:
        """Raise InputError, naming ``source``, unless shapes and values fit together."""
        v = len(self.v_template)
        shapes = {
            "v_template": (v, 3),
            "faces": (len(self.faces), 3),
            "shapedirs": (v, 3, self.shapedirs.shape[-1]),
            "expdirs": (v, 3, len(self.expression_names)),
            "posedirs": (v, 3, 36),
            "J_regressor": (5, v),
            "lbs_weights": (v, 5),
            "faces_uv": (len(self.faces_uv), 3),
            "landmark_barycentric": (len(self.landmark_faces), 3),
            "landmark_weights": (len(self.landmark_faces),),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape:
                raise InputError(f"{source}: {name} has shape {array.shape}, expected {shape}; get the file again.")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise InputError(f"{source}: {name} holds numbers that are not finite; get the file again.")
        for name, limit in (("faces", v), ("landmark_faces", len(self.faces)), ("faces_uv", len(self.uvs))):
            array = getattr(self, name)
            if array.size and not 0 <= array.min() <= array.max() < limit:
                raise InputError(f"{source}: {name} points outside the mesh; get the file again.")
        if np.abs(self.lbs_weights.sum(1) - 1).max() > 1e-3:
            raise InputError(f"{source}: the skinning weights do not sum to one; get the file again.")


class PosedHead(NamedTuple):
    """A head in the world."""

    vertices: Float[Tensor, "B V 3"]  # metres
    quats: Float[Tensor, "B V 4"]  # wxyz, normalised: by how much skinning turned the surface at each vertex


class JointTransforms(NamedTuple):
    """World transforms of the joints relative to rest: x -> rotation x + translation."""

    rotations: Float[Tensor, "B 5 3 3"]
    translations: Float[Tensor, "B 5 3"]
    quats: Float[Tensor, "B 5 4"]  # wxyz, of the same rotations, signs such that neighbours blend


class HeadModel(nn.Module):
    """A head as buffers; every method is batched and differentiable.

    Buffers: ``v_template`` (V, 3), ``faces`` (F, 3), ``uvs`` (M, 2), ``faces_uv`` (F, 3), ``J_regressor`` (5, V),
    ``lbs_weights`` (V, 5), ``joint_expdirs`` (5, 3, E), ``landmark_faces`` (L,), ``landmark_barycentric`` (L, 3),
    ``landmark_weights`` (L,) in [0, 1]; L is 478, or 0 where correspondence is not known. ``shapedirs`` (V, 3, I),
    ``expdirs`` (V, 3, E) and ``posedirs`` (V, 3, 36) are views of the buffers that the matrix products use.
    ``arkit_pose`` says which joint rotation the ARKit coefficients stand for that are not expressions.
    """

    v_template: Tensor
    faces: Tensor
    uvs: Tensor
    faces_uv: Tensor
    J_regressor: Tensor
    lbs_weights: Tensor
    joint_expdirs: Tensor
    landmark_faces: Tensor
    landmark_barycentric: Tensor
    landmark_weights: Tensor
    mh_vertex: Tensor
    mirror: Tensor
    _regions: Tensor
    _deform: Tensor
    _shape: Tensor
    parents = PARENTS

    def __init__(self, arrays: HeadArrays) -> None:
        super().__init__()
        a = arrays
        self.expression_names = tuple(a.expression_names)
        self.edition, self.licence = a.edition, a.licence
        self.arkit_pose = {k: torch.from_numpy(np.asarray(v, np.float32)) for k, v in a.arkit_pose.items()}
        self.region_names = tuple(a.regions)

        def store(name: str, array: np.ndarray, kind: type) -> None:
            self.register_buffer(name, torch.from_numpy(np.array(array, dtype=kind, order="C")))

        for name in ("v_template", "uvs", "J_regressor", "lbs_weights", "landmark_barycentric", "landmark_weights"):
            store(name, getattr(a, name), np.float32)
        for name in ("faces", "faces_uv", "landmark_faces"):
            store(name, getattr(a, name), np.int64)
        nowhere = np.full(len(a.v_template), -1)
        store("mh_vertex", nowhere if a.mh_vertex is None else a.mh_vertex, np.int64)
        store("mirror", nowhere if a.mirror is None else a.mirror, np.int64)
        store("_regions", np.stack(list(a.regions.values())), np.bool_)

        # One row per coefficient, so that a frame is one pass over memory: expression and correctives together.
        def rows(basis: np.ndarray) -> np.ndarray:
            return np.moveaxis(np.asarray(basis, np.float32), -1, 0).reshape(basis.shape[-1], a.v_template.size)

        store("_deform", np.concatenate([rows(a.expdirs), rows(a.posedirs)]), np.float32)
        store("_shape", rows(a.shapedirs), np.float32)
        moved = np.einsum("jv,vce->jce", a.J_regressor, np.asarray(a.expdirs, np.float32))
        store("joint_expdirs", moved if a.joints_follow_expression else np.zeros_like(moved), np.float32)
        self._surfaces: dict[tuple[int, torch.device], Surface] = {}

    @property
    def shapedirs(self) -> Tensor:
        return self._shape.view(self.identity_size, -1, 3).permute(1, 2, 0)

    @property
    def expdirs(self) -> Tensor:
        return self._deform[: self.expression_size].view(self.expression_size, -1, 3).permute(1, 2, 0)

    @property
    def posedirs(self) -> Tensor:
        return self._deform[self.expression_size :].view(36, -1, 3).permute(1, 2, 0)

    @property
    def regions(self) -> dict[str, Tensor]:
        """Name -> (V,) bool."""
        return dict(zip(self.region_names, self._regions))

    @property
    def identity_size(self) -> int:
        return self._shape.shape[0]

    @property
    def expression_size(self) -> int:
        return len(self.expression_names)

    def copied_to(self, device: torch.device | str) -> HeadModel:
        """This head on ``device``: itself if it is there already, else a copy. (``to``, as of all modules, moves the
        head itself, and with it every avatar and model that holds it.)"""
        moved = {name: value.to(device) for name, value in self.named_buffers()}
        if all(value is getattr(self, name) for name, value in moved.items()):
            return self
        made = copy.copy(self)
        made._buffers, made._surfaces = dict(moved), {}
        return made

    def neutral(self, identity: Float[Tensor, "B I"]) -> tuple[Float[Tensor, "B V 3"], Float[Tensor, "B 5 3"]]:
        """The resting head of a person. Identity (B, <= I), unit variance -> vertices (B, V, 3), joints (B, 5, 3)."""
        basis = self._shape[: identity.shape[-1]]
        vertices = self.v_template + (identity @ basis).unflatten(-1, (-1, 3))
        return vertices, self.J_regressor @ vertices

    def joint_transforms(self, joints: Float[Tensor, "#B 5 3"], params: HeadParams) -> JointTransforms:
        """Where the joints' frames go. ``joints`` (B or 1, 5, 3) of the neutral head."""
        rest = joints + (self.joint_expdirs @ params.expression.mT).permute(2, 0, 1)
        axis_angle = params.joint_rotations()
        local, local_quat = axis_angle_to_matrix(axis_angle), axis_angle_to_quat(axis_angle)
        rotations, shifts, quats = [local[:, 0]], [rest[:, 0] - _apply(local[:, 0], rest[:, 0])], [local_quat[:, 0]]
        for j in range(1, len(PARENTS)):
            parent = PARENTS[j]
            turned = rotations[parent] @ local[:, j]
            rotations.append(turned)
            # the joint itself goes where its parent takes it, and the rest of the body part turns about it
            pivot = _apply(rotations[parent], rest[:, j]) + shifts[parent]
            shifts.append(pivot - _apply(turned, rest[:, j]))
            quats.append(quat_multiply(quats[parent], local_quat[:, j]))
        translations = torch.stack(shifts, 1) + params.translation[:, None]
        return JointTransforms(torch.stack(rotations, 1), translations, torch.stack(quats, 1))

    def deform(self, neutral_vertices: Float[Tensor, "#B V 3"], params: HeadParams) -> Float[Tensor, "B V 3"]:
        """Expression and pose correctives before skinning. (B or 1, V, 3) -> (B, V, 3)."""
        rotations = axis_angle_to_matrix(params.joint_rotations()[:, 1:])
        feature = (rotations - torch.eye(3, dtype=rotations.dtype, device=rotations.device)).flatten(1)
        coefficients = torch.cat([params.expression, feature], -1)
        return neutral_vertices + (coefficients @ self._deform).unflatten(-1, (-1, 3))

    def pose(
        self, neutral_vertices: Float[Tensor, "#B V 3"], joints: Float[Tensor, "#B 5 3"], params: HeadParams
    ) -> PosedHead:
        """Pose what :meth:`neutral` gave; one neutral head may serve many frames (its batch is B or 1)."""
        vertices = self.deform(neutral_vertices, params)
        transforms = self.joint_transforms(joints, params)
        # Blend the 3x4 matrices, as FLAME does, with one matrix product; then apply them by columns.
        packed = torch.cat([transforms.rotations.mT.flatten(2), transforms.translations, transforms.quats], -1)
        blended = self.lbs_weights @ packed  # (B, V, 16)
        posed = (
            blended[..., 0:3] * vertices[..., 0:1]
            + blended[..., 3:6] * vertices[..., 1:2]
            + blended[..., 6:9] * vertices[..., 2:3]
            + blended[..., 9:12]
        )
        return PosedHead(posed, nn.functional.normalize(blended[..., 12:], dim=-1))

    def landmarks(self, vertices: Float[Tensor, "B V 3"]) -> Float[Tensor, "B 478 3"]:
        """The face-landmarker's points on a head: (B, V, 3) -> (B, 478, 3). Raises InputError if they are unknown."""
        if not len(self.landmark_faces):
            raise InputError(f"the head {self.edition} has no landmark correspondence; use the embedded head.")
        corners = self.faces[self.landmark_faces]
        points = vertices[:, corners.flatten()].unflatten(1, (-1, 3))
        return (points * self.landmark_barycentric[..., None]).sum(-2)

    def surface(self, level: int) -> Surface:
        """Dense points: level 0 the vertices, 1 about four times, 2 about sixteen times as many. Cached."""
        if level not in (0, 1, 2, 3):
            raise InputError(f"subdivision level {level} is not offered; use 0, 1, 2 or 3.")
        key = (level, self.faces.device)
        if key not in self._surfaces:
            with torch.inference_mode(False):  # what is kept must serve training, too
                arrays = [t.cpu().numpy() for t in (self.faces, self.uvs, self.faces_uv)]
                made = subdivide(arrays[0], len(self.v_template), arrays[1].astype(np.float32), arrays[2], level)
                self._surfaces[key] = made.to(self.faces.device)
        return self._surfaces[key]


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]
