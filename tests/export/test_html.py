"""The self-contained page: what it holds, what it refuses, and that it runs from file:// in Chromium."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from made_avatar import small_avatar
from PIL import Image
from readers import page_block
from safetensors.numpy import load, load_file

from ffavatar.avatar import Avatar
from ffavatar.commands.exporting import export as command
from ffavatar.drive.motion import Motion, demo_motion
from ffavatar.errors import InputError
from ffavatar.export.html import export_html
from ffavatar.types import Camera


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("html") / "avatar.html"
    avatar = small_avatar()
    export_html(avatar, path, demo_motion(avatar.rig.head, 2.0), 'A "title" & <more>', "#203040")
    return path


def test_holds_avatar_and_clip_without_loss(page, tmp_path) -> None:
    text = page.read_text(encoding="utf-8")
    small_avatar().save(tmp_path / "same.safetensors")
    inside, saved = load(page_block(text, "avatar")), load_file(tmp_path / "same.safetensors")
    assert inside.keys() == saved.keys()
    assert all(np.array_equal(inside[name], saved[name]) for name in saved)
    (tmp_path / "clip.json").write_bytes(page_block(text, "motion"))
    assert len(Motion.load(tmp_path / "clip.json")) == 60


def test_policy_allows_this_script_and_style_alone(page) -> None:
    text = page.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy[1].split("; "))
    assert rules["default-src"] == "'none'" and "connect-src" not in rules and "unsafe" not in policy[1]
    for rule, pattern in (
        ("script-src", r'<script type="module">(.*?)</script>'),
        ("style-src", r"<style>(.*?)</style>"),
    ):
        inline = re.findall(pattern, text, re.DOTALL)
        assert len(inline) == 1
        digest = base64.b64encode(hashlib.sha256(inline[0].encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert not re.search(r'(src|href)="(?!#|data:)', text.split('<script type="module">')[0])


def test_title_is_escaped(page) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<title>A &quot;title&quot; &amp; &lt;more&gt;</title>" in text and "<more>" not in text


@pytest.mark.parametrize(("name", "options"), [("x.txt", {}), ("x.html", {"background": "red"}), ("no/x.html", {})])
def test_bad_arguments_are_refused(tmp_path, name, options) -> None:
    with pytest.raises(InputError):
        export_html(small_avatar(), tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_flame_needs_an_explicit_word(tmp_path, monkeypatch) -> None:
    avatar = small_avatar()
    monkeypatch.setattr(avatar.rig.head, "edition", "flame2023")
    with pytest.raises(InputError, match="allow"):
        export_html(avatar, tmp_path / "x.html")


def test_command(tmp_path, capsys) -> None:
    small_avatar().save(tmp_path / "me.safetensors")
    demo_motion(small_avatar().rig.head, 1.0).save(tmp_path / "clip.npz")
    command(tmp_path / "me.safetensors", tmp_path / "me.html", tmp_path / "clip.npz")
    assert "me.html" in capsys.readouterr().out
    with pytest.raises(InputError, match="not a pose"):
        command(tmp_path / "me.safetensors", tmp_path / "no.html", yaw=20)
    (tmp_path / "back.safetensors").write_bytes(page_block((tmp_path / "me.html").read_text(), "avatar"))
    assert len(Avatar.load(tmp_path / "back.safetensors")) == len(small_avatar())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_runs_from_disk(page, tmp_path) -> None:
    from viewer_tools import run_in_browser

    run_in_browser("single.mjs", page, tmp_path, timeout_s=200)
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["problems"] == []  # a breach of the policy would be one
    assert seen["outside"] == []
    assert seen["gaussians"] == len(small_avatar())
    assert seen["playing"] and seen["sliders"] > 100
    assert seen["moved"], "the slider changes the picture"
    assert seen["colors"] > 500, "the picture shows a head in many colours"
    assert seen["refused"], "the policy stops a request"
    told = seen["camera"]
    K = torch.tensor([[told["fx"], 0, told["cx"]], [0, told["fy"], told["cy"]], [0, 0, 1]], dtype=torch.float32)
    place = torch.tensor(told["worldToCam"], dtype=torch.float32).reshape(1, 4, 4)
    camera = Camera(place, K[None], told["width"], told["height"])
    avatar = small_avatar()
    ground = tuple(channel / 255 for channel in (0x20, 0x30, 0x40))  # the page's #203040
    expected = avatar.render(avatar.neutral_params(), background=ground, camera=camera).images[0].numpy()
    with Image.open(tmp_path / "rest.png") as picture:
        found = np.asarray(picture.convert("RGB"), np.float64) / 255
    decibels = -10 * np.log10(np.square(found - expected).mean())
    print(f"page against the rasteriser: {decibels:.1f} dB")
    assert found.std() > 0.05 and decibels > 50
