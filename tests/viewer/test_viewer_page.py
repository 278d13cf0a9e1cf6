"""The viewer's page in headless Chromium, used as a person uses it; and the bundle in the package is this source's."""

from __future__ import annotations

import gzip
import json
import shutil

import pytest
from viewer_tools import PACKAGE, build, run_in_browser, synthetic_avatars, workshop

from ffavatar.drive.motion import demo_motion
from ffavatar.head import load_head

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LARGEST_BUNDLE = 160 * 1024  # gzipped


def test_the_package_ships_what_the_source_builds() -> None:
    _, package = build()
    built = {path.name: path.read_bytes() for path in package.iterdir()}
    assert "ff-avatar.js" in built and "index.html" in built
    for name, data in built.items():
        assert (PACKAGE / name).read_bytes() == data, f"{name} is stale: run `npm ci && npm run build` in viewer/"
    size = len(gzip.compress(built["ff-avatar.js"], 9))
    print(f"bundle: {len(built['ff-avatar.js'])} bytes, {size} gzipped")
    assert size <= LARGEST_BUNDLE


@pytest.fixture(scope="module")
def seen():
    _, package = build()
    folder = workshop() / "page"
    folder.mkdir()
    data = synthetic_avatars()[2].read_bytes()
    shutil.copy(synthetic_avatars()[2], folder / "avatar.safetensors")
    (folder / "broken.safetensors").write_bytes(data[: len(data) // 3])
    demo_motion(load_head()).save(folder / "motion.json")
    run_in_browser("page.mjs", package, folder, timeout_s=600)
    return json.loads((folder / "seen.json").read_text())


def test_a_still_picture_stays_the_same(seen) -> None:
    """What the other tests rest on: a picture changes only when something was done."""
    assert seen["again"]


@pytest.mark.parametrize(
    "what", ["orbit", "reset", "pan", "zoom", "focus", "keys", "keyReset", "slider", "neutral", "random", "setARKit",
             "arkitEnds", "lookAt"],
)  # fmt: skip
def test_the_picture_follows(seen, what) -> None:
    assert seen[what]


def test_sliders_are_grouped_and_searched(seen) -> None:
    assert seen["groups"][:4] == ["Head", "Eyes", "Brows", "Mouth"]
    assert seen["sliders"] > 100
    assert seen["found"] == ["mouthSmileLeft", "mouthSmileRight"]
    assert seen["unknown"] == ["noSuch"]


def test_clip(seen) -> None:
    assert seen["playsByItself"] == "Pause"  # the page says autoplay
    assert 0.2 < seen["played"] < 8
    assert seen["event"]["duration"] == 8 and seen["event"]["playing"] is False
    assert seen["scrubbed"] == 5


def test_background_picture_and_film(seen) -> None:
    assert seen["color"] == [0x20, 0x40, 0x60, 255]
    assert seen["clear"] == [0, 0, 0, 0]
    assert seen["downloadName"] == "avatar.png"
    assert seen["film"]["type"] == "video/webm" and seen["film"]["size"] > 1000
    assert seen["film"]["start"] == [0x1A, 0x45, 0xDF, 0xA3]  # EBML


def test_level_of_detail(seen) -> None:
    assert seen["detail"]["detail"] == "20k" and seen["detail"]["gaussians"] > 20_000


def test_keyboard_and_screen_reader(seen) -> None:
    assert seen["unnamed"] == [] and seen["canvasTab"] == 0
    assert {"BUTTON", "INPUT", "SELECT", "SUMMARY"} <= set(seen["reached"])


def test_failures_are_sentences(seen) -> None:
    for what, part in (("broken", "cut short"), ("foreign", "not this page's own server"), ("missing", "404")):
        assert seen[what]["name"] == "FileError" and part in seen[what]["shown"]
    assert seen["recovered"] and seen["reconnected"]
    assert seen["contextBack"]  # a lost graphics context is made again
    assert "WebGL2" in seen["noGraphics"]["shown"] and seen["noGraphics"]["role"] == "alert"


def test_no_request_leaves_the_origin(seen) -> None:
    assert seen["requestsBefore"] >= 5  # page, style, script, avatar, motion were seen
    assert seen["outside"] == []
    assert seen["problems"] == [] and seen["phoneProblems"] == []


def test_phone(seen) -> None:
    phone = seen["phone"]
    assert not phone["overflow"] and phone["left"] >= 0 and phone["right"] <= 390
    assert min(phone["buttons"]) >= 44  # for fingers
    assert phone["canvas"] > 400 and seen["folded"] == 844
