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
from PIL import Image
from rich.console import Console

from ffavatar.errors import InputError
from ffavatar.evaluate.clips import Clip, code_revision, load_clip, read_frames, read_index
from ffavatar.evaluate.figures import METRICS
from ffavatar.evaluate.identity import IdentityNet
from ffavatar.evaluate.lpips import LPIPS
from ffavatar.evaluate.methods import Method, Prediction, Task, baseline_methods, export_crops, images_method
from ffavatar.evaluate.protocol import ClipResult, Run
from ffavatar.evaluate.protocol import evaluate as run_cases
from ffavatar.evaluate.rules import FOLDER, Rules, cases, check_rules, read_rules, shipped_protocols
from ffavatar.evaluate.scorer import Scorer
from ffavatar.photo import PhotoReport, PhotoResult

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
        return PhotoResult(PhotoReport(name, True, "", crop_box=(0.0, 0.0, float(size))), replace(views, images=images))


@pytest.fixture(autouse=True)
def unchanged_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept results are dropped when the package's code changes; a developer may save a file while this runs."""
    monkeypatch.setattr("ffavatar.evaluate.protocol.code_revision", lambda *folders: "this code")


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    torch.manual_seed(0)
    return Scorer(LPIPS("alex"), IdentityNet())


def perfect(task: Task) -> Prediction:
    target = task.target.views
    return Prediction(
        target.on_white(), target.landmarks[..., :2] + torch.tensor([0.004, 0.0]), target.mattes * target.valid
    )


RULES = Rules("self", 1, "self", "A test.", SIZE, (3, 1), ("copy", "warp"), 0, 0)


@pytest.mark.parametrize("library", ["_native.so", "_native.dylib", "_native.dll"])
def test_the_revision_is_of_the_library_as_it_is_named_here(tmp_path, monkeypatch, library) -> None:
    monkeypatch.setattr("ffavatar.evaluate.clips.LIBRARY_NAME", library)
    folder = tmp_path / "code" / "render"
    folder.mkdir(parents=True)
    found = []
    for name, content in (("a.py", "1"), (library, "1"), (library, "2"), ("notes.txt", "1")):
        (folder / name).write_text(content)
        found.append(code_revision(tmp_path / "code"))
    assert len(set(found)) == 3 and found[2] == found[3]


def evaluate(clips, methods, views, front_end, scorer, run: Run, console: Console) -> list[ClipResult]:
    run = replace(run, rules=replace(run.rules, views=tuple(views)))
    return run_cases(cases(clips, run.rules), methods, front_end, scorer, run, console)


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
    assert (first.source.frames, first.target.frames) == ((1, 7, 10), (2, 6))
    assert first.frame_size == (SIZE, SIZE) and first.run is None
    assert first.refused == ("one frame 8: no face was found.",)
    seen = len(front_end.seen)
    again = load_clip(clip, front_end, SIZE, tmp_path / "crops")
    assert len(front_end.seen) == seen
    assert again.key == first.key and again.refused == first.refused
    for name in ("images", "mattes", "valid", "landmarks", "blendshapes"):
        assert torch.equal(getattr(again.target.views, name), getattr(first.target.views, name)), name
    other = load_clip(replace(clip, target_frames=(3,)), front_end, SIZE, tmp_path / "crops")
    assert len(front_end.seen) > seen and other.key != first.key
    with pytest.raises(InputError, match="refused every target frame"):
        load_clip(replace(clip, target_frames=(8,)), front_end, SIZE, tmp_path / "crops")


def test_all_methods_go_through_one_loop_and_a_second_run_resumes(data, tmp_path, scorer: Scorer) -> None:
    calls = []

    def counted(task: Task) -> Prediction:
        calls.append(len(task.source))
        return perfect(task)

    methods = [*baseline_methods(), Method("perfect", counted)]
    run = Run(tmp_path / "out", tmp_path / "crops", RULES)
    clips = read_index(data)
    results = evaluate(clips, methods, [3, 1], FakeFrontEnd(), scorer, run, quiet())
    assert [(r.clip, r.views, r.method) for r in results] == [
        (clip, views, method) for clip in ("one", "two") for views in (3, 1) for method in ("copy", "warp", "perfect")
    ]
    by_name = {(r.clip, r.views, r.method): r for r in results}
    for r in results:
        assert set(r.scores) <= set(METRICS) and {"psnr", "ssim_person", "matte_iou", "ceiling"} <= set(r.scores)
        assert all(len(values) == 2 for values in r.scores.values())
    best = by_name["one", 3, "perfect"]
    assert best.scores["psnr"] == [100, 100] and best.scores["matte_iou"] == [1, 1]
    assert best.scores["ssim"] == pytest.approx([1, 1], abs=1e-4)
    assert best.scores["lpips"] == [0, 0]
    assert best.scores["identity"] == pytest.approx([1, 1], abs=1e-4)
    assert best.scores["landmarks"] == pytest.approx([1.0, 1.0], abs=0.05)  # 0.004 of a face 0.4 wide
    assert "landmarks" not in by_name["one", 3, "copy"].scores
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

    def counted(task: Task) -> Prediction:
        given.append(len(task.source))
        return perfect(task)

    run = Run(tmp_path / "out", tmp_path / "crops", RULES)
    results = evaluate([clip], [Method("perfect", counted)], [3, 1], FakeFrontEnd(), scorer, run, quiet())
    assert [result.views for result in results] == [3, 1] and given == [2, 1]
    assert results[0].refused == ("one frame 8: no face was found.",)


def test_a_broken_run_goes_on_where_it_stopped(data, tmp_path, scorer: Scorer) -> None:
    run = Run(tmp_path / "out", tmp_path / "crops", RULES)
    calls = []

    def fails_on_the_second_clip(task: Task) -> Prediction:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return perfect(task)

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


def test_cross_cases_pair_each_clip_with_the_next_of_another_person(data) -> None:
    clips = read_index(data)
    rules = replace(read_rules("cross"), size=SIZE)
    assert [case.id for case in cases(clips, rules)] == ["one--two", "two--one"]
    same = [replace(clip, person="same") for clip in clips]
    with pytest.raises(InputError, match="two clips of different people"):
        cases(same, rules)
    third = replace(clips[0], id="three")
    assert [case.id for case in cases([*same, third], rules)] == ["two--three", "three--one"]


def test_cross_reenactment_shows_the_driver_frames_to_the_method(data, tmp_path) -> None:
    class Recorder:
        def score_cross(self, prediction, source, driver):
            return {"identity": [float(len(source)) / 10] * len(driver)}

    clips = [read_index(data)[0], replace(read_index(data)[1], source_frames=(3, 4), target_frames=(5, 9))]
    rules = replace(read_rules("cross"), size=SIZE, views=(2,))
    seen = []

    def method(task: Task) -> Prediction:
        seen.append((task.case, task.target.frames, len(task.source)))
        return perfect(task)

    run = Run(tmp_path / "out", tmp_path / "crops", rules)
    results = run_cases(
        cases(clips, rules),
        [Method("m", method)],
        FakeFrontEnd(),
        Recorder(),
        run,
        quiet(),  # type: ignore[arg-type]
    )
    assert seen == [("one--two", (5, 9), 2), ("two--one", (2, 6), 2)]
    assert [r.subject for r in results] == ["one", "two"] and results[0].refused == ("one frame 8: no face was found.",)


def test_consecutive_frames_are_asked_of_methods_that_make_films(data, tmp_path) -> None:
    clip = replace(read_index(data)[0], source_frames=(0, 1), target_frames=(3, 7))
    assert clip.run_frames(4) == (4, 5, 6, 7) and clip.run_frames(9) == () and clip.run_frames(0) == ()
    asked = []

    def method(task: Task) -> Prediction:
        asked.append(task.target.frames)
        return perfect(task)

    torch.manual_seed(0)

    class WithRuler(Scorer):
        def jitter(self, prediction, target):
            return {"jitter": [0.5] * (len(target) - 2)}

    scorer = WithRuler(LPIPS("alex"), IdentityNet())
    run = Run(tmp_path / "out", tmp_path / "crops", replace(RULES, film_frames=4, views=(2,)))
    methods = [Method("film", method), Method("still", method, films=False)]
    film, still = run_cases(cases([clip], run.rules), methods, FakeFrontEnd(), scorer, run, quiet())
    assert asked == [(3, 7), (4, 5, 6, 7), (3, 7)]
    assert film.scores["jitter"] == [0.5, 0.5] and "jitter" not in still.scores


def test_pictures_of_other_methods_are_scored_as_they_lie(data, tmp_path, scorer: Scorer) -> None:
    """Exported crops given back as a method's pictures are a perfect score (frames here are as large as crops)."""
    clip = read_index(data)[0]
    run = Run(tmp_path / "out", tmp_path / "crops", replace(RULES, views=(3,)))
    views = load_clip(clip, FakeFrontEnd(), SIZE, run.cache)
    assert export_crops("one", views, tmp_path / "export") == 5
    other = tmp_path / "other"
    (other / "views-3").mkdir(parents=True)
    (tmp_path / "export" / "one" / "target").rename(other / "views-3" / "one")
    (result,) = run_cases(
        cases([clip], run.rules), [images_method("theirs", other)], FakeFrontEnd(), scorer, run, quiet()
    )
    # the exported picture is rounded to 8 bits after matting: half a grey level at most
    assert result.mean("psnr") > 20 * np.log10(255 / 0.5) - 0.1
    before = result.key
    (other / "views-3" / "one" / "000002.png").unlink()
    with pytest.raises(InputError, match=r"000002\.png"):
        run_cases(cases([clip], run.rules), [images_method("theirs", other)], FakeFrontEnd(), scorer, run, quiet())
    assert images_method("theirs", other).revision != before
    with pytest.raises(InputError, match="does not exist"):
        images_method("theirs", tmp_path / "none")


def test_pictures_of_consecutive_frames_give_other_methods_their_jitter(data, tmp_path) -> None:
    """Exported with the targets; a row has the figure where all of them are given back, else all others."""
    clip = replace(read_index(data)[0], source_frames=(0, 1), target_frames=(3, 7))
    run = Run(tmp_path / "out", tmp_path / "crops", replace(RULES, film_frames=4, views=(2,)))
    views = load_clip(clip, FakeFrontEnd(), SIZE, run.cache, 4)
    assert export_crops("one", views, tmp_path / "export") == 2 + 2 + 4
    seen = []

    class WithRuler(Scorer):
        def jitter(self, prediction, target):
            seen.append(prediction.images)
            return {"jitter": [0.5] * (len(target) - 2)}

    torch.manual_seed(0)
    scorer = WithRuler(LPIPS("alex"), IdentityNet())
    place = tmp_path / "theirs" / "one"
    place.mkdir(parents=True)
    for part in ("target", "film"):
        for file in (tmp_path / "export" / "one" / part).iterdir():
            (place / file.name).write_bytes(file.read_bytes())

    def score() -> ClipResult:
        method = images_method("theirs", tmp_path / "theirs")
        (result,) = run_cases(cases([clip], run.rules), [method], FakeFrontEnd(), scorer, run, quiet())
        return result

    assert score().scores["jitter"] == [0.5, 0.5]
    wanted = views.run.views.on_white()
    torch.testing.assert_close(seen[0], wanted, atol=1 / 255, rtol=0)
    (place / "000005.png").unlink()
    result = score()
    assert "jitter" not in result.scores and len(result.scores["psnr"]) == 2


@pytest.mark.parametrize(
    "names",
    [
        ("clips/one/2.png", "clips/one/0006.png"), ("one_000002.png", "one_6.png"), ("one-2.JPG", "one.0006.webp"),
        ("views-3/one/2.jpg", "views-3/one_06.png"),
    ],
)  # fmt: skip
def test_pictures_of_other_methods_may_be_named_by_clip(data, tmp_path, scorer: Scorer, names: tuple[str, ...]) -> None:
    clip = read_index(data)[0]
    run = Run(tmp_path / "out", tmp_path / "crops", replace(RULES, views=(3,)))
    views = load_clip(clip, FakeFrontEnd(), SIZE, run.cache)
    export_crops("one", views, tmp_path / "export")
    other = tmp_path / "other"
    for frame, name in zip((2, 6), names):
        place = other / name.removeprefix("clips/")
        place.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(tmp_path / "export" / "one" / "target" / f"{frame:06d}.png") as picture:
            picture.save(place, quality=100)

    def score() -> ClipResult:
        method = images_method("theirs", other)
        (result,) = run_cases(cases([clip], run.rules), [method], FakeFrontEnd(), scorer, run, quiet())
        return result

    assert min(v for v in score().scores["psnr"] if v is not None) > 35  # as JPEG and WebP lose little
    for name in ("one_0002.png", "one-2.jpg", "0002.jpg", "02.webp"):
        (place.parent / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"is there \d times"):
        score()


def test_protocol_files_are_checked(tmp_path) -> None:
    assert shipped_protocols() == ["cross", "novel", "self", "synthetic-bench", "synthetic-bench-driven", "vfhq"]
    for name in shipped_protocols():
        assert read_rules(name).name == name
        assert {"copy", "warp"} <= set(read_rules(name).methods), "the trivial baselines stand in every table"
    place = tmp_path / "p.json"
    good = json.loads((FOLDER / "self.json").read_text())
    place.write_text(json.dumps(good))
    assert read_rules(place) == read_rules("self")
    for change in ({"size": "big"}, {"views": 4}, {"extra": 1}):
        place.write_text(json.dumps(good | change))
        with pytest.raises(InputError, match="is not a protocol"):
            read_rules(place)
    for change, message in (
        ({"size": 10}, "64 to 2048"), ({"views": (0,)}, "at least 1"), ({"film_frames": 2}, "no shaking"),
        ({"kind": "cross"}, "at least one"), ({"kind": "other"}, "unknown kind"),
        ({"box": "round"}, "not known for self"), ({"kind": "cross", "drivers": 1, "box": "five_points"}, "for cross"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            check_rules(replace(RULES, **change))
