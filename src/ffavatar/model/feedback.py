"""What an avatar lacks of its own source photos goes back to it: rendering feedback, without anything learned.

Reading a colour off the photos for each splat's middle leaves a soft avatar twice over: drawing blurs what was read,
and where pose and shape are not exact to the pixel the views' details are mixed. Two remedies:

- each photo is bent onto the avatar as drawn in its view, by optical flow, before it teaches it (Eisemann et al.,
  "Floating Textures", Eurographics 2008), so that all views tell one splat the same;
- pictures are linear in the splats' colours, so least squares tell which colours, drawn, make the photos. A few steps
  of simultaneous iterative reconstruction (Gilbert, J. Theor. Biol. 36, 1972) solve them: each splat takes the mean of
  what its pixels lack, weighted by how much of them it is; what the photos do not say stays as it was.

Of several photos only the detail is taken, in the light of the avatar as it is: each has a light of its own.

What then still tells the views apart, folds of a smile or light from the side, goes into shades (``ffavatar.shades``):
the same least squares, of one view at a time. A view's shade is all that it shows beyond the lasting colours, by half a
channel's range at most, which is what a container holds.

Colours are the person's, whatever lies behind: where the drawing is half transparent it should be half the photo. The
outline has its own equation: where a splat covers more than the (bent) matte, its opacity falls.

Some of this is not every Gaussian's (``Shares``). Through a soft outline a photo would also change what lies behind it:
specks on the back of the head. Skin that faces a camera is a closed surface, whatever a matte says of its rim, and
would gape where another looks straight at it. And some of what a photo shows is there as its own camera sees it, and
not when the head is turned: hair before skin of which other looks tell more, ears seen from the front, what fills slits
at the outline. That is a shade, and no lasting colour.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ffavatar.animate import EPS2D, Rig, pose_gaussians, render_gaussians
from ffavatar.geometry import axis_angle_to_quat, normalised_camera, quat_multiply, quat_to_axis_angle
from ffavatar.model.flow import bent, dense_flow, gaussian_blurred
from ffavatar.model.steadiness import steadiness
from ffavatar.render import rasterize
from ffavatar.shades import distance
from ffavatar.types import CanonicalGaussians, Gaussians, HeadParams, Shades, Views

BEFORE, AFTER = 1, 5  # steps with the photos as they are, which sharpens what they are bent to, and with bent ones
APART = 5  # steps of each view by itself
PRIOR_PX = 0.03  # pixels of a photo that what a splat was before weighs

LONGEST_BEND = 32 / 512  # sides of the picture
LIGHT_SIGMA = 12 / 512  # sides of the picture, beyond which differences between photos are of light
SHADE_SIGMA = 24 / 512  # the same for shades, which are shown in such light only
MOST_SHADES = 8  # views that have one: they cost memory, and time in every frame
SAME_POSE = 0.005  # half the squared distance in standard deviations up to which two views are in one pose
SURE_PX = 0.1  # pixels of a photo that make its view half sure
DOUBTFUL = 0.5  # matte up to which a pixel's colour is the background's
LEAST_ALPHA = 0.02  # of the drawing, where it is compared with the matte
HIDDEN = -0.3  # cosine between surface and view, at most of all views, up to which nothing is changed; from 0 on, all


@dataclass(frozen=True)
class Shares:
    """How much of what the photos ask of it each of N Gaussians does, (N,) in [0, 1]."""

    colors: Tensor  # at most as much as in ``shades``
    shades: Tensor
    opacities: Tensor

    @staticmethod
    def whole(like: Tensor) -> Shares:
        """All of it, for as many Gaussians as ``like`` (N,) has values."""
        return Shares(*(torch.ones_like(like) for _ in range(3)))

    def of(self, origin: Tensor) -> Shares:
        """The shares of those numbered ``origin`` (M,)."""
        return Shares(self.colors[origin], self.shades[origin], self.opacities[origin])

    def joined(self, count: int, share: float) -> Shares:
        """With those of further Gaussians, which do the ``share`` of everything, up to ``count``."""
        more = count - len(self.colors)
        return Shares(*(F.pad(one, (0, more), value=share) for one in (self.colors, self.shades, self.opacities)))

    def within(self, inside: Tensor, share: Tensor) -> Shares:
        """With another ``share`` (N,) of colours and shades where ``inside`` (N,) bool."""
        return replace(
            self, colors=torch.where(inside, share, self.colors), shades=torch.where(inside, share, self.shades)
        )


def shares_of(told: Tensor, facing: Tensor, closed: Tensor) -> Shares:
    """The shares of splats on the surface.

    ``told`` (N,) in [0, 1]: how far the photos are the best to tell their colours (``model/looks.py``).
    ``facing`` (N,): the largest cosine between normal and viewing direction. ``closed`` (N,) bool: skin and clothes.
    """
    faced = (1 - facing / HIDDEN).clamp(0, 1)
    return Shares(told * faced, faced, 1 - (closed & (facing > 0)).to(faced))


@torch.no_grad()
def feedback(
    rig: Rig, canonical: CanonicalGaussians, views: Views, params: HeadParams, shares: Shares | None = None
) -> tuple[CanonicalGaussians, Shades]:
    """``canonical`` with the colours and, at the outline, the opacities that ``views``, posed by ``params``, ask for;
    and what the views show beyond these, at most the ``MOST_SHADES`` that are most unlike, as their shades.

    The views must show one look (``model/looks.py``). ``shares``: of the change, all by default; the colours of lids
    and lips, which unfold in motion, make less of it in any case (``model/steadiness.py``), though not their shades,
    which are there in such poses only. Work and memory grow linearly with the views.
    """
    side = views.images.shape[1]
    posed = pose_gaussians(rig, canonical, params)
    shares = Shares.whole(canonical.opacities) if shares is None else shares
    steady = (steadiness(rig, params) * shares.shades)[:, None]
    photos = torch.cat([views.images, views.mattes[..., None], views.valid[..., None]], -1)
    posed, _ = _taught(posed, canonical.colors, steady, photos, BEFORE)

    drawn = render_gaussians(posed, normalised_camera(side, len(views), photos.device))
    picture, cover = drawn.images.permute(0, 3, 1, 2), drawn.alphas[:, None]
    maps = photos.permute(0, 3, 1, 2)
    shown = views.on_white().permute(0, 3, 1, 2)
    field = dense_flow(picture, shown, maps[:, 4:], LONGEST_BEND)
    known, picture = bent(maps, field), picture - (1 - cover)
    taught = _evenly_lit(known, picture, cover, LIGHT_SIGMA).permute(0, 2, 3, 1)
    posed, _ = _taught(posed, canonical.colors, steady, taught, AFTER, shares.opacities)
    lasting = (shares.colors / shares.shades.clamp_min(1e-6))[:, None]
    colors = torch.lerp(canonical.colors, posed.colors, lasting)
    made = replace(canonical, colors=colors, opacities=posed.opacities)
    taught = _evenly_lit(known, picture, cover, SHADE_SIGMA).permute(0, 2, 3, 1)
    kept = unlike(rig, params, MOST_SHADES)
    posed = replace(posed, means=posed.means[kept], quats=posed.quats[kept])
    return made, _shades(posed, colors, params[kept], shares.shades[:, None], taught[kept])


def unlike(rig: Rig, params: HeadParams, most: int) -> list[int]:
    """Which ``most`` of the poses differ most: the two farthest apart, then always the one farthest from those before.
    All, where there are no more; fewer, where there are not so many different ones; whatever their order, the same
    poses."""
    count = len(params)
    if count <= most:
        return list(range(count))
    moved, turned = rig.moved(params.expression, params.jaw), rig.turned(params)
    apart = torch.stack([distance(moved, turned, moved[[k]], turned[[k]]).mean(1)[:, 0] for k in range(count)], 1)
    kept = list(divmod(int(apart.argmax()), count))
    while len(kept) < most:
        nearest = apart[:, kept].amin(1)
        if float(nearest.max()) < SAME_POSE:
            break
        kept.append(int(nearest.argmax()))
    return sorted(set(kept))


def _shades(posed: Gaussians, lasting: Tensor, params: HeadParams, share: Tensor, photos: Tensor) -> Shades:
    """What each of the photos (S, H, W, 5) asks for by itself beyond the ``lasting`` colours (N, 3), starting from
    ``posed``, which all of them taught."""
    lack, weight = [], []
    for view in range(len(photos)):
        alone = replace(posed, means=posed.means[[view]], quats=posed.quats[[view]])
        alone, pixels = _taught(alone, posed.colors, share, photos[[view]], APART)
        lack.append((alone.colors - lasting).clamp(-0.5, 0.5))
        weight.append(pixels)
    shown = torch.stack(weight, 1)
    return Shades(
        colors=torch.stack(lack, 1),
        certainty=shown / shown.amax(1, keepdim=True).clamp_min(1e-6) * (shown / (shown + SURE_PX)),
        expression=params.expression,
        jaw=params.jaw,
        turn=quat_to_axis_angle(quat_multiply(axis_angle_to_quat(params.root), axis_angle_to_quat(params.neck))),
    )


def _evenly_lit(photos: Tensor, drawn: Tensor, cover: Tensor, sigma: float) -> Tensor:
    """Photos (S, 5, H, W) with their detail, but in the light that the avatar has in their views, where it is ``drawn``
    (S, 3, H, W) on black and covers (S, 1, H, W): each has its own, and where they meet, splats would take now one, now
    the other. ``sigma`` as in ``LIGHT_SIGMA``."""
    if len(photos) == 1:
        return photos
    sigma = sigma * photos.shape[-1]
    person = photos[:, 3:4] * photos[:, 4:]
    lack = gaussian_blurred((drawn - cover * photos[:, :3]) * person, sigma)
    lack = lack / gaussian_blurred(cover * person, sigma).clamp_min(0.05)
    return torch.cat([photos[:, :3] + lack, photos[:, 3:]], 1)


def _taught(
    posed: Gaussians, former: Tensor, steady: Tensor, photos: Tensor, steps: int, trims: Tensor | None = None
) -> tuple[Gaussians, Tensor]:
    """``posed`` after some steps of least squares on photos (S, H, W, 5) of colour, matte and validity, and the pixels
    that said how each is coloured (N,).

    Its colours stay near the ``former`` ones where the photos say little, and change by the share ``steady`` (N, 1);
    its opacities fall by the share ``trims`` (N,), by default not at all.
    """
    for step in range(steps):
        asked = photos.new_zeros(len(former), 6)
        for view in range(len(photos)):
            asked += _asked(posed, view, photos[view])
        lack, weight, kept, valid = asked.split((3, 1, 1, 1), -1)
        solved = posed.colors + (lack + PRIOR_PX * (former - posed.colors)) / (weight + PRIOR_PX)
        colors = torch.lerp(former, solved, steady).clamp(0, 1)
        opacities = posed.opacities
        if trims is not None and step < steps - 1:  # the last colours are those of the last opacities
            left = ((kept + PRIOR_PX) / (valid + PRIOR_PX))[:, 0].clamp(0, 1)
            opacities = opacities * (1 - trims * (1 - left))
        posed = replace(posed, colors=colors, opacities=opacities)
    return posed, weight[:, 0]


def _asked(posed: Gaussians, view: int, photo: Tensor) -> Tensor:
    """Sums over a view's pixels, each weighted by a splat's share in them, (N, 6): what they lack of the photo's colour
    (3), how far they count, which part of what is drawn the matte leaves, and how far that counts.

    A splat's shares are the derivatives of the picture by its channels, so all six are one backward pass.
    """
    height, width = photo.shape[:2]
    camera = normalised_camera(height, 1, photo.device)
    channels = F.pad(posed.colors, (0, 5))  # of eight, for which there is a kernel; the last two stay empty
    with torch.enable_grad():
        channels.requires_grad_(True)
        drawn, alpha, _ = rasterize(
            posed.means[view : view + 1], posed.quats[view : view + 1], posed.scales, posed.opacities, channels,
            camera.world_to_cam, camera.K, width, height, eps2d=EPS2D,
        )  # fmt: skip
    picture, cover = drawn.detach()[0, ..., :3], alpha.detach()[0]
    color, matte, inside = photo.split((3, 1, 1), -1)
    valid = (inside > 0.99).to(photo)
    counts = ((matte - DOUBTFUL) / (1 - DOUBTFUL)).clamp(0, 1) * valid
    left = torch.where(cover > LEAST_ALPHA, matte / cover.clamp_min(LEAST_ALPHA), 1.0).clamp(0, 1) * valid
    answer = F.pad(torch.cat([(cover * color - picture) * counts, counts, left, valid], -1), (0, 2))
    return torch.autograd.grad(drawn, channels, answer[None])[0][:, :6]
