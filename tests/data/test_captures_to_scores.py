"""Ava-256 and NeRSemble from download to score: a drawn head in both layouts goes through the commands, front end and
all, and what comes out is compared with how the head was drawn."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from made_head_captures import DRAWN_PX, YAWS_DEG, Drawn, drawn_head, make_ava_head, make_nersemble_head
from PIL import features

from ffavatar.commands import data as commands
from ffavatar.commands.evaluation import Figures, evaluate
from ffavatar.data.captures.nersemble import NersemblePerson, list_people
from ffavatar.data.captures.shots import capture_sample
from ffavatar.data.shards import PersonSample, Provenance, ShardReader, ShardWriter
from ffavatar.errors import InputError
from ffavatar.photo import FrontEnd
from ffavatar.train.samples import load_people

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF"),
]
SIZE = 256


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return drawn_head(4)


@pytest.fixture(scope="module", params=["ava256", "nersemble"])
def prepared(request, drawn: Drawn, tmp_path_factory) -> tuple[Path, PersonSample, list[int]]:
    """The shards, the only sample, and the number of the drawn camera of each of its views."""
    root = tmp_path_factory.mktemp(request.param)
    out = root / "shards"
    if request.param == "ava256":
        names = make_ava_head(root / "download", drawn)
        commands.ava256(root / "download", out, size=SIZE)
    else:
        names = make_nersemble_head(root / "download", drawn)
        commands.nersemble(root / "download", out, size=SIZE, cameras=",".join(names))
    (sample,) = ShardReader(out, shuffle=False)
    return out, sample, [names.index(str(camera)) for camera in sample.arrays["camera"]]


def test_every_picture_arrives_with_its_camera(prepared, drawn: Drawn) -> None:
    _, sample, order = prepared
    assert sorted(order) == list(range(len(YAWS_DEG)))
    found = sample.arrays["world_to_cam"]
    first = found[order.index(0)]
    for row, camera in enumerate(order):
        # how the cameras stand to each other is calibration alone: exact
        true = drawn.head_to_cam[camera] @ np.linalg.inv(drawn.head_to_cam[0])
        np.testing.assert_allclose(found[row] @ np.linalg.inv(first), true, atol=1e-6)
        # where the face looks was read from the pictures: nobody's face is the mean face
        turned = np.degrees(np.arccos((np.trace(found[row, :3, :3] @ drawn.head_to_cam[camera, :3, :3].T) - 1) / 2))
        assert turned < 4, (camera, turned)
        away = found[row] @ np.linalg.inv(drawn.head_to_cam[camera])
        assert np.linalg.norm(away[:3, 3]) < 0.08  # metres; the head is 1.2 from the camera


def test_crops_and_mattes_are_cut_where_the_cameras_say(prepared, drawn: Drawn) -> None:
    """Same camera, other picture: K of the crop against K of the drawn square says which pixel is which."""
    _, sample, order = prepared
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    for row, camera in enumerate(order):
        move = drawn.K @ np.linalg.inv(sample.arrays["K"][row])  # crop pixels to the drawn square's
        places = np.stack([x, y, np.ones_like(x)], -1) @ move.T
        u, v = np.floor(places[..., 0]).astype(int), np.floor(places[..., 1]).astype(int)
        inside = (u >= 0) & (v >= 0) & (u < DRAWN_PX) & (v < DRAWN_PX)
        assert inside.mean() > 0.6
        person = np.where(inside, drawn.mattes[camera][v.clip(0, DRAWN_PX - 1), u.clip(0, DRAWN_PX - 1)], 0) > 127
        found = (sample.mattes[row] > 127) & inside
        assert (found & person).sum() / (found | person).sum() > 0.985, camera
        colours = drawn.images[camera][v.clip(0, DRAWN_PX - 1), u.clip(0, DRAWN_PX - 1)].astype(float)
        error = np.abs(colours - sample.images[row])[person & inside].mean()
        assert error < 5, (camera, error)  # grey levels: nearest pixels against resampled and compressed ones


def test_the_front_end_finds_the_drawn_face_where_the_cameras_say(prepared, drawn: Drawn) -> None:
    """In the crops, the landmarker's points against the true points seen by the crops' cameras."""
    _, sample, order = prepared
    place = np.linalg.inv(sample.arrays["world_to_cam"][0]) @ drawn.head_to_cam[order[0]]  # true head to sample's world
    points = drawn.landmarks @ place[:3, :3].T + place[:3, 3]
    front_end = FrontEnd()

    def errors(move: np.ndarray) -> list[float]:
        """Mean distance over the face in % of the crop's side, per view."""
        values = []
        for row in range(len(sample)):
            matrix = sample.arrays["world_to_cam"][row] @ move
            seen = (points @ matrix[:3, :3].T + matrix[:3, 3]) @ sample.arrays["K"][row].T
            found = front_end.analyse(sample.images[row], f"view {row}").landmarks
            assert found is not None
            apart = seen[:468, :2] / seen[:468, 2:] - found[:468, :2].numpy()
            values.append(100 * float(np.linalg.norm(apart, axis=1).mean()) / SIZE)
        return values

    assert max(errors(np.eye(4))) < 1.5
    assert min(errors(np.diag([-1.0, 1, 1, 1]))) > 8  # the measure sees a mirrored world


def test_training_is_given_what_the_landmarker_reads_of_every_face(prepared, drawn: Drawn) -> None:
    """All six cameras see the face: its own landmarks and blendshapes are in the sample, and training takes them."""
    shards, sample, _ = prepared
    assert sample.arrays["detected"].all() and sample.arrays["blendshapes"].shape == (len(YAWS_DEG), 52)
    landmarker = FrontEnd().landmarker
    for row in range(len(sample)):
        with torch.no_grad():
            seen = landmarker(torch.from_numpy(sample.images[row]).float()[None] / 255)
        # the pictures in the shard are compressed, those that were read were not: single scores move, and on one
        # processor more than on another
        apart = np.abs(sample.arrays["blendshapes"][row] - seen.blendshapes[0].numpy())
        assert apart.mean() < 0.012 and np.sort(apart)[-3] < 0.1
        other = sample.arrays["blendshapes"][(row + 3) % len(sample)]
        assert apart.mean() < np.abs(other - seen.blendshapes[0].numpy()).mean()  # of another camera's picture
        apart = sample.arrays["landmarks"][row] - (seen.points[0] / SIZE).numpy()
        assert np.linalg.norm(apart[:468, :2], axis=1).mean() < 0.004
    assert sample.arrays["blendshapes"].max() > 0.05
    (person,) = load_people(shards)
    assert len(person) == len(YAWS_DEG) and np.array_equal(person.blendshapes, sample.arrays["blendshapes"])


def test_faces_seen_elsewhere_or_not_at_all_are_not_used(drawn: Drawn, tmp_path: Path) -> None:
    names = make_nersemble_head(tmp_path, drawn)
    person = NersemblePerson(tmp_path / list_people(tmp_path)[0])
    moments = person.moments(person.sequences(), 1, names, Counter())
    far = np.full((478, 3), 0.9, np.float32)

    def read(crop: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        asked.append(1)
        return None if len(asked) % 2 else (far, np.ones(52))

    asked: list[int] = []
    sample, _ = capture_sample("p", moments, SIZE, {}, read=read)
    assert sample is not None and len(asked) == len(YAWS_DEG) and not sample.arrays["detected"].any()
    assert not sample.arrays["blendshapes"].any()
    centres = sample.arrays["landmarks"][:, :468, :2].mean(1)
    assert np.abs(centres - 0.5).max() < 0.15  # projected
    with pytest.raises(InputError):
        with ShardWriter(tmp_path / "s", Provenance("test", "made", "CC0-1.0")) as writer:
            writer.add(sample)
        load_people(tmp_path / "s")


def test_an_avatar_of_some_cameras_is_scored_by_the_others(prepared, tmp_path: Path, capsys) -> None:
    shards, _, _ = prepared
    evaluate(shards, tmp_path / "out", protocol="novel", views="3,2", size=SIZE, level=0, figures=Figures.core)
    content = json.loads((tmp_path / "out" / f"novel-{SIZE}.json").read_text())
    rows = {(row["method"], row["views"]): row for row in content["summary"]}
    assert set(rows) == {(method, views) for method in ("copy", "warp", "placed") for views in (3, 2)}
    for views in (3, 2):
        # the avatar stands where the head does, though nothing of the target but its camera was read
        assert rows["placed", views]["matte_iou"] > 0.9
        assert rows["placed", views]["psnr"] > rows["copy", views]["psnr"]
    assert "| 3 | placed | 1 |" in capsys.readouterr().out
