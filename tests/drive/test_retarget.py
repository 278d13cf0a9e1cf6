"""Motions between head models: the face keeps its direction and place, expressions are carried by least squares."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from made_avatar import small_avatar
from made_flame import flame_arrays
from made_motions import arkit_track, flame_track
from scipy.optimize import lsq_linear
from scipy.spatial.transform import Rotation

from ffavatar.animate import Rig
from ffavatar.drive.flame_map import BOUNDS, DATA, REGULARISATION, ExpressionTransfer, load_flame_map
from ffavatar.drive.motion import Motion
from ffavatar.drive.options import DriveOptions
from ffavatar.drive.retarget import point_of_head, retarget
from ffavatar.errors import InputError
from ffavatar.geometry import normalised_camera, project
from ffavatar.head import load_head
from ffavatar.types import HeadParams


@lru_cache(maxsize=1)
def flame_bytes() -> bytes:
    return pickle.dumps(flame_arrays())


def flame_file(folder: Path, name: str = "flame2023.pkl") -> Path:
    (folder / name).write_bytes(flame_bytes())
    return folder / name


def flame_rig(folder: Path, name: str = "flame2023.pkl") -> Rig:
    head = load_head(flame_file(folder, name))
    return Rig.of(head, torch.zeros(head.identity_size), head.surface(0))


def turned(params: HeadParams) -> Rotation:
    return Rotation.from_rotvec(params.root.numpy()) * Rotation.from_rotvec(params.neck.numpy())


def face_of(params: HeadParams, rig: Rig) -> torch.Tensor:
    table = load_flame_map()
    on_face = rig.head.regions["face"][table.vertex]
    return point_of_head(params, rig.joints, rig.neutral[table.vertex][on_face].mean(0))


def test_the_shipped_map_is_small_and_sound() -> None:
    assert DATA.stat().st_size < 300_000
    table, head = load_flame_map(), load_head()
    assert len(table.vertex) > 3000 and int(table.corners.max()) < 5023
    assert len(set(table.vertex.tolist())) == len(table.vertex)
    assert head.regions["skin"][table.vertex].all() and not head.regions["torso"][table.vertex].any()
    assert (table.barycentric >= 0).all() and torch.allclose(table.barycentric.sum(1), torch.ones(1))
    assert torch.allclose(table.rotation @ table.rotation.T, torch.eye(3), atol=1e-6)
    # symmetric as both templates are: the mirrored vertex is in the map too, but for a few at the borders
    kept = set(table.vertex.tolist())
    mirrored = [v for v in kept if int(head.mirror[v]) in kept]
    assert len(mirrored) > 0.95 * len(kept)


@pytest.mark.parametrize("torso", ["own", "follow", "still", "split"])
def test_the_face_keeps_its_direction_and_its_place_in_the_picture(torso: str) -> None:
    """Against scipy's rotations and a projection through the track's own camera."""
    motion, rig = flame_track(9, camera=True), small_avatar().rig
    assert motion.camera is not None
    made = retarget(motion, rig, DriveOptions(torso=torso)).params  # type: ignore[arg-type]
    table = load_flame_map()
    flip = Rotation.from_matrix(np.diag([1.0, -1, -1]))
    view = flip * Rotation.from_matrix(motion.camera.world_to_cam[:, :3, :3].numpy())
    expected = view * turned(motion.params) * Rotation.from_matrix(table.rotation.numpy())
    assert (expected.inv() * turned(made)).magnitude().max() < 2e-3
    # in the picture: shifts between frames, in sides, agree up to one scale, the avatar's size
    theirs = point_of_head(motion.params, table.joints, table.face_centre)
    seen, depth = project(theirs[:, None], motion.camera)
    ours, own_depth = project(face_of(made, rig)[:, None], normalised_camera(512, 9))
    size = float((own_depth * motion.camera.K[0, 0, 0] / 512 / (3 * depth)).mean())
    a = (seen[:, 0] - seen[:, 0].mean(0)) / size
    b = ours[:, 0] - ours[:, 0].mean(0)
    assert (a - b).abs().max() < 1.5, "pixels of 512"
    assert float((own_depth / depth).std() / (own_depth / depth).mean()) < 1e-3
    share = {"follow": 1.0, "still": 0.0}.get(torso, 0.35)
    if torso != "follow":
        whole = turned(made).magnitude()
        assert Rotation.from_rotvec(made.root.numpy()).magnitude() == pytest.approx(share * whole, abs=2e-3)


def test_gaze_and_jaw_keep_their_direction() -> None:
    motion, rig = flame_track(6), small_avatar().rig
    made = retarget(motion, rig, DriveOptions(torso="follow")).params
    ahead = np.array([0, 0, 1.0])
    for name in ("eye_left", "eye_right"):
        ours = (turned(made) * Rotation.from_rotvec(getattr(made, name).numpy())).apply(ahead)
        theirs = (turned(motion.params) * Rotation.from_rotvec(getattr(motion.params, name).numpy())).apply(ahead)
        assert np.abs(ours - theirs).max() < 2e-3
    assert torch.allclose(made.jaw[:, 0], motion.params.jaw[:, 0], atol=1e-6)
    assert torch.allclose(made.jaw.norm(dim=1), motion.params.jaw.norm(dim=1), atol=1e-5)


def test_expressions_of_flame_are_refused_without_its_file_and_the_rest_drives() -> None:
    made = retarget(flame_track(4), small_avatar().rig)
    assert not made.params.expression.any() and made.params.jaw.any() and made.residual_mm is None
    assert any("--flame FILE" in note and "flame2023" in note for note in made.notes)


def test_eyelids_beside_the_basis_close_the_eyes() -> None:
    motion = flame_track(3, "flame2020")
    expression = torch.cat([motion.params.expression, torch.tensor([[0.0, 0.0], [1.0, 0.5], [0.2, 0.9]])], 1)
    names = (*motion.expression_names, "eyeBlinkLeft", "eyeBlinkRight")
    motion = replace(motion, params=replace(motion.params, expression=expression), expression_names=names)
    rig = small_avatar().rig
    made = retarget(motion, rig).params.expression
    assert made[1, rig.head.expression_names.index("eyeBlinkLeft")] == 1.0
    assert made[2, rig.head.expression_names.index("eyeBlinkRight")] == pytest.approx(0.9)


def test_with_the_file_expressions_are_carried_and_the_residual_is_told(tmp_path: Path) -> None:
    made = retarget(flame_track(4), small_avatar().rig, DriveOptions(flame=flame_file(tmp_path)))
    assert made.params.expression.any() and made.residual_mm is not None and made.moved_mm is not None
    assert 0 < made.residual_mm < made.moved_mm
    assert any("mm rms" in note for note in made.notes)


def test_editions_are_never_mixed_silently(tmp_path: Path) -> None:
    rig = small_avatar().rig
    with pytest.raises(InputError, match=r"flame2020.pkl is flame2020, the track is flame2023"):
        retarget(flame_track(2), rig, DriveOptions(flame=flame_file(tmp_path, "flame2020.pkl")))
    with pytest.raises(InputError, match="does not say which FLAME"):
        retarget(flame_track(2, "flame_unknown"), rig, DriveOptions(flame=flame_file(tmp_path)))
    # a FLAME avatar and a track of another edition: joints drive, expressions wait for that edition's file
    other = retarget(flame_track(2, "flame2020"), flame_rig(tmp_path))
    assert not other.params.expression.any() and any("flame2020" in note for note in other.notes)
    # a renamed file takes the track's edition
    assert retarget(flame_track(2), rig, DriveOptions(flame=flame_file(tmp_path, "mine.pkl"))).params.expression.any()


def test_the_same_edition_is_exact(tmp_path: Path) -> None:
    motion, rig = flame_track(3), flame_rig(tmp_path)
    made = retarget(motion, rig)
    assert torch.equal(made.params.expression, motion.params.expression) and made.residual_mm is None
    assert torch.allclose(made.params.jaw, motion.params.jaw) and torch.allclose(made.params.root, motion.params.root)


def test_between_editions_with_equal_bases_coefficients_come_back(tmp_path: Path) -> None:
    motion, rig = flame_track(3, "flame2020"), flame_rig(tmp_path)
    made = retarget(motion, rig, DriveOptions(flame=flame_file(tmp_path, "flame2020.pkl")))
    assert made.residual_mm is not None and made.moved_mm is not None and made.residual_mm < 0.2 * made.moved_mm


def test_to_flame_and_back_keeps_the_joints(tmp_path: Path) -> None:
    rig, flame = small_avatar().rig, flame_rig(tmp_path)
    generator = torch.Generator().manual_seed(0)
    parts = [0.2 * torch.randn(5, 3, generator=generator) for _ in range(6)]
    expression = torch.rand(5, rig.head.expression_size, generator=generator)
    params = HeadParams(*parts, expression)
    params = replace(params, translation=params.translation + torch.tensor([0.0, 0.0, -1.2]))
    motion = Motion(25.0, params, rig.head.edition, tuple(rig.head.expression_names))
    there = retarget(motion, flame)
    assert there.params.expression.shape == (5, 100) and there.residual_mm is not None
    names = tuple(flame.head.expression_names)
    back = retarget(Motion(25.0, there.params, "flame2023", names), rig, DriveOptions(torso="follow")).params
    for name in ("root", "neck", "jaw", "eye_left", "eye_right"):
        assert (getattr(back, name) - getattr(params, name)).abs().max() < 1e-3, name


def test_transfer_against_scipy(tmp_path: Path) -> None:
    """The bounded least squares of the embedded head against scipy's solver, frame by frame."""
    basis, head = load_head(flame_file(tmp_path)), load_head()
    transfer = ExpressionTransfer.between(basis, head)
    coefficients = 0.6 * torch.randn(3, 100, generator=torch.Generator().manual_seed(2))
    found, residual, moved = transfer.carry(coefficients)
    a = transfer.target.double().numpy() * transfer.weight.sqrt().double().numpy()[:, None]
    ridge = np.sqrt(REGULARISATION * (a * a).sum(0).mean()) * np.eye(a.shape[1])
    goal = (transfer.source.double() @ coefficients.double().T).numpy()
    for frame in range(3):
        b = np.concatenate([goal[:, frame] * transfer.weight.sqrt().double().numpy(), np.zeros(a.shape[1])])
        # the same normal equations, solved exactly
        gram = a.T @ a + ridge.T @ ridge
        root = np.linalg.cholesky(gram).T
        right = np.linalg.solve(root.T, np.concatenate([a, ridge]).T @ b)
        best = lsq_linear(root, right, BOUNDS, tol=1e-12).x
        ours = found[frame].double().numpy()

        def cost(x: np.ndarray, root: np.ndarray = root, right: np.ndarray = right) -> float:
            return float(((root @ x - right) ** 2).sum())

        assert cost(ours) <= cost(best) * 1.001 + 1e-9
        assert ours.min() >= BOUNDS[0] - 1e-6 and ours.max() <= BOUNDS[1] + 1e-6
    miss = (transfer.target.double() @ found.double().T).numpy() - goal
    face = (transfer.weight >= 0.5).numpy()
    assert residual == pytest.approx(1e3 * np.sqrt(3 * (miss[face] ** 2).mean()), rel=1e-4)
    assert moved == pytest.approx(1e3 * np.sqrt(3 * (goal[face] ** 2).mean()), rel=1e-4)


def test_a_head_without_jaw_opens_the_mouth_by_the_jaw(tmp_path: Path) -> None:
    """Coefficients that move points as the embedded jaw does come out as a turn of the jaw."""
    from ffavatar.drive.flame_map import _jaw_effect

    head = load_head()
    basis = load_head(flame_file(tmp_path))
    transfer = ExpressionTransfer.between(basis, head, with_jaw=True)
    opened = replace(transfer, source=0.2 * _jaw_effect(head).flatten()[:, None])
    found, residual, moved = opened.carry(torch.ones(1, 1))
    assert float(found[0, -1]) == pytest.approx(0.2, abs=0.05) and residual < 0.35 * moved


def test_arkit_drives_joints_and_shares_the_turn() -> None:
    motion, rig = arkit_track(4), small_avatar().rig
    made = retarget(motion, rig)
    names = motion.expression_names
    jaw = motion.params.expression[:, names.index("jawOpen")] * rig.head.arkit_pose["jawOpen"][2, 0]
    assert torch.allclose(made.params.jaw[:, 0], jaw, atol=1e-6)
    own = rig.head.expression_names.index("mouthFunnel")
    assert torch.equal(made.params.expression[:, own], motion.params.expression[:, names.index("mouthFunnel")])
    whole = Rotation.from_rotvec(motion.params.root.numpy())
    assert (whole.inv() * turned(made.params)).magnitude().max() < 1e-3
    assert made.params.translation[:, 2].mean() == pytest.approx(-1.15, abs=0.2)


def test_the_estimate_of_flames_joints_costs_what_is_stated(tmp_path: Path) -> None:
    """3 cm of error in the root joint move the face by 3 cm x the turn."""
    table = load_flame_map()
    params = HeadParams.neutral(2, 0, distance_m=0.0)
    params.root[1, 1] = np.radians(20)
    wrong = table.joints.clone()
    wrong[0] += torch.tensor([0.03, 0.0, 0.0])
    a, b = (point_of_head(params, joints, table.face_centre) for joints in (table.joints, wrong))
    assert (a - b)[0].norm() < 1e-7 and float((a - b)[1].norm()) == pytest.approx(
        0.03 * 2 * np.sin(np.radians(10)), rel=1e-3
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"torso": "stil"}, "torso 'stil' is not offered; choose from own"),
        ({"head_motion": "foo"}, "head_motion 'foo' is not offered"),
        ({"fps": 0.0}, "0 frames per second cannot be"),
        ({"fps": float("nan")}, "nan frames per second"),
    ],
)
def test_options_that_are_none_are_refused(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DriveOptions(**given)
