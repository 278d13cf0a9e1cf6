"""Contact sheets land whole with every picture in its place; tables hold the means they claim."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from ffavatar.errors import InputError
from ffavatar.evaluate.bootstrap import interval
from ffavatar.evaluate.compare import compare, verdict
from ffavatar.evaluate.figures import check_scores
from ffavatar.evaluate.machine import environment
from ffavatar.evaluate.page import difference, shown_pictures, tiles, worst_first, write_page
from ffavatar.evaluate.protocol import ClipResult, Run, result_place
from ffavatar.evaluate.report import read_results, summary, to_markdown, write_report
from ffavatar.evaluate.rules import Rules
from ffavatar.evaluate.sheet import GAP_PX, LABEL_PX, contact_sheet, strip, wrapped


def flat(*colours: tuple[float, float, float]) -> torch.Tensor:
    return torch.stack([torch.tensor(colour, dtype=torch.float32).expand(40, 40, 3) for colour in colours])


def test_strip_keeps_order_and_colour() -> None:
    row = strip(flat((1, 0, 0), (0, 1, 0), (0, 0, 1)), tile=20)
    assert row.size == (60 + 2 * GAP_PX, 20)
    assert [row.getpixel((10 + i * (20 + GAP_PX), 10)) for i in range(3)] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def test_sheet_takes_tensors_strips_and_files(tmp_path) -> None:
    kept = tmp_path / "kept.png"
    strip(flat((0, 0, 1)), 20).save(kept)
    target = tmp_path / "sheet.png"
    rows = [("tensor", flat((1, 0, 0), (1, 0, 0))), ("strip", strip(flat((0, 1, 0)), 20)), ("file", kept)]
    contact_sheet(target, rows, "a title")
    with Image.open(target) as sheet:
        sheet.load()
        height = sheet.height
        assert sheet.getpixel((LABEL_PX + 5, height - 10)) == (0, 0, 255)
        assert sheet.getpixel((LABEL_PX + 5, height - 20 - GAP_PX - 10)) == (0, 255, 0)
        assert sheet.getpixel((LABEL_PX + 5, height - 40 - 2 * GAP_PX - 10)) == (255, 0, 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept.png", "sheet.png"]


def test_long_names_are_broken_into_lines_that_fit() -> None:
    font = ImageFont.load_default(15)
    name = "20230831--0814--ADL311"
    lines = wrapped(f"{name}\n6 views", font, 84).split("\n")
    assert "".join(lines[:-1]) == name and lines[-1] == "6 views" and len(lines) > 2
    assert max(font.getlength(line) for line in lines) <= 84
    assert wrapped("", font, 84) == "" and wrapped("W", font, 1) == "W"


def test_a_failed_sheet_leaves_the_old_one(tmp_path) -> None:
    target = tmp_path / "sheet.png"
    contact_sheet(target, [("good", flat((1, 0, 0)))])
    before = target.read_bytes()
    with pytest.raises(ValueError, match="must lie in"):
        contact_sheet(target, [("bad", flat((255, 0, 0)))])
    with pytest.raises(InputError, match="at least one row"):
        contact_sheet(target, [])
    assert target.read_bytes() == before


def result(
    clip: str, method: str, psnr: list[float], found: list[float | None], views: int = 4, subject: str = ""
) -> ClipResult:
    scores: dict[str, list[float | None]] = {"psnr": list(psnr), "akd": found}
    reasons = ("clip b frame 3: no face was found.",)
    return ClipResult(
        clip, subject or clip, method, views, 256, "self 1", scores, {"seconds": 2.0, "fps": 30.0}, reasons, "key"
    )


RULES = Rules("self", 1, "self", "A test.", 256, (4, 1), ("copy", "driven"), 0, 0)
RESULTS = [
    result("a", "copy", [10, 20], []),
    result("b", "copy", [30], []),
    result("a", "driven", [20, 22], [1.0, None]),
    result("b", "driven", [25], [2.0]),
    result("a", "copy", [11, 11], [], views=1),
]


def test_means_go_over_targets_then_clips() -> None:
    copy, driven, single = summary(RESULTS)
    assert (copy["method"], copy["views"], copy["clips"]) == ("copy", 4, 2)
    assert copy["psnr"] == pytest.approx((15 + 30) / 2)
    assert copy["akd"] is None
    assert driven["akd"] == pytest.approx((1 + 2) / 2)  # a frame without a face is no zero
    assert (single["views"], single["psnr"], single["interval"]["psnr"]) == (1, 11, None)
    assert copy["timing"] == {"fps": 30, "seconds": 2}


def test_report_is_written_in_both_forms_and_read_back(tmp_path) -> None:
    about = environment()
    assert about["torch"] == torch.__version__ and all(about.values())
    as_json, as_markdown = write_report(RESULTS, tmp_path, "clips", RULES, about)
    content = json.loads(as_json.read_text())
    assert content["about"] == about
    assert [row["psnr"] for row in content["summary"]] == [22.5, 23.0, 11.0]
    rules, results = read_results(as_json)
    assert results == RESULTS and rules["name"] == "self"
    text = as_markdown.read_text()
    assert text == to_markdown(RESULTS, RULES, about)
    assert "| 4 | copy | 2 | 22.50 [15.00, 30.00] |" in text
    assert "| a | driven | 21.00 |" in text
    assert "## 1 source view\n" in text
    assert text.count("no face was found") == 1
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {9, 5}
    assert "2 people, 2 clips, 3 held-out pictures." in text
    assert "- `copy`: the nearest source frame" in text and "- `driven`: the avatar posed" in text
    assert "| FPS |  | pictures drawn per second" in text
    as_json.write_text("{}")
    with pytest.raises(InputError, match="give a results"):
        read_results(as_json)


def test_scores_outside_their_range_are_a_mistake() -> None:
    check_scores({"ssim": [0.2, None, 1.0], "lpips": [0.0, 3.0]})
    for scores in ({"ssim": [1.01]}, {"psnr": [float("nan")]}, {"aed": [-0.1]}, {"psnr": [101]}, {"beauty": [1.0]}):
        with pytest.raises(ValueError):
            check_scores(scores)


def test_bootstrap_draws_subjects_whole_and_is_seeded() -> None:
    assert interval({"a": [1, 2]}) is None
    assert interval({"a": [3, 3], "b": [3]}) == (3, 3)
    random = np.random.default_rng(1)
    values = {f"p{k}": [float(v)] for k, v in enumerate(random.normal(10, 2, 40))}
    low, high = interval(values)
    assert (low, high) == interval(dict(reversed(values.items())))
    flat = [v for clips in values.values() for v in clips]
    # for means of many independent figures it is the normal interval
    wide = 1.96 * np.std(flat) / 40**0.5
    assert low == pytest.approx(np.mean(flat) - wide, abs=0.15) and high == pytest.approx(
        np.mean(flat) + wide, abs=0.15
    )
    # ten clips of one person say no more than one
    assert interval({k: v * 10 for k, v in values.items()}) == pytest.approx((low, high))


def test_comparison_is_paired_and_judged_by_the_figures_direction(tmp_path) -> None:
    rows = [result(f"c{k}", "driven", [20.0 + k], [3.0]) for k in range(8)]
    better = [
        replace(r, scores={"psnr": [r.scores["psnr"][0] + 1 + 0.01 * k], "akd": [3.0]}) for k, r in enumerate(rows)
    ]
    first, _ = write_report(rows, tmp_path, "first", RULES, {"weights": "shipped", "cores": "2"})
    second, _ = write_report(better[:6], tmp_path, "second", RULES, {})
    text = compare(first, second)
    assert text.startswith(f"# {second} against {first}\n\n- first: {first}, weights shipped\n- second: {second}\n")
    # people differ by 7 dB, the pairs by 1: only a paired interval sees it
    assert "| 4 | driven | PSNR dB | 6 | 22.50 | 23.53 | 1.03 [1.01, 1.04] | better |" in text
    assert "| AKD px | 6 | 3.00 | 3.00 | 0.00 [0.00, 0.00] | equal |" in text
    assert "| worse |" in compare(second, first)
    other, _ = write_report(rows, tmp_path, "other", replace(RULES, size=512), {})
    with pytest.raises(InputError, match="different protocols"):
        compare(first, other)
    alone, _ = write_report([result("z", "driven", [1], [])], tmp_path, "alone", RULES, {})
    with pytest.raises(InputError, match="in common"):
        compare(first, alone)


@pytest.mark.parametrize(
    ("figure", "change", "bounds", "expected"),
    [
        ("lpips", -0.1, (-0.2, -0.01), "better"),
        ("lpips", 0.1, (-0.2, 0.3), "unclear"),
        ("ceiling", 1, (0.5, 2), "unclear"),
        ("psnr", -1, None, "unclear"),
        ("psnr", -1, (-2, -0.5), "worse"),
        ("psnr", 0, None, "equal"),
    ],
)
def test_verdicts(figure: str, change: float, bounds, expected: str) -> None:
    assert verdict(figure, change, bounds) == expected


def test_page_holds_its_pictures_and_shows_the_worst_first(tmp_path) -> None:
    run = Run(tmp_path, tmp_path, RULES)
    for row in RESULTS:
        for name, colour in (("sources", (1, 0, 0)), ("targets", (1, 1, 1)), (row.method, (0.9, 0.9, 0.9))):
            shown = flat(*[colour] * len(row.scores["psnr"]))
            strip(shown, 32).save(result_place(run, row.clip, name, row.views).with_suffix(".png"))
    place = tmp_path / "page.html"
    write_page(RESULTS, run, place, {"torch": "<b>"})
    text = place.read_text()
    assert worst_first(RESULTS) == [("a", 1), ("a", 4), ("b", 4)]
    assert text.index("a, 4 source views") < text.index("b, 4 source views")
    assert text.count("data:image/jpeg;base64,") == 3 * 2 + 5 * 2
    assert "&lt;b&gt;" in text and "http" not in text.replace("http://www.w3.org", "")
    assert "<svg" in text  # two numbers of views make curves
    links = ["href='#case-a-1'", "href='#case-a-4'", "href='#case-b-4'"]
    assert sorted(links, key=text.index) == links and text.count("<section id='case-") == 3
    # driven is the better of two over the same clips; alone there is no best
    assert "<td class=best>23.00<small>" in text and "<td>22.50<small>" in text and "<td>11.00" in text
    # a case's own figures, the headline under each picture, clocks in a table of their own
    assert "<td>driven<td>21.00</table><table>" in text
    assert "<span>20.00</span><span>22.00</span>" in text
    assert "<h2>Speed and memory</h2>" in text and "<td>4<td>driven<td><td>30.0<td>" in text
    assert "2 people, 2 clips, 3 held-out pictures" in text and "<b>copy</b>: the nearest source frame" in text
    seen = difference(Image.new("RGB", (4, 4), (10, 20, 30)), Image.new("RGB", (4, 4), (10, 20, 60)))
    assert seen.getpixel((1, 1)) == 255 - 20  # 30 / 3 channels, twice


def test_of_many_pictures_the_worst_are_shown(tmp_path) -> None:
    """30 targets: each case shows 24, those that the avatar has worst (a picture without a figure first), in order."""
    values = [20.0 + k for k in range(30)]
    values[29], values[0] = 1.0, 90.0
    rows = [result("a", "copy", [50.0] * 30, []), result("a", "driven", values, [])]
    chosen = shown_pictures(rows, "psnr", 30)
    assert chosen == [*range(1, 24), 29] and shown_pictures(rows, "psnr", 5) == [0, 1, 2, 3, 4]
    run = Run(tmp_path, tmp_path, RULES)
    grey = torch.linspace(0, 1, 30)[:, None, None, None].expand(-1, 40, 40, 3)
    for name in ("sources", "targets", "copy", "driven"):
        strip(grey[: 1 if name == "sources" else 30], 32).save(result_place(run, "a", name, 4).with_suffix(".png"))
    cut = tiles(Image.open(result_place(run, "a", "targets", 4).with_suffix(".png")))
    assert len(cut) == 30 and all(abs(tile.getpixel((16, 16))[0] - 255 * k / 29) <= 1 for k, tile in enumerate(cut))
    write_page(rows, run, tmp_path / "page.html", {})
    text = (tmp_path / "page.html").read_text()
    assert "The 24 worst of 30 pictures." in text
    assert text.count("data:image/jpeg;base64,") == 1 + 3 * (1 + 2 * 2)  # rows of eight
    assert "<span>1.00</span>" in text and "<span>90.00</span>" not in text
