"""Inside of the mouth: darker the deeper, and teeth that are no skin."""

from __future__ import annotations

from dataclasses import replace

import torch

from ffavatar.head import load_head
from ffavatar.model import create_model
from ffavatar.model.anchors import default_colors, mouth_light, part_labels, surface_table
from ffavatar.model.config import TINY
from ffavatar.model.decoder import Sampled, likeness_of_teeth


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


def test_teeth_and_tongue_come_down_and_nothing_else_moves() -> None:
    head = load_head()
    table = surface_table(head, torch.arange(0, len(head.v_template), 7), 1)
    parts = {name: head.regions[name][table.surface.parents[:, 0]] for name in ("teeth_upper", "teeth_lower", "tongue")}
    for part in parts.values():
        assert -0.01 < table.moved[part, 1].max() < 0
    assert (table.moved[:, 1] < 0).sum() == sum(int(part.sum()) for part in parts.values())
    assert table.moved[~torch.stack(list(parts.values())).any(0)].abs().max() == 0
    # with the mouth shut the rows still meet: the upper edge of one is not above the lower edge of the other
    heights = [(table.points + table.moved)[parts[name], 1] for name in ("teeth_upper", "teeth_lower")]
    assert heights[0].min() < heights[1].max()


def test_what_lies_deep_borrows_a_colour_in_its_own_light() -> None:
    """White front teeth are all that photos show of a mouth: the rear ones are as much darker as it is darker there."""
    head = load_head()
    torch.manual_seed(0)
    decoder = create_model(replace(TINY, anchors=2000), head).decoder
    table = decoder.table(1)
    light = mouth_light(head)[table.surface.parents[:, 0]]
    front = table.teeth & (light > 0.9)
    count = len(table.points)
    seen = Sampled(
        *(torch.zeros(1, count, *width) for width in ((3,), (4,), (), (), (), ()))
    )  # nothing else is seen, so no hair lends
    filled, _ = decoder._fill(table, torch.full((count, 3), 0.9), front.float(), seen)
    rear = table.teeth & (light < 0.7)
    assert front.any() and rear.any()
    assert filled[rear].mean() / filled[front].mean() < 0.8
    assert filled[rear].mean() / filled[front].mean() > 0.5
