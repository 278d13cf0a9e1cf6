"""Photos in, views or one clear refusal out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from ffavatar.drive.film import FaceFinder
from ffavatar.errors import InputError
from ffavatar.photo import BLENDSHAPE_NAMES, load_views
from ffavatar.photo.crop import head_crop_box
from ffavatar.photo.matte import Matte, _Window, _without_checkerboard, convex_hull, face_mask


@pytest.fixture(scope="module")
def result(front_end, portrait):
    return front_end.analyse(portrait, "portrait")


def as_photo(picture: Image.Image) -> np.ndarray:
    return np.array(picture.convert("RGB"))


def test_views_keep_their_contract(result):
    views = result.views
    assert views.images.shape == (1, 512, 512, 3) and views.mattes.shape == views.valid.shape == (1, 512, 512)
    assert views.landmarks.shape == (1, 478, 3) and views.blendshapes.shape == (1, len(BLENDSHAPE_NAMES))
    for values in (views.images, views.mattes, views.valid, views.blendshapes):
        assert values.dtype == torch.float32 and values.min() >= 0 and values.max() <= 1
    assert set(views.valid.unique().tolist()) <= {0.0, 1.0}
    low, high = views.landmarks[0, :, :2].aminmax(dim=0)
    assert (high - low).max().item() == pytest.approx(1 / 2.1, abs=1e-4)
    assert ((low + high) / 2).tolist() == pytest.approx([0.5, 0.54], abs=1e-4)


def test_report_of_a_good_photo(result):
    report = result.report
    assert report.kept and report.reason == "" and report.faces == 1 and report.notes == ()
    assert abs(report.yaw_deg) < 10 and abs(report.roll_deg) < 10 and report.presence > 0.99
    assert report.face_width_px == pytest.approx(91, abs=4)
    assert report.crop_box[2] == pytest.approx(2.1 * 109, abs=8)


def test_matte_separates_head_and_background(result):
    matte, landmarks = result.views.mattes[0], result.views.landmarks[0]
    places = (landmarks[:468, :2] * 512).long()
    assert matte[places[:, 1], places[:, 0]].mean() > 0.97
    assert matte[face_mask(landmarks, 512) == 1].min() > 0.999  # no holes inside the face
    assert matte[:150, :60].max() < 0.05 and matte[:150, 450:].max() < 0.05  # flag and sky beside the head
    assert 0.25 < matte.mean() < 0.8
    soft = ((matte > 0.05) & (matte < 0.95)).float().mean()
    assert 0.005 < soft < 0.2  # an edge, and a soft one


@pytest.mark.parametrize("cut", [(90, 400, 0, 512), (70, 420, 0, 512), (0, 512, 120, 420), (0, 400, 60, 470)])
def test_matte_of_a_photo_that_ends_inside_the_crop(result, cut):
    """A film frame that ends at forehead and collar: about the whole photo's matte, and nothing outside."""
    views = result.views
    top, bottom, left, right = cut
    valid = torch.zeros(1, 512, 512)
    valid[:, top:bottom, left:right] = 1
    shown = torch.where(valid[..., None] > 0, views.images, 1.0)
    matte = Matte()(shown, valid, views.landmarks)
    assert (matte * (1 - valid) == 0).all()
    assert ((matte - views.mattes).abs() * valid)[0, top:bottom, left:right].mean() < 0.045


def test_matte_of_a_photo_that_fills_the_crop_is_one_reading(result):
    views, read = result.views, []
    matte = Matte()
    matte.network.register_forward_pre_hook(lambda _, squares: read.append(len(squares[0])))
    whole = matte(views.images, torch.ones(1, 512, 512), views.landmarks)
    valid = torch.ones(1, 512, 512)
    valid[:, 460:] = 0
    part = matte(views.images, valid, views.landmarks)
    film = matte(views.images, valid, views.landmarks, once=True)
    assert read == [1, 3, 1]
    assert (film - part).abs().mean() < 0.02
    assert (whole - views.mattes).abs().max() < 1e-6 and part[:, 460:].max() == 0


@pytest.mark.parametrize("said", [(0.3, 0.9, 0.5), (0.9, 0.3, 0.5), (0.5, 0.3, 0.9), (0.3, 0.5, 0.9)])
def test_the_middle_of_three_readings_is_taken(said):
    class Says(torch.nn.Module):
        def forward(self, squares):
            return (torch.tensor(said)[: len(squares), None, None, None].expand(-1, 1, *squares.shape[2:]),)

    matte, valid = Matte(), torch.zeros(64, 64)
    matte.network = Says()
    valid[8:40, 4:60] = 1
    found = matte._read(torch.zeros(1, 64, 64, 3), _Window.around(valid), once=False)
    torch.testing.assert_close(found[0, 0, 9:39, 5:59], torch.full((30, 54), (0.5 - 0.1) / 0.8))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 40))
def test_window_of_the_matte(data: st.DataObject, size: int):
    """The smallest square of the crop that holds the photo; the crop itself where nothing of the photo is in it."""
    ends = [sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size)))) for _ in "yx"]
    (top, bottom), (left, right) = ends
    valid = torch.zeros(size, size)
    valid[top:bottom, left:right] = 1
    window = _Window.around(valid)
    photo = (top, bottom, left, right) if valid.any() else (0, size, 0, size)
    assert window.photo == photo and window.side == max(photo[1] - photo[0], photo[3] - photo[2])
    for begin, start, end in ((window.top, *photo[:2]), (window.left, *photo[2:])):
        assert 0 <= begin <= start and end <= begin + window.side <= size


def test_convex_hull_of_a_square():
    inside = np.random.default_rng(0).uniform(0.1, 0.9, (50, 2))
    corners = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    hull = convex_hull(np.concatenate([inside, corners]))
    assert {tuple(c) for c in hull.tolist()} == {tuple(c) for c in corners.tolist()}


@pytest.mark.parametrize("kind", ["scattered", "on a grid", "on a line", "one place"])
def test_convex_hull_is_scipys(kind):
    """With points in heaps, on common lines and twice at a place, as landmarks of a turned face come close to be."""
    from scipy.spatial import ConvexHull

    generator = np.random.default_rng(len(kind))
    points = generator.normal(size=(478, 2)) * (3, 1)
    if kind == "on a grid":
        points = np.round(points * 4) / 4
    if kind in ("on a line", "one place"):
        line = points[:, :1] if kind == "on a line" else np.ones((478, 1))
        hull = convex_hull(line * (2.0, -1.0))
        assert {tuple(c) for c in hull.tolist()} <= {tuple(c) for c in (line * (2.0, -1.0)).tolist()}
        assert hull.min(0).tolist() == (line * (2.0, -1.0)).min(0).tolist()
        assert hull.max(0).tolist() == (line * (2.0, -1.0)).max(0).tolist()
        return
    expected = points[ConvexHull(points).vertices]
    assert {tuple(c) for c in convex_hull(points).tolist()} == {tuple(c) for c in expected.tolist()}


def test_checkerboard_of_two_pixels_vanishes():
    """It averages twice over 2 x 2 pixels (edge pixels go on outside), as two average poolings do."""
    mask = torch.rand(1, 1, 12, 9, generator=torch.Generator().manual_seed(0)).double()
    padded = F.pad(mask, (1, 1, 1, 1), mode="replicate")
    expected = F.avg_pool2d(F.avg_pool2d(padded, 2, 1), 2, 1)
    torch.testing.assert_close(_without_checkerboard(mask), expected, atol=1e-14, rtol=0)
    board = (torch.arange(12)[:, None] + torch.arange(12)) % 2
    assert torch.equal(
        _without_checkerboard(board[None, None].float())[..., 1:-1, 1:-1], torch.full((1, 1, 10, 10), 0.5)
    )


def test_stable_when_the_photo_moves_by_a_pixel(front_end, portrait):
    still = front_end.faces(portrait)[0].points[0]
    moved = front_end.faces(np.roll(portrait, (1, 1), (0, 1)))[0].points[0]
    before, after = head_crop_box(still), head_crop_box(moved)
    assert abs(after.left - before.left - 1) < 0.005 * before.side
    assert abs(after.top - before.top - 1) < 0.005 * before.side
    assert abs(after.side - before.side) < 0.005 * before.side


def test_stable_under_noise(front_end, portrait):
    noise = np.random.default_rng(0).normal(0, 5, portrait.shape)
    noisy = np.clip(portrait + noise, 0, 255).astype(np.uint8)
    before, after = (head_crop_box(front_end.faces(p)[0].points[0]) for p in (portrait, noisy))
    assert abs(after.side - before.side) < 0.01 * before.side
    assert abs(after.left - before.left) < 0.01 * before.side


def test_video_follows_the_face_and_finds_a_lost_one(front_end, portrait, result, monkeypatch):
    looked = []
    search = front_end.detector.search
    monkeypatch.setattr(front_end.detector, "search", lambda *a: (looked.append(1), search(*a))[1])
    frame = np.roll(portrait, (5, 4), (0, 1))
    followed = front_end.analyse_frame(frame, result.landmarks)
    assert followed.report.kept and not looked
    assert followed.report.notes == () and followed.report.sharpness == 0  # it is followed, not judged
    shift = (followed.landmarks - result.landmarks)[:, :2].mean(0)
    assert shift.tolist() == pytest.approx([4, 5], abs=0.7)
    again = front_end.analyse_frame(portrait, result.landmarks + torch.tensor([200.0, 250.0, 0.0]))
    assert looked and again.report.kept
    assert front_end.analyse_frame(portrait, None).report.kept


def occluded(portrait: np.ndarray) -> Image.Image:
    picture = Image.fromarray(portrait)
    ImageDraw.Draw(picture).rectangle((175, 60, 280, 125), fill=(120, 100, 90))
    return picture


def drawing() -> Image.Image:
    picture = Image.new("RGB", (512, 512), (250, 240, 220))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((130, 100, 380, 420), fill=(255, 220, 180), outline=(0, 0, 0), width=4)
    for x in (200, 310):
        draw.ellipse((x - 25, 210, x + 25, 240), fill="white", outline="black", width=3)
        draw.ellipse((x - 9, 214, x + 9, 236), fill="black")
        draw.arc((x - 30, 170, x + 30, 210), 200, 340, fill="black", width=5)
    draw.arc((205, 300, 305, 370), 20, 160, fill=(180, 0, 0), width=6)
    draw.line((255, 240, 245, 295, 265, 298), fill="black", width=3)
    return picture


REFUSALS = {
    "a wall": (lambda p: Image.new("RGB", (300, 200), (150, 140, 130)), "no face"),
    "one pixel": (lambda p: Image.new("RGB", (1, 1)), "no face"),
    "a long strip": (lambda p: Image.new("RGB", (4000, 8), "white"), "no face"),
    "too small": (lambda p: Image.fromarray(p).resize((256, 256)), "too small"),
    "blurred": (lambda p: Image.fromarray(p).filter(ImageFilter.GaussianBlur(3)), "blurred"),
    "hidden": (occluded, "hidden"),
    "a drawing": (lambda p: drawing(), "drawn"),
    "on its side": (lambda p: Image.fromarray(p).rotate(90), "turn the photo"),
    "upside down": (lambda p: Image.fromarray(p).rotate(180), "turn the photo"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_are_one_sentence_with_the_remedy(case, front_end, portrait):
    make, expected = REFUSALS[case]
    result = front_end.analyse(as_photo(make(portrait)), "the.jpg")
    report = result.report
    assert not report.kept and result.views is None
    assert expected in report.reason and report.reason.startswith("the.jpg: ") and report.reason.endswith(".")
    assert str(report) == report.reason


def test_profile_is_refused_by_its_yaw():
    from ffavatar.photo.report import refusal

    assert "profile" in refusal("x", 200.0, (70.0, 0.0, 0.0), 300.0, 0.01)
    assert refusal("x", 200.0, (-60.0, 0.0, 0.0), 300.0, 0.01) == ""


def test_dark_and_bright_faces_are_kept_with_a_note(front_end, portrait):
    dark = front_end.analyse((portrait * 0.2).astype(np.uint8)).report
    assert dark.kept and any("dark" in note for note in dark.notes)
    bright = front_end.analyse(np.clip(portrait * 1.5, 0, 255).astype(np.uint8)).report
    assert bright.kept and any("overexposed" in note for note in bright.notes)


def two_people(portrait) -> np.ndarray:
    both = Image.new("RGB", (1024, 512))
    both.paste(Image.fromarray(portrait), (512, 0))
    both.paste(Image.fromarray(portrait).resize((400, 400)), (0, 50))
    return as_photo(both)


def test_a_chosen_face_that_was_lost_is_no_other_ones(front_end, portrait):
    """The smaller of two people turns away for a frame, is there again, and leaves."""
    both, nobody = two_people(portrait), np.zeros((512, 1024, 3), np.uint8)
    alone = nobody.copy()
    alone[:, 512:] = both[:, 512:]
    find = FaceFinder(front_end, face=1)
    seen = [find(frame) for frame in (both, nobody, both, alone, both)]
    assert [sighting is None for sighting in seen] == [False, True, False, True, False]
    assert all(sighting.crop.left < 300 for sighting in seen if sighting is not None)


def test_two_people_the_larger_is_chosen_or_the_one_asked_for(front_end, portrait):
    photo = two_people(portrait)
    chosen = front_end.analyse(photo, "two").report
    assert chosen.kept and chosen.faces == 2 and chosen.face_box[0] > 512
    assert any("Another person" in note for note in chosen.notes)
    other = front_end.analyse(photo, "two", face=1).report
    assert other.kept and other.chosen == 1 and other.face_box[2] < 400
    none = front_end.analyse(photo, "two", face=2).report
    assert not none.kept and "no face 2" in none.reason


def test_a_small_face_in_a_large_photo_is_found(front_end, portrait):
    large = Image.new("RGB", (5000, 3500), (60, 90, 70))
    large.paste(Image.fromarray(portrait), (3300, 2200))
    report = front_end.analyse(as_photo(large)).report
    assert report.kept and report.face_box[0] == pytest.approx(3300 + 180, abs=4)


def test_load_views_keeps_order_and_reports(tmp_path, portrait):
    first, second, bad = (tmp_path / name for name in ("a.png", "b.jpg", "wall.png"))
    Image.fromarray(portrait).save(first)
    Image.fromarray(portrait[:, ::-1]).save(second, quality=95)
    Image.new("RGB", (64, 64)).save(bad)
    views, reports = load_views([second, bad, first], size=128)
    assert len(views) == 2 and views.images.shape[1] == 128
    assert [report.kept for report in reports] == [True, False, True]
    assert reports[0].name.endswith("b.jpg")
    with pytest.raises(InputError, match=r"wall\.png: no face"):
        load_views([bad])
    with pytest.raises(InputError, match="No photos"):
        load_views([])


@pytest.mark.usefixtures("unchecked")
def test_arrays_of_another_kind_are_refused(front_end, portrait):
    for wrong in (portrait[..., 0], portrait.astype(np.float32), portrait[:0]):
        with pytest.raises(InputError, match="uint8 sRGB"):
            front_end.analyse(wrong)
