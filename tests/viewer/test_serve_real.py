"""The page against the real server and the real model: photos of a synthetic person to a moving avatar, and files."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_material import FILM_S, write_material
from viewer_tools import run_in_browser

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the script saw; the server's data and everything it made stay in a temporary folder."""
    folder = tmp_path_factory.mktemp("serve")
    material = write_material(folder / "material")
    command = [sys.executable, "-u", "-m", "ffavatar", "serve", "--no-browser", "--port", "0", "--steps", "150"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([*command, "--folder", str(folder / "data")], stdout=subprocess.PIPE, stderr=log,
                                  text=True, env=os.environ | {"COLUMNS": "200"})  # fmt: skip
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert found, f"the server did not start: {line}{(folder / 'log').read_text()[-2000:]}"
            run_in_browser("serve-real.mjs", found[0], material, folder, timeout_s=600)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
            if server.stdout is not None:
                server.stdout.close()
    yield json.loads((folder / "real.json").read_text()) | {"left": sorted(_files(folder / "data" / "avatars"))}


def _files(folder: Path) -> Iterator[str]:
    return (path.name for path in folder.rglob("*") if path.is_file())


def test_photos_are_judged(seen: dict[str, Any]) -> None:
    cards = {card["name"]: card for card in seen["cards"]}
    for name in ("front.jpg", "left.png", "right.webp"):
        assert cards[name]["state"] == "used" and cards[name]["pictures"] == [256, 256]
    for name, part in (("landscape.jpg", "No face was found"), ("notes.jpg", "not a photo")):
        assert cards[name]["state"] == "refused" and part in cards[name]["text"]


def test_the_avatar_opens_early_and_is_refined_in_place(seen: dict[str, Any]) -> None:
    assert seen["openedWhileRefining"] and seen["updates"] >= 1
    assert "refined to its photos" in seen["meta"]


def test_a_film_moves_it(seen: dict[str, Any]) -> None:
    assert seen["moved"] and abs(seen["clip"] - FILM_S) < 0.15


def test_files_are_what_they_say(seen: dict[str, Any]) -> None:
    starts = {"mp4": (4, b"ftyp"), "ply": (0, b"ply\n"), "glb": (0, b"glTF"), "html": (0, b"<!doctype ht")}
    for kind, (at, magic) in starts.items():
        file = seen[kind]
        assert file["name"].endswith(f".{kind}") and file["size"] > 1000
        assert bytes(file["start"][at : at + len(magic)]) == magic
    assert seen["container"]["name"] == "Synthetic person.safetensors"
    assert bytes(seen["container"]["start"][8:10]) == b'{"'


def test_nothing_is_left_and_nothing_leaves(seen: dict[str, Any]) -> None:
    assert seen["left"] == []  # the avatar was deleted in the page
    assert seen["outside"] == [] and seen["problems"] == []
