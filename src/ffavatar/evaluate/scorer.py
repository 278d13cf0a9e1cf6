"""From a method's pictures to its figures (``figures.FIGURES`` defines them)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ffavatar.evaluate import baselines
from ffavatar.evaluate.dlib_net import load_dlib_identity
from ffavatar.evaluate.figures import PSNR_CAP_DB, Scores, check_scores
from ffavatar.evaluate.identity import load_identity
from ffavatar.evaluate.lpips import LPIPS, load_lpips
from ffavatar.evaluate.methods import Prediction
from ffavatar.evaluate.metrics import (
    acceleration_error,
    check_pair,
    keypoint_distance,
    landmark_error,
    matte_iou,
    psnr,
    ssim,
)
from ffavatar.evaluate.ruler import Reading, Ruler, pose_and_expression
from ffavatar.types import Views


class FaceNet(Protocol):
    """What is needed of an identity network."""

    def embed(self, images: Tensor, landmarks: Tensor) -> Tensor:
        """(B, D) unit embeddings of pictures (B, H, W, 3), aligned by landmarks (B, 478, 3)."""


class Scorer:
    """Computes the figures of a prediction. What is not given is not measured: VGG, dlib's net, the ruler."""

    def __init__(
        self,
        lpips: LPIPS,
        identity: FaceNet,
        vgg: LPIPS | None = None,
        dlib: FaceNet | None = None,
        ruler: Ruler | None = None,
    ):
        self.lpips, self.identity, self.vgg, self.dlib, self.ruler = lpips, identity, vgg, dlib, ruler
        self._read: list[tuple[Tensor, Reading]] = []

    @torch.no_grad()
    def score(self, prediction: Prediction, source: Views, target: Views) -> Scores:
        """One figure per target for each metric that is defined; ``source`` are the views that the method was given.

        Raises ``ValueError`` for pictures of another shape than the targets', or outside [0, 1].
        """
        shown, wanted, valid = prediction.images, target.on_white(), target.valid
        check_pair(shown, wanted, valid)
        inside = valid[..., None] != 0
        masked = torch.where(inside, shown, 1.0)
        person = ((target.mattes * valid) > 0.5).to(valid)
        nearest = source[baselines.nearest_source(source, target)]
        scores: Scores = {}

        def add(name: str, value: float | Tensor) -> None:
            scores.setdefault(name, []).append(float(value))

        for index in range(len(target)):  # one by one: the planes of a picture then stay in the processor's cache
            row = slice(index, index + 1)
            photo, picture, where, points = wanted[row], shown[row], valid[row], target.landmarks[row]
            face = self.identity.embed(photo, points)
            add("psnr", psnr(picture, photo, where).clamp(max=PSNR_CAP_DB))
            add("ssim", ssim(picture, photo, where))
            add("lpips", self.lpips(picture, photo, where))
            add("identity", (self.identity.embed(masked[row], points) * face).sum())
            source_face = self.identity.embed(nearest.on_white()[row], nearest.landmarks[row])
            add("ceiling", (source_face * face).sum())
            add("psnr_person", psnr(picture, photo, person[row]).clamp(max=PSNR_CAP_DB))
            add("ssim_person", ssim(picture, photo, person[row]))
            add("lpips_person", self.lpips(picture, photo, person[row]))
            if self.vgg is not None:
                add("lpips_vgg", self.vgg(picture, photo, where))
            if self.dlib is not None:
                add("identity_dlib", (self.dlib.embed(masked[row], points) * self.dlib.embed(photo, points)).sum())
        if prediction.landmarks is not None:
            scores["landmarks"] = landmark_error(prediction.landmarks, target.landmarks).tolist()
        if prediction.mattes is not None:
            scores["matte_iou"] = matte_iou(prediction.mattes, target.mattes * valid, valid).tolist()
        if self.ruler is not None:
            seen, true = self.ruler.read(masked), self._reading(wanted)
            distances = keypoint_distance(seen.landmarks, true.landmarks).tolist()
            both = (seen.found & true.found).tolist()
            scores["found"] = seen.found.float().tolist()
            scores["akd"] = [d if b else None for d, b in zip(distances, both)]
            scores["apd"], scores["aed"] = pose_and_expression(seen, true)
        check_scores(scores)
        return scores

    @torch.no_grad()
    def score_cross(self, prediction: Prediction, source: Views, driver: Views) -> Scores:
        """As ``score`` where source and driver are different people: is it the source, and does it do as the driver?

        Raises ``ValueError`` for pictures outside [0, 1], and without a ruler.
        """
        if self.ruler is None:
            raise ValueError("cross-reenactment needs the ruler: nothing else tells where the rendering's face is")
        check_pair(prediction.images, driver.on_white(), None)
        seen, true = self.ruler.read(prediction.images), self._reading(driver.on_white())
        scores: Scores = {"found": seen.found.float().tolist()}
        for name, net in (("identity", self.identity), ("identity_dlib", self.dlib)):
            if net is not None:
                person = net.embed(source.on_white(), source.landmarks).mean(0)
                faces = net.embed(prediction.images, seen.landmarks)
                cosines = (faces @ (person / person.norm())).tolist()
                scores[name] = [c if f else None for c, f in zip(cosines, seen.found.tolist())]
        scores["apd"], scores["aed"] = pose_and_expression(seen, true)
        check_scores(scores)
        return scores

    @torch.no_grad()
    def jitter(self, prediction: Prediction, target: Views) -> Scores:
        """The figure of consecutive frames; empty where a face is not found in one of them, or without a ruler."""
        if self.ruler is None:
            return {}
        inside = target.valid[..., None] != 0
        seen, true = self.ruler.read(torch.where(inside, prediction.images, 1.0)), self._reading(target.on_white())
        if not bool((seen.found & true.found).all()):
            return {"jitter": []}
        scores: Scores = {"jitter": acceleration_error(seen.landmarks, true.landmarks).tolist()}
        check_scores(scores)
        return scores

    def _reading(self, images: Tensor) -> Reading:
        """The ruler's reading of targets; the last few are kept, for every method has the same."""
        assert self.ruler is not None
        for known, reading in self._read:
            if torch.equal(known, images):
                return reading
        reading = self.ruler.read(images)
        self._read = [*self._read[-3:], (images, reading)]
        return reading


SCORERS: Sequence[str] = ("core", "all")


def load_scorer(which: str = "all", ruler: bool = True) -> Scorer:
    """``core``: PSNR, SSIM, LPIPS-Alex, MobileFaceNet; ``all`` adds VGG, dlib's net and the ruler.

    ``ruler`` keeps the ruler in ``core`` too. Networks are fetched on first use. Raises ``InputError`` where that
    fails.
    """
    full = which == "all"
    return Scorer(
        load_lpips("alex"),
        load_identity(),
        load_lpips("vgg") if full else None,
        load_dlib_identity() if full else None,
        Ruler() if full or ruler else None,
    )
