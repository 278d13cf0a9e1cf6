"""LAM's own web renderer, in headless Chromium, draws our zip as our rasteriser draws the avatar."""

from __future__ import annotations

import base64
import functools
import io
import json
import math
import shutil
import subprocess
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue

import numpy as np
import pytest
import torch
from PIL import Image

from ffavatar.animate import render_gaussians
from ffavatar.avatar import Avatar
from ffavatar.drive.motion import Motion
from ffavatar.drive.pose import posed
from ffavatar.export.formats import export
from ffavatar.export.lam import EYE_HEIGHT_M
from ffavatar.export.options import ExportOptions, posed_splats
from ffavatar.types import Camera, HeadParams

pytestmark = pytest.mark.slow

PACKAGE = "gaussian-splat-renderer-for-lam@0.0.8"
SIDE_PX = 400
# The renderer uncovers a scene slowly and from its origin; the check sets that aside and asks for one picture.
PAGE = """
<!doctype html><body style="margin:0"><div id="box" style="width:SIDEpx;height:SIDEpx"></div>
<script>window.process = { env: {} };</script>
<script type="module">
import { GaussianSplatRenderer } from "./lam.js";
const pause = (time) => new Promise((done) => setTimeout(done, time));
const send = (path, body) => fetch(path, { method: "POST", body });
try {
  const expression = EXPRESSION;
  const player = await GaussianSplatRenderer.getInstance(document.getElementById("box"), "./me.zip", {
    getChatState: () => "Idle", getExpressionData: () => ({ ...expression }), backgroundColor: "0xffffff",
  });
  const viewer = player.viewer;
  while (!(viewer.splatMesh && viewer.splatMesh.getSplatCount() && viewer.splatRenderCount)) await pause(200);
  await pause(3000);
  viewer.splatMesh.updateVisibleRegionFadeDistance = () => {};
  viewer.splatMesh.material.uniforms.fadeInComplete.value = 1;
  viewer.update(viewer.renderer, viewer.camera);
  viewer.render();
  await send("/picture", viewer.renderer.domElement.toDataURL());
} catch (error) {
  await send("/error", String(error.stack || error));
}
</script>
"""


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's one module, fetched from npm for this test alone."""
    if shutil.which("npm") is None or shutil.which("chromium") is None:
        pytest.fail("this test needs npm and chromium; install them")
    folder = tmp_path_factory.mktemp("renderer")
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), PACKAGE]
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    return next(folder.rglob("gaussian-splat-renderer-for-lam.module.js"))


def photograph(renderer: Path, folder: Path, expression: dict[str, float]) -> torch.Tensor:
    """What the renderer draws of ``me.zip`` in ``folder``: (H, W, 3) in [0, 1]."""
    shutil.copy(renderer, folder / "lam.js")
    page = PAGE.replace("SIDE", str(SIDE_PX)).replace("EXPRESSION", json.dumps(expression))
    (folder / "index.html").write_text(page)
    answers: Queue[tuple[str, bytes]] = Queue()

    class Handler(SimpleHTTPRequestHandler):
        def do_POST(self) -> None:
            answers.put((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    flags = ["--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    flags += ["--ignore-gpu-blocklist", f"--user-data-dir={folder / 'profile'}", "--remote-debugging-port=0"]
    address = f"http://127.0.0.1:{server.server_address[1]}/index.html"
    browser = subprocess.Popen(["chromium", *flags, address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        kind, body = answers.get(timeout=150)
    except Empty:
        pytest.fail("the renderer gave no picture within 150 s")
    finally:
        browser.terminate()
        browser.wait(30)
        server.shutdown()
        server.server_close()
    assert kind == "/picture", body.decode()
    picture = Image.open(io.BytesIO(base64.b64decode(body.split(b",")[1]))).convert("RGB")
    return torch.from_numpy(np.asarray(picture).astype(np.float32) / 255)


def ours(avatar: Avatar, params: HeadParams) -> torch.Tensor:
    """The same from the renderer's fixed camera: at (0, 1.8, 1), looking 10 degrees down, 50 degrees high."""
    made = posed_splats(avatar, params)
    made = replace(made, means=made.means + torch.tensor([0.0, EYE_HEIGHT_M, 0.0]))
    c, s = math.cos(math.radians(10)), math.sin(math.radians(10))
    from_camera = torch.tensor([[1, 0, 0, 0], [0, c, s, 1.8], [0, -s, c, 1.0], [0, 0, 0, 1.0]])
    world_to_cam = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])) @ torch.linalg.inv(from_camera)
    focal = SIDE_PX / 2 / math.tan(math.radians(25))
    K = torch.tensor([[focal, 0, SIDE_PX / 2], [0, focal, SIDE_PX / 2], [0, 0, 1.0]])
    return render_gaussians(made, Camera(world_to_cam[None], K[None], SIDE_PX, SIDE_PX)).images[0]


def test_lam_renderer_draws_the_avatar(avatar, renderer, likeness, tmp_path) -> None:
    """At rest, with clips that stand still; and with the mouth open by its morph target."""
    jaw = avatar.rig.head.lbs_weights[:, 2:3]  # the chin in red, so that its way is seen
    made = replace(
        avatar.canonical,
        opacities=torch.full((len(avatar),), 0.9),
        scales=avatar.canonical.scales * 2,
        colors=avatar.canonical.colors * (1 - jaw) + torch.tensor([1.0, 0.0, 0.0]) * jaw,
    )
    avatar, frames = replace(avatar, canonical=made), 1200
    still = Motion(30.0, avatar.neutral_params(frames), avatar.rig.head.edition, avatar.expression_names, "nothing")
    export(avatar, tmp_path / "me.zip", ExportOptions(motion=still))
    rest, wide = ours(avatar, avatar.neutral_params()), ours(avatar, posed(avatar, (0, 0, 0), {"jawOpen": 1.0}))
    changed = (rest - wide).abs().amax(-1) > 0.1
    assert rest.std() > 0.1 and changed.sum() > 150
    seen = photograph(renderer, tmp_path, {})
    opened = photograph(renderer, tmp_path, {"jawOpen": 1 / 1.2})  # it multiplies this name by 1.2
    assert likeness(seen, rest) > 40 and likeness(opened, wide) > 35
    assert likeness(opened[changed], wide[changed]) > likeness(opened[changed], rest[changed]) + 3
    assert likeness(seen[changed], rest[changed]) > likeness(seen[changed], wide[changed]) + 3
