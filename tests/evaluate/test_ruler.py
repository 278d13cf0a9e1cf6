"""The ruler on stand-ins whose readings are known, and on the shipped networks where a face is drawn."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from made_views import landmark_cloud, made_views
from torch import nn

from ffavatar.evaluate.identity import IdentityNet
from ffavatar.evaluate.lpips import LPIPS
from ffavatar.evaluate.methods import Prediction
from ffavatar.evaluate.ruler import Reading, Ruler, pose_and_expression
from ffavatar.evaluate.scorer import Scorer
from ffavatar.types import HeadParams


def params(yaw: list[float], expression: list[list[float]]) -> HeadParams:
    still = HeadParams.neutral(len(yaw), len(expression[0]))
    still.root[:, 1] = torch.tensor(yaw) / 2
    still.neck[:, 1] = torch.tensor(yaw) / 2  # about one axis: turns add up
    still.expression[:] = torch.tensor(expression)
    return still


def test_pose_and_expression_distances_pair_the_frames_that_both_show() -> None:
    points = torch.zeros(3, 478, 3)
    shown = Reading(torch.tensor([True, False, True]), points, params([0.1, 0.3], [[0.0, 0.2], [1.0, 0.0]]))
    target = Reading(torch.tensor([True, True, True]), points, params([0.1, 9, 0.5], [[0.0, 0.4], [9, 9], [0.0, 0.0]]))
    apd, aed = pose_and_expression(shown, target)
    assert apd[1] is None and aed[1] is None
    assert apd[0] == pytest.approx(0, abs=1e-4) and apd[2] == pytest.approx(
        torch.rad2deg(torch.tensor(0.2)).item(), rel=1e-4
    )
    assert aed[0] == pytest.approx(0.1) and aed[2] == pytest.approx(0.5)
    nobody = Reading(torch.zeros(3, dtype=torch.bool), points, None)
    assert pose_and_expression(nobody, target) == ([None] * 3, [None] * 3)


class Brightness(nn.Module):
    """A landmarker that finds a face in bright pictures and puts it where the brightness says."""

    def forward(self, images):
        level = images.mean()
        points = (landmark_cloud() + torch.tensor([1.0, 0, 0]) * (level - 0.5)) * images.shape[1]
        return SimpleNamespace(
            points=points[None], presence=(level > 0.3).float()[None], blendshapes=torch.zeros(1, 52)
        )


class Full(nn.Module):
    def forward(self, crops, valid, landmarks):
        return valid


class ByPlace(nn.Module):
    def forward(self, views, identity=None):
        place = views.landmarks[:, 0, 0].tolist()
        return SimpleNamespace(params=params(place, [[p, p] for p in place]))


def test_scorer_measures_what_the_ruler_reads() -> None:
    torch.manual_seed(0)
    scorer = Scorer(LPIPS("alex"), IdentityNet(), ruler=Ruler(Brightness(), Full(), ByPlace()))
    views = made_views([landmark_cloud()] * 3)
    perfect = scorer.score(Prediction(views.on_white()), views, views)
    assert (
        perfect["found"] == [1, 1, 1] and perfect["akd"] == [0, 0, 0] and perfect["apd"] == perfect["aed"] == [0, 0, 0]
    )
    shown = views.on_white().clone()
    shown[1] *= 0.1  # too dark to find a face
    shown[2] *= 0.9
    worse = scorer.score(Prediction(shown), views, views)
    shift = 0.1 * float(views.on_white()[2].mean())
    assert worse["found"] == [1, 0, 1] and worse["akd"][1] is None and worse["aed"][1] is None
    assert worse["akd"][2] == pytest.approx(256 * shift, rel=1e-3)
    assert worse["aed"][2] == pytest.approx(shift, rel=1e-2)
    assert worse["psnr"][1] < worse["psnr"][2] < perfect["psnr"][0] == 100
    cross = scorer.score_cross(Prediction(shown), views[:1], views)
    assert set(cross) == {"found", "identity", "apd", "aed"} and cross["identity"][1] is None
    assert scorer.jitter(Prediction(shown), views) == {"jitter": []}
    assert scorer.jitter(Prediction(views.on_white()), views)["jitter"] == pytest.approx([0])


def test_shipped_networks_read_equal_pictures_alike() -> None:
    """A synthetic face: found, and at distance zero from itself; a white picture is no face."""
    from ffavatar.data.synthetic import synthetic_person

    picture = torch.from_numpy(synthetic_person(3, shots=1, size=192).images).float() / 255
    pictures = torch.cat([picture, torch.ones_like(picture)])
    ruler = Ruler()
    first = ruler.read(pictures)
    assert first.found.tolist() == [True, False] and first.params is not None and len(first.params) == 1
    apd, aed = pose_and_expression(first, ruler.read(pictures))
    assert (apd, aed) == ([0.0, None], [0.0, None])
