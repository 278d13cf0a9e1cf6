"""Curation of films on made-up ones, in which people are coloured squares: cuts, tracks, gates, identities, frames."""

from __future__ import annotations

from base64 import b64decode
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_captures import film
from PIL import Image

from ffavatar.data.shards import ShardReader
from ffavatar.data.video import curate as curation
from ffavatar.data.video.curate import Plan, curate, list_films
from ffavatar.data.video.cuts import CutFinder
from ffavatar.data.video.people import feature, group, linked, most_different
from ffavatar.data.video.tracks import EXAMPLE_PX, crowded, film_faces, overlap
from ffavatar.errors import InputError
from ffavatar.photo import PhotoReport, PhotoResult
from ffavatar.types import Views

WIDTH, HEIGHT, SIDE = 320, 180, 40
PEOPLE = {"red": (225, 30, 30), "green": (30, 190, 30), "blue": (30, 30, 225)}


def scene(grey: int, **places: tuple[int, int]) -> np.ndarray:
    """A frame with a square for each person, its top left corner at ``places``."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frame = np.repeat((grey + 20 * np.sin(x / 30 + y / 20)).astype(np.uint8)[..., None], 3, 2)
    for name, (left, top) in places.items():
        frame[top : top + SIDE, left : left + SIDE] = PEOPLE[name]
    return frame


class Squares:
    """A front end that finds the squares. Left of x = 20 a face counts as blurred; its place is its expression."""

    def faces(self, image: np.ndarray) -> list:
        found = []
        for colour in PEOPLE.values():
            ys, xs = np.nonzero(np.abs(image.astype(int) - colour).max(-1) < 60)
            if len(xs) > 200:
                points = torch.zeros(1, 478, 3)
                points[0, 0, :2] = torch.tensor([np.percentile(xs, 2), np.percentile(ys, 2)])
                points[0, 1:, :2] = torch.tensor([np.percentile(xs, 98), np.percentile(ys, 98)])
                found.append(SimpleNamespace(points=points))
        return found

    def judge(self, image: np.ndarray, found: list, name: str, index: int, size: int) -> PhotoResult:
        left, top = (float(v) for v in found[index].points[0, 0, :2])
        if left < 20:
            return PhotoResult(
                PhotoReport(name, False, f"{name}: the face is blurred (sharpness 3); use another."), None
            )
        crop = (left - SIDE / 2, top - SIDE / 2, 2.0 * SIDE)
        middle = image[int(top) + SIDE // 2, int(left) + SIDE // 2]
        picture = torch.tensor(middle / 255.0).float().expand(1, size, size, 3)
        scores = torch.full((1, 52), left / WIDTH)
        one = torch.ones(1, size, size)
        views = Views(picture, one, one, torch.full((1, 478, 3), 0.5), scores)
        return PhotoResult(PhotoReport(name, True, "", crop_box=crop, yaw_deg=left / 4, sharpness=100.0), views)


def embed(views: Views) -> torch.Tensor:
    """The square's colour as a direction: people are nearly at right angles."""
    return torch.nn.functional.normalize(views.images[:, 0, 0] - 0.1, dim=-1)


def make_embed():
    return embed


def moving(grey: int, frames: int, **paths: tuple[int, int, int]) -> list[np.ndarray]:
    """Squares that go ``step`` px a frame to the right: (left, top, step)."""
    return [
        scene(grey, **{name: (left + step * k, top) for name, (left, top, step) in paths.items()})
        for k in range(frames)
    ]


def test_cuts_are_found_and_motion_pans_and_fades_are_not() -> None:
    y, x = np.mgrid[:HEIGHT, : 4 * WIDTH]
    wide = np.stack([127 + 120 * np.sin(x / f + y / 40) for f in (31, 47, 90)], -1).astype(np.uint8)
    pan = [wide[:, 25 * k : 25 * k + WIDTH] for k in range(12)]
    talk = moving(90, 12, red=(40, 50, 6))
    other = moving(200, 12, blue=(200, 80, -5))
    fade = [(talk[-1] * (1 - k / 15) + other[0] * (k / 15)).astype(np.uint8) for k in range(16)]
    frames = [*talk, *pan, *other, *reversed(other), *moving(20, 6, green=(10, 10, 4))]
    finder = CutFinder()
    begins = [k for k, frame in enumerate(frames) if finder.begins(frame)]
    assert begins == [0, 12, 24, 48]
    finder = CutFinder()
    assert [k for k, frame in enumerate([*talk, *fade, *other]) if finder.begins(frame)] == [0]


def test_overlap_and_crowding_of_boxes() -> None:
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 1, 1), (2, 2, 3, 3)) == 0
    assert crowded((0, 0, 10), [(9, 0, 11, 2)]) and not crowded((0, 0, 10), [(9.8, 0, 12, 2)])


def test_tracks_end_at_cuts_and_keep_people_apart(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4", [*moving(90, 48, red=(30, 40, 2), blue=(220, 100, 0)), *moving(200, 24, red=(60, 40, 1))])
    found = film_faces(tmp_path / "a.mp4", Squares(), embed, 8)
    assert (found.frames, found.shots) == (72, 2)
    assert found.samples == 12  # four a second, and the first of each shot
    seen = [(t.shot, t.first, t.last, len(t.faces), int(t.embedding().argmax())) for t in found.tracks]
    assert seen == [(0, 0, 42, 8, 0), (0, 0, 42, 8, 2), (1, 48, 66, 4, 0)]
    assert found.refused == {}


def test_gates_count_their_reasons(tmp_path: Path) -> None:
    together = moving(90, 24, red=(100, 60, 0), green=(145, 60, 0))
    film(tmp_path / "a.mp4", [*together, *moving(200, 24), *moving(40, 24, blue=(5, 60, 0))])
    found = film_faces(tmp_path / "a.mp4", Squares(), embed, 8)
    assert found.tracks == ()
    assert found.refused == {
        "another person reaches into the crop": 8, "no face was found": 4, "the face is blurred": 4
    }  # fmt: skip
    # the first picture of each reason: the face and its surroundings, or the whole frame
    assert set(found.examples) == set(found.refused)
    assert all(p.shape == (EXAMPLE_PX, EXAMPLE_PX, 3) and p.dtype == np.uint8 for p in found.examples.values())
    middle = {reason: p[EXAMPLE_PX // 2, EXAMPLE_PX // 2].tolist() for reason, p in found.examples.items()}
    assert middle["another person reaches into the crop"].index(max(middle["another person reaches into the crop"])) < 2
    assert middle["the face is blurred"].index(max(middle["the face is blurred"])) == 2  # blue
    assert np.ptp(middle["no face was found"]) < 8 and np.mean(middle["no face was found"]) > 180  # a bare wall


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 25), st.floats(0.1, 0.9))
def test_grouping_is_average_linkage(seed: int, count: int, threshold: float) -> None:
    """Against scipy's hierarchical clustering, an independent implementation."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    random = np.random.default_rng(seed)
    vectors = random.normal(size=(5, 6))[random.integers(5, size=count)] + 0.4 * random.normal(size=(count, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    distance = 1 - vectors @ vectors.T
    np.fill_diagonal(distance, 0)
    theirs = fcluster(linkage(squareform(distance, checks=False), "average"), 1 - threshold, "distance")
    ours = group(vectors, threshold=threshold)
    same = [[a == b for b in ours] for a in ours]
    assert same == [[a == b for b in theirs] for a in theirs]
    assert list(dict.fromkeys(ours)) == list(range(max(ours) + 1))


def test_sets_of_linked_tracks_are_those_of_a_graph() -> None:
    """Against scipy's connected components, with blocks that cut through the sets."""
    from scipy.sparse.csgraph import connected_components

    random = np.random.default_rng(3)
    rows = random.normal(size=(40, 16))[random.integers(40, size=700)] + 0.5 * random.normal(size=(700, 16))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    _, labels = connected_components(rows @ rows.T >= 0.6, directed=False)
    expected = [int(np.flatnonzero(labels == label)[0]) for label in labels]
    for block in (7, 100, 1024):
        assert linked(rows, 0.6, block) == expected


def test_people_seen_at_one_time_are_never_joined() -> None:
    alike = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    assert group(alike) == [0, 0, 0, 1]
    joined = group(alike, apart=[(0, 1)])
    assert joined[0] != joined[1] and joined[3] not in joined[:3]
    assert joined[2] in (joined[0], joined[1])


def test_chosen_frames_differ_and_duplicates_go() -> None:
    angles = np.array([0, 0.5, 1, 40, -40, 40.5, 20, -20.0])
    features = np.stack([feature((a, 0, 0), np.zeros(52)) for a in angles])
    sharp = np.full(len(angles), 100.0)
    sharp[2] = 150  # the clearest of those near the middle
    chosen = most_different(features, sharp, 5)
    assert chosen[0] == 2 and {3, 5} & set(chosen[1:3]) and 4 in chosen[1:3]
    assert len(most_different(features, sharp, 20)) == 5  # 0, 0.5 and 1 show the same, and so do 40 and 40.5
    smile = np.zeros(52)
    smile[3] = 1
    features = np.stack([feature((0, 0, 0), np.zeros(52)), feature((1, 0, 0), np.zeros(52)), feature((0, 0, 0), smile)])
    assert set(most_different(features, np.ones(3), 2)) >= {2}


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    (folder / "more").mkdir(parents=True)
    film(folder / "one.mp4", moving(90, 96, red=(30, 40, 2), blue=(30, 120, 1)))
    film(folder / "more" / "two.mp4", [*moving(200, 72, red=(120, 40, 2)), *moving(40, 48, green=(50, 60, 3))])
    film(folder / "short.mp4", moving(120, 12, green=(250, 100, 0)))
    (folder / "broken.mp4").write_bytes(b"no film")
    return folder


def test_nobody_is_two_people_across_films_and_a_second_run_does_nothing(
    films: Path, tmp_path: Path, monkeypatch
) -> None:
    squares = Squares()
    monkeypatch.setattr(curation, "front_end", lambda: squares)
    plan = Plan(16, frames=8, fewest=3, licence="CC0-1.0")
    total = curate(list_films(films), tmp_path / "out", tmp_path / "work", plan, make_embed)
    people = {int(embed(s.views([0])).argmax()): s for s in ShardReader(tmp_path / "out")}
    assert len(people) == total.people == 3 and total.films == 4 and total.frames == 96 + 72 + 48 + 12
    assert people[0].notes == {"tracks": 2, "films": 2} and people[1].notes["films"] == 2
    assert total.refused["the film cannot be read"] == 1
    for sample in people.values():
        assert 3 <= len(sample) <= 8
        features = [feature(a, b) for a, b in zip(sample.arrays["angles_deg"], sample.arrays["blendshapes"])]
        apart = [np.linalg.norm(a - b) for k, a in enumerate(features) for b in features[:k]]
        assert min(apart) >= 0.12
    page = (tmp_path / "out" / "people.html").read_text()
    assert page.count("data:image/jpeg") == 3 and "the film cannot be read" in page

    def not_again():
        raise AssertionError("finished films are not looked through again")

    before = (tmp_path / "out" / "manifest.json").read_bytes()
    again = curate(list_films(films), tmp_path / "out", tmp_path / "work", plan, not_again)
    assert again.people == 3 and again.seconds == 0
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    with pytest.raises(InputError, match="other data or settings"):
        curate(list_films(films)[:1], tmp_path / "out", tmp_path / "work", plan, make_embed)


def test_the_page_shows_what_was_refused(tmp_path: Path, monkeypatch) -> None:
    for name in ("a", "b"):
        film(tmp_path / f"{name}.mp4", [*moving(90, 48, red=(30, 40, 2)), *moving(40, 24, blue=(5, 60, 0))])
    squares = Squares()
    monkeypatch.setattr(curation, "front_end", lambda: squares)
    plan = Plan(16, fewest=1)
    total = curate(list_films(tmp_path), tmp_path / "out", tmp_path / "work", plan, make_embed)
    assert total.refused["the face is blurred"] == 8 and total.people == 1
    row = (tmp_path / "out" / "people.html").read_text().split("the face is blurred<td>")[1].split("<tr>")[0]
    data = row.split("base64,")[1].split("'")[0]
    with Image.open(BytesIO(b64decode(data))) as picture:
        assert picture.size == (2 * EXAMPLE_PX, EXAMPLE_PX)  # one of each film


def test_a_stopped_run_goes_on_film_by_film(films: Path, tmp_path: Path, monkeypatch) -> None:
    looked: list[str] = []

    def counted(place, *rest):
        looked.append(place.name)
        if len(looked) == 3:
            raise KeyboardInterrupt
        return film_faces(place, *rest)

    squares = Squares()
    monkeypatch.setattr(curation, "front_end", lambda: squares)
    monkeypatch.setattr(curation, "film_faces", counted)
    options = (tmp_path / "out", tmp_path / "work", Plan(16), make_embed)
    with pytest.raises(KeyboardInterrupt):
        curate(list_films(films), *options)
    assert curate(list_films(films), *options).people == 3
    assert sorted(looked) == sorted([*(f.name for f in list_films(films)), looked[2]])  # only the stopped one twice


def test_lists_of_films(films: Path, tmp_path: Path) -> None:
    assert [f.name for f in list_films(films)] == ["broken.mp4", "two.mp4", "one.mp4", "short.mp4"]
    names = films / "list.txt"
    names.write_text("# mine\none.mp4\nmore/two.mp4\n\n")
    assert [f.name for f in list_films(names)] == ["one.mp4", "two.mp4"]
    names.write_text("none.mp4\n")
    with pytest.raises(InputError, match="does not exist"):
        list_films(names)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no films"):
        list_films(tmp_path / "empty")
    with pytest.raises(InputError, match="cannot be; give 1"):
        curate(list_films(films), tmp_path / "o", tmp_path / "w", Plan(fewest=9), make_embed)
