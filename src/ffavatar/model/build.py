"""The only place where a model is wired together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffavatar.animate import Rig
from ffavatar.devices import choose_device
from ffavatar.errors import InputError
from ffavatar.head import HeadModel, load_head
from ffavatar.model.anchors import NEIGHBOURS, choose_anchors, point_spacing
from ffavatar.model.back_hair import hang_behind
from ffavatar.model.config import PRESETS, ModelConfig
from ffavatar.model.decoder import AnchoredDecoder, FullDecoder
from ffavatar.model.encoder import NORM_GROUPS, STRIDE, ConvEncoder, DinoEncoder
from ffavatar.model.estimator import DinoEstimator, Estimate, LandmarkEstimator
from ffavatar.model.feedback import Shares
from ffavatar.model.looks import Looks
from ffavatar.model.outgrowth import outgrow
from ffavatar.model.query_former import QueryFormer
from ffavatar.model.reading import Sources
from ffavatar.types import CanonicalGaussians, Views


@dataclass(frozen=True)
class Reconstruction:
    """What one forward pass makes of S source views."""

    rig: Rig
    canonical: CanonicalGaussians
    shares: Shares  # how much of the Gaussians rendering feedback may change
    estimate: Estimate  # of the source views
    learned_offsets: Tensor  # (surface points, 3) metres: the part of the offsets that training keeps small
    looks: Looks  # of the source views


class FFAvatar(nn.Module):
    """Source views -> canonical Gaussians, target views -> head parameters."""

    def __init__(self, config: ModelConfig, head: HeadModel):
        super().__init__()
        self.config = config
        self.head = head
        self.estimator: LandmarkEstimator | DinoEstimator
        self.decoder: AnchoredDecoder | FullDecoder
        if config.estimator == "landmark":
            self.estimator = LandmarkEstimator(head, config.fit_iterations)
        else:
            self.estimator = DinoEstimator(config.vit, head.expdirs.shape[2])
        if config.encoder == "conv":
            self.encoder: nn.Module = ConvEncoder(config.width, config.feature_width)
            token_width = config.width
        else:
            self.encoder = DinoEncoder(config.vit)
            token_width = self.encoder.width
        if config.queries == "anchored":
            anchors = choose_anchors(head, config.anchors)
            queries = len(anchors)
            self.decoder = AnchoredDecoder(head, anchors, config.width, config.feature_width)
        else:
            queries = config.full_queries
            self.decoder = FullDecoder(config.width)
        self.former = QueryFormer(queries, config.width, config.depth, config.heads, token_width)

    def reconstruct(
        self, source: Views, level: int | None = None, estimate: Estimate | None = None, looks: Looks | None = None
    ) -> Reconstruction:
        """The forward pass: any number of views of one person, in any order, to one avatar.

        ``level`` subdivisions of the head (the preset's by default); ``estimate`` replaces the estimator's own
        reading of the sources (training may give exact labels), ``looks`` what is found of their hair and clothes.
        """
        if len(source) == 0:
            raise InputError("No source view to reconstruct from; give at least one photo with a face.")
        level = self.config.surface_level if level is None else level
        estimate = self.estimator(source) if estimate is None else estimate
        small = _resized(source, self.config.image_size)
        encoded = self.encoder(small.on_white(), small.mattes * small.valid)
        if isinstance(self.decoder, AnchoredDecoder):
            rig = Rig.of(self.head, estimate.identity, self.decoder.table(level).surface)
            positions = self.head.v_template[self.decoder.anchors]

            def former(evidence: Tensor) -> Tensor:
                return self.former(positions, encoded.tokens, evidence)

            params = estimate.params
            looks = looks or self.looks(source, estimate)
            sources = Sources(looks.relit(source), params, encoded.feature_map, looks)
            rig, canonical, shares, learned = self.decoder(rig, level, sources, former)
            taken = looks.taken
            told, hangers, surface = (source[taken], params[taken]), self.decoder.hangers, len(canonical)
            rig, canonical, in_slit = outgrow(rig, canonical, *told, hangers, level)
            shares = shares.joined(len(canonical), 1.0)  # what has grown is the look's own
            shares = replace(shares, colors=shares.colors * ~in_slit)
            rig, canonical = hang_behind(rig, canonical, len(canonical) - surface, *told, hangers, level)
            shares = shares.joined(len(canonical), 0.0)  # of what hangs behind the photos show nothing
        else:
            identity = self.head.shapedirs.new_zeros(self.head.shapedirs.shape[2])
            rig = Rig.of(self.head, identity, self.head.surface(level))
            points = rig.points()
            if len(points) > self.config.full_queries:
                raise InputError(
                    f"This head has {len(points)} surface points at level {level}, but the model only "
                    f"{self.config.full_queries} queries; use a smaller level."
                )
            tokens = self.former(points, encoded.tokens)
            canonical = self.decoder(tokens, point_spacing(points, rig.surface.faces))
            learned, looks = canonical.offsets, Looks.one(source)
            shares = Shares.whole(canonical.opacities)
        return Reconstruction(rig, canonical, shares, estimate, learned, looks)

    def looks(self, source: Views, estimate: Estimate, like: int | None = None) -> Looks:
        """From which of the views hair and clothes are taken: those of one look with view ``like``, or of the look that
        is shown most. ``full`` queries know no looks: all are blended."""
        if isinstance(self.decoder, FullDecoder):
            return Looks.one(source)
        rig = Rig.of(self.head, estimate.identity, self.decoder.table(0).surface)
        return self.decoder.looks(rig, source, estimate.params, like)


def _resized(views: Views, size: int) -> Views:
    """The same views at ``size`` pixels a side, antialiased."""
    if views.images.shape[1] == size:
        return views

    def shrink(maps: Tensor) -> Tensor:
        return F.interpolate(maps, (size, size), mode="bilinear", align_corners=False, antialias=True)

    return Views(
        shrink(views.images.permute(0, 3, 1, 2)).permute(0, 2, 3, 1),
        shrink(views.mattes[:, None])[:, 0],
        shrink(views.valid[:, None])[:, 0],
        views.landmarks,
        views.blendshapes,
    )


def create_model(preset: str | ModelConfig = "lite", head: HeadModel | None = None) -> FFAvatar:
    """A model with untrained weights (``lite``'s zero output already is a working avatar).

    Raises:
        InputError: an unknown preset, or sizes that do not fit together.
    """
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise InputError(f"There is no preset {preset!r}; choose one of {', '.join(PRESETS)}.")
        config = PRESETS[preset]
    else:
        config = preset
    head = head if head is not None else load_head()
    _check(config, head)
    return FFAvatar(config, head)


def _check(config: ModelConfig, head: HeadModel) -> None:
    """Raises ``InputError`` for sizes that do not fit together, or not with the head."""
    if config.width % config.heads:
        raise InputError(f"width {config.width} is not a multiple of heads {config.heads}.")
    if config.encoder == "conv":
        for name, parts in (("width", NORM_GROUPS), ("feature_width", NORM_GROUPS), ("image_size", STRIDE)):
            if (size := getattr(config, name)) % parts:
                raise InputError(f"{name} {size} is not a multiple of {parts}, which encoder='conv' needs.")
    if config.anchors < NEIGHBOURS:
        raise InputError(f"anchors {config.anchors} are too few; use {NEIGHBOURS} or more.")
    if config.estimator == "landmark" and not len(head.landmark_faces):
        raise InputError(
            f"estimator='landmark' fits landmarks, which the head {head.edition} does not have; use the embedded head."
        )
    if config.queries == "anchored" and config.encoder != "conv":
        raise InputError("Anchored queries need a feature map; use encoder='conv', or queries='full'.")
    if config.queries == "anchored" and config.estimator != "landmark":
        raise InputError("Anchored queries project with an identity; use estimator='landmark', or queries='full'.")


@torch.inference_mode(False)  # else a model loaded under a caller's inference mode could never be trained
def load_model(
    preset: str | ModelConfig | None = None, weights: str | Path | None = None, device: str | torch.device = "cpu"
) -> FFAvatar:
    """A model with weights: the shipped ones of the preset, or the safetensors file ``weights``; ``device`` as
    ``choose_device`` takes it, ``auto`` among them. Without a preset it is what the file says it is, as files of
    ``ffavatar train`` do, or ``lite``.

    Raises:
        InputError: no weights ship for the preset, the file does not fit it, or the device is not there.
    """
    from ffavatar.model.weights import config_in, shipped, state_from

    device = choose_device(device)
    if preset is None:
        preset = (config_in(weights) if weights is not None else None) or "lite"
    model = create_model(preset)
    preset = model.config.preset
    state = shipped(preset) if weights is None else state_from(weights)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items() if not name.startswith("head.")}
    given = {name: tuple(value.shape) for name, value in state.items()}
    if expected != given:
        wrong = sorted(set(expected.items()) ^ set(given.items()))[:4]
        source = weights if weights is not None else f"shipped {preset}"
        raise InputError(
            f"The weights {source} do not fit preset {preset!r}: {wrong}; train or choose weights made for it."
        )
    model.load_state_dict({name: value.float() for name, value in state.items()}, strict=False)
    return model.to(device).eval()
