"""The whole loop on a made-up film and index, with a front end that needs no face."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from made_views import landmark_cloud, made_views
from rich.console import Console

from ffavatar.errors import InputError
from ffavatar.evaluate.clips import Clip, load_clip, read_frames, read_index
from ffavatar.evaluate.identity import IdentityNet
from ffavatar.evaluate.lpips import LPIPS
from ffavatar.evaluate.protocol import METRICS, Method, Prediction, Run, Scorer, baseline_methods, evaluate
from ffavatar.photo import PhotoReport, PhotoResult
from ffavatar.types import Views

SIZE = 64
FRAMES = 12


def grey_of(number: int) -> int:
    return 20 + 18 * number


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """12 frames, each of one grey that tells its number."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for number in range(FRAMES):
            image = np.full((SIZE, SIZE, 3), grey_of(number), np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


@pytest.fixture
def data(film, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "film.mp4").write_bytes(film.read_bytes())
    row = {"file": "film.mp4", "source_frames": [1, 7, 10], "target_frames": [2, 6, 8]}
    (folder / "index.json").write_text(json.dumps({"clips": [{"id": "one"} | row, {"id": "two"} | row]}))
    return folder


class FakeFrontEnd:
    """The frame itself as the crop, its landmarks moved by its brightness; frame 8 shows no face."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def analyse(self, image: np.ndarray, name: str, *, size: int) -> PhotoResult:
        self.seen.append(name)
        assert image.shape == (size, size, 3) and image.dtype == np.uint8
        grey = float(image.mean()) / 255
        if name.endswith("frame 8"):
            return PhotoResult(PhotoReport(name, False, f"{name}: no face was found."), None)
        landmarks = landmark_cloud()
        landmarks[:, 0] += 0.1 * grey * landmarks[:, 2]
        views = made_views([landmarks], size=size)
        images = (torch.tensor(image / 255.0).float()[None] + 0.2 * views.images).clamp(0, 1)
        return PhotoResult(PhotoReport(name, True, ""), replace(views, images=images))


@pytest.fixture(autouse=True)
def unchanged_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept results are dropped when the package's code changes; a developer may save a file while this runs."""
    monkeypatch.setattr("ffavatar.evaluate.protocol.code_revision", lambda *folders: "this code")


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    torch.manual_seed(0)
    return Scorer(LPIPS("alex"), IdentityNet())


def perfect(source: Views, target: Views) -> Prediction:
    return Prediction(target.on_white(), target.landmarks[..., :2] + torch.tensor([0.004, 0.0]))


def quiet() -> Console:
    return Console(file=io.StringIO())


def test_index_is_read_and_checked(data) -> None:
    clips = read_index(data)
    assert [clip.id for clip in clips] == ["one", "two"]
    assert clips[0] == Clip("one", data / "film.mp4", (1, 7, 10), (2, 6, 8))
    good = json.loads((data / "index.json").read_text())

    def refused(change, message: str) -> None:
        content = json.loads(json.dumps(good))
        change(content["clips"][0])
        (data / "index.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=message):
            read_index(data)

    refused(lambda row: row.update(file="none.mp4"), "does not exist")
    refused(lambda row: row.update(target_frames=[7]), "both source and target")
    refused(lambda row: row.update(source_frames=[]), "at least one source")
    refused(lambda row: row.update(id="two"), "two clips alike")
    refused(lambda row: row.pop("file"), "not an index")
    (data / "index.json").write_text("[")
    with pytest.raises(InputError, match="not an index"):
        read_index(data)


def test_exactly_the_named_frames_are_decoded(film) -> None:
    frames = read_frames(film, [9, 0, 4])
    assert sorted(frames) == [0, 4, 9]
    for number, image in frames.items():
        assert abs(float(image.mean()) - grey_of(number)) < 3
    with pytest.raises(InputError, match="has no frame 40"):
        read_frames(film, [3, 40])


def test_crops_are_cached_and_made_anew_when_the_frames_change(data, tmp_path) -> None:
    clip = read_index(data)[0]
    front_end = FakeFrontEnd()
    first = load_clip(clip, front_end, SIZE, tmp_path / "crops")
    assert (len(first.source), len(first.target)) == (3, 2)
    assert first.refused == ("one frame 8: no face was found.",)
    seen = len(front_end.seen)
    again = load_clip(clip, front_end, SIZE, tmp_path / "crops")
    assert len(front_end.seen) == seen
    assert again.key == first.key and again.refused == first.refused
    for name in ("images", "mattes", "valid", "landmarks", "blendshapes"):
        assert torch.equal(getattr(again.target, name), getattr(first.target, name)), name
    other = load_clip(replace(clip, target_frames=(3,)), front_end, SIZE, tmp_path / "crops")
    assert len(front_end.seen) > seen and other.key != first.key
    with pytest.raises(InputError, match="refused every target frame"):
        load_clip(replace(clip, target_frames=(8,)), front_end, SIZE, tmp_path / "crops")


def test_all_methods_go_through_one_loop_and_a_second_run_resumes(data, tmp_path, scorer: Scorer) -> None:
    calls = []

    def counted(source: Views, target: Views) -> Prediction:
        calls.append(len(source))
        return perfect(source, target)

    methods = [*baseline_methods(), Method("perfect", counted)]
    run = Run(tmp_path / "out", tmp_path / "crops", SIZE)
    clips = read_index(data)
    results = evaluate(clips, methods, [3, 1], FakeFrontEnd(), scorer, run, quiet())
    assert [(r.clip, r.views, r.method) for r in results] == [
        (clip, views, method) for clip in ("one", "two") for views in (3, 1) for method in ("copy", "warp", "perfect")
    ]
    by_name = {(r.clip, r.views, r.method): r for r in results}
    for r in results:
        assert set(r.scores) == set(METRICS)
        assert all(len(r.scores[m]) == 2 for m in METRICS if m != "landmarks")
    best = by_name["one", 3, "perfect"]
    assert best.scores["psnr"] == [float("inf")] * 2
    assert best.scores["ssim"] == pytest.approx([1, 1], abs=1e-4)
    assert best.scores["lpips"] == [0, 0]
    assert best.scores["identity"] == pytest.approx([1, 1], abs=1e-4)
    assert best.scores["landmarks"] == pytest.approx([1.0, 1.0], abs=0.05)  # 0.004 of a face 0.4 wide
    assert by_name["one", 3, "copy"].scores["landmarks"] == []
    # frame 1 is nearest to 2, frame 7 to 6; with one source only frame 1 is left, further from 6
    assert by_name["one", 3, "copy"].mean("psnr") > by_name["one", 1, "copy"].mean("psnr") + 3
    assert by_name["one", 3, "copy"].scores["ceiling"] == pytest.approx(by_name["one", 3, "warp"].scores["ceiling"])

    assert calls == [3, 1, 3, 1]

    def no_scorer() -> Scorer:
        raise AssertionError("nothing is left to score")

    again = evaluate(clips, methods, [3, 1], FakeFrontEnd(), no_scorer, run, quiet())
    assert again == results and calls == [3, 1, 3, 1]
    methods[2] = replace(methods[2], revision="other weights")
    evaluate(clips[:1], methods, [3], FakeFrontEnd(), scorer, run, quiet())
    assert calls == [3, 1, 3, 1, 3]


def test_a_refused_source_is_counted_as_asked_for_and_named(data, tmp_path, scorer: Scorer) -> None:
    """One clip with a refused frame must not fall out of the table's row for that number of views."""
    clip = replace(read_index(data)[0], source_frames=(8, 1, 10), target_frames=(2,))
    given = []

    def counted(source: Views, target: Views) -> Prediction:
        given.append(len(source))
        return perfect(source, target)

    run = Run(tmp_path / "out", tmp_path / "crops", SIZE)
    results = evaluate([clip], [Method("perfect", counted)], [3, 1], FakeFrontEnd(), scorer, run, quiet())
    assert [result.views for result in results] == [3, 1] and given == [2, 1]
    assert results[0].refused == ("one frame 8: no face was found.",)


def test_a_broken_run_goes_on_where_it_stopped(data, tmp_path, scorer: Scorer) -> None:
    run = Run(tmp_path / "out", tmp_path / "crops", SIZE)
    calls = []

    def fails_on_the_second_clip(source: Views, target: Views) -> Prediction:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return perfect(source, target)

    method = [Method("perfect", fails_on_the_second_clip)]
    with pytest.raises(KeyboardInterrupt):
        evaluate(read_index(data), method, [3], FakeFrontEnd(), scorer, run, quiet())
    results = evaluate(read_index(data), method, [3], FakeFrontEnd(), scorer, run, quiet())
    assert len(results) == 2 and len(calls) == 3


def test_pixels_outside_the_photo_do_not_count(scorer: Scorer) -> None:
    source, target = made_views([landmark_cloud()]), made_views([landmark_cloud()], seed=5)
    target.valid[:, 48:] = 0
    shown = target.on_white().clone()
    clean = scorer.score(Prediction(shown), source, target)
    shown[:, 48:] = 0.4
    assert scorer.score(Prediction(shown), source, target) == clean


def test_pictures_of_another_size_or_range_are_a_mistake(scorer: Scorer) -> None:
    views = made_views([landmark_cloud()])
    with pytest.raises(ValueError, match="different shapes"):
        scorer.score(Prediction(views.on_white()[:, ::2, ::2]), views, views)
    with pytest.raises(ValueError, match="must lie in"):
        scorer.score(Prediction(views.on_white() * 2), views, views)
