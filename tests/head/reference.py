"""FLAME's formulas (Li et al. 2017, section 4.1) written out in float64 numpy, vertex by vertex in spirit."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation


def pose(arrays, identity, expression, joint_rotations, translation, joints_follow_expression=True):
    """Vertices (V, 3) of one frame. ``arrays``: HeadArrays-like with v_template, shapedirs, expdirs, posedirs, ..."""
    wide = {
        k: np.asarray(getattr(arrays, k), np.float64)
        for k in ("v_template", "shapedirs", "expdirs", "posedirs", "J_regressor", "lbs_weights")
    }
    person = wide["v_template"] + wide["shapedirs"] @ identity
    shaped = person + wide["expdirs"] @ expression
    joints = wide["J_regressor"] @ (shaped if joints_follow_expression else person)
    rotations = Rotation.from_rotvec(joint_rotations).as_matrix()
    corrected = shaped + wide["posedirs"] @ (rotations[1:] - np.eye(3)).ravel()
    world = []
    for joint, parent in enumerate((-1, 0, 1, 1, 1)):
        local = np.eye(4)
        local[:3, :3] = rotations[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        world.append(world[parent] @ local if parent >= 0 else local)
    out = np.zeros_like(corrected)
    for joint in range(5):
        relative = world[joint].copy()
        relative[:3, 3] -= relative[:3, :3] @ joints[joint]
        moved = corrected @ relative[:3, :3].T + relative[:3, 3]
        out += wide["lbs_weights"][:, [joint]] * moved
    return out + translation
