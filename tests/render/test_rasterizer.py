"""The native backend against the float64 torch reference, and the reference against numerical gradients."""

from __future__ import annotations

import math

import pytest
import torch
from scenes import ATTRIBUTES, cast, head_scene, psnr, relative_l2

from ffavatar.render import native_backend, rasterize, torch_backend
from ffavatar.render.library import load_library, why_missing

needs_native = pytest.mark.skipif(load_library() is None, reason=why_missing() or "native library")


def _values_and_gradients(scene, backend, v_colors, v_alphas, **options):
    colors, alphas, _ = rasterize(**scene, backend=backend, **options)
    loss = (colors * v_colors.to(colors)).sum() + (alphas * v_alphas.to(alphas)).sum()
    leaves = [scene[name] for name in ATTRIBUTES]
    if (background := options.get("backgrounds")) is not None:
        leaves.append(background)
    return colors, alphas, torch.autograd.grad(loss, leaves)


@needs_native
@pytest.mark.parametrize(
    ("mode", "channels", "views", "per_view", "spread"),
    [
        ("classic", 3, 1, False, 1.2),
        ("antialiased", 3, 2, False, 0.4),
        ("classic", 4, 2, True, 1.2),
        ("antialiased", 1, 2, True, 0.4),
        ("classic", 7, 2, False, 0.8),
        ("classic", 11, 1, False, 0.8),
    ],
)
def test_native_agrees_with_the_float64_reference(mode, channels, views, per_view, spread):
    scene = head_scene(2000, 80, channels, views, per_view, spread, seed=1)
    generator = torch.Generator().manual_seed(1)
    v_colors = torch.randn(views, scene["height"], scene["width"], channels, generator=generator)
    v_alphas = torch.randn(views, scene["height"], scene["width"], 1, generator=generator)
    background = torch.rand(views, channels, generator=generator)

    def run(backend, dtype):
        b = background.to(dtype).requires_grad_()
        arguments = cast(scene, dtype, gradients=True)
        return _values_and_gradients(arguments, backend, v_colors, v_alphas, backgrounds=b, rasterize_mode=mode)

    expected_colors, expected_alphas, expected = run("torch", torch.float64)
    colors, alphas, gradients = run("native", torch.float32)
    assert 0.2 < expected_alphas.mean() < 0.9  # the scene fills the picture and leaves some of it open
    assert psnr(colors, expected_colors) >= 90
    assert psnr(alphas, expected_alphas) >= 90
    for name, gradient, reference in zip((*ATTRIBUTES, "backgrounds"), gradients, expected):
        assert relative_l2(gradient, reference) <= 1e-3, name


@needs_native
@pytest.mark.parametrize("name", ["sse", "avx2", "avx512"])
def test_every_instruction_set_agrees(name):
    if not native_backend.choose_instruction_set(name):
        pytest.skip(f"this CPU or build has no {name} kernels")
    try:
        assert native_backend.instruction_set() == name
        scene = head_scene(1000, 64)
        v_colors, v_alphas = torch.rand(1, 59, 64, 3), torch.rand(1, 59, 64, 1)
        narrow = _values_and_gradients(cast(scene, torch.float32, True), "native", v_colors, v_alphas)
    finally:
        native_backend.choose_instruction_set("best")
    reference = _values_and_gradients(cast(scene, torch.float64, True), "torch", v_colors, v_alphas)
    assert psnr(narrow[0], reference[0]) >= 90
    for attribute, gradient, expected in zip(ATTRIBUTES, narrow[2], reference[2]):
        assert relative_l2(gradient, expected) <= 1e-3, attribute


@needs_native
def test_bit_identical_for_any_thread_count():
    scene = head_scene(12000, 160, views=2)
    v_colors, v_alphas = torch.randn(2, 155, 160, 3), torch.randn(2, 155, 160, 1)
    runs = [
        _values_and_gradients(cast(scene, torch.float32, True), "native", v_colors, v_alphas, threads=threads)
        for threads in (1, 2, 3)
    ]
    for colors, alphas, gradients in runs[1:]:
        assert torch.equal(colors, runs[0][0])
        assert torch.equal(alphas, runs[0][1])
        assert all(torch.equal(a, b) for a, b in zip(gradients, runs[0][2]))


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_reference_gradients_are_the_numerical_ones(mode):
    """Few, wide, faint splats: no pixel comes near the thresholds at 1/255, 0.999 and 1e-4, where the picture jumps."""
    scene = head_scene(3, 10, channels=2, spread=0.6, seed=3)
    scene["opacities"] = torch.tensor([0.5, 0.6, 0.7], dtype=torch.float64)
    scene["scales"] = scene["scales"].clamp_min(0.09)
    names = (*ATTRIBUTES, "viewmats", "Ks", "backgrounds")
    values = [scene[name] for name in names[:-1]] + [torch.rand(1, 2, dtype=torch.float64)]

    def picture(*tensors):
        arguments = dict(zip(names, tensors))
        return rasterize(**arguments, width=5, height=4, rasterize_mode=mode, backend="torch")[:2]

    assert torch.autograd.gradcheck(picture, [v.clone().requires_grad_() for v in values], atol=1e-5)


@pytest.mark.parametrize("backend", [pytest.param("native", marks=needs_native), "torch"])
class TestBothBackends:
    def test_one_splat_by_hand(self, backend):
        """An isotropic Gaussian over the centre of pixel (4, 4): alpha = opacity exp(-d^2 / (2 (sigma^2 + 0.3)))."""
        colors, alphas, _ = rasterize(
            means=torch.tensor([[0.0, 0, 2]]),
            quats=torch.tensor([[1.0, 0, 0, 0]]),
            scales=torch.full((1, 3), 0.02),
            opacities=torch.tensor([0.8]),
            colors=torch.tensor([[2.0, -1, 0.5]]),
            viewmats=torch.eye(4)[None],
            Ks=torch.tensor([[[200.0, 0, 4.5], [0, 200, 4.5], [0, 0, 1]]]),
            width=9,
            height=9,
            backgrounds=torch.tensor([0.0, 1, 0.5]),
            backend=backend,
        )
        variance = (200 * 0.02 / 2) ** 2 + 0.3
        for dx, dy in ((0, 0), (2, 0), (0, -3), (1, 2)):
            alpha = 0.8 * math.exp(-(dx**2 + dy**2) / 2 / variance)
            assert float(alphas[0, 4 + dy, 4 + dx, 0]) == pytest.approx(alpha, rel=1e-5)
            expected = [2 * alpha, -alpha + 1 - alpha, 0.5]
            assert colors[0, 4 + dy, 4 + dx].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)

    def test_nearer_hides_farther_and_alpha_is_clamped(self, backend):
        arguments = cast(head_scene(2, 32), torch.float32)
        arguments["means"] = torch.tensor([[0.0, 0, 0.05], [0, 0, -0.05]])
        arguments["viewmats"] = torch.diag(torch.tensor([1.0, -1, -1, 1]))[None].clone()
        arguments["viewmats"][0, 2, 3] = 1
        arguments["scales"] = torch.full((2, 3), 0.5)
        arguments["opacities"] = torch.ones(2)
        arguments["colors"] = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
        colors, alphas, _ = rasterize(**arguments, backend=backend)
        # alpha is 0.999 at most; the second splat would take transmittance to 1e-6, so the pixel stops before it
        assert colors[0, 14, 17].tolist() == pytest.approx([0.999, 0, 0], abs=1e-6)
        assert float(alphas[0, 14, 17]) == pytest.approx(0.999)

    def test_nothing_to_draw_gives_the_background(self, backend):
        scene = cast(head_scene(40, 32), torch.float32, gradients=True)
        background = torch.tensor([0.1, 0.2, 0.3])
        empty = {name: scene[name][:0].detach() for name in ATTRIBUTES}
        behind = scene["viewmats"].clone()
        behind[:, 2, 3] = -1
        for changed in (empty, {"viewmats": behind}, {"radius_clip": 1e4}, {"near_plane": 5.0}):
            colors, alphas, _ = rasterize(**(scene | changed), backgrounds=background, backend=backend)
            assert torch.equal(colors, background.expand_as(colors))
            assert not alphas.any()
        loss = rasterize(**(scene | {"viewmats": behind}), backend=backend)[0].sum()
        gradients = torch.autograd.grad(loss, [scene[name] for name in ATTRIBUTES], materialize_grads=True)
        assert not any(gradient.any() for gradient in gradients)

    @pytest.mark.parametrize("attribute", ["means", "quats", "scales", "opacities"])
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_gaussian_that_is_not_finite_is_left_out(self, backend, attribute, value):
        scene = cast(head_scene(60, 32), torch.float32)
        without = scene | {name: torch.cat([scene[name][:7], scene[name][8:]]) for name in ATTRIBUTES}
        broken = scene | {attribute: scene[attribute].clone()}
        broken[attribute][7] = value
        for name in ATTRIBUTES:
            broken[name].requires_grad_()
        colors, alphas, _ = rasterize(**broken, backend=backend)
        expected = rasterize(**without, backend=backend)
        assert torch.allclose(colors, expected[0], atol=1e-6)
        assert torch.allclose(alphas, expected[1], atol=1e-6)
        for gradient in torch.autograd.grad(colors.sum(), [broken[name] for name in ATTRIBUTES]):
            assert gradient.isfinite().all()
            assert not gradient[7].any()
            assert gradient.any()

    def test_strided_half_and_double_inputs(self, backend):
        scene = cast(head_scene(200, 40), torch.float32)
        expected = rasterize(**scene, backend=backend)[0]
        strided = scene | {name: scene[name].repeat_interleave(2, dim=-1)[..., ::2] for name in ("means", "colors")}
        strided["Ks"] = scene["Ks"].transpose(1, 2).contiguous().transpose(1, 2)
        assert not strided["means"].is_contiguous()
        assert torch.equal(rasterize(**strided, backend=backend)[0], expected)
        wide = rasterize(**cast(scene, torch.float64), backend=backend)[0]
        assert wide.dtype == (torch.float64 if backend == "torch" else torch.float32)
        assert psnr(wide, expected) > 80
        half = rasterize(**(scene | {"colors": scene["colors"].bfloat16()}), backend=backend)[0]
        assert psnr(half, expected) > 40

    def test_only_alpha_has_a_gradient(self, backend):
        scene = cast(head_scene(100, 32), torch.float32, gradients=True)
        gradient = torch.autograd.grad(rasterize(**scene, backend=backend)[1].sum(), scene["opacities"])[0]
        assert (gradient >= 0).all() and gradient.any()


def test_reference_in_small_steps_is_the_same(monkeypatch):
    """Few pairs at a time and tiles computed again in the backward pass: the ways of large pictures."""
    scene = head_scene(150, 40)
    v_colors, v_alphas = torch.rand(1, 35, 40, 3), torch.rand(1, 35, 40, 1)
    expected = _values_and_gradients(cast(scene, torch.float64, True), "torch", v_colors, v_alphas)
    monkeypatch.setattr(torch_backend, "KEPT_PAIRS", 0)
    monkeypatch.setattr(torch_backend, "MAX_PAIRS", 1000)
    found = _values_and_gradients(cast(scene, torch.float64, True), "torch", v_colors, v_alphas)
    assert torch.allclose(found[0], expected[0])
    assert all(torch.allclose(a, b) for a, b in zip(found[2], expected[2]))
