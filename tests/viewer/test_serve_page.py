"""The page of ``ffavatar serve`` in headless Chromium, used as a person uses it, against a mock of the server's
interface that answers with the front end's own verdicts and with real avatars."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from page_material import write_material
from test_viewer_webcam import fetch_task, write_camera_film
from viewer_tools import SERVE_PAGE, VIEWER, build, run_in_browser, serve_page, synthetic_avatars, workshop

from ffavatar.avatar import Avatar

slow = pytest.mark.slow
LARGEST_PAGE = 40 * 1024  # script, style and page, gzipped, without the viewer


@cache
def material() -> Path:
    return write_material(workshop() / "serve-material")


@cache
def seen(scenario: str) -> dict[str, Any]:
    """What the script of this scenario saw; each runs once."""
    _, viewer = build()
    folder = workshop() / "serve-seen"
    folder.mkdir(exist_ok=True)
    if scenario == "camera":
        vision = folder / "vision"
        (vision / "wasm").mkdir(parents=True)
        fetch_task(vision)
        installed = VIEWER / "node_modules" / "@mediapipe" / "tasks-vision"
        for name in ("vision_bundle.mjs", "wasm/vision_wasm_internal.js", "wasm/vision_wasm_internal.wasm"):
            shutil.copy(installed / name, vision / name)
        write_camera_film(Avatar.load(synthetic_avatars()[0]), folder / "camera.y4m")
    run_in_browser("serve.mjs", scenario, material(), folder, serve_page(), viewer, timeout_s=500)
    return json.loads((folder / f"{scenario}.json").read_text())


@slow
@pytest.mark.timeout(600)
def test_the_package_ships_what_the_source_builds() -> None:
    built = {path.name: path.read_bytes() for path in serve_page().iterdir()}
    assert set(built) == {"index.html", "app.js", "app.css"}
    for name, data in built.items():
        assert (SERVE_PAGE / name).read_bytes() == data, f"{name} is stale: run `npm ci && npm run build` in viewer/"
    size = sum(len(gzip.compress(data, 9)) for data in built.values())
    print(f"page: {size} bytes gzipped")
    assert size <= LARGEST_PAGE


def _luminance(color: str) -> float:
    """WCAG 2.2's relative luminance of ``#rrggbb``."""
    parts = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_stands_out_in_both_schemes() -> None:
    """4.5 : 1 for text, 3 : 1 for the borders of fields (WCAG 2.2, 1.4.3 and 1.4.11)."""
    style = (VIEWER / "app" / "app.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks)
    assert set(light) == set(dark) and len(light) >= 12
    for scheme in (light, dark):
        for text in ("text", "muted", "accent", "good", "bad"):
            for ground in ("ground", "panel", "sunk"):
                assert _contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground)
        assert _contrast(scheme["on-accent"], scheme["accent"]) >= 4.5
        assert _contrast(scheme["text"], scheme["bad-tint"]) >= 4.5
        assert _contrast(scheme["accent"], scheme["tint"]) >= 4.5
        assert _contrast(scheme["strong"], scheme["panel"]) >= 3


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere() -> None:
    page = (VIEWER / "app" / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\ssrc=)", page) == [] and "<style" not in page and "style=" not in page
    assert re.search(r"(https?:)?//\w", page) is None
    style = (VIEWER / "app" / "app.css").read_text()
    assert "url(" not in style and "@import" not in style
    script = (SERVE_PAGE / "app.js").read_text()
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)[\w.]+", script) == []


@slow
@pytest.mark.timeout(600)
class TestWhole:
    """Photos in, avatar out, refined in place, driven, downloaded, renamed, deleted."""

    def test_nothing_is_uploaded_before_consent(self) -> None:
        saw = seen("whole")
        assert "people who have agreed" in saw["consent"] and "Everything stays on this computer" in saw["consent"]
        assert saw["uploadedWithoutConsent"] == 0

    def test_each_photo_shows_crop_matte_and_verdict(self) -> None:
        saw = seen("whole")
        cards = {card["name"]: card for card in saw["cards"]}
        assert saw["pasted"] and saw["dropped"]
        for name in ("front.jpg", "left.png", "right.webp"):
            assert cards[name]["state"] == "used" and [width for _, width in cards[name]["pictures"]] == [256, 256]
        reasons = {"landscape.jpg": "No face was found", "notes.jpg": "not a photo", "huge.jpg": "at most"}
        for name, part in reasons.items():
            assert cards[name]["state"] == "refused" and part in cards[name]["text"] and not cards[name]["pictures"]
        assert not saw["tooLargeUploaded"] and "left out: 1" in saw["overFull"]

    def test_photos_are_chosen(self) -> None:
        saw = seen("whole")
        assert saw["count"] == "3 photos will be used." and saw["countLess"] == "2 photos will be used."
        assert saw["focusAfterRemove"].startswith("Remove ")
        assert len(saw["order"]["photos"]) == 2 and saw["order"]["name"] == "Test person"
        assert saw["order"]["personalize"] is True and saw["stillWhileMaking"]

    def test_a_full_queue_is_asked_again_with_the_same_key(self) -> None:
        first, second, *rest = seen("whole")["keys"]
        assert first == second and len(first) == 32 and first not in rest

    def test_events_resume_after_a_dropped_connection(self) -> None:
        saw = seen("whole")
        assert saw["lastEventIds"][:2] == [None, "4"]
        assert "The connection is lost. The work goes on; connecting again…" in saw["said"]
        assert "Connected again." in saw["said"]

    def test_the_viewer_opens_early_and_is_refined_in_place(self) -> None:
        saw = seen("whole")
        assert saw["openedBeforeEnd"] and saw["focus"] == "H1" and saw["title"].startswith("Test person")
        assert saw["stages"] == ["Reading the photos", "Building the avatar", "Refining it to the photos"]
        assert saw["refiningTitle"] == "Refining your avatar"
        assert 1 <= saw["updates"] <= 2  # one that is overtaken before it was drawn may be left out
        assert saw["kept"] and saw["refined"] and "refined to its photos" in saw["meta"]

    def test_a_film_drives_it(self) -> None:
        saw = seen("whole")
        assert "not a film" in saw["badFilm"] and "at most" in saw["largeFilm"]
        assert saw["driveOrder"]["same_person"] is True and saw["driveOrder"]["relative"] is False
        assert saw["clip"] == pytest.approx(2, abs=0.1) and saw["clipGone"] and saw["filmForgotten"]
        assert saw["mp4"]["name"].endswith(".mp4") and saw["mp4"]["data"] == saw["mp4Expected"]

    def test_downloads(self) -> None:
        saw = seen("whole")
        assert saw["container"]["name"] == "Test person.safetensors"
        assert saw["container"]["size"] == saw["containerSize"]
        for kind, name in (("ply", "ply"), ("glb", "mesh.glb"), ("html", "html")):
            assert saw[kind]["name"] == f"avatar.{name}" and saw[kind]["size"] > 0
        assert saw["plyAgain"] == saw["ply"]
        assert saw["exports"] == [
            "ply",
            "mesh.glb",
            "mesh.glb",
            "html",
        ]  # the failed one was tried again, the ready one not
        assert any("no room left" in sentence for sentence in saw["said"])

    def test_history(self) -> None:
        saw = seen("whole")
        assert saw["historyFocus"] == "Your avatars" and saw["keptAvatars"] == 1 and saw["avatarsLeft"] == 0

    def test_a_screen_reader_hears_it(self) -> None:
        said = seen("whole")["said"]
        wanted = ["front.jpg: can be used", "Reading the photos", "Building the avatar", "The avatar is there"]
        wanted += ["Refining it to the photos", "Your avatar is ready", "3D Gaussians (.ply) is ready"]
        assert {f"{sentence}." for sentence in wanted} <= {*said}

    def test_no_request_leaves_the_origin(self) -> None:
        saw = seen("whole")
        assert saw["requests"] > 30 and saw["outside"] == [] and saw["problems"] == []


@slow
@pytest.mark.timeout(600)
def test_one_photo_may_be_chosen_for_its_hair_and_clothes() -> None:
    saw = seen("looks")

    def choice(view: str) -> tuple[bool, list[str | None]]:
        pressed = saw[view]["pressed"]
        assert pressed.get("landscape.jpg") is None  # shows nobody
        names = ("front.jpg", "left.png", "right.webp")
        return saw[view]["asked"], [pressed[name] for name in names if name in pressed]

    no, yes = "false", "true"
    assert choice("one") == (False, [None])
    assert choice("three") == choice("none") == choice("again") == (True, [no, no, no])
    assert choice("front") == (True, [yes, no, no]) and choice("left") == (True, [no, yes, no])
    assert choice("byKey") == (True, [no, no, yes]) and choice("leftOut") == (True, [no, no, None])
    assert choice("single") == (False, [None, None, None])
    assert saw["order"]["look"] == saw["order"]["photos"][1] and len(saw["order"]["photos"]) == 3
    assert saw["note"] == ["Hair and clothes are those of left.png; of the other 2 only the face is used."]
    assert "Hair and clothes are taken from left.png." in saw["said"]
    assert "Hair and clothes are those that most photos show." in saw["said"]
    assert choice("removed") == (True, [no, no]) and saw["focus"] == "Remove right.webp"
    assert "look" not in saw["plain"] and len(saw["plain"]["photos"]) == 2 and saw["problems"] == []


@slow
@pytest.mark.timeout(600)
def test_stopping_and_coming_back() -> None:
    saw = seen("stopping")
    assert saw["cancelled"] == ["cancelled"] and saw["avatars"] == 0
    assert saw["photosKept"] == "1 photo will be used." and saw["progressFocused"]
    assert saw["jobsAfterBusyCancel"] == 1  # what was stopped while the queue was full was never made
    assert saw["resumed"] == "Making your avatar"
    assert saw["ceilingWhileRefining"] == 0 and saw["measuredAnew"]
    assert saw["stoppedNotes"] == ["Its refinement was stopped before the end; what it had reached is kept."]
    assert "The photos show different people; leave one out." in saw["failed"]
    assert saw["problems"] == []


@slow
@pytest.mark.timeout(600)
def test_a_server_that_goes_away_and_comes_back() -> None:
    saw = seen("away")
    assert "ffavatar serve" in saw["offline"]
    assert saw["lastEventIds"][0] is None and int(saw["lastEventIds"][-1]) > 0
    assert saw["finished"] == ["done"] and saw["startedLate"] and saw["openedWhenBack"]


@slow
@pytest.mark.timeout(600)
def test_busy_uploads_are_tried_again_and_faces_can_be_chosen() -> None:
    saw = seen("away")
    assert saw["uploadsRefused"] == 2 and "Used pair.jpg" in saw["pair"]
    assert "Another person is in the photo." in saw["pair"] and "option" not in saw["pair"]
    assert saw["otherFace"] and saw["faceForgotten"] == 1


@slow
@pytest.mark.timeout(600)
def test_a_server_with_a_token() -> None:
    saw = seen("token")
    assert saw["hash"] == "#/"  # the token is not left in the address
    assert saw["picture"] == 256 and saw["keptInTab"] == 0 and saw["signedIn"] and saw["problems"] == []


@slow
@pytest.mark.timeout(600)
def test_by_keys_alone() -> None:
    saw = seen("keyboard")
    assert saw["first"] == "Skip to the content" and saw["heading"] == "H1"
    assert saw["skipped"] == ["main", "", True]
    assert saw["count"] == "1 photo will be used." and saw["turned"]
    assert saw["download"] == "avatar.mesh.glb" and saw["focusKept"].startswith("Rigged mesh")
    assert saw["escaped"] == 1 and saw["focusBack"] == "Delete avatar"
    assert saw["unnamed"] == [] and saw["problems"] == []


@slow
@pytest.mark.timeout(600)
def test_a_small_phone() -> None:
    saw = seen("phone")
    for view in ("home", "consent", "photos", "studio", "history", "delete"):
        assert saw[view] == {"overflow": 0, "small": []}, view
    assert len(saw["drawings"]) == 2 and min(saw["drawings"]) > 10  # px
    assert saw["consentFromItsBeginning"] and saw["deleteFromItsBeginning"]
    assert saw["deleteNames"].startswith(
        "A rather long name of an avatar that does not fit into one line and all files"
    )
    assert [".heic" in accepted for accepted in saw["accepted"]] == [True, False]
    assert all("image/*" in accepted for accepted in saw["accepted"])
    assert saw["folded"] and saw["problems"] == []


@slow
@pytest.mark.timeout(600)
def test_the_camera_shoots_and_drives() -> None:
    saw = seen("camera")
    assert saw["light"] and saw["cameraOff"] == "ended" and saw["shot"] == "camera-1.jpg"
    assert not saw["askedBefore"]  # the tracker is fetched only after a press
    assert saw["focus"] == "Allow and start the camera" and saw["readings"] > 5
    assert saw["buttonWithout"] == 0 and not saw["sectionWithout"] and "not part of FFAvatar" in saw["explained"]
    assert saw["outside"] == [] and saw["problems"] == []
