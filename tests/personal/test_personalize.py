"""Personalization on pictures of an avatar whose truth is known: it learns, generalises, repeats, resumes, keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_avatar import small_avatar
from torch import Tensor

from ffavatar import pipeline
from ffavatar.animate import render_avatar
from ffavatar.avatar import Avatar
from ffavatar.errors import InputError
from ffavatar.model import Estimate, FFAvatar, Reconstruction
from ffavatar.model.config import TINY
from ffavatar.model.feedback import Shares
from ffavatar.model.looks import Looks
from ffavatar.model.unfolding import unfolded
from ffavatar.personal import Personalized, PersonalRecipe, personalize, run
from ffavatar.personal.fit import Fit, exposed
from ffavatar.personal.goals import Goals, Reading, read_views
from ffavatar.personal.residuals import Nodes, Residuals, seen_pixels
from ffavatar.personal.starts import grey, unprojected
from ffavatar.pipeline import targets_on_white
from ffavatar.types import CanonicalGaussians, HeadParams, Rendering, Views

SIZE = 48
RECIPE = PersonalRecipe(
    steps=40, size=SIZE, guard=False, nodes=400, check_steps=1, rate_color=0.03, rate_node_color=0.02
)


class Reader(FFAvatar):
    """A model whose estimator knows the poses: the number of a view is its first landmark's x. Its avatars are all the
    small one, whatever the views; ``asked`` keeps the numbers of the views they were made from."""

    config = replace(TINY, surface_level=0)

    def __init__(self, known: HeadParams):
        torch.nn.Module.__init__(self)
        self.known, self.head = known, small_avatar().rig.head
        self.asked: list[list[int]] = []

    def estimator(self, views: Views, identity: Tensor | None = None) -> Estimate:
        return Estimate(self.known[numbers(views)], small_avatar().identity)

    def looks(self, source: Views, estimate: Estimate, like: int | None = None) -> Looks:
        return Looks.one(source)

    def reconstruct(
        self, source: Views, level: int | None = None, estimate: Estimate | None = None, looks: Looks | None = None
    ) -> Reconstruction:
        self.asked.append(numbers(source))
        plain = small_avatar()
        shares = Shares.whole(plain.canonical.opacities)
        estimate = estimate or self.estimator(source)
        return Reconstruction(plain.rig, plain.canonical, shares, estimate, plain.canonical.offsets, Looks.one(source))


def numbers(views: Views) -> list[int]:
    return [int(n) for n in views.landmarks[:, 0, 0].round()]


def poses(count: int) -> HeadParams:
    params = small_avatar().neutral_params(count)
    params.root[:, 1] = torch.linspace(-0.4, 0.4, count)
    params.jaw[:, 0] = torch.linspace(0, 0.1, count)
    return params


def pictures(avatar: Avatar, params: HeadParams, gain: Tensor | None = None) -> Views:
    drawn = avatar.render(params, SIZE)
    count = len(params)
    images = drawn.images if gain is None else exposed(drawn, gain)
    landmarks = torch.zeros(count, 478, 3)
    landmarks[:, 0, 0] = torch.arange(count)
    return Views(
        images.clamp(0, 1), drawn.alphas.clamp(0, 1), torch.ones(count, SIZE, SIZE), landmarks, torch.zeros(count, 52)
    )


def truth() -> Avatar:
    """The small avatar in other, striped colours and a little taller."""
    plain = small_avatar()
    points = plain.rig.points()
    stripes = 0.5 + 0.4 * torch.sin(points[:, 1:2] * 60 + torch.tensor([0.0, 2.0, 4.0]))
    offsets = torch.stack([torch.zeros(len(points)), 0.004 * torch.ones(len(points)), torch.zeros(len(points))], 1)
    return replace(plain, canonical=replace(plain.canonical, colors=stripes, offsets=offsets))


@pytest.fixture(scope="module")
def known() -> HeadParams:
    return poses(5)


@pytest.fixture(scope="module")
def model(known: HeadParams) -> Reader:
    return Reader(known)


@pytest.fixture(scope="module")
def views(known: HeadParams) -> Views:
    return pictures(truth(), known)


@pytest.fixture(scope="module")
def learned(model: Reader, views: Views) -> Personalized:
    """From all views but the middle one."""
    return personalize(model, small_avatar(), views[[0, 1, 3, 4]], RECIPE)


def error(avatar: Avatar, params: HeadParams, views: Views) -> float:
    return float((avatar.render(params, SIZE).images - views.on_white()).square().mean())


def same(first: Personalized, second: Personalized) -> bool:
    tensors = [
        [*vars(made.avatar.canonical).values(), *vars(made.params).values(), made.gains] for made in (first, second)
    ]
    return all(torch.equal(a, b) for a, b in zip(*tensors)) and first.checks == second.checks


def test_held_out_view_improves_much(learned: Personalized, views: Views, known: HeadParams) -> None:
    before, after = (error(avatar, known[[2]], views[[2]]) for avatar in (small_avatar(), learned.avatar))
    assert learned.steps == RECIPE.steps and learned.finished
    assert after < 0.25 * before
    assert learned.avatar.about["personalized"] == "40 steps over 4 views"


def test_nothing_to_learn_harms_nothing(model: Reader, known: HeadParams) -> None:
    own = pictures(small_avatar(), known)
    made = personalize(model, small_avatar(), own[[0, 1, 3, 4]], replace(RECIPE, rate_color=0.01))
    assert error(made.avatar, known[[2]], own[[2]]) < 8e-4  # 31 dB: all that is left of Adam's unrest


def test_unseen_gaussians_stay(learned: Personalized, views: Views, known: HeadParams) -> None:
    before, after = small_avatar().canonical, learned.avatar.canonical
    valid = torch.ones(4, SIZE, SIZE, 1)
    residuals = Residuals(small_avatar(), known[[0, 1, 3, 4]], valid, RECIPE)
    unseen = residuals.seen[:, 0] == 0
    assert 500 < int(unseen.sum()) < len(unseen) - 500
    for name in ("scales", "opacities"):
        assert torch.equal(getattr(before, name)[unseen], getattr(after, name)[unseen])
    torch.testing.assert_close(before.quats[unseen], after.quats[unseen])
    # offsets and colours follow the smooth part, which reaches no further than the nodes that something seen follows
    far = residuals.nodes.spread(residuals.node_seen)[:, 0] == 0
    assert int(far.sum()) > 50
    assert torch.equal(before.offsets[far], after.offsets[far]) and torch.equal(before.colors[far], after.colors[far])
    assert not torch.equal(before.colors[~unseen], after.colors[~unseen])


def test_no_step_changes_nothing(known: HeadParams) -> None:
    clear = replace(small_avatar().canonical, opacities=torch.linspace(0, 1, len(small_avatar())))
    residuals = Residuals(replace(small_avatar(), canonical=clear), known, torch.ones(5, SIZE, SIZE, 1), RECIPE)
    for before, after in zip(vars(clear).values(), vars(residuals.apply()[0]).values()):
        torch.testing.assert_close(before, after.detach(), atol=1e-6, rtol=1e-6)


def test_same_seed_same_avatar(model: Reader, views: Views) -> None:
    short = replace(RECIPE, steps=6)
    first, second = (personalize(model, small_avatar(), views, short) for _ in range(2))
    other = personalize(model, small_avatar(), views, replace(short, seed=1))
    assert same(first, second) and not same(first, other)


def test_a_callers_inference_mode_changes_nothing(model: Reader, views: Views) -> None:
    short = replace(RECIPE, steps=3)
    with torch.inference_mode():
        own = Views(**{name: value.clone() for name, value in vars(views).items()})
        made = personalize(model, small_avatar(), own, short)
    assert same(made, personalize(model, small_avatar(), views, short))


def test_too_few_views_for_the_guard_take_fewer_steps(model: Reader, views: Views) -> None:
    recipe = replace(RECIPE, steps=6, unguarded_steps=3)
    for guard, steps in ((True, 3), (False, 6)):
        made = personalize(model, small_avatar(), views[:2], replace(recipe, guard=guard))
        assert made.steps == steps and not made.checks


class Stop:
    """Presses Ctrl-C after some steps."""

    def __init__(self, after: int):
        self.left = after

    def __call__(self, done: int, total: int) -> None:
        assert 0 < done <= total
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [7, 19])
def test_interrupted_and_resumed_is_as_uninterrupted(model: Reader, views: Views, tmp_path: Path, after: int) -> None:
    """In the trial and, later, in the run over all views."""
    recipe = replace(RECIPE, guard=True, steps=12, guard_checks=2, patience=5)
    whole = personalize(model, small_avatar(), views, recipe)
    file = tmp_path / "kept.pt"
    part = personalize(model, small_avatar(), views, recipe, Stop(after), file)
    assert not part.finished and file.exists()
    resumed = personalize(model, small_avatar(), views, recipe, checkpoint=file)
    assert resumed.finished and not file.exists()
    assert len(whole.checks) == 3 and same(whole, resumed)


@pytest.mark.parametrize(("first", "then"), [(22, 2), (45, 2)])
def test_the_best_so_far_outlasts_a_resumption(
    model: Reader, views: Views, known: HeadParams, tmp_path: Path, first: int, then: int
) -> None:
    """Stopped after the trial's check of 20 steps, in the trial or, of 80 steps in all, early in the run over all
    views; and stopped again soon after: it is as good as after the first time."""
    recipe = replace(RECIPE, guard=True, guard_checks=2)
    file = tmp_path / "kept.pt"
    once = personalize(model, small_avatar(), views, recipe, Stop(first), file)
    again = personalize(model, small_avatar(), views, recipe, Stop(then), file)
    assert not once.finished and not again.finished and once.steps == again.steps == 0
    assert error(again.avatar, known, views) < 0.5 * error(small_avatar(), known, views)
    assert error(again.avatar, known, views) <= error(once.avatar, known, views) + 1e-6
    resumed = personalize(model, small_avatar(), views, recipe, checkpoint=file)
    assert same(resumed, personalize(model, small_avatar(), views, recipe))


def test_interruption_keeps_the_best_so_far(model: Reader, views: Views, known: HeadParams) -> None:
    part = personalize(model, small_avatar(), views, RECIPE, Stop(35))
    assert not part.finished and part.steps == 20  # the latest snapshot
    assert error(part.avatar, known, views) < 0.5 * error(small_avatar(), known, views)
    guarded = personalize(model, small_avatar(), views, replace(RECIPE, guard=True, guard_checks=2), Stop(25))
    assert not guarded.finished and guarded.steps == 0
    assert error(guarded.avatar, known, views) < 0.5 * error(small_avatar(), known, views)


def test_snapshots_are_previews_that_stay(model: Reader, views: Views, known: HeadParams) -> None:
    """Trial and run both give them, their numbers grow, and each already shows the person better than the start."""
    seen: list[tuple[Avatar, int]] = []
    copies: list[Tensor] = []

    def note(avatar: Avatar, step: int) -> None:
        seen.append((avatar, step))
        copies.append(avatar.canonical.colors.clone())

    recipe = replace(RECIPE, guard=True, guard_checks=2)
    made = personalize(model, small_avatar(), views, recipe, on_snapshot=note)
    steps = [step for _, step in seen]
    assert steps == sorted(set(steps)) and steps[0] == 20 and len(steps) >= 3
    assert all(torch.equal(avatar.canonical.colors, copy) for (avatar, _), copy in zip(seen, copies))
    assert all(error(avatar, known, views) < 0.6 * error(small_avatar(), known, views) for avatar, _ in seen)
    assert torch.equal(seen[-1][0].canonical.colors, made.avatar.canonical.colors)

    def stop(avatar: Avatar, step: int) -> None:
        raise KeyboardInterrupt

    part = personalize(model, small_avatar(), views, RECIPE, on_snapshot=stop)
    assert not part.finished and part.steps == 20


def test_guard_ends_a_run_that_harms(model: Reader, known: HeadParams) -> None:
    """Views whose poses are read rightly, but whose pictures contradict each other: learning one harms the others."""
    generator = torch.Generator().manual_seed(3)
    views = pictures(small_avatar(), known)
    noise = 0.6 * torch.randn(views.images.shape, generator=generator)
    noisy = replace(views, images=(views.images + noise * (torch.arange(5) != 2)[:, None, None, None]).clamp(0, 1))
    recipe = replace(RECIPE, guard=True, steps=40, guard_checks=8, weight_prior=0.0)
    made = personalize(model, small_avatar(), noisy, recipe)
    losses = [check.loss for check in made.checks]
    assert max(losses) > losses[0]
    allowed = losses[0] - recipe.guard_keeps * (losses[0] - min(losses))
    assert made.steps == [check.step for check in made.checks if check.loss <= allowed + 1e-12][-1] < recipe.steps
    assert made.checks[-1].step < recipe.steps  # and early


@pytest.fixture
def no_feedback(monkeypatch: pytest.MonkeyPatch) -> None:
    """``Reader`` makes the same avatar of all views; the feedback would mend most of what the trial should learn."""
    monkeypatch.setattr(pipeline, "feedback", lambda rig, canonical, *more: (canonical, None))


@pytest.mark.usefixtures("no_feedback")
def test_the_trial_starts_from_an_avatar_that_has_not_seen_the_held_out_view(views: Views, known: HeadParams) -> None:
    """The given avatar shows every view perfectly: measured from there, each step of the trial would seem to harm."""
    model = Reader(known)
    made = personalize(model, truth(), views, replace(RECIPE, guard=True, guard_checks=2))
    assert model.asked and all(asked == [0, 1, 3, 4] for asked in model.asked)
    assert made.checks[0].loss > 2 * made.checks[-1].loss and made.steps == RECIPE.steps
    assert error(made.avatar, known, views) < 8e-4


@pytest.mark.usefixtures("no_feedback")
@pytest.mark.parametrize("unlike", [{2}, {1, 2, 3}])
def test_a_view_of_another_look_is_not_the_one_held_out(views: Views, known: HeadParams, monkeypatch, unlike) -> None:
    """The next by turn is, unless they all are unlike: then the middle one again, as if nothing else was tried."""
    model = Reader(known)

    def read(*args) -> Reading:
        found = read_views(*args)
        held = ({*range(5)} - set(model.asked[-1])).pop() if model.asked else None
        alike = found.alike.clone()
        if held in unlike:
            alike[held] = False
        return replace(found, alike=alike)

    monkeypatch.setattr(run, "read_views", read)
    made = personalize(model, truth(), views, replace(RECIPE, guard=True, guard_checks=2, steps=4))
    held = list(dict.fromkeys(({*range(5)} - set(asked)).pop() for asked in model.asked))
    assert held == [2, 1] if unlike == {2} else held == [2, 1, 3]
    assert made.checks


@pytest.mark.usefixtures("no_feedback")
def test_the_guard_compares_by_the_perceptual_net_too(model: Reader, views: Views, known: HeadParams) -> None:
    recipe = replace(RECIPE, guard=True, steps=4, guard_checks=1, lpips_share=0.0)
    without, with_net = (personalize(model, small_avatar(), views, recipe, perceptual=net) for net in (None, Net()))
    unlike = [(b.loss - a.loss) / recipe.guard_lpips for a, b in zip(without.checks, with_net.checks)]
    assert abs(unlike[0] - error(small_avatar(), known[[2]], views[[2]])) < 0.1 * unlike[0]
    assert 0 < unlike[1] < unlike[0]


def test_exposure_is_the_photos_not_the_skins(model: Reader, known: HeadParams) -> None:
    gain = torch.tensor([[0.8], [1.25], [1.0], [0.8], [1.25]]).expand(5, 3) * torch.tensor([1.0, 1.0, 0.95])
    recipe = replace(RECIPE, steps=50, rate_gain=0.025)
    made = personalize(model, small_avatar(), pictures(small_avatar(), known, gain), recipe)
    torch.testing.assert_close(made.gains.log().mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    assert (
        made.gains[1] / made.gains[0]
    ).min() > 1.25  # of 1.56: the prior holds back, and skin and light share the rest


def test_checkpoint_of_another_run_is_refused(model: Reader, views: Views, tmp_path: Path) -> None:
    file = tmp_path / "kept.pt"
    personalize(model, small_avatar(), views, RECIPE, Stop(5), file)
    with pytest.raises(InputError, match=rf"run with other seed \({RECIPE.seed} there, 4 here\); run with the same"):
        personalize(model, small_avatar(), views, replace(RECIPE, seed=4), checkpoint=file)
    with pytest.raises(InputError, match="run with other photos; run with the same again, remove it"):
        personalize(model, small_avatar(), views[[0, 1, 2, 3]], RECIPE, checkpoint=file)
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        personalize(model, small_avatar(), views, RECIPE, checkpoint=file)


def test_no_view_is_refused(model: Reader, views: Views) -> None:
    with pytest.raises(InputError, match="No view"):
        personalize(model, small_avatar(), views[:0], RECIPE)


class Net:
    """A stand-in for the perceptual net: its features are the pictures."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []
        self.prepared: list[Tensor] = []

    def features(self, images: Tensor) -> list[Tensor]:
        assert 0 <= float(images.detach().amin()) and float(images.detach().amax()) <= 1
        self.seen.append(tuple(images.shape))
        return [images]

    def prepare(self, images: Tensor) -> list[Tensor]:
        self.prepared.append(images)
        return [images]

    def distance(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        return (first[0] - second[0]).square().mean((1, 2, 3))


def test_perceptual_share(known: HeadParams, views: Views) -> None:
    net = Net()
    goals = Goals(*targets_on_white(views, SIZE))
    fit = Fit(small_avatar(), known, known, goals, RECIPE, net)
    for _ in range(20):
        fit.advance()
    assert net.seen == [(1, SIZE, SIZE, 3)] * 5  # a quarter of the steps
    assert 1 < len(net.prepared) <= 5  # each goal once
    assert all(any(torch.equal(one[0], goal) for goal in goals.images) for one in net.prepared)


def test_perceptual_windows_of_large_pictures(known: HeadParams, views: Views) -> None:
    net = Net()
    goals = Goals(*targets_on_white(views, SIZE))
    fit = Fit(small_avatar(), known, known, goals, replace(RECIPE, lpips_window=20), net)
    for _ in range(20):
        fit.advance()
    assert net.seen == [(1, 20, 20, 3)] * 5 and len(net.prepared) == 5
    assert len({float(part.sum()) for part in net.prepared}) > 3  # at different places
    assert all(float(part.mean()) < 0.99 for part in net.prepared)  # where the person is


def test_every_start_learns_the_person(model: Reader, views: Views, known: HeadParams) -> None:
    """From the bare head in grey, and in colours unprojected from the views, which are nearer from the beginning."""
    goals = Goals(*targets_on_white(views, SIZE))
    bare = grey(small_avatar())
    coloured = unprojected(small_avatar(), known, goals.images, goals.mattes)
    assert error(coloured, known, views) < 0.5 * error(bare, known, views)
    assert float(coloured.canonical.colors.amin()) >= 0 and float(coloured.canonical.colors.amax()) <= 1
    for start, begun in (("grey", bare), ("unprojected", coloured)):
        made = personalize(model, small_avatar(), views, replace(RECIPE, start=start))
        assert error(made.avatar, known, views) < 0.5 * error(begun, known, views)
        untouched = personalize(model, small_avatar(), views, replace(RECIPE, start=start, steps=1))
        torch.testing.assert_close(untouched.avatar.canonical.scales, begun.canonical.scales, rtol=0.02, atol=0)


@pytest.mark.parametrize("level", [0, 1])
def test_the_bare_head_is_the_surface_alone(tmp_path: Path, known: HeadParams, views: Views, level: int) -> None:
    """Also of an avatar with more Gaussians than surface points, and of one that is read from its container, which
    keeps no triangles between them: all can be seen, and lie as closely as they are wide."""
    head = small_avatar().rig.head
    rig = replace(small_avatar().rig, surface=head.surface(level))
    count = len(rig.surface)
    made = CanonicalGaussians(
        torch.zeros(count, 3), torch.tensor([1.0, 0, 0, 0]).repeat(count, 1), torch.full((count, 3), 0.003),
        torch.ones(count), torch.full((count, 3), 0.5),
    )  # fmt: skip
    rig, made, _ = unfolded(rig, made, level)
    avatar = Avatar(rig, made, small_avatar().identity)
    assert len(avatar) > count + 100
    avatar.save(tmp_path / "me.safetensors")
    goals = Goals(*targets_on_white(views, SIZE))
    for one in (avatar, Avatar.load(tmp_path / "me.safetensors")):
        coloured = unprojected(one, known, goals.images, goals.mattes)
        for bare in (grey(one), coloured):
            assert len(bare) == len(bare.rig.surface) == count
            assert float(bare.canonical.scales.min()) > 1e-4
        assert float(coloured.render(known, SIZE).alphas.mean()) > 0.95 * float(views.mattes.mean())


def test_every_view_is_taken_equally_often(known: HeadParams, views: Views) -> None:
    fit = Fit(small_avatar(), known, known, Goals(*targets_on_white(views, SIZE)), RECIPE, None)
    taken: list[int] = []
    for fit.step in range(10):
        taken += fit._views()
    assert sorted(taken[:5]) == list(range(5)) and sorted(taken) == sorted(list(range(5)) * 2)


def test_seen_pixels_are_the_blending_weights(known: HeadParams) -> None:
    """They sum to the alphas, and say how the picture changes with a colour."""
    avatar = small_avatar()
    pixels = seen_pixels(avatar, known[[2]], torch.ones(1, SIZE, SIZE, 1))
    alphas = render_avatar(avatar.rig, avatar.canonical, known[[2]], SIZE).alphas
    torch.testing.assert_close(float(pixels.sum()), float(alphas.sum()) * (256 / SIZE) ** 2, rtol=1e-3, atol=0)
    plain = avatar.render(known[[2]], SIZE).images
    for chosen in (int(pixels.argmax()), int(pixels.argmin()), 100, 2000):
        colors = avatar.canonical.colors.clone()
        colors[chosen] += 0.5
        changed = replace(avatar, canonical=replace(avatar.canonical, colors=colors)).render(known[[2]], SIZE).images
        found = float((changed - plain).double().sum()) / 0.5 / 3 * (256 / SIZE) ** 2
        assert abs(found - float(pixels[chosen])) < 0.01 * found + 0.02


def test_nodes_reproduce_constants_and_are_smooth() -> None:
    points = small_avatar().rig.points()
    nodes = Nodes.over(points, 100, 8)
    torch.testing.assert_close(nodes.spread(torch.full((100, 2), 3.0)), torch.full((len(points), 2), 3.0))
    values = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)).double().requires_grad_(True)
    double = Nodes(nodes.index, nodes.weights.double(), nodes.count)
    spread = double.spread(values)
    (gradient,) = torch.autograd.grad(spread.square().sum(), values)
    dense = torch.zeros(len(points), 100).double().scatter(1, nodes.index, nodes.weights.double())
    torch.testing.assert_close(spread.detach(), dense @ values.detach())
    torch.testing.assert_close(gradient, 2 * dense.T @ dense @ values.detach())
    near = torch.cdist(points[:200], points).topk(2, largest=False).indices[:, 1]
    step = (spread[:200] - spread[near]).norm(dim=1).mean()
    assert step < 0.35 * (values[:50] - values[50:]).norm(dim=1).mean()


def test_exposure_leaves_white_white() -> None:
    drawn = Rendering(torch.full((1, 2, 2, 3), 0.6), torch.tensor([[[0.0, 1.0], [0.5, 1.0]]]))
    drawn = Rendering(torch.where(drawn.alphas[..., None] == 0, 1.0, drawn.images), drawn.alphas)
    seen = exposed(drawn, torch.full((1, 3), 0.5))
    torch.testing.assert_close(seen[0, :, :, 0], torch.tensor([[1.0, 0.3], [0.55, 0.3]]))
