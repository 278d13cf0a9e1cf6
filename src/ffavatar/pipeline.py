"""READ FIRST: the whole system in a few short functions. Inference and evaluation call ``reconstruct``, ``drive``,
``track`` and ``animate``; training of the avatar calls ``few_to_many``, which is the first, second and last of these in
one differentiable pass, without the registration to outlines and the feedback. All stand on the same three calls:
``FFAvatar.reconstruct``, ``FFAvatar.estimator`` and ``render_avatar``. (The own training of the estimator compares
parameters and draws nothing: ``train/stages.py``.)

    photos --photo--> Views --reconstruct--> Avatar --animate(HeadParams)--> pictures
    driver --photo--> Views --drive / track--> HeadParams
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ffavatar.animate import EPS2D, exactly, render_avatar
from ffavatar.avatar import Avatar
from ffavatar.errors import InputError
from ffavatar.model import Estimate, FFAvatar, Reconstruction
from ffavatar.model.estimator import LandmarkEstimator
from ffavatar.model.feedback import feedback
from ffavatar.model.looks import Looks
from ffavatar.model.registration import register
from ffavatar.model.unfolding import unfolded
from ffavatar.render import mean_ssim
from ffavatar.types import Batch, Camera, CanonicalGaussians, HeadParams, Rendering, Views

P = ParamSpec("P")
T = TypeVar("T")
LOOK = (
    "look"  # in ``Avatar.about``: numbers of the views whose hair and clothes it has, where views show different ones
)
COARSE_LEVEL = 1  # at most, of the avatar to whose outline the source views are registered
TRACK_SIZE_PX = 256
REGISTERED_GAUSSIANS = 64_000
TRACK_EPS2D = EPS2D / 4  # wider splats would draw the outline further out, and move the head away


def _alone(run: Callable[Concatenate[FFAvatar, P], T]) -> Callable[Concatenate[FFAvatar, P], T]:
    """``run`` whatever the caller's inference mode, gradients and autocast: what it makes can be trained on, and linear
    solves and the points of a head keep single precision."""

    @wraps(run)
    def alone(model: FFAvatar, *args: P.args, **options: P.kwargs) -> T:
        with torch.inference_mode(False), torch.no_grad(), exactly(model.head.v_template):
            return run(model, *args, **options)

    return alone


@_alone
def reconstruct(model: FFAvatar, source: Views, level: int | None = None, like: int | None = None) -> Avatar:
    """Any number of views of one person -> an avatar, in one forward pass.

    From two views on a coarse avatar is made first, to whose outline the views that show its hair and clothes
    (``model/looks.py``) are registered; what they show then falls on the same places.

    ``level``: subdivisions of the head; None takes the preset's (2, about 150K Gaussians). ``like``: number of the view
    whose hair and clothes are taken where views show different ones; None takes what is shown most. Which views were
    taken, if not all, stands in ``about["look"]``. Works under a caller's inference mode, too; what it makes can be
    trained on.
    """
    source = _ordinary(source)
    estimate = model.estimator(source)
    looks = model.looks(source, estimate, like)
    if len(source) > 1 and isinstance(model.estimator, LandmarkEstimator):
        fine = model.config.surface_level if level is None else level
        made = model.reconstruct(source, min(COARSE_LEVEL, fine), estimate, looks)
        coarse = Avatar(made.rig, made.canonical, estimate.identity)
        registered = _registered(model, coarse, source, estimate.params)
        estimate = Estimate(registered.where(looks.taken, estimate.params), estimate.identity)
    avatar = decode(model, source, level, estimate, looks)
    taken = looks.taken.nonzero()[:, 0].tolist()
    return replace(avatar, about={LOOK: " ".join(map(str, taken))}) if len(taken) < len(source) else avatar


def _ordinary(views: Views) -> Views:
    """The views without tensors of inference mode: the feedback has a backward pass, which takes none."""
    return Views(**{name: value.clone() if value.is_inference() else value for name, value in vars(views).items()})


@_alone
def decode(model: FFAvatar, source: Views, level: int | None, estimate: Estimate, looks: Looks | None = None) -> Avatar:
    """The avatar of views that are read already: the model's forward pass, more Gaussians in its lids
    (``model/unfolding.py``), and what the views that show its look give back to it (``model/feedback.py``)."""
    source = _ordinary(source)
    made = model.reconstruct(source, level, estimate, looks)
    taken = made.looks.taken
    subdivisions = model.config.surface_level if level is None else level
    rig, canonical, origin = unfolded(made.rig, made.canonical, subdivisions)
    canonical, shades = feedback(rig, canonical, source[taken], estimate.params[taken], made.shares.of(origin))
    return Avatar(replace(rig, shades=shades), canonical, estimate.identity)


@_alone
def drive(model: FFAvatar, avatar: Avatar, target: Views, own: bool = True) -> HeadParams:
    """Pose and expression of each driving frame: one estimator pass, without any photometric optimisation.

    ``own`` says that the frames show the avatar's person: then its outline is evidence of where head and torso stand
    (``model/registration.py``), beside the landmarks. The identity is the avatar's own, never read from the driver. An
    avatar on another head than the model's has none that it could read: then the driver's is pooled, the outline tells
    nothing, and the parameters are of the model's head (``drive.film.for_head`` carries them over).
    """
    if not _same_head(model, avatar):
        return model.estimator(target).params
    params = model.estimator(target, avatar.identity).params
    return _registered(model, _thinned(avatar, REGISTERED_GAUSSIANS), target, params) if own else params


def _same_head(model: FFAvatar, avatar: Avatar) -> bool:
    """Whether the model's parameters pose the avatar, and its identity is of the model's basis."""
    fits = not isinstance(model.estimator, LandmarkEstimator) or len(avatar.identity) == model.estimator.identities
    return fits and avatar.rig.head.edition == model.head.edition


def _registered(model: FFAvatar, avatar: Avatar, views: Views, params: HeadParams) -> HeadParams:
    """``params`` with torso and head moved to where the views' mattes show them, and the face settled there; unchanged
    without landmarks."""
    if not isinstance(model.estimator, LandmarkEstimator):
        return params
    certainty = model.estimator.certainty(views, Estimate(params, avatar.identity))
    placed = register(avatar.rig, avatar.canonical, views, params, certainty)
    return model.estimator.settled(views, Estimate(placed, avatar.identity))


def animate(
    avatar: Avatar,
    params: HeadParams,
    size: int = 512,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    camera: Camera | None = None,
) -> Rendering:
    """Pictures of the avatar in the given poses; without ``camera``, in the normalised camera of head crops with
    ``size`` pixels a side. With one, its own width and height count, and not ``size``; one pose serves many cameras,
    and one camera many poses."""
    with torch.no_grad():
        return render_avatar(avatar.rig, avatar.canonical, params, size, background, camera)


@dataclass(frozen=True)
class FewToMany:
    """What one training pass makes."""

    rendering: Rendering  # one picture per target
    params: HeadParams  # that posed the avatar, one row per target
    made: Reconstruction  # from the sources


def few_to_many(
    model: FFAvatar,
    batch: Batch,
    size: int,
    level: int,
    *,
    estimate: Estimate | None = None,
    params: HeadParams | None = None,
    rotate_covariance: bool = True,
) -> FewToMany:
    """One training pass: avatar from ``batch.source``, driven by and rendered like ``batch.target``; differentiable.

    ``size`` of the pictures in pixels, ``level`` of the head's subdivision. Where exact labels are known, ``estimate``
    (of the sources) and ``params`` (of the targets) stand in for the estimator's readings. ``rotate_covariance`` as in
    ``pose_gaussians``.
    """
    made = model.reconstruct(batch.source, level, estimate)
    if params is None:
        params = model.estimator(batch.target, made.estimate.identity).params
    rendering = render_avatar(made.rig, made.canonical, params, size, rotate_covariance=rotate_covariance)
    return FewToMany(rendering, params, made)


_TRACK_RATES = {
    "root": 0.006, "translation": 0.0015, "neck": 0.006, "jaw": 0.006, "eye_left": 0.006, "eye_right": 0.006,
    "expression": 0.012,
}  # fmt: skip


@_alone
@torch.enable_grad()
def track(
    model: FFAvatar,
    avatar: Avatar,
    target: Views,
    steps: int = 100,
    progress: Callable[[int, float], None] | None = None,
    own: bool = True,
) -> HeadParams:
    """``drive``, then a photometric refinement against the pictures (L1 + SSIM + matte) with the avatar frozen.

    Adam on all of each frame's parameters; frames are independent of each other. ``progress(step, loss)`` is called
    after every step.

    Raises:
        InputError: the avatar is on another head than the model's.
    """
    if not _same_head(model, avatar):
        raise InputError(
            f"The avatar is on the head {avatar.rig.head.edition} with {len(avatar.identity)} identity coefficients, "
            f"which this model ({model.head.edition}) cannot track; drive it, or make it anew with this model."
        )
    start = drive(model, avatar, target, own)
    goal, matte, valid = targets_on_white(target, TRACK_SIZE_PX)
    free = {name: getattr(start, name).clone().requires_grad_(True) for name in _TRACK_RATES}
    groups = [{"params": [free[name]], "lr": rate, "rate": rate} for name, rate in _TRACK_RATES.items()]
    optimiser = torch.optim.Adam(groups, eps=1e-12)
    frames = len(target)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = group["rate"] * 0.1 ** (step / steps)
        picture = render_avatar(avatar.rig, avatar.canonical, HeadParams(**free), TRACK_SIZE_PX, eps2d=TRACK_EPS2D)
        seen = picture.images * valid + (1 - valid)
        photo = 0.8 * (seen - goal).abs().mean() + 0.2 * (1 - mean_ssim(seen, goal).mean())
        outline = ((picture.alphas[..., None] - matte) * valid).abs().mean()
        # expressions leave the landmarks' reading only where the picture says so
        stay = 0.02 * (free["expression"] - start.expression).square().mean()
        loss = photo + 0.5 * outline + stay
        optimiser.zero_grad()
        (loss * frames).backward()
        optimiser.step()
        if progress is not None:
            progress(step, float(loss.detach()))
    return HeadParams(**free).detach()


def _thinned(avatar: Avatar, wanted: int) -> Avatar:
    """Every n-th Gaussian, wider by the square root of n: nearly the same outline, at a fraction of the cost."""
    step = max(1, round(len(avatar) / wanted))
    rig, made = avatar.rig, avatar.canonical
    surface = replace(rig.surface, parents=rig.surface.parents[::step], barycentric=rig.surface.barycentric[::step])
    thin = CanonicalGaussians(
        made.offsets[::step], made.quats[::step], made.scales[::step] * step**0.5, made.opacities[::step],
        made.colors[::step],
    )  # fmt: skip
    return Avatar(replace(rig, surface=surface, shades=None), thin, avatar.identity)


def targets_on_white(target: Views, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """What avatars are fitted to: pictures on white (S, size, size, 3), mattes and valid masks (S, size, size, 1).

    Pixels not wholly inside the photo are white, without matte and not valid.
    """

    def shrink(maps: Tensor) -> Tensor:
        small = F.interpolate(
            maps.permute(0, 3, 1, 2),
            (size, size),
            mode="bilinear",
            antialias=True,
            align_corners=False,
        )
        return small.permute(0, 2, 3, 1)

    valid = (shrink(target.valid[..., None]) > 0.999).float()
    matte = shrink((target.mattes * target.valid)[..., None])
    return shrink(target.on_white()) * valid + (1 - valid), matte, valid
