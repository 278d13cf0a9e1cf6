"""Novel views: an avatar placed in head space from its sources is seen by known cameras as it truly stands."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ffavatar.data.captures.geometry import project
from ffavatar.data.captures.shots import neutral_landmarks
from ffavatar.data.shards import PersonSample, Provenance, ShardWriter
from ffavatar.errors import InputError
from ffavatar.evaluate.clips import Side
from ffavatar.evaluate.methods import Task, head_space_camera, posed_landmarks
from ffavatar.evaluate.metrics import psnr
from ffavatar.evaluate.novel import camera_turns_deg, choose_rows, novel_clips, novel_views
from ffavatar.evaluate.protocol import Run
from ffavatar.evaluate.rules import Case, check_rules, read_rules
from ffavatar.types import Camera, HeadParams, Views

sys.path.insert(0, str(Path(__file__).parent.parent))
from made_avatar import StandInModel, small_avatar

SIZE = 96


def ring(yaws_deg: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Cameras (K, world_to_cam) around head space's origin, a metre away."""
    matrices = []
    for yaw in yaws_deg:
        turn = Rotation.from_euler("y", yaw, degrees=True).as_matrix()
        place = turn @ np.array([0, 0.05, 1.0])
        rotation = np.diag([1.0, -1, -1]) @ turn.T
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = rotation, -rotation @ place
        matrices.append(matrix)
    K = np.array([[2.6 * SIZE, 0, 0.48 * SIZE], [0, 2.6 * SIZE, 0.55 * SIZE], [0, 0, 1]])
    return np.stack([K] * len(yaws_deg)), np.stack(matrices)


def sample(yaws_deg: list[float], frames: list[int] | None = None) -> PersonSample:
    K, world_to_cam = ring(yaws_deg)
    landmarks = []
    for k, m in zip(K, world_to_cam):
        pixels, depth = project(neutral_landmarks(), k, m)
        landmarks.append(np.concatenate([pixels / SIZE, (depth - depth.mean())[:, None]], 1))
    count = len(yaws_deg)
    arrays = {
        "K": K, "world_to_cam": world_to_cam, "landmarks": np.stack(landmarks).astype(np.float32),
        "frame": np.array(frames or [0] * count), "sequence": np.array(["A"] * count),
        "camera": np.array([f"c{k}" for k in range(count)]),
    }  # fmt: skip
    white = np.full((count, SIZE, SIZE, 3), 255, np.uint8)
    return PersonSample("p1", white, white[..., 0], np.ones((count, SIZE, SIZE), bool), arrays)


@pytest.mark.parametrize("scale", [1.0, 1.13])
def test_an_avatar_is_seen_as_it_stands_whatever_its_own_world_and_size(scale: float) -> None:
    """The truth: the avatar at rest in head space, seen by the ring. Given: the same avatar turned, shifted and (in its
    own world) of another size. The placed cameras must show the same pictures."""
    avatar = small_avatar()
    rest = HeadParams.neutral(1, len(avatar.expression_names), distance_m=0.0)
    turned = replace(rest, root=torch.tensor([[0.2, -0.5, 0.1]]), translation=torch.tensor([[0.1, -0.2, -1.3]]))
    model = StandInModel(avatar.rig.head)
    person = sample([0, 30, -35, 60, -50, 15])
    # a head that is larger in head space than the avatar is in its own: everything there is scaled
    K, world_to_cam = (torch.from_numpy(person.arrays[n]).float() for n in ("K", "world_to_cam"))
    bigger = world_to_cam.clone()
    bigger[:, :3, 3] *= scale
    cameras = Camera(bigger[:3], K[:3], SIZE, SIZE), Camera(bigger[3:], K[3:], SIZE, SIZE)
    views = person.views()
    own = posed_landmarks(model, avatar, rest)[0].double().numpy()
    seen = np.stack([project(own, k, m)[0] for k, m in zip(person.arrays["K"], person.arrays["world_to_cam"])])
    views = replace(views, landmarks=torch.from_numpy(np.pad(seen / SIZE, ((0, 0), (0, 0), (0, 1)))).float())
    target = Side(views[3:], (3, 4, 5), torch.zeros(3, 3))
    task = Task("p1", 3, views[:3], target, (0, 0), cameras)
    truth = avatar.render(rest[[0] * 3], camera=Camera(world_to_cam[3:], K[3:], SIZE, SIZE))
    found = avatar.render(turned[[0] * 3], camera=head_space_camera(model, avatar, turned, task))
    assert float(psnr(found.images.clamp(0, 1), truth.images.clamp(0, 1)).min()) > 40
    flipped = replace(cameras[1], world_to_cam=bigger[3:] @ torch.diag(torch.tensor([-1.0, 1, 1, 1])))
    wrong = head_space_camera(model, avatar, turned, replace(task, cameras=(cameras[0], flipped)))
    seen_wrong = avatar.render(turned[[0] * 3], camera=wrong).images.clamp(0, 1)
    assert float(psnr(seen_wrong, truth.images.clamp(0, 1)).max()) < 30
    with pytest.raises(InputError, match="two source views"):
        head_space_camera(model, avatar, turned, replace(task, source=views[:1]))


def test_sources_differ_and_targets_are_the_rest_of_one_moment() -> None:
    yaws = [10, -60, 60, 0, 170, 30, -30, 100, 45]
    np.testing.assert_allclose(camera_turns_deg(ring(yaws)[1])[[4, 7]], [170, 100], atol=1)
    sources, targets = choose_rows(sample(yaws, [0] * 9))
    assert sources[0] == 3 and set(sources[1:3]) == {1, 2} and len(sources) == 4
    assert not set(sources) & set(targets) and not {4, 7} & {*sources, *targets}
    assert len(sources) + len(targets) == 7
    sources, targets = choose_rows(sample(yaws, [0, 0, 1, 1, 1, 1, 0, 1, 1]))  # four of frame 1 are in front
    assert sorted((*sources, *targets)) == [2, 3, 5, 8] and len(targets) == 1
    assert choose_rows(sample([0, 20, 170])) == ((), ())


def test_clips_and_views_come_from_shards(tmp_path, monkeypatch) -> None:
    with ShardWriter(tmp_path / "s", Provenance("test", "made", "CC0-1.0")) as writer:
        writer.add(sample([0, 30, -35, 60, -50]))
    (clip,) = novel_clips(tmp_path / "s")
    assert (len(clip.source_frames), len(clip.target_frames)) == (4, 1)

    class Finder:
        """Finds a face everywhere but in the third picture asked for."""

        asked = 0

        def __call__(self, images):
            type(self).asked += 1
            found = torch.tensor([0.0 if self.asked == 3 else 1.0])
            return type(
                "R", (), {"points": torch.full((1, 478, 3), 48.0), "presence": found, "blendshapes": torch.zeros(1, 52)}
            )

    monkeypatch.setattr("ffavatar.evaluate.novel.Landmarker", Finder)
    rules = replace(read_rules("novel"), size=SIZE)
    run = Run(tmp_path / "out", tmp_path / "crops", rules)
    views = novel_views(Case("p1", clip, clip), None, run)  # type: ignore[arg-type]
    assert views.source.frames == tuple(np.delete(clip.source_frames, 2)) and len(views.refused) == 1
    assert isinstance(views.source.views, Views) and float(views.source.views.landmarks.mean()) == 0.5
    assert views.cameras is not None and views.cameras[0].K.shape == (3, 3, 3)
    rows = list(clip.target_frames)
    np.testing.assert_allclose(views.cameras[1].world_to_cam, ring([0, 30, -35, 60, -50])[1][rows], atol=1e-6)
    with pytest.raises(InputError, match=f"give --size {SIZE}"):
        novel_views(Case("p1", clip, clip), None, replace(run, rules=read_rules("novel")))  # type: ignore[arg-type]
    for change, message in (({"views": (1,)}, "two source views"), ({"methods": ("driven",)}, "Novel views know")):
        with pytest.raises(InputError, match=message):
            check_rules(replace(rules, **change))


def test_shards_without_cameras_are_refused(tmp_path) -> None:
    with ShardWriter(tmp_path / "s", Provenance("test", "made", "CC0-1.0")) as writer:
        writer.add(replace(sample([0, 30]), arrays={}))
    with pytest.raises(InputError, match="without known cameras"):
        novel_clips(tmp_path / "s")
