"""The registration script's parts: similarity, nearest points, and a head that is found again on itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ffavatar.drive.register_flame import bend, load_flame, nearest_on_mesh, similarity
from ffavatar.errors import InputError
from ffavatar.head import load_head
from ffavatar.render.mesh import vertex_normals


def test_similarity_is_found_again_and_weights_rule_out_strays() -> None:
    rng = np.random.default_rng(0)
    source = rng.normal(size=(40, 3))
    turn = Rotation.from_rotvec([0.3, -0.2, 0.5]).as_matrix()
    target = 1.3 * source @ turn.T + [0.1, -0.2, 0.3]
    target[7] += 10
    weight = np.ones(40)
    weight[7] = 0
    scale, rotation, shift = similarity(source, target, weight)
    assert scale == pytest.approx(1.3) and np.allclose(rotation, turn) and np.allclose(shift, [0.1, -0.2, 0.3])


def test_nearest_points_against_all_triangles() -> None:
    """Points a little above a bumpy sheet, against dense samples of every triangle."""
    rng = np.random.default_rng(1)
    x, y = np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 9))
    vertices = np.stack([x.ravel(), y.ravel(), 0.05 * np.sin(5 * x.ravel())], 1)
    corner = (np.arange(8)[:, None] * 9 + np.arange(8)).ravel()
    faces = np.concatenate([np.stack([corner, corner + 1, corner + 9], 1),
                            np.stack([corner + 1, corner + 10, corner + 9], 1)])  # fmt: skip
    points = np.stack([*rng.uniform(0.1, 0.9, (2, 30)), 0.1 * np.ones(30)], 1)
    _, bary, distance, cosine = nearest_on_mesh(points, np.tile([0, 0, 1.0], (30, 1)), vertices, faces)
    share = rng.dirichlet(np.ones(3), 400)
    samples = (share @ vertices[faces]).reshape(-1, 3)
    best = np.linalg.norm(points[:, None] - samples[None], axis=-1).min(1)
    assert (distance <= best + 1e-6).all() and (best - distance).max() < 5e-3
    assert np.allclose(bary.sum(1), 1) and (bary >= 0).all() and (cosine > 0.5).all()


def test_a_bent_head_is_found_again() -> None:
    """The embedded head, smoothly deformed, as target: vertices come back to theirs, from landmarks and surface."""
    head = load_head()
    neutral, faces = head.v_template.double().numpy(), head.faces.numpy()
    regions = {name: mask.numpy() for name, mask in head.regions.items()}
    skin = regions["skin"] & ~regions["interior"] & ~regions["torso"]
    wide = neutral * [1.05, 0.97, 1.03] + 0.004 * np.sin(12 * neutral[:, [1, 2, 0]])
    corner = faces[head.landmark_faces.numpy()]
    landmarks = (wide[corner] * head.landmark_barycentric.numpy()[..., None]).sum(1)
    on_skin = faces[skin[faces].all(1)]
    bent = bend(head, neutral, skin, landmarks, head.landmark_weights.double().numpy(), wide, on_skin)
    face = regions["face"] & skin
    before = np.linalg.norm(neutral - wide, axis=1)[face]
    after = np.linalg.norm(bent - wide, axis=1)[face]
    assert (
        np.median(after) < 0.0008 and np.percentile(after, 95) < 0.003 and np.median(after) < 0.25 * np.median(before)
    )
    normals = vertex_normals(bent.astype(np.float32), faces.astype(np.int32)).astype(np.float64)
    distance = nearest_on_mesh(bent[face], normals[face], wide, on_skin)[2]
    assert np.median(distance) < 0.0003


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", v_template=np.zeros((10, 3)), faces=np.zeros((3, 3)))
    np.savez(tmp_path / "b.npz", faces=np.zeros((3, 3)))
    for name, words in (("a.npz", "5,023"), ("b.npz", "v_template")):
        with pytest.raises(InputError, match=words):
            load_flame(tmp_path / name)
    vertices = np.zeros((5023, 3))
    vertices[4000:] = np.nan
    faces = np.zeros((9976, 3), np.int64)
    faces[1] = [1, 2, 4500]
    np.savez(tmp_path / "c.npz", templates=vertices[None], faces=faces)
    found, all_faces, known = load_flame(tmp_path / "c.npz")
    assert np.isfinite(found).all() and known.sum() == 9975 and not known[1] and len(all_faces) == 9976
