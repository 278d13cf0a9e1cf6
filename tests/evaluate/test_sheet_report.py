"""Contact sheets land whole with every picture in its place; tables hold the means they claim."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from ffavatar.errors import InputError
from ffavatar.evaluate.protocol import METRICS, ClipResult
from ffavatar.evaluate.report import environment, summary, to_markdown, write_report
from ffavatar.evaluate.sheet import GAP_PX, LABEL_PX, contact_sheet, strip


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


def test_a_failed_sheet_leaves_the_old_one(tmp_path) -> None:
    target = tmp_path / "sheet.png"
    contact_sheet(target, [("good", flat((1, 0, 0)))])
    before = target.read_bytes()
    with pytest.raises(ValueError, match="must lie in"):
        contact_sheet(target, [("bad", flat((255, 0, 0)))])
    with pytest.raises(InputError, match="at least one row"):
        contact_sheet(target, [])
    assert target.read_bytes() == before


def result(clip: str, method: str, psnr: list[float], landmarks: list[float], views: int = 4) -> ClipResult:
    scores = {metric: [0.5] * len(psnr) for metric in METRICS} | {"psnr": psnr, "landmarks": landmarks}
    return ClipResult(clip, method, views, 256, scores, 2.0, ("clip b frame 3: no face was found.",), "key")


RESULTS = [
    result("a", "copy", [10, 20], []),
    result("b", "copy", [30], []),
    result("a", "driven", [20, 22], [1.0, 9.0]),
    result("b", "driven", [25], [2.0]),
    result("a", "copy", [11, 11], [], views=1),
]


def test_means_go_over_targets_then_clips() -> None:
    copy, driven, single = summary(RESULTS)
    assert (copy["method"], copy["views"], copy["clips"]) == ("copy", 4, 2)
    assert copy["psnr"] == pytest.approx((15 + 30) / 2)
    assert copy["landmarks"] is None
    assert driven["landmarks"] == pytest.approx((5 + 2) / 2)
    assert driven["landmarks_median"] == 2.0
    assert (single["views"], single["psnr"]) == (1, 11)


def test_report_is_written_in_both_forms(tmp_path) -> None:
    about = environment()
    assert about["torch"] == torch.__version__ and all(about.values())
    as_json, as_markdown = write_report(RESULTS, tmp_path, "clips", about)
    content = json.loads(as_json.read_text())
    assert content["about"] == about
    assert [row["psnr"] for row in content["summary"]] == [22.5, 23.0, 11.0]
    assert content["results"][3]["scores"]["psnr"] == [25]
    text = as_markdown.read_text()
    assert text == to_markdown(RESULTS, about)
    assert "| 4 | copy | 2 | 22.50 |" in text
    assert "| a | driven | 21.00 |" in text
    assert "## 1 source view\n" in text
    assert text.count("no face was found") == 1
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {len(METRICS) + 6, len(METRICS) + 3}
