"""Joints, their regressor, skinning weights and pose correctives of the embedded head.

All of it is worked out on MakeHuman's base mesh as a head (V, 3), decimetres, arms lowered; a regressor that reproduces
affine changes then carries the joints to any person.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ffavatar.head.make.geometry import Carrier, Topology
from ffavatar.head.make.source import Source

GLOBAL, NECK, JAW, EYE_LEFT, EYE_RIGHT = range(5)
NEIGHBOURS = 120  # skin vertices that carry a joint
NECK_SMOOTHING, JAW_SMOOTHING = 6, 3  # rounds of averaging with neighbours, half and half
PITCH, YAW = np.radians(25.0), np.radians(30.0)  # of the eyes at ARKit's coefficient 1


@dataclass(frozen=True)
class Hinge:
    """The jaw's axis is x through ``pivot`` (3,); ``angle`` radians opens it as ARKit's jawOpen does at 1."""

    pivot: np.ndarray
    angle: float
    residual: float  # largest distance between the turned and the target's lower teeth


def turn_x(angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])


def turn_y(angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])


def fit_hinge(before: np.ndarray, after: np.ndarray) -> Hinge:
    """The turn about an x axis that carries ``before`` (N, 3) to ``after`` best (Kabsch 1976, then its fixed point)."""
    start, end = before.mean(0), after.mean(0)
    u, _, vt = np.linalg.svd((before - start).T @ (after - end))
    rotation = vt.T @ np.diag([1, 1, np.sign(np.linalg.det(vt.T @ u.T))]) @ u.T
    angle = float(np.arctan2(rotation[2, 1], rotation[1, 1]))
    plane = turn_x(angle)[1:, 1:]
    pivot = np.concatenate([[0.0], np.linalg.solve(np.eye(2) - plane, end[1:] - plane @ start[1:])])
    turned = (before - pivot) @ turn_x(angle).T + pivot
    return Hinge(pivot, angle, float(np.linalg.norm(turned - after, axis=1).max()))


def affine_regressor(points: np.ndarray, joint: np.ndarray) -> np.ndarray:
    """The smallest weights (N,) with sum 1 and weights @ points = joint, so affine changes are followed exactly."""
    constraints = np.concatenate([points.T, np.ones((1, len(points)))])
    return np.linalg.pinv(constraints) @ np.append(joint, 1.0)


def edges_of(faces: np.ndarray) -> np.ndarray:
    """Unique edges (E, 2) of triangles (F, 3)."""
    sides = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return np.unique(np.sort(sides, axis=1), axis=0)


def smoothed(values: np.ndarray, edges: np.ndarray, where: np.ndarray, rounds: int) -> np.ndarray:
    """Values (V,) averaged with their neighbours' mean, half and half, where ``where`` (V,) says."""
    degree = np.maximum(np.bincount(edges.ravel(), minlength=len(values)), 1)
    for _ in range(rounds):
        total = np.bincount(edges[:, 0], values[edges[:, 1]], len(values))
        total += np.bincount(edges[:, 1], values[edges[:, 0]], len(values))
        values = np.where(where, (values + total / degree) / 2, values)
    return values


def fold_bones(source: Source) -> np.ndarray:
    """MakeHuman's bones gathered into our five joints: weights (base V, 5)."""
    weights = np.zeros((source.count, 5))
    for bone, share in source.bone_weights.items():
        chain = [bone]
        while source.bone_parents.get(chain[-1]):
            chain.append(source.bone_parents[chain[-1]])
        if bone == "neck01":
            weights[:, GLOBAL] += share / 2
            weights[:, NECK] += share / 2
        elif "neck02" in chain:
            weights[:, NECK] += share
        else:
            weights[:, GLOBAL] += share
    return weights


def make_regressor(source: Source, carrier: Carrier, topology: Topology, hinge: Hinge) -> np.ndarray:
    """(5, V): each joint from the base mesh's skin around it, the eyes from their eyeballs."""
    rest = carrier.rest()
    neck, head = source.joint("joint-neck"), source.joint("joint-head")
    shoulder = source.joint("joint-l-shoulder")
    places = (np.array([0.0, shoulder[1], neck[2]]), 0.6 * neck + 0.4 * head, hinge.pivot)
    skin = np.flatnonzero(topology.part == 0)
    out = np.zeros((5, len(rest)))
    mirror = mirror_image(rest, topology)
    for joint, place in enumerate(places):
        near = skin[np.argsort(np.linalg.norm(rest[skin] - place, axis=1), kind="stable")[:NEIGHBOURS]]
        near = np.unique(np.concatenate([near, mirror[near]]))
        out[joint, near] = affine_regressor(rest[near], place)
    for joint, eye, part in ((EYE_LEFT, carrier.eyes[0], 4), (EYE_RIGHT, carrier.eyes[1], 5)):
        ball = topology.part == part
        out[joint, ball] = affine_regressor(rest[ball], eye.centre)
    return out


def mirror_image(rest: np.ndarray, topology: Topology) -> np.ndarray:
    """(V,) index of the vertex nearest to each vertex's mirror image, within its part's mirrored part."""
    out = np.zeros(len(rest), np.int64)
    for part, other in ((0, 0), (1, 1), (2, 2), (3, 3), (4, 5), (5, 4)):
        here, there = np.flatnonzero(topology.part == part), np.flatnonzero(topology.part == other)
        for block in np.array_split(here, len(here) // 500 + 1):
            gap = rest[block][:, None] * [-1.0, 1.0, 1.0] - rest[there]
            out[block] = there[(gap**2).sum(-1).argmin(1)]
    return out


def make_weights(source: Source, carrier: Carrier, topology: Topology, hinge: Hinge, opened: np.ndarray) -> np.ndarray:
    """Skinning weights (V, 5). ``opened`` (V, 3) is ARKit's jawOpen; the skin follows the jaw as far."""
    rest = carrier.rest()
    skin = topology.part == 0
    edges = edges_of(topology.faces)
    head = np.zeros(len(rest))
    head[: len(carrier.chosen)] = fold_bones(source)[carrier.chosen, NECK]
    head = smoothed(head, edges, skin, NECK_SMOOTHING)
    full = (rest - hinge.pivot) @ turn_x(hinge.angle).T + hinge.pivot - rest
    share = np.clip((opened * full).sum(1) / np.maximum((full**2).sum(1), 1e-6), 0, 1)
    share = smoothed(share, edges, skin, JAW_SMOOTHING)
    weights = np.zeros((len(rest), 5))
    weights[skin, GLOBAL] = 1 - head[skin]
    weights[skin, JAW] = (share * head)[skin]
    weights[skin, NECK] = (head - share * head)[skin]
    for part, joint in ((1, NECK), (2, JAW), (3, JAW), (4, EYE_LEFT), (5, EYE_RIGHT)):
        weights[topology.part == part, joint] = 1
    mirrored = weights[mirror_image(rest, topology)][:, [GLOBAL, NECK, JAW, EYE_RIGHT, EYE_LEFT]]
    return (weights + mirrored) / 2


def gaze(name: str) -> tuple[int, np.ndarray]:
    """ARKit's eyeLookUpLeft and its kin: (joint, axis-angle (3,) at coefficient 1)."""
    left = name.endswith("Left")
    outward = YAW if left else -YAW  # +x is the person's left, and a turn about +y carries +z to +x
    axes = {"Up": (-PITCH, 0), "Down": (PITCH, 0), "In": (0, -outward), "Out": (0, outward)}
    way = name.removeprefix("eyeLook").removesuffix("Left").removesuffix("Right")
    return (EYE_LEFT if left else EYE_RIGHT), np.array([*axes[way], 0.0])


def pose_rotations(topology: Topology, rest: np.ndarray, hinge: Hinge, arkit: dict[str, np.ndarray]) -> dict:
    """ARKit name -> (joint, axis-angle (3,)) of the eleven coefficients that are rotations."""
    teeth = topology.part == 2
    depth = (rest[teeth] - hinge.pivot)[:, 2].mean()
    sideways = float(np.arctan2(arkit["jawLeft"][teeth].mean(0)[0], depth))
    out = {
        "jawOpen": (JAW, np.array([hinge.angle, 0, 0])),
        "jawLeft": (JAW, np.array([0, sideways, 0])),
        "jawRight": (JAW, np.array([0, -sideways, 0])),
    }
    for side in ("Left", "Right"):
        for way in ("Up", "Down", "In", "Out"):
            out[f"eyeLook{way}{side}"] = gaze(f"eyeLook{way}{side}")
    return out


def make_correctives(
    topology: Topology, rest: np.ndarray, hinge: Hinge, weights: np.ndarray, arkit: dict[str, np.ndarray]
) -> np.ndarray:
    """Basis (36, V, 3) for the entries of R - 1 of the joints after the first, row by row.

    Skinning plus correctives gives ARKit's jaw targets exactly, and the lids' part of its gaze targets.
    """
    features, residuals = [], []
    for name, (joint, axis_angle) in pose_rotations(topology, rest, hinge, arkit).items():
        rotation = turn_x(axis_angle[0]) @ turn_y(axis_angle[1])  # one of the two is the identity
        feature = np.zeros((4, 3, 3))
        feature[joint - 1] = rotation - np.eye(3)
        features.append(feature.ravel())
        residual = arkit[name].copy()
        if joint == JAW:
            residual -= weights[:, [JAW]] * ((rest - hinge.pivot) @ rotation.T + hinge.pivot - rest)
        else:
            residual[topology.part > 0] = 0
        residuals.append(residual)
    return fit_correctives(np.array(features), np.array(residuals))


def fit_correctives(features: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """The smallest basis (36, ...) that gives ``residuals`` (N, ...) at ``features`` (N, 36)."""
    flat = np.linalg.pinv(features, rcond=1e-6) @ residuals.reshape(len(residuals), -1)
    return flat.reshape(features.shape[1], *residuals.shape[1:])
