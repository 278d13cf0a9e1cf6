"""Inside of the mouth: darker the deeper, and teeth that are no skin."""

from __future__ import annotations

from dataclasses import replace

import torch

from ffavatar.head import load_head
from ffavatar.model import create_model
from ffavatar.model.anchors import part_labels, surface_table
from ffavatar.model.colours import likeness_of_teeth
from ffavatar.model.config import TINY
from ffavatar.model.ears import DARKEST, auricles
from ffavatar.model.reading import Sampled


def test_the_mouth_is_darker_the_deeper_it_lies() -> None:
    head = load_head()
    table = surface_table(head, torch.arange(0, len(head.v_template), 7), 1)
    labels, depth = part_labels(head)[table.surface.parents[:, 0]], -table.points[:, 2]
    for label in (1, 4):  # interior, tongue
        part = labels == label
        light = table.tint[part][depth[part].argsort()]
        assert light.diff(dim=0).max() < 1e-6 and 0 < light[-1].mean() < 0.5 * light[0].mean()
    ear = table.surface.interpolate(auricles(head)[:, None].float())[:, 0] > 0
    assert (table.tint[(labels == 0) & ~ear | (labels == 2)] == 1).all()  # skin, eyeballs
    assert table.tint[ear].min() >= 1 - DARKEST and (table.tint[ear] == table.tint[ear, :1]).all()


def test_teeth_have_gums_beyond_their_crowns() -> None:
    """Each arc is one sheet, 15 to 20 mm high: of the front teeth the 8 mm by the biting edge are teeth."""
    head = load_head()
    table = surface_table(head, torch.arange(0, len(head.v_template), 7), 2)
    for name, up in (("teeth_upper", -1.0), ("teeth_lower", 1.0)):
        part = head.regions[name][table.surface.parents].all(1) & (table.points[:, 0].abs() < 0.004)
        part &= table.points[:, 2] > head.v_template[head.regions[name], 2].max() - 0.005
        height = up * table.points[part, 1]
        from_edge = height.max() - height
        redness = table.tint[part, 0] / table.tint[part, 1]
        assert (redness[from_edge < 0.006] < 1.1).all() and (redness[from_edge > 0.010] > 1.4).all()
        assert (from_edge < 0.006).sum() > 3 and (from_edge > 0.010).sum() > 3


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
    light = table.tint[:, 0]
    front = table.teeth & (light > 0.9)
    count = len(table.points)
    seen = Sampled(
        *(torch.zeros(1, count, *width) for width in ((3,), (4,), (), (), (), ())), torch.ones(1, count)
    )  # nothing else is seen, so no hair lends
    no_ear, taken = torch.zeros(count), torch.tensor([True])
    filled, *_ = decoder._fill(table, torch.full((count, 3), 0.9), front.float(), seen, no_ear, taken)
    assert front.any()
    for low, high in ((0.5, 0.6), (0.3, 0.4)):
        rear = table.teeth & (light > low) & (light < high)
        assert rear.any() and low - 0.1 < filled[rear, 0].mean() / filled[front, 0].mean() < high + 0.1
