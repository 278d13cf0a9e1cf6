"""How well the estimator reads heads: on synthetic test people with exact labels, and under one-pixel shifts.

    python benchmarks/estimator.py --people FOLDER [--weights FILE] [--markdown FILE]

FOLDER: people that were never trained on, with the front end's readings (docs/synthetic.md). Every picture is read by
itself,
with the identity pooled over the person's pictures. Depth and head size trade off in a crop, so depth is compared
after aligning
each person's scale: the median ratio of estimated to true distance is divided out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from ffavatar.geometry import axis_angle_to_matrix
from ffavatar.model import create_model, load_model
from ffavatar.model.landmark_fit import project_normalised
from ffavatar.model.weights import state_from
from ffavatar.train.losses import head_turn
from ffavatar.train.samples import load_people


def degrees_between(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Angle between rotation matrices (B, 3, 3) in degrees."""
    cosine = ((a.mT @ b).diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.rad2deg(torch.arccos(cosine.double().clamp(-1, 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=Path, required=True)
    parser.add_argument("--weights")
    parser.add_argument("--untrained", action="store_true", help="zero network output, for comparison")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(2)
    if options.weights is not None:  # an estimator's weights alone will do
        model = create_model("lite").eval()
        state = {name: value.float() for name, value in state_from(options.weights).items()}
        if wrong := model.load_state_dict(state, strict=False).unexpected_keys:
            raise SystemExit(f"{options.weights} holds {wrong[:3]}, which lite does not know.")
    else:
        model = create_model("lite").eval() if options.untrained else load_model("lite")
    figures: dict[str, list[torch.Tensor]] = {}

    def note(name: str, values: torch.Tensor) -> None:
        figures.setdefault(name, []).append(values)

    head = model.head
    for person in load_people(options.people):
        views = person.views(np.arange(len(person)))
        with torch.no_grad():
            found = model.estimator(views)
        true, read = person.params[torch.arange(len(person))], found.params
        note("head rotation, degrees", degrees_between(head_turn(read), head_turn(true)))
        note(
            "torso rotation, degrees", degrees_between(axis_angle_to_matrix(read.root), axis_angle_to_matrix(true.root))
        )
        note("jaw, degrees", torch.rad2deg((read.jaw - true.jaw).norm(dim=-1)))
        # where the head is: the mean of its landmarks, so that differences of torso and neck do not count twice
        posed = [head.landmarks(head.pose(*head.neutral(i[None]), p).vertices)
                 for i, p in ((found.identity, read), (person.identity, true))]  # fmt: skip
        place = [points.mean(1) for points in posed]
        ratio = (place[0][:, 2] / place[1][:, 2]).median()
        note("lateral position, mm", 1e3 * (place[0][:, :2] / ratio - place[1][:, :2]).norm(dim=-1))
        note("depth after scale alignment, %", 100 * (place[0][:, 2] / place[1][:, 2] / ratio - 1).abs())
        seen = project_normalised(posed[0])
        width = views.landmarks[..., 0].amax(1) - views.landmarks[..., 0].amin(1)
        miss = (seen - views.landmarks[..., :2]).norm(dim=-1).mean(1)
        note("landmark reprojection, % of face width", 100 * miss / width)
        gaze = torch.stack(
            [(read.eye_left - true.eye_left).norm(dim=-1), (read.eye_right - true.eye_right).norm(dim=-1)]
        )
        note("gaze, degrees", torch.rad2deg(gaze.mean(0)))
    heads = len(torch.cat(figures["jaw, degrees"]))
    lines = [f"{heads} synthetic heads", "", "| what | median | 90 % |", "| --- | --- | --- |"]
    for name, parts in figures.items():
        values = torch.cat(parts).double()
        lines.append(f"| {name} | {values.median():.2f} | {values.quantile(0.9):.2f} |")
    print("\n".join(lines))
    if options.markdown:
        options.markdown.write_text("# Estimator\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
