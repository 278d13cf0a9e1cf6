"""What the viewer's tests share: building it, Chromium, and synthetic avatars. Each is made once per test run."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ffavatar.avatar import Avatar
from ffavatar.types import HeadParams

ROOT = Path(__file__).resolve().parent.parent
VIEWER = ROOT / "viewer"
PACKAGE = ROOT / "src" / "ffavatar" / "viewer"
SERVE_PAGE = ROOT / "src" / "ffavatar" / "serve" / "page"
SEEDS = (7, 11, 23)


@functools.cache
def workshop() -> Path:
    """A folder that lasts as long as the tests."""
    folder = Path(tempfile.mkdtemp(prefix="ffavatar-viewer-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def run(command: list[str], timeout_s: float = 300, **environment: str) -> str:
    """Run in viewer/; the test fails with what the command said when it does."""
    done = subprocess.run(
        command, cwd=VIEWER, capture_output=True, text=True, timeout=timeout_s, env=os.environ | environment
    )
    if done.returncode:
        pytest.fail(f"{' '.join(command[:3])} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


@functools.cache
def install() -> None:
    """``npm ci``, unless what is installed is what the lock file says."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.fail(f"The viewer's tests need {tool}: install Node.js 20 or newer (apt-get install nodejs npm).")
    stamp = VIEWER / "node_modules" / ".stamp"
    lock = (VIEWER / "package-lock.json").read_bytes()
    if not stamp.is_file() or stamp.read_bytes() != lock:
        run(["npm", "ci", "--no-audit", "--no-fund"])
        stamp.write_bytes(lock)


@functools.cache
def build() -> tuple[Path, Path]:
    """The module and the package's bundle, freshly built: (dist, package)."""
    install()
    dist, package = workshop() / "dist", workshop() / "package"
    folders = ["--dist", str(dist), "--package", str(package), "--page", str(serve_page(built=False))]
    run(["node", "build.mjs", *folders])
    return dist, package


def serve_page(built: bool = True) -> Path:
    """Where ``build`` puts the page of ``ffavatar serve``."""
    if built:
        build()
    return workshop() / "serve-page"


@functools.cache
def chromium() -> str:
    """The path of Chromium."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.fail("The viewer's tests need Chromium: apt-get install chromium, or set CHROMIUM to its path.")
    return found


def run_in_browser(script: str, *arguments: str | Path, timeout_s: float = 300) -> str:
    """Run viewer/test/SCRIPT, which drives Chromium."""
    install()
    return run(["node", f"test/{script}", *map(str, arguments)], timeout_s, CHROMIUM=chromium())


@functools.cache
def synthetic_avatars() -> tuple[Path, ...]:
    """Three synthetic people, reconstructed by the shipped weights: two of about 94,000 Gaussians, one of 24,000."""
    from ffavatar.api import model_for
    from ffavatar.demo import synthetic_views
    from ffavatar.pipeline import reconstruct

    model = model_for(None, "cpu")
    paths = []
    for seed, level in zip(SEEDS, (2, 2, 1)):
        paths.append(workshop() / f"person-{seed}.safetensors")
        reconstruct(model, synthetic_views(3, 512, seed), level).save(paths[-1])
    return tuple(paths)


def lively_poses(avatar: Avatar, count: int = 5, seed: int = 3) -> HeadParams:
    """The neutral pose, then poses that turn every joint and use many expressions; the last one, where the avatar has
    shades, is that of a view they are from."""
    generator = np.random.default_rng(seed)
    params = avatar.neutral_params(count)
    limits = {"root": 0.35, "neck": 0.4, "jaw": 0.2, "eye_left": 0.3, "eye_right": 0.3, "translation": 0.03}
    for name, limit in limits.items():
        values = torch.from_numpy(generator.uniform(-limit, limit, (count - 1, 3)).astype(np.float32))
        getattr(params, name)[1:] += values
    strength = generator.uniform(0, 0.6, (count - 1, params.expression.shape[1]))
    used = generator.random(strength.shape) < 0.2
    params.expression[1:] = torch.from_numpy((strength * used).astype(np.float32))
    shades = avatar.rig.shades
    if shades is not None:
        params.expression[-1], params.jaw[-1] = shades.expression[-1], shades.jaw[-1]
        params.root[-1], params.neck[-1] = shades.turn[-1], 0
    return params


def params_json(params: HeadParams) -> list[dict[str, Any]]:
    """As the tests' scripts read them."""
    joints = params.joint_rotations().double().tolist()
    rows = zip(joints, params.translation.double().tolist(), params.expression.double().tolist())
    return [{"joints": j, "translation": t, "expression": e} for j, t, e in rows]


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path
