"""Tokens -> canonical Gaussians.

``FullDecoder`` is the paper's linear head. ``AnchoredDecoder`` decodes each Gaussian from its interpolated anchor
tokens and from what the source photos show where it projects. Zero network output is a working avatar: the photos'
colours, weighted by visibility, on the fitted head, its outline lifted to the mattes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffavatar.animate import Rig, pose_surface
from ffavatar.geometry import (
    axis_angle_to_quat,
    normalised_camera,
    project,
    quat_multiply,
    quat_rotate,
    turn_z_to,
    vertex_normals,
)
from ffavatar.head import HeadModel, Surface
from ffavatar.model.anchors import (
    SurfaceTable,
    bare_skin,
    default_colors,
    fill_kernel,
    hairy_vertices,
    lift_mask,
    nearness_kernel,
    plain_skin,
    point_spacing,
    smoothing_kernel,
    surface_table,
)
from ffavatar.model.colours import likeness_of_teeth, unlikeness, weighted_median
from ffavatar.model.ears import auricles, hidden_by_hair, pressed, sides, told_of
from ffavatar.model.feedback import Shares, shares_of
from ffavatar.model.looks import Looks, Parts, light_of, light_told, read_looks, shown_beyond, told_best
from ffavatar.model.reading import Sampled, Sources, sample
from ffavatar.model.skin import Skin, read_skin
from ffavatar.model.splitting import LEAST_CARVE, LEVEL, ROUNDS, coarse_splats, four_of, replaced
from ffavatar.model.steadiness import folded_lids
from ffavatar.model.trimming import carved, trim
from ffavatar.model.unseen_hair import HAIR, unseen_detail
from ffavatar.render import rasterize
from ffavatar.types import CanonicalGaussians, HeadParams, Views

ATTRIBUTES = 14  # offset 3, log scale 3, rotation as quaternion 4, opacity 1, colour 3: what the paper's head decodes
OPACITY_AT_ZERO = 5.0  # logit: 0.993; less lets the background shine through between splats
SCALE_OF_SPACING = 0.58  # standard deviation of a splat, in spacings of its neighbours
THICKNESS = 0.2  # of an anchored splat along the surface's normal, in widths
BLEND_SHARPNESS = 2.0  # exponent with which the views' trust weights their colours
UNSURE = 0.005  # trust at which a splat's colour is half its own, half borrowed
DOUBTFUL, CERTAIN = 0.5, 0.8  # matte at which a splat's colour is borrowed, for background is mixed in, and is its own
LEAST_HAIR = 0.05  # weight with which what looks like skin lends its colour to the scalp: the bald have no other
SIDEWAYS = 0.5  # trust in what is seen edge on, before squaring: hair has no true normal
TURNED_AWAY = -0.3  # cosine beyond which hair is behind the outline in all views, and is split as such
SQUARE, SLANTING = 0.5, 0.2  # cosines from which unseen hair borrows as skin does, and up to which from hair alone
MAX_LIFT_M = 0.045  # what stands off further grows out in finer splats (outgrowth.py)
MAX_COARSE_OFFSET_M = 0.12
MAX_FINE_OFFSET_M = 0.02
MAX_SPACING_M = 0.02
_LIFT_STEPS = 24
_DEPTH_PIXELS = 192
_DEFAULT_FACE = 0.55  # mean sRGB value of a face in the light for which the default colours are meant
SHOULDER_M, MIDDLE = 0.09, (0.1, 1)  # from the torso's middle on; and weights from there to here, before squaring
BARE, CLOTHED = 0.4, 0.6  # parts of the shoulders that are unlike the face, up to which and from which they are so
HIDING = 0.1  # part of the shoulders that speaks for clothes where hair, or what looks like it, is all that shows
LEAST_CLOTH = 0.25  # weight with which what looks like hair counts as clothes
_USUAL_WEIGHT = 0.3  # of hair's or clothes' median colour against colours borrowed from near and far
_DEFAULT_WEIGHT = 1e-6  # of the default colours against borrowed ones: only where nothing of a kind was seen


class FullDecoder(nn.Module):
    """One linear layer per Gaussian's token (the paper); zero output is the template in grey."""

    def __init__(self, width: int):
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(width, width), nn.GELU())
        self.head = nn.Linear(width, ATTRIBUTES)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, spacing: Tensor) -> CanonicalGaussians:
        """``tokens`` (N, width), ``spacing`` (N,) metres."""
        raw = self.head(self.hidden(tokens)).float()
        identity = raw.new_tensor([1.0, 0, 0, 0])
        return CanonicalGaussians(
            offsets=0.1 * torch.tanh(raw[:, 0:3]),
            scales=SCALE_OF_SPACING * spacing[:, None] * torch.exp(raw[:, 3:6].clamp(-4, 2)),
            quats=F.normalize(raw[:, 6:10] + identity, dim=-1),
            opacities=torch.sigmoid(raw[:, 10] + OPACITY_AT_ZERO),
            colors=torch.sigmoid(raw[:, 11:14]),
        )


@dataclass(frozen=True)
class _Splats:
    """N Gaussians on their way from the surface's points to the avatar."""

    surface: Surface
    canonical: CanonicalGaussians
    base_color: Tensor  # (N, 3) what the views show, without what the network adds
    confidence: Tensor  # (N,) in [0, 1]: how far that is the splat's own, not borrowed
    carve: Tensor  # (N,) opacity that the mattes leave
    inner: Tensor  # (N,) bool, as in SurfaceTable
    hairy: Tensor  # (N,) bool
    sinks: Tensor  # (N,) metres
    slack: Tensor  # (N,) metres


class AnchoredDecoder(nn.Module):
    """Anchor tokens + projected image evidence -> Gaussians on any subdivision level."""

    fill: Tensor
    default: Tensor
    smooth: Tensor
    near: Tensor
    hairy: Tensor
    ears: Tensor
    sides: Tensor
    bare: Tensor
    plain: Tensor
    liftable: Tensor
    anchors: Tensor

    def __init__(self, head: HeadModel, anchors: Tensor, width: int, feature_width: int):
        super().__init__()
        self.head_model = [head]  # in a list: the head is no part of this module's weights
        self.register_buffer("anchors", anchors, persistent=False)
        self.register_buffer("fill", fill_kernel(head, anchors), persistent=False)
        self.register_buffer("default", default_colors(head)[anchors], persistent=False)
        self.register_buffer("smooth", smoothing_kernel(head, anchors, 0.015), persistent=False)
        self.register_buffer("near", nearness_kernel(head, anchors), persistent=False)
        self.register_buffer("hairy", hairy_vertices(head)[anchors], persistent=False)
        self.register_buffer("ears", auricles(head)[:, None].to(head.v_template), persistent=False)
        self.register_buffer("sides", sides(head), persistent=False)
        self.register_buffer("bare", bare_skin(head), persistent=False)
        self.register_buffer("plain", plain_skin(head), persistent=False)
        self.register_buffer("liftable", lift_mask(head, anchors), persistent=False)
        self._tables: dict[tuple[int, str], SurfaceTable] = {}
        hidden = 96
        self.evidence = nn.Linear(feature_width + 5, width)
        self.coarse = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 4))
        self.score = nn.Sequential(nn.Linear(feature_width + 6, 32), nn.GELU(), nn.Linear(32, 1))
        self.token_in = nn.Linear(width, hidden)
        self.fine_in = nn.Linear(feature_width + 9, hidden)
        self.fine = nn.Sequential(nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, ATTRIBUTES))
        for block in (self.coarse, self.score, self.fine):
            last = block[-1]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    @property
    def hangers(self) -> Tensor:
        """(K,) base vertices, away from face and mouth, on which hair and clothes beyond the skin may hang."""
        return self.anchors[self.liftable > 0.5]

    def table(self, level: int) -> SurfaceTable:
        """The surface at a subdivision level, on this module's device (cached)."""
        key = (level, str(self.anchors.device))
        if key not in self._tables:
            with torch.inference_mode(False), torch.no_grad():  # what is kept must serve training, too
                self._tables[key] = surface_table(self.head_model[0], self.anchors, level)
        return self._tables[key]

    def hanging(self, surface: Surface) -> Tensor:
        """(N,) in [0, 1]: how far a surface's points are hair and clothes, which depend on the look."""
        base = torch.maximum(self.table(0).spread(self.liftable[:, None])[:, 0], self.on_torso.to(self.liftable))
        return surface.interpolate(base[:, None])[:, 0]

    def of_face(self, surface: Surface) -> Tensor:
        """(N,) bool: a surface's points that look the same in every look."""
        return self.hanging(surface) < 0.1

    def of_ears(self, surface: Surface) -> Tensor:
        """(N,) 0 or 1: a surface's points on the ears and, lest these borrow their own colours, around the rims."""
        return (surface.interpolate(self.ears)[:, 0] > 0).to(self.ears)

    @property
    def on_torso(self) -> Tensor:
        """(V,) bool: base vertices that clothes cover."""
        return self.head_model[0].lbs_weights[:, 0] > 0.5

    @torch.no_grad()
    def looks(self, rig: Rig, views: Views, params: HeadParams, like: int | None = None) -> Looks:
        """Which of the views show the person in one look; ``like`` as in :func:`read_looks`."""
        looks = Looks.one(views)
        if len(views) == 1:
            return looks
        table = self.table(0)
        bare, base = torch.zeros_like(table.points), rig_at(rig, table.surface)
        front = self.front(base, bare, params, table.spacing)
        sources = Sources(views, params, front, looks)  # of its features nothing is asked here
        seen = self.look(base, table.slack, bare, sources, front)
        face = self.of_face(table.surface) & ~table.inner
        beyond = shown_beyond(rig, self.hangers, views, params, front[..., ::2, ::2])
        return read_looks(seen.colors, seen.trust, Parts(face, table.hairy, self.on_torso), beyond, like)

    def look(self, rig: Rig, slack: Tensor, offsets: Tensor, sources: Sources, front: Tensor) -> Sampled:
        """Project the rig's points, moved by ``offsets``, into every view and read what is there.

        A point may lie ``slack`` (N,) metres behind what is seen, whose depth :meth:`front` draws.
        """
        params = sources.params
        points, turn = pose_surface(rig, params)
        normals = torch.lerp(vertex_normals(rig.neutral, rig.head.faces), self.sides, self.ears)
        normal = F.normalize(rig.surface.interpolate(normals), dim=-1)
        points = points + quat_rotate(turn, offsets)
        camera = normalised_camera(1, len(params), points.device)
        uv, depth = project(points, camera)
        facing = (quat_rotate(turn, normal) * F.normalize(-points, dim=-1)).sum(-1)
        with torch.no_grad():
            behind = depth - sample(front, uv)[..., 0]
            visible = torch.sigmoid((slack - behind) / 0.002) * (slack >= 0)  # a soft depth test
        raw = sample(sources.maps, uv)
        colors, matte, valid = raw[..., :3], raw[..., 3], raw[..., 4]
        inside = ((uv > 0) & (uv < 1)).all(-1).float() * (valid > 0.99)
        matte = matte * inside + (1 - inside)
        trust = visible * (SIDEWAYS + (1 - SIDEWAYS) * facing).clamp(0.02, 1) ** 2 * matte**2 * inside
        trust = trust * torch.lerp(facing.new_ones(()), sources.looks.weights[:, None], self.hanging(rig.surface))
        if sources.light is not None:
            light = torch.stack([rig.surface.interpolate(one) for one in sources.light])
            colors = (colors * light).clamp(0, 1)
        believed = torch.ones_like(trust)
        if sources.skin is not None:
            believed = sources.skin.likeness(colors, facing, sources.looks.taken, rig.surface)
        return Sampled(colors, sample(sources.features, uv), matte, trust * believed, facing, depth, believed)

    @torch.no_grad()
    def _informed(self, rig: Rig, seen: Sampled, sources: Sources) -> tuple[Sources, Skin]:
        """``sources`` with what is ``seen`` on the base vertices of other looks' light and of the skin; and that."""
        table, colors, taken = self.table(0), seen.colors, sources.looks.taken

        def around(values: Tensor) -> Tensor:
            return table.spread(self.near @ table.gather(values, len(self.anchors)))

        if not taken.all():
            lasting = (1 - self.hanging(table.surface)).clamp(0, 1) * ~table.inner
            told = light_told(sources.looks, colors, seen.trust, lasting)
            light = torch.where(taken[:, None, None], 1.0, torch.stack([light_of(around(one)) for one in told]))
            sources, colors = replace(sources, light=light), (colors * light).clamp(0, 1)
        folded = folded_lids(rig, sources.params)
        skin = read_skin(colors, seen.trust, seen.facing, taken, self.bare, self.plain, folded, around)
        return replace(sources, skin=skin), skin

    @torch.no_grad()
    def front(self, rig: Rig, offsets: Tensor, params: HeadParams, spacing: Tensor) -> Tensor:
        """Depth of the avatar itself, drawn from each view: (S, 1, P, P) metres, 1000 where nothing is."""
        points, turn = pose_surface(rig, params)
        points = points + quat_rotate(turn, offsets)
        views, count = points.shape[:2]
        camera = normalised_camera(_DEPTH_PIXELS, views, points.device)
        _, depth = project(points, camera)
        identity = points.new_tensor([1.0, 0, 0, 0]).expand(count, 4)
        scales = (0.7 * spacing[:, None]).expand(count, 3)
        drawn, alpha, _ = rasterize(
            points, identity, scales, points.new_full((count,), 0.95), depth[..., None],
            camera.world_to_cam, camera.K, _DEPTH_PIXELS, _DEPTH_PIXELS,
        )  # fmt: skip
        return torch.where(alpha > 0.5, drawn / alpha.clamp_min(0.5), torch.full_like(drawn, 1e3)).permute(0, 3, 1, 2)

    def lift(self, rig: Rig, views: Views, params: HeadParams) -> Tensor:
        """How far hair, cap or collar stand off the skin: (A,) metres along the normal, read from the mattes' outlines.

        From each liftable anchor that a view sees edge on, walk outwards while the matte still shows the person;
        average over views, then smooth over the surface, so that anchors seen only from the front follow their
        neighbours at the outline.
        """
        normals = vertex_normals(rig.neutral, rig.head.faces)[self.anchors]
        posed = rig.head.pose(
            rig.neutral[None].expand(len(params), -1, -1), rig.joints[None].expand(len(params), -1, -1), params
        )
        points = posed.vertices[:, self.anchors]
        normal = quat_rotate(F.normalize(posed.quats[:, self.anchors], dim=-1), normals)
        edge_on = 1 - (normal * F.normalize(-points, dim=-1)).sum(-1).abs()  # 1: on the outline
        weight = ((edge_on - 0.45) / 0.4).clamp(0, 1) * self.liftable
        steps = torch.linspace(0, MAX_LIFT_M, _LIFT_STEPS, device=points.device)
        walk = points[:, :, None] + normal[:, :, None] * steps[:, None]  # (S, A, T, 3)
        uv, _ = project(walk.flatten(1, 2), normalised_camera(1, len(params), points.device))
        person = views.mattes * views.valid
        matte = sample(person[:, None], uv)[..., 0].unflatten(1, (-1, _LIFT_STEPS))
        inside = ((uv > 0.01) & (uv < 0.99)).all(-1).unflatten(1, (-1, _LIFT_STEPS))
        still = torch.cumprod((matte > 0.5).float(), -1)
        height = (still.sum(-1) - 1).clamp_min(0) * (MAX_LIFT_M / (_LIFT_STEPS - 1))
        # an outline that leaves the crop or never ends is no outline
        weight = weight * inside[..., 0] * (inside.float() * still == still).all(-1) * (still[..., -1] == 0)
        heights = (height * weight).sum(0)
        total = weight.sum(0)
        smoothed = self.smooth @ heights + 1e-3 * (self.fill @ heights)
        known = self.smooth @ total + 1e-3 * (self.fill @ total)
        return self.liftable * (smoothed / (known + 0.05)).clamp(0, MAX_LIFT_M)

    def forward(self, rig: Rig, level: int, sources: Sources, former) -> tuple[Rig, CanonicalGaussians, Shares, Tensor]:
        """The rig that carries the Gaussians, they, how much of them feedback may change, and the learned part of the
        surface's offsets, which training keeps small.

        ``former(evidence (A, width)) -> tokens (A, width)`` is the query-former with its token bank bound in."""
        table = self.table(level)
        views, params, taken = sources.views, sources.params, sources.looks.taken
        normals = vertex_normals(rig.neutral, rig.head.faces)
        with torch.no_grad():
            lift = self.lift(rig, views[taken], params[taken])
        anchor_table = self.table(0)
        laid = pressed(rig, self.ears, self.sides, views[taken], params[taken])
        lifted = anchor_table.spread(lift[:, None] * normals[self.anchors]) + anchor_table.moved + laid
        base = rig_at(rig, anchor_table.surface)
        front = self.front(base, lifted, params, anchor_table.spacing)
        first = self.look(base, anchor_table.slack, lifted, sources, front)
        sources, plain = self._informed(base, first, sources)
        tokens = former(self._evidence(first, lift))
        coarse = self.coarse(tokens) * first.turned_away()[self.anchors, None]
        outer = (~table.inner)[:, None]
        given = table.spread(lift[:, None] * normals[self.anchors]) * outer + table.moved
        given = given + table.surface.interpolate(laid)
        learned = table.spread(MAX_COARSE_OFFSET_M * torch.tanh(coarse[:, :3])) * outer
        offsets = given + learned

        # splats grow where the surface is stretched, or lifted hair would show gaps
        placed = table.surface.interpolate(rig.neutral) + offsets
        spacing = point_spacing(placed, table.surface.faces).clamp_max(MAX_SPACING_M)
        rig = rig_at(rig, table.surface)
        front = self.front(rig, offsets, params, spacing)
        seen = self.look(rig, table.slack, offsets, sources, front)
        cues = seen.cues()
        ear = self.of_ears(rig.surface)
        share, confidence = self._shares(seen, cues, ear)
        mixed = (share[..., None] * cues).sum(0)
        sampled = (share[..., None] * seen.colors).sum(0)
        spread_out = ((share[..., None] * seen.colors**2).sum(0) - sampled**2).clamp_min(0).sum(-1, keepdim=True)
        confidence = torch.where(table.teeth, confidence * likeness_of_teeth(sampled), confidence)
        filled, skin, over = self._fill(table, sampled, confidence, seen, ear, taken)
        base_color = plain.with_lids(torch.lerp(filled, sampled, confidence[:, None]), rig.surface)
        carve = carved(seen.matte[taken])
        extra = torch.cat([mixed, confidence[:, None], carve[:, None], spread_out], -1)
        # interpolation is linear, so the first layer runs on the few anchors instead of the many Gaussians
        raw = self.fine(table.spread(self.token_in(tokens)) + self.fine_in(extra))
        opacity = torch.sigmoid(raw[:, 10] + table.spread(coarse[:, 3:4])[:, 0] + OPACITY_AT_ZERO)
        learned = learned + MAX_FINE_OFFSET_M * torch.tanh(raw[:, 0:3]) * outer
        flat = spacing.new_tensor([SCALE_OF_SPACING, SCALE_OF_SPACING, THICKNESS * SCALE_OF_SPACING])
        turned = axis_angle_to_quat(raw[:, 6:9].clamp(-3, 3))
        canonical = CanonicalGaussians(
            offsets=given + learned,
            scales=flat * spacing[:, None] * torch.exp(raw[:, 3:6].clamp(-2, 1.5)),
            quats=quat_multiply(turn_z_to(vertex_normals(placed, table.surface.faces)), turned),
            opacities=opacity,
            colors=(base_color + 0.5 * torch.tanh(raw[:, 11:14])).clamp(0, 1),
        )
        hairy = table.hairy | (over > 0.5)
        splats = _Splats(
            rig.surface, canonical, base_color, confidence, carve, table.inner, hairy, table.sinks, table.slack
        )
        for _ in range(ROUNDS if level >= LEVEL else 0):
            splats, seen = self._split(rig, splats, seen, sources, front)
        rig = rig_at(rig, splats.surface)
        detail = unseen_detail(rig, splats.canonical, splats.hairy, splats.confidence, seen.shown, skin, views, params)
        whole = replace(splats.canonical, colors=(splats.canonical.colors + detail).clamp(0, 1))
        closed = (splats.sinks > 0) & ~splats.hairy
        cut = trim(rig, whole, splats.carve, views[taken], params[taken], ~splats.inner, splats.sinks, closed)
        told = told_best(seen.trust, seen.facing, taken, self.of_face(rig.surface) & ~splats.hairy & ~splats.inner)
        facing = seen.facing[taken].amax(0)
        told = told * seen.believed[taken].amax(0) * plain.taught(facing, rig.surface)
        shares = shares_of(told * told_of(self.of_ears(rig.surface), facing), facing, closed)
        # tongue and cheeks are read by feedback alone, and not where photos show teeth before them
        unlike = 1 - likeness_of_teeth(seen.colors[taken].mean(0))
        return rig, cut, shares.within(splats.slack < 0, unlike), learned

    def _shares(self, seen: Sampled, cues: Tensor, ear: Tensor) -> tuple[Tensor, Tensor]:
        """Each view's share in each point's colour, (S, N), and how much of it is the point's own, (N,)."""
        trust = seen.trust * told_of(ear, seen.facing) ** 2
        logits = BLEND_SHARPNESS * torch.log(trust + 1e-3) + self.score(cues)[..., 0]
        share = torch.softmax(logits, 0)
        total = trust.amax(0)
        within = ((share * seen.matte).sum(0) - DOUBTFUL) / (CERTAIN - DOUBTFUL)
        return share, total / (total + UNSURE) * within.clamp(0.01, 1)

    def _split(
        self, rig: Rig, splats: _Splats, seen: Sampled, sources: Sources, front: Tensor
    ) -> tuple[_Splats, Sampled]:
        """The splats with the coarse ones among them split, each of the four in its own colour; and what is seen of
        all. What was learned of a splat's colour, beyond what is seen, holds for its four."""
        worth = ~splats.inner & (splats.carve > LEAST_CARVE)
        hidden = splats.hairy & (seen.facing.amax(0) < TURNED_AWAY)
        which = coarse_splats(splats.canonical, seen.depth, seen.trust, worth, hidden)
        parent = which.repeat(4)
        four = four_of(splats.canonical, which)
        surface = replace(
            splats.surface,
            parents=splats.surface.parents[parent],
            barycentric=splats.surface.barycentric[parent],
        )
        slack = splats.slack[parent]
        found = self.look(rig_at(rig, surface), slack, four.offsets, sources, front)
        share, confidence = self._shares(found, found.cues(), self.of_ears(surface))
        own = (share[..., None] * found.colors).sum(0)
        color = torch.lerp(splats.base_color[parent], own, confidence[:, None])
        four = replace(four, colors=(color + four.colors - splats.base_color[parent]).clamp(0, 1))
        whole = splats.canonical

        def put(values: Tensor, new: Tensor) -> Tensor:
            return replaced(values, which, new)

        split = _Splats(
            surface=replace(
                splats.surface,
                parents=put(splats.surface.parents, surface.parents),
                barycentric=put(splats.surface.barycentric, surface.barycentric),
            ),
            canonical=CanonicalGaussians(
                **{name: put(value, getattr(four, name)) for name, value in vars(whole).items()}
            ),
            base_color=put(splats.base_color, color),
            confidence=put(splats.confidence, torch.maximum(confidence, splats.confidence[parent])),
            carve=put(splats.carve, carved(found.matte[sources.looks.taken])),
            inner=put(splats.inner, splats.inner[parent]),
            hairy=put(splats.hairy, splats.hairy[parent]),
            sinks=put(splats.sinks, splats.sinks[parent]),
            slack=put(splats.slack, slack),
        )
        merged = {name: put(value.transpose(0, 1), getattr(found, name).transpose(0, 1)).transpose(0, 1)
                  for name, value in vars(seen).items()}  # fmt: skip
        return split, Sampled(**merged)

    def _evidence(self, seen: Sampled, lift: Tensor) -> Tensor:
        """Mean of what the views say of each anchor, as input of its query. (A, width)."""
        at = self.anchors  # level 0's points are the base vertices
        trust = seen.trust[:, at, None] + 1e-3
        share = trust / trust.sum(0)
        content = torch.cat([seen.features[:, at], seen.colors[:, at], seen.matte[:, at, None]], -1)
        return self.evidence(torch.cat([(share * content).sum(0), lift[:, None] * 10], -1))

    def _fill(
        self, table: SurfaceTable, colors: Tensor, confidence: Tensor, seen: Sampled, ear: Tensor, taken: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Colours for what no view shows, borrowed over the surface from what is seen, (N, 3); the face's mean colour,
        (3,); and how far hair hides each point of an ear, (N,)."""
        # deep in the mouth it is dark: what lies there borrows a colour in its own light, and lends little
        lends = (confidence * table.tint.amin(-1) ** 2)[:, None]
        gathered = table.gather(torch.cat([colors * lends, table.tint * lends], -1), len(self.anchors))
        borrowed, told = (self.fill @ gathered).split(3, -1)
        face = gathered[self.liftable == 0].sum(0)
        skin = face[:3] / face[3:].clamp_min(1e-6)
        light = (skin.mean() / _DEFAULT_FACE).clamp(0.1, 1.2)  # mouths are as dark as the photo's faces
        default = _DEFAULT_WEIGHT * light * self.default
        filled = table.spread((borrowed + default) / (told + _DEFAULT_WEIGHT)) * table.tint

        away = ((SQUARE - seen.facing.amax(0)) / (SQUARE - SLANTING)).clamp(0, 1)
        # Where it is turned away only hair lends to hair, the more the less it looks like the face and the better
        # it is seen: forehead, ears and background beside the hair are none.
        hair = table.hairy * seen.trust.amax(0) * unlikeness(colors, skin).clamp_min(LEAST_HAIR) * confidence
        if float(hair.detach().sum()) < 1:
            return self._clothed(table, filled, colors, confidence, away, skin, skin), skin, torch.zeros_like(ear)
        usual = torch.cat([weighted_median(colors, hair), hair.new_ones(1)])
        lent = torch.cat([colors * hair[:, None], hair[:, None]], -1)
        behind = self.fill @ (self.hairy[:, None] * table.gather(lent, len(self.anchors))) + _USUAL_WEIGHT * usual
        hidden = table.hairy * away
        trust = seen.shown[taken]
        shown = (trust[..., None] * seen.colors[taken]).sum(0) / trust.sum(0).clamp_min(1e-6)[:, None]
        nearer = (shown - usual[:3]).norm(dim=-1) < (shown - skin).norm(dim=-1)
        over = hidden_by_hair(table.points, ear, nearer & (unlikeness(usual[:3], skin) > HAIR), trust.amax(0))
        hidden = torch.maximum(hidden, over)
        filled = self._clothed(table, filled, colors, confidence, away, skin, usual[:3])
        return torch.lerp(filled, table.spread(behind[:, :3] / behind[:, 3:]), hidden[:, None]), skin, over

    def _clothed(
        self, table: SurfaceTable, filled: Tensor, colors: Tensor, own: Tensor, away: Tensor, skin: Tensor, hair: Tensor
    ) -> Tensor:
        """``filled`` (N, 3) where clothes go on that no photo shows, behind and below it, if the shoulders wear any.

        Clothes are what does not look like the face's ``skin`` (3,), on the shoulders above all: a jacket is in the
        middle a shirt; and hair hangs before them, so what looks like ``hair`` (3,) counts little, nor does it say
        whether there are any. ``own`` (N,) as in ``_Splats.confidence``, ``away`` (N,) in [0, 1]: how far a point is
        turned away from all views.
        """
        torso = table.surface.interpolate(self.on_torso.to(colors)[:, None])[:, 0]
        out = table.points[:, 0].abs() / SHOULDER_M
        unlike, seen = unlikeness(colors, skin), torso * own
        cloth = seen * unlike * unlikeness(colors, hair).clamp_min(LEAST_CLOTH) * out.clamp(*MIDDLE) ** 2
        if float(cloth.detach().sum()) < 1:
            return filled
        usual = torch.cat([weighted_median(colors, cloth), cloth.new_ones(1)])
        lent = table.gather(torch.cat([colors * cloth[:, None], cloth[:, None]], -1), len(self.anchors))
        lent = self.fill @ (self.on_torso[self.anchors][:, None] * lent) + _USUAL_WEIGHT * usual
        shoulders = seen * (out > 1)
        shown, hiding = shoulders * unlikeness(colors, hair), HIDING * shoulders.sum()
        covered = ((shown * unlike).sum() + hiding) / (shown.sum() + hiding).clamp_min(1e-6)
        share = torso * torch.maximum(away, 1 - own) * ((covered - BARE) / (CLOTHED - BARE)).clamp(0, 1)
        return torch.lerp(filled, table.spread(lent[:, :3] / lent[:, 3:]), share[:, None])


def rig_at(rig: Rig, surface: Surface) -> Rig:
    """The same person with other points on the surface."""
    return replace(rig, surface=surface)
