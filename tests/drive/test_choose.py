"""Choosing views: spread and sharpness, strangers refused, reasons told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_avatar import small_avatar
from made_films import make_film
from PIL import Image

from ffavatar.drive.choose import StrangersError, check_look, choose_views, look_notes, view_named
from ffavatar.errors import InputError
from ffavatar.photo import PhotoReport, PhotoResult
from ffavatar.pipeline import LOOK
from ffavatar.types import Views


@dataclass
class CodedFrontEnd:
    """Reads a made picture's first pixel: red - 100 is the yaw in degrees, green the sharpness (0: refused)."""

    looked: int = 0

    def analyse(self, image: np.ndarray, name: str, face: object, size: int) -> PhotoResult:
        self.looked += 1
        red, green, blue = (int(v) for v in image[2, 2])
        if green == 0:
            return PhotoResult(PhotoReport(name, False, f"{name}: the face is blurred; use a sharper photo."), None)
        picture = torch.full((1, 4, 4, 3), blue / 255)
        views = Views(picture, picture[..., 0], picture[..., 0], torch.zeros(1, 478, 3), torch.zeros(1, 52))
        report = PhotoReport(name, True, "", faces=1, yaw_deg=red - 100.0, sharpness=float(green))
        return PhotoResult(report, views)


def photo(path: Path, yaw: int, sharp: int, person: int = 0) -> Path:
    Image.new("RGB", (6, 6), (100 + yaw, sharp, person)).save(path)
    return path


def kept(choice) -> list[str]:
    return [Path(c.name).name for c, taken in choice.rows if taken]


def test_few_photos_are_all_taken_but_for_bad_ones(tmp_path: Path) -> None:
    paths = [photo(tmp_path / "a.png", 0, 100), photo(tmp_path / "b.png", 3, 0), photo(tmp_path / "c.png", 5, 90)]
    (tmp_path / "d.png").write_text("no picture")
    choice = choose_views([*paths, tmp_path / "d.png"], CodedFrontEnd())
    assert kept(choice) == ["a.png", "c.png"] and len(choice.views) == 2
    reasons = {Path(c.name).name: c.reason for c, _ in choice.rows}
    assert "blurred" in reasons["b.png"] and "d.png" in reasons["d.png"]
    assert not choice.identity_checked


def test_many_photos_are_spread_in_yaw_and_sharp(tmp_path: Path) -> None:
    for index, yaw in enumerate((-42, -40, -38, -2, 0, 2, 38, 40, 42)):
        photo(tmp_path / f"{index}.png", yaw, 200 if yaw in (-40, 0, 40) else 60)
    choice = choose_views([tmp_path], CodedFrontEnd(), most=3)
    assert kept(choice) == ["1.png", "4.png", "7.png"]
    assert all("sharper or farther apart" in c.reason for c, taken in choice.rows if not taken)
    assert choice.spare == "6 more usable photos were not needed."
    assert choose_views([tmp_path], CodedFrontEnd(), most=8).spare == "1 more usable photo was not needed."
    assert choose_views([tmp_path], CodedFrontEnd(), most=9).spare == ""


def test_strangers_are_refused(tmp_path: Path) -> None:
    paths = [photo(tmp_path / f"{i}.png", 0, 100, person) for i, person in enumerate((10, 10, 250, 10))]

    def embed(views: Views) -> torch.Tensor:
        stranger = (views.images[:, 0, 0, 0] > 0.5).float()
        return torch.stack([1 - stranger, stranger], -1)

    choice = choose_views(paths, CodedFrontEnd(), embed=embed)
    assert kept(choice) == ["0.png", "1.png", "3.png"] and choice.identity_checked
    assert "another person" in choice.rows[2][0].reason


def by_angle(views: Views) -> torch.Tensor:
    """A picture's blue is the angle of its embedding in degrees: the cosine of the difference is the likeness."""
    angle = torch.deg2rad((views.images[:, 0, 0, 0] * 255).round())
    return torch.stack([angle.cos(), angle.sin()], -1)


def test_photos_hardly_alike_are_remarked_on(tmp_path: Path) -> None:
    paths = [photo(tmp_path / f"{i}.png", 0, 100, angle) for i, angle in enumerate((0, 70, 10, 5, 100))]
    choice = choose_views(paths, CodedFrontEnd(), embed=by_angle)
    assert kept(choice) == ["0.png", "1.png", "2.png", "3.png"]
    (note,) = choice.notes  # 65 degrees from the middle one
    assert "1.png: likeness 0.4" in note and note.endswith("check that it is the same person.")
    sure = [photo(tmp_path / f"sure {i}.png", 0, 100, angle) for i, angle in enumerate((0, 60, 10, 5))]
    assert choose_views(sure, CodedFrontEnd(), embed=by_angle).notes == ()


def test_photos_are_compared_with_the_avatar(tmp_path: Path) -> None:
    paths = [photo(tmp_path / f"{i}.png", 0, 100, angle) for i, angle in enumerate((130, 130, 10, 66))]
    whose = torch.tensor([1.0, 0.0])
    choice = choose_views(paths, CodedFrontEnd(), embed=by_angle, avatar=whose)
    assert kept(choice) == ["2.png", "3.png"]  # the majority is another person; 3 is like 2
    assert choice.rows[0][0].reason == "seems to be another person than the avatar (likeness -0.64)"
    assert not any("the avatar" in note for note in choice.notes)
    (note,) = choose_views(paths[3:4], CodedFrontEnd(), embed=by_angle, avatar=whose).notes
    assert note.endswith("3.png: likeness 0.41 to the avatar: check that it is the same person.")
    for given in (paths[:1], paths[:2]):
        with pytest.raises(StrangersError, match=r"avatar's person \(likeness -0\.64 at most\); give photos of"):
            choose_views(given, CodedFrontEnd(), embed=by_angle, avatar=whose)


def test_a_photo_given_twice_counts_once(tmp_path: Path) -> None:
    one, other = photo(tmp_path / "a.png", 0, 9), photo(tmp_path / "b.png", 1, 9)
    (tmp_path / "link.png").symlink_to(one)
    choice = choose_views([one, tmp_path, other], CodedFrontEnd())
    assert kept(choice) == ["a.png", "b.png"] and len(choice.notes) == 3
    assert f"{tmp_path / 'link.png'} was given more than once, also as {one}: it counts once." in choice.notes


def test_an_empty_photo_is_refused_as_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    good = photo(tmp_path / "a.png", 0, 9)
    choice = choose_views([good, tmp_path / "empty.jpg"], CodedFrontEnd())
    assert kept(choice) == ["a.png"] and "is empty" in choice.rows[1][0].reason
    with pytest.raises(InputError, match=r"empty\.jpg is empty"):
        choose_views([tmp_path / "empty.jpg"], CodedFrontEnd())
    with pytest.raises(InputError, match="does not exist"):
        choose_views([good, tmp_path / "none.jpg"], CodedFrontEnd())


def test_a_wrong_look_is_known_before_any_photo_is_read(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", 0, 9)
    check_look("a.png", [tmp_path])
    check_look("frame 3", [make_film(tmp_path / "v.mp4")])
    with pytest.raises(InputError, match=r"typo.png is none of the photos given; name one of: .*a.png"):
        check_look("typo.png", [tmp_path])


def test_video_is_sampled(tmp_path: Path) -> None:
    eyes = CodedFrontEnd()
    choice = choose_views([make_film(tmp_path / "v.mp4", frames=120)], eyes, most=4)
    assert 40 <= eyes.looked <= 48 and len(choice.views) == 4
    assert [c.name for c, _ in choice.rows][:2] == ["frame 0", "frame 3"]
    assert choice.spare == f"{sum(c.usable for c, _ in choice.rows) - 4} more usable frames were not needed."


def test_nothing_usable(tmp_path: Path) -> None:
    bad = [photo(tmp_path / "a.png", 0, 0), photo(tmp_path / "b.png", 0, 0)]
    with pytest.raises(InputError, match=r"None of the 2 photos can be used; the first: .*a\.png"):
        choose_views(bad, CodedFrontEnd())
    with pytest.raises(InputError, match=r"a\.png: the face is blurred"):
        choose_views(bad[:1], CodedFrontEnd())
    with pytest.raises(InputError, match="No photo was given"):
        choose_views([], CodedFrontEnd())
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no photos"):
        choose_views([tmp_path / "none"], CodedFrontEnd())
    video = make_film(tmp_path / "v.mp4")
    with pytest.raises(InputError, match="is a video; give it alone"):
        choose_views([video, bad[0]], CodedFrontEnd())


def test_one_that_must_be_is_taken_if_it_can_be(tmp_path: Path) -> None:
    looks = ((0, 200), (40, 200), (-40, 200), (1, 30), (20, 0), (-20, 200))  # the fourth is the last that is chosen
    paths = [photo(tmp_path / f"{i}.png", yaw, sharp, 10 * i) for i, (yaw, sharp) in enumerate(looks)]
    plain = choose_views(paths, CodedFrontEnd(), most=3)
    assert kept(plain) == ["0.png", "1.png", "2.png"] and plain.view_of(3) is None and plain.view_of(2) == 2
    choice = choose_views(paths, CodedFrontEnd(), most=3, must="3.png")
    assert len(choice.views) == 3 and {"0.png", "3.png"} < {*kept(choice)}  # and a sharp frontal one
    number = choice.view_of(3)
    assert number is not None and choice.views.images[number, 0, 0, 0] == pytest.approx(30 / 255)
    assert kept(choose_views(paths, CodedFrontEnd(), most=1, must=paths[3])) == ["3.png"]
    assert kept(choose_views(paths, CodedFrontEnd(), must=paths[3])) == [f"{i}.png" for i in (0, 1, 2, 3, 5)]
    for unusable in ("4.png", "none.png"):
        assert kept(choose_views(paths, CodedFrontEnd(), most=3, must=unusable)) == kept(plain)

    def embed(views: Views) -> torch.Tensor:
        stranger = ((views.images[:, 0, 0, 0] * 255).round() == 30).float()
        return torch.stack([1 - stranger, stranger], -1)

    strange = choose_views(paths, CodedFrontEnd(), most=3, embed=embed, must="3.png")
    assert kept(strange) == kept(plain) and strange.view_of(3) is None


def test_the_look_is_told_by_the_photos_names(tmp_path: Path) -> None:
    paths = [
        photo(tmp_path / f"{name}.png", yaw, sharp) for name, yaw, sharp in (("a", 0, 9), ("b", 1, 0), ("c", 2, 9))
    ]
    choice = choose_views(paths, CodedFrontEnd())
    avatar = small_avatar()
    assert look_notes(choice, replace(avatar, about={})) == ()
    (same,) = look_notes(choice, replace(avatar, about={}), like=1)
    assert "seem to show the same" in same and "c.png" in same
    (note,) = look_notes(choice, replace(avatar, about={LOOK: "1"}))
    assert f"those of {paths[2]};" in note and "other one" in note


def test_a_look_is_named_by_path_or_name() -> None:
    names = ["x/a.png", "x/b.png", "y/b.png"]
    assert view_named("a.png", names) == 0 and view_named(Path("y/b.png"), names) == 2
    with pytest.raises(InputError, match="2 of the photos"):
        view_named("b.png", names)
    with pytest.raises(InputError, match="none of the photos that can be used; name one of: x/a"):
        view_named("c.png", names)
