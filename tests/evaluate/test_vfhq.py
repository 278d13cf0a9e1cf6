"""Other squares than our crop, and VFHQ-Test's rules on a made-up folder of clips."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_views import landmark_cloud, made_views
from PIL import Image
from rich.console import Console

from ffavatar.errors import InputError
from ffavatar.evaluate.door import Plan, chosen_clips
from ffavatar.evaluate.identity import IdentityNet
from ffavatar.evaluate.lpips import LPIPS
from ffavatar.evaluate.methods import Method, Prediction, Task, baseline_methods, export_crops, images_method
from ffavatar.evaluate.protocol import Run, case_views, evaluate
from ffavatar.evaluate.rules import Case, cases, read_rules
from ffavatar.evaluate.scorer import Scorer
from ffavatar.evaluate.vfhq import vfhq_clips
from ffavatar.evaluate.windows import cut_windows, five_point_box, into_windows, window_camera, windows_of
from ffavatar.geometry import normalised_camera, project
from ffavatar.photo import PhotoReport, PhotoResult
from ffavatar.types import HeadParams

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "data"))
from made_avatar import small_avatar
from made_captures import film

WIDTH, HEIGHT, SIZE = 160, 120, 64
CROP = (30.0, 12.0, 96.0)  # of the stand-in front end, in the frame


def test_the_box_is_three_times_that_of_five_points() -> None:
    points = torch.rand(478, 3) * 500
    for row, place in zip((468, 473, 1, 61, 291), ((40, 50), (80, 52), (60, 75), (45, 95), (77, 97))):
        points[row, :2] = torch.tensor(place, dtype=torch.float32)
    box = five_point_box(points)
    assert (box.side, box.left, box.top) == pytest.approx((3 * 47, 60 - 70.5, 73.5 - 70.5))


def test_windows_cut_what_they_say() -> None:
    maps = torch.rand(2, 32, 32, 3)
    windows = torch.tensor([[0.25, 0.5, 0.5], [0.5, 0.25, 1.0]], dtype=torch.float64)
    cut = cut_windows(maps, windows, 32)
    torch.testing.assert_close(cut_windows(maps[:1], windows[:1], 16), maps[:1, 16:, 8:24])
    torch.testing.assert_close(cut[1, :24, :16], maps[1, 8:, 16:])
    assert not cut[1, 25:].any() and not cut[1, :, 17:].any()  # outside the crop
    blocks = maps.view(2, 16, 2, 16, 2, 3).mean((2, 4))  # a smaller picture averages
    whole = torch.tensor([[0.0, 0, 1]] * 2, dtype=torch.float64)
    torch.testing.assert_close(cut_windows(maps, whole, 16), blocks)
    crops = torch.tensor([[10.0, 20, 40]], dtype=torch.float64)
    assert windows_of(crops, torch.tensor([[20.0, 15, 10]], dtype=torch.float64)).tolist() == [[0.25, -0.125, 0.25]]


def test_a_window_of_the_camera_draws_the_window_of_the_picture() -> None:
    """Pixel for pixel: the window at 64 px and the middle of the whole at 128 px have pixels of one size."""
    avatar = small_avatar()
    rest = HeadParams.neutral(1, len(avatar.expression_names))
    window = torch.tensor([[0.25, 0.125, 0.5]])
    whole = avatar.render(rest, 128).images[:, 16:80, 32:96]
    part = avatar.render(rest, 64, camera=window_camera(window, 64)).images
    torch.testing.assert_close(part, whole, atol=2e-3, rtol=0)
    assert float(part.std()) > 0.05
    points = torch.rand(1, 5, 3) * 0.2 - torch.tensor([0.1, 0.1, 1.0])
    in_crop = project(points, normalised_camera(1, 1))[0]
    torch.testing.assert_close(into_windows(in_crop, window), project(points, window_camera(window, 1))[0])


def frame(number: int) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [np.sin(x / (9 + c) + number / 3) * np.cos(y / (11 + c)) for c in range(3)]
    return np.uint8(127 + 100 * np.stack(waves, -1))


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two clips as folders of frames, one as a film; a folder without pictures is no clip."""
    folder = tmp_path / "VFHQ-Test"
    for name, count in (("Clip+abc+P0+C0+F10-40", 20), ("Clip+abc+P0+C1+F90-99", 4)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(frame(number)).save(folder / name / f"{number:08d}.png")
    film(folder / "own.mp4", [frame(k) for k in range(9)])
    (folder / "notes").mkdir()
    (folder / "list.txt").write_text("x")
    return folder


class FixedCrop:
    """A front end with one crop; the face's landmarks are the cloud in it, moved by the frame's number."""

    def analyse(self, image: np.ndarray, name: str, *, size: int) -> PhotoResult:
        left, top, side = CROP
        number = int(name.split()[-1])
        cloud = landmark_cloud() + torch.tensor([0.002 * number, 0, 0])
        views = made_views([cloud], size=size)
        points = cloud * side + torch.tensor([left, top, 0.0])
        return PhotoResult(PhotoReport(name, True, "", crop_box=CROP), views, points)


def test_clips_are_fifty_frames_the_first_the_source(clips: Path, tmp_path: Path) -> None:
    found = vfhq_clips(clips, 5)
    assert [(c.id, c.subject, c.source_frames, c.target_frames) for c in found] == [
        ("Clip+abc+P0+C0+F10-40", "abc+P0", (0,), (5, 10, 14, 19)),
        ("Clip+abc+P0+C1+F90-99", "abc+P0", (0,), (1, 2, 3)),
        ("own", "own", (0,), (2, 4, 6, 8)),
    ]
    assert chosen_clips(Plan(clips, tmp_path, "vfhq")) == vfhq_clips(clips, 50)
    rules = read_rules("vfhq")
    assert (rules.size, rules.views, rules.box, rules.frames) == (512, (1,), "five_points", 50)
    for place, count, message in (
        (clips / "notes", 5, "holds no clips"), (clips, 1, "no target"), (tmp_path / "none", 5, "not a folder")
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            vfhq_clips(place, count)
    Image.fromarray(frame(0)).save(clips / "notes" / "0.png")
    with pytest.raises(InputError, match="has 1 frame"):
        vfhq_clips(clips, 5)


def test_pictures_are_compared_in_the_five_points_square(clips: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("ffavatar.evaluate.protocol.code_revision", lambda *folders: "this code")
    rules = replace(read_rules("vfhq"), size=SIZE)
    run = Run(tmp_path / "out", tmp_path / "crops", rules)
    (clip,) = [c for c in vfhq_clips(clips, 3) if c.id == "own"]
    assert clip.target_frames == (4, 8)
    views = case_views(Case("own", clip, clip), FixedCrop(), run)
    again = case_views(Case("own", clip, clip), FixedCrop(), run)  # from the cache
    assert views.shown is not None and again.shown is not None and again.key == views.key
    assert torch.equal(views.shown.views.images, again.shown.views.images)
    assert torch.equal(views.shown.boxes, again.shown.boxes)
    # five points of the cloud: 0.16 wide, 0.2 high; their middle at (0.5, 0.55), of a crop of 96 px
    left, top, side = views.shown.boxes[0].tolist()
    assert side == pytest.approx(3 * 0.2 * 96, rel=1e-5)
    assert left + side / 2 == pytest.approx(30 + (0.5 + 0.002 * 4) * 96, rel=1e-5)
    assert top + side / 2 == pytest.approx(12 + 0.55 * 96, rel=1e-5)
    # the frame's own pixels: one in the middle, one near a corner
    for u, v in ((32, 32), (5, 58)):
        x, y = left + (u + 0.5) / SIZE * side - 0.5, top + (v + 0.5) / SIZE * side - 0.5
        expected = frame(4)[round(y), round(x)] / 255
        assert np.abs(views.shown.views.images[0, v, u].numpy() - expected).max() < 0.12

    torch.manual_seed(0)
    scorer = Scorer(LPIPS("alex"), IdentityNet())
    seen: list[Task] = []

    def perfect(task: Task) -> Prediction:
        seen.append(task)
        target = task.compared.views
        return Prediction(target.on_white(), target.landmarks[..., :2], target.mattes * target.valid)

    export_crops("own", views, tmp_path / "export")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (tmp_path / "export" / "own" / "target").rename(theirs / "own")
    methods = [*baseline_methods(), Method("perfect", perfect), images_method("theirs", theirs)]
    quiet = Console(file=io.StringIO())
    copy, warp, best, other = evaluate(cases([clip], rules), methods, FixedCrop(), scorer, run, quiet)
    assert best.scores["psnr"] == [100, 100] and best.scores["landmarks"] == pytest.approx([0, 0], abs=1e-3)
    assert min(v or 0 for v in other.scores["psnr"]) > 48  # rounded to 8 bits
    assert all(15 > (v or 0) > 2 for v in copy.scores["psnr"])  # the stand-in's crop is another picture
    assert min(v or 0 for v in warp.scores["matte_iou"]) > 0.95  # mattes are of one disc, cut alike
    windows = seen[0].windows
    assert windows is not None and windows[0, 2] == pytest.approx(0.6, rel=1e-5)
