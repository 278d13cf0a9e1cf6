"""Inside of the mouth: darker the deeper, and teeth that are no skin."""

from __future__ import annotations

import torch

from ffavatar.head import load_head
from ffavatar.model.anchors import default_colors, part_labels, surface_table
from ffavatar.model.decoder import likeness_of_teeth


def test_the_mouth_is_darker_the_deeper_it_lies() -> None:
    head = load_head()
    colors, labels, depth = default_colors(head), part_labels(head), -head.v_template[:, 2]
    for label in (1, 3, 4):  # interior, teeth, tongue
        part = labels == label
        order = depth[part].argsort()
        brightness = colors[part].mean(1)[order]
        assert brightness.diff().max() < 1e-6 and brightness[-1] < 0.6 * brightness[0]
        assert brightness[-1] > 0.2 * brightness[0]
    for label in (0, 2):  # skin, eyeballs
        assert colors[labels == label].std(0).max() < 1e-6


def test_teeth_are_marked_and_pale() -> None:
    head = load_head()
    table = surface_table(head, torch.arange(0, len(head.v_template), 7), 1)
    assert 0 < int(table.teeth.sum()) < int(table.inner.sum())
    assert torch.equal(table.teeth, head.regions["teeth"][table.surface.parents[:, 0]])
    tooth, lip, skin, dark = (0.85, 0.8, 0.74), (0.7, 0.4, 0.4), (0.8, 0.62, 0.52), (0.2, 0.19, 0.18)
    assert likeness_of_teeth(torch.tensor([tooth, lip, skin, dark])).tolist() == [1, 0, 0, 1]
