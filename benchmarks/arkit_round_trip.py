"""ARKit -> avatar -> picture -> landmarker -> estimator -> ARKit: how much of a coefficient comes back.

    python benchmarks/arkit_round_trip.py [--size 256] [--markdown FILE]

A synthetic person's avatar (seed 7 of the demo) shows each of the 52 coefficients alone at 0, 0.35 and 0.7,
mouth-closing ones on an open jaw; the pictures are read as any film frame is. For each coefficient: the gain (rise of
what comes back per rise of what went in), and how much everything else moves.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ffavatar.api import model_for
from ffavatar.demo import synthetic_views
from ffavatar.drive.arkit import ARKIT_NAMES, EDITION, to_arkit
from ffavatar.drive.motion import Motion
from ffavatar.drive.retarget import retarget
from ffavatar.photo import FrontEnd
from ffavatar.pipeline import drive, reconstruct
from ffavatar.types import HeadParams, Views

LEVELS = (0.0, 0.35, 0.7)
ON_OPEN_JAW = ("mouthClose", "tongueOut")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, eyes = model_for(None, "cpu"), FrontEnd("cpu")
    avatar = reconstruct(model, synthetic_views(), 2)
    rows = torch.zeros(len(ARKIT_NAMES) * len(LEVELS), 52)
    for k, name in enumerate(ARKIT_NAMES):
        for j, level in enumerate(LEVELS):
            rows[k * len(LEVELS) + j, k] = level
            if name in ON_OPEN_JAW:
                rows[k * len(LEVELS) + j, ARKIT_NAMES.index("jawOpen")] = 0.5
    params = HeadParams.neutral(len(rows), 52)
    params = HeadParams(**vars(params) | {"expression": rows, "translation": torch.zeros(len(rows), 3)})
    shown = retarget(Motion(30.0, params, EDITION, ARKIT_NAMES, placed=False), avatar.rig).params
    read: list[torch.Tensor] = []
    scores: list[torch.Tensor] = []
    for start in range(0, len(rows), 6):
        images = avatar.render(shown[start : start + 6], options.size * 2).images.clamp(0, 1)
        found = [eyes.analyse((image * 255).byte().numpy(), "the picture", size=options.size) for image in images]
        views = Views.cat([f.views for f in found if f.views is not None])
        if len(views) != len(images):
            raise SystemExit("A picture was refused; choose a larger --size.")
        estimate = drive(model, avatar, views, own=False)  # as films are read unless --same-person is given
        motion = Motion(30.0, estimate, model.head.edition, tuple(model.head.expression_names))
        read.append(to_arkit(motion, model.head).params.expression)
        scores.append(torch.cat([views.blendshapes[:, 1:], torch.zeros(len(views), 1)], 1))
    back, scored = (torch.cat(parts).unflatten(0, (52, len(LEVELS))) for parts in (read, scores))
    lines = [
        "| coefficient | gain by the estimator | gain by the landmarker's scores | largest other change |",
        "| --- | --- | --- | --- |",
    ]
    gains, leaks, errors = [], [], []
    for k, name in enumerate(ARKIT_NAMES):
        rise = (back[k, 2] - back[k, 0]) / LEVELS[2]
        score = (scored[k, 2] - scored[k, 0]) / LEVELS[2]
        others = rise.abs().clone()
        others[k] = 0
        worst = int(others.argmax())
        gains.append(float(rise[k]))
        leaks.append(float(others.mean()))
        errors.append(float((back[k, 2] - back[k, 0])[k] - LEVELS[2]))
        lines.append(f"| {name} | {rise[k]:.2f} | {score[k]:.2f} | {ARKIT_NAMES[worst]} {rise[worst]:+.2f} |")
    gain, error = torch.tensor(gains), torch.tensor(errors)
    quartiles = [float(gain.quantile(q)) for q in (0.25, 0.75)]
    head = (
        f"Median gain {gain.median():.2f} (quartiles {quartiles[0]:.2f} to {quartiles[1]:.2f}); "
        f"{int((gain > 0.3).sum())} of 52 come back by more than 0.3; mean absolute error at 0.7: "
        f"{error.abs().mean():.2f}; the 51 others move by {sum(leaks) / 52:.3f} on average. "
        f"Pictures of {options.size * 2} px, crops of {options.size} px."
    )
    text = "\n".join([head, "", *lines])
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
