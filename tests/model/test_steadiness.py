"""Where detail of its own is held back: on skin that unfolds in motion, unless a view shows it unfolded."""

from __future__ import annotations

import torch
from made_avatar import small_avatar

from ffavatar.model.steadiness import BORDER_SHARE, steadiness


def test_folded_lids_and_lips_are_held_back() -> None:
    rig = small_avatar().rig  # at level 0 the Gaussians hang on the base vertices themselves
    regions, names = rig.head.regions, rig.head.expression_names
    open_eyed = small_avatar().neutral_params(2)
    open_eyed.root[1, 1] = 0.3
    held = steadiness(rig, open_eyed)
    assert held.shape == (len(small_avatar()),) and 0 < float(held.amin()) and float(held.amax()) <= 1
    for steady in ("scalp", "torso", "teeth", "eyeballs"):
        assert float(held[regions[steady]].amin()) > 0.99, steady
    lids = regions["eyelids"]
    assert int((held[lids] < 0.3 * BORDER_SHARE).sum()) > 20  # the skin that a blink unfolds
    assert float(held[regions["lips"] | lids].amax()) <= BORDER_SHARE + 1e-6
    assert float(held.mean()) > 0.9  # and little else

    blinking = small_avatar().neutral_params(2)
    for name in ("eyeBlinkLeft", "eyeBlinkRight"):
        blinking.expression[1, names.index(name)] = 1
    seen_closed = steadiness(rig, blinking)
    assert float(seen_closed[lids].amin()) > 0.99 * BORDER_SHARE  # a view shows them
    torch.testing.assert_close(seen_closed[regions["lips"]], held[regions["lips"]], atol=0.02, rtol=0)


def test_turn_and_place_do_not_matter() -> None:
    """Ratios of areas: nor does the number of the views."""
    rig = small_avatar().rig
    params = small_avatar().neutral_params(3)
    params.root[:, 1] = torch.tensor([-0.5, 0.0, 0.5])
    params.translation[:, 2] -= torch.tensor([0.0, 0.1, 0.2])
    torch.testing.assert_close(steadiness(rig, params), steadiness(rig, params[:1]), atol=2e-3, rtol=0)
