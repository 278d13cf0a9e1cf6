"""Threads, forks, workers, memory, bad arguments, and the build."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from scenes import ATTRIBUTES, cast, head_scene, psnr

from ffavatar.render import build, rasterize, rasterizer
from ffavatar.render.library import load_library, why_missing

needs_native = pytest.mark.skipif(load_library() is None, reason=why_missing() or "native library")


def _step(scene, threads=2):
    """One forward and backward pass of the native backend; all results as one vector."""
    scene = cast(scene, torch.float32, gradients=True)
    colors, alphas, _ = rasterize(**scene, backend="native", threads=threads)
    gradients = torch.autograd.grad((colors**2).sum() + alphas.sum(), [scene[name] for name in ATTRIBUTES])
    return torch.cat([t.detach().flatten() for t in (colors, alphas, *gradients)])


class _Pictures(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return _step(head_scene(1500, 48, seed=index))


@needs_native
def test_python_threads_get_the_same_results():
    scenes = [head_scene(3000, 64, seed=seed) for seed in range(4)]
    expected = [_step(scene) for scene in scenes]
    wrong: list[int] = []

    def work(k):
        for _ in range(5):
            if not torch.equal(_step(scenes[k]), expected[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong


@needs_native
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_child_renders_while_the_parent_is_rendering():
    scene = head_scene(3000, 64)
    expected = _step(scene)  # the pool's workers now exist in the parent and will be missing in the child
    stop = threading.Event()

    def keep_rendering():
        while not stop.is_set():
            _step(scene)

    busy = threading.Thread(target=keep_rendering)
    busy.start()
    try:
        for _ in range(5):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork with threads
                child = os.fork()
            if child == 0:
                torch.set_num_threads(1)  # torch's own pool does not survive a fork
                os._exit(0 if torch.equal(_native_forward(scene), expected[: 64 * 59 * 3]) else 1)
            waiter = threading.Timer(30, os.kill, (child, 9))
            waiter.start()
            status = os.waitpid(child, 0)[1]
            waiter.cancel()
            assert os.waitstatus_to_exitcode(status) == 0
    finally:
        stop.set()
        busy.join()
    assert torch.equal(_step(scene), expected)


def _native_forward(scene):
    with torch.no_grad():
        return rasterize(**cast(scene, torch.float32), backend="native", threads=2)[0].flatten()


@needs_native
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_data_loader_workers():
    dataset = _Pictures()
    expected = [dataset[k] for k in range(len(dataset))]
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2, timeout=60)
    assert all(torch.equal(a, b) for a, b in zip(loader, expected, strict=True))


def _growth_mb(calls: int) -> float:
    scene = head_scene(2000, 64)
    for _ in range(20):
        _step(scene)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for k in range(calls):
        if k % 3:
            _step(scene)
        else:  # a forward pass whose backward pass never comes
            rasterize(**cast(scene, torch.float32, gradients=True), backend="native", threads=2)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


@needs_native
def test_memory_does_not_grow():
    """One state of this scene is 0.5 MB, one picture 0.05 MB: a leak of either in 100 calls would show."""
    assert _growth_mb(100) < 4


@needs_native
@pytest.mark.slow
def test_memory_does_not_grow_over_a_thousand_calls():
    assert _growth_mb(1000) < 4


@needs_native
def test_backward_twice_and_changed_inputs():
    scene = cast(head_scene(300, 32), torch.float32, gradients=True)
    colors = rasterize(**scene, backend="native")[0]
    first = torch.autograd.grad(colors.sum(), scene["means"], retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(colors.sum(), scene["means"], retain_graph=True)[0])
    with torch.no_grad():
        scene["means"].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(colors.sum(), scene["means"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"means": torch.zeros(5, 2)}, "means must have shape"),
        ({"means": torch.zeros(3)}, "means must have shape"),
        ({"quats": torch.zeros(9, 4)}, "quats must have shape"),
        ({"scales": torch.zeros(2, 10, 3)}, "scales must have shape"),
        ({"opacities": torch.zeros(10, 1)}, "opacities must have shape"),
        ({"colors": torch.zeros(10)}, "colors must have"),
        ({"colors": torch.zeros(10, 0)}, "colors must have"),
        ({"colors": torch.zeros(10, 3, dtype=torch.uint8)}, "colors must be of a floating-point type"),
        ({"colors": [1.0]}, "colors must be a torch tensor"),
        ({"viewmats": torch.eye(4)}, "viewmats must have shape"),
        ({"Ks": torch.eye(3)}, "Ks must have shape"),
        ({"backgrounds": torch.zeros(4)}, "backgrounds must have shape"),
        ({"width": 0}, "width must be"),
        ({"height": 32.0}, "height must be"),
        ({"near_plane": 0}, "near_plane must be"),
        ({"eps2d": float("nan")}, "eps2d must not"),
        ({"radius_clip": -1}, "radius_clip must not"),
        ({"rasterize_mode": "fast"}, "rasterize_mode must be"),
        ({"backend": "cuda"}, "backend must be"),
        ({"backend": "gsplat"}, "takes CUDA tensors"),
        ({"threads": 0}, "threads must be"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        rasterize(**(cast(head_scene(10, 32), torch.float32) | changes))


@needs_native
def test_camera_gradients_are_the_torch_backends_alone():
    scene = cast(head_scene(10, 32), torch.float32)
    scene["viewmats"].requires_grad_()
    with pytest.raises(ValueError, match="viewmats or Ks requires a gradient"):
        rasterize(**scene, backend="native")
    colors, _, meta = rasterize(**scene)
    assert meta["backend"] == "torch"
    assert torch.autograd.grad(colors.sum(), scene["viewmats"])[0].any()


def test_without_the_library_torch_renders_and_says_so_once(monkeypatch):
    monkeypatch.setattr(rasterizer, "load_library", lambda: None)
    scene = cast(head_scene(50, 32), torch.float32)
    with pytest.warns(RuntimeWarning, match="torch backend"):
        assert rasterize(**scene)[2]["backend"] == "torch"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            rasterize(**scene)
    assert len(caught) == 1
    with pytest.raises(RuntimeError):
        rasterize(**scene, backend="native")


def test_build_without_a_compiler_is_a_clear_message(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(build.BuildError, match="no C\\+\\+ compiler found"):
        build.build()
    monkeypatch.setenv("CXX", f"{sys.executable} -c raise(SystemExit('refused'))")
    with pytest.raises(build.BuildError, match="refused"):
        build.build()


@needs_native
@pytest.mark.slow
def test_a_fresh_build_is_the_one_in_use(tmp_path: Path):
    """Compiles every source anew and renders with the result in another process."""
    built = build.build(tmp_path)
    assert built.parent == tmp_path and not list(tmp_path.glob(".native-build-*"))
    code = (
        "import sys, ctypes; library = ctypes.CDLL(sys.argv[1]); "
        "assert library.ffa_interface_version() == int(sys.argv[2]); library.ffa_rasterize_forward"
    )
    from ffavatar.render.library import INTERFACE_VERSION

    subprocess.run([sys.executable, "-c", code, str(built), str(INTERFACE_VERSION)], check=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_gsplat_agrees(mode):
    pytest.importorskip("gsplat")
    scene = head_scene(3000, 96, views=2)
    expected, expected_alphas, _ = rasterize(**scene, backend="torch", rasterize_mode=mode)
    moved = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in cast(scene, torch.float32).items()}
    colors, alphas, meta = rasterize(**moved, rasterize_mode=mode)
    assert meta["backend"] == "gsplat"
    assert psnr(colors.cpu(), expected) >= 90
    assert psnr(alphas.cpu(), expected_alphas) >= 90


@needs_native
def test_the_default_dtype_is_not_the_pictures():
    scene = cast(head_scene(200, 40), torch.float32)
    wanted = rasterize(**scene, backend="native")[0]
    torch.set_default_dtype(torch.float64)
    try:
        image, alpha, _ = rasterize(**scene, backend="native")
    finally:
        torch.set_default_dtype(torch.float32)
    assert image.dtype == alpha.dtype == torch.float32 and torch.equal(image, wanted)
