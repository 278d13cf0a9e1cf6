"""Speed of the browser viewer: deform and sort in Node, first picture in headless Chromium, size of the bundle.

    python benchmarks/viewer.py [AVATAR.safetensors] [--markdown FILE]

Without an avatar, one of a synthetic person is reconstructed. Needs `npm ci && npm run build` in viewer/, and Chromium
(its path in CHROMIUM, or on the PATH). Chromium draws by SwiftShader, in software: a graphics card is far quicker.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from speed import processor

from ffavatar.avatar import Avatar
from ffavatar.drive.motion import demo_motion
from ffavatar.viewer import BUNDLE, FOLDER

VIEWER = Path(__file__).resolve().parent.parent / "viewer"


def node(script: str, *arguments: str | Path) -> dict:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
    command = ["node", f"test/{script}", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=VIEWER, capture_output=True, text=True, timeout=600, env=os.environ | {"CHROMIUM": chromium}
    )
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout)


PARTS = (("shades", "shades"), ("base vertices", "vertices"), ("Gaussians", "gaussians"), ("sort", "sort"))
WHOSE = ("of them", "the whole avatar", "the most that is drawn whole")


def frame_rows(frame: dict, whose: str) -> list[tuple[str, str]]:
    """A frame's medians in milliseconds as rows of the table."""
    parts = ", ".join(f"{part} {frame[key]:.1f}" for part, key in PARTS if key in frame)
    what = f"{frame['count']:,} Gaussians, {whose}: shade, deform and sort, median of 200 frames"
    return [(what, f"{frame['frame']:.1f} ms ({parts}; quickest frame {frame['least']:.1f})")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("avatar", nargs="?", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "avatar.safetensors"
        if options.avatar:
            shutil.copy(options.avatar, path)
        else:
            from ffavatar.api import model_for
            from ffavatar.demo import synthetic_views
            from ffavatar.pipeline import reconstruct

            reconstruct(model_for(None, "cpu"), synthetic_views(4, 512), 2).save(path)
        avatar = Avatar.load(path)
        clip = Path(folder) / "clip.json"
        demo_motion(avatar.rig.head).save(clip)
        timed = node("bench.mjs", VIEWER / "dist", path, clip)
        first = node("first.mjs", FOLDER, folder)
        size = path.stat().st_size / 1e6
    data = BUNDLE.read_bytes()
    taken = ", ".join(f"{t / 1000:.2f}" for t in first["taken"])
    load = os.getloadavg()[0]
    rows = [
        *(row for frame, whose in zip(timed["frames"], WHOSE, strict=True) for row in frame_rows(frame, whose)),
        (f"first picture of a {size:.1f} MB avatar, {len(avatar):,} Gaussians, each a new browser", f"{taken} s"),
        ("bundle", f"{len(data) / 1024:.0f} KB, {len(gzip.compress(data, 9)) / 1024:.1f} KB gzipped"),
    ]
    lines = [
        f"{date.today()}, {processor()}, Node {timed['node']}, Chromium {first['version']} (SwiftShader), "
        f"Python {platform.python_version()}, load average of the machine {load:.1f}",
        "",
        "| what | figure |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in rows),
    ]
    print("\n".join(lines))
    if options.markdown:
        options.markdown.write_text("# Viewer\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
