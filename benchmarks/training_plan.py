"""What a training step of ``paper`` needs, computed, not run: ``python benchmarks/training_plan.py [--write]``.

Parameters and matrix products are counted on the meta device (``torch.utils.flop_counter``); nothing is measured. The
rasteriser, the losses' convolutional nets and communication are estimated by the rules beside them. Figures of a GPU:
NVIDIA's data sheet of an H100 SXM.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from ffavatar.evaluate.lpips import LPIPS
from ffavatar.model import create_model
from ffavatar.model.config import PRESETS
from ffavatar.model.encoder import DinoEncoder
from ffavatar.train.recipe import PAPER_FINETUNE, PAPER_PRETRAIN, Recipe

GPUS = 8
PEAK_FLOPS = 989e12  # H100 SXM, dense bfloat16
UTILISATION = 0.40  # of the peak, what attention and matrix products of this size commonly reach
FP32_FLOPS = 67e12  # the perceptual net and discriminator run in float32
LINK_BYTES = 450e9  # NVLink, one direction, per GPU
GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """One example per GPU."""

    name: str
    learned: float  # parameters
    frozen: float
    forward: float  # FLOPs in bfloat16
    backward: float
    full_precision: float  # FLOPs in float32
    state_gib: float
    activation_gib: float

    @property
    def step_s(self) -> float:
        return (self.forward + self.backward) / (PEAK_FLOPS * UTILISATION) + self.full_precision / (FP32_FLOPS * 0.5)


def count(recipe: Recipe, sources: int) -> Plan:
    config = PRESETS[recipe.preset]
    real = create_model("tiny").head  # its numbers of coefficients
    with torch.device("meta"):
        from ffavatar.model.decoder import FullDecoder
        from ffavatar.model.estimator import DinoEstimator
        from ffavatar.model.query_former import QueryFormer

        encoder = DinoEncoder(config.vit)
        estimator = DinoEstimator(config.vit, real.expression_size)
        former = QueryFormer(config.full_queries, config.width, config.depth, config.heads, encoder.width)
        decoder = FullDecoder(config.width)
        lpips = LPIPS(recipe.perceptual)
    side, queries, width = config.image_size, config.full_queries, config.width
    patches = (side // 14) ** 2

    def meta(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, device="meta")

    def flops(function) -> float:
        with FlopCounterMode(display=False) as counter:
            function()
        return float(counter.get_total_flops())

    views = sources + recipe.targets
    read = flops(lambda: encoder.vit(meta(sources, side, side, 3)))
    estimate = flops(lambda: estimator.vit(meta(views, 14 * (recipe.size // 14), 14 * (recipe.size // 14), 3)))
    query = flops(lambda: former(meta(queries, 3), meta(sources, patches, encoder.width)))
    decode = flops(lambda: decoder.head(decoder.hidden(meta(queries, width))))
    look = flops(lambda: torch.nn.Sequential(*lpips.stages)(meta(recipe.targets, 3, recipe.size, recipe.size)))
    learned = sum(p.numel() for m in (estimator, former, decoder) for p in m.parameters())
    frozen = sum(p.numel() for p in encoder.parameters())
    learns = estimate + query + decode
    # checkpointing repeats the forward pass of what learns; LPIPS: prediction and goal forward, one backward to pixels;
    # the discriminator sees drawn pictures twice and real ones once, and is small beside its features
    again = learns if recipe.checkpointing else 0.0
    looks = look * (3 + (4 if recipe.weight_adversarial else 0))
    state = (4 * learned * 4 + 4 * learned) / GPUS + 4 * frozen  # weight, gradient, two moments, mean; sharded
    tokens = views * ((recipe.size // 14) ** 2 + 1)
    blocks = len(estimator.vit.blocks) * tokens * encoder.width + config.depth * queries * width
    # inside one block, recomputed: queries, keys, values, attended, MLP of four widths, in bfloat16, and gradients
    inside = 2 * 2 * max(queries * width * 13, tokens * encoder.width * 13)
    # rasteriser: gsplat keeps about 60 bytes per Gaussian and view, and 32 per pixel; LPIPS keeps its planes
    drawn = recipe.targets * (queries * 60 + recipe.size**2 * 32)
    planes = (
        recipe.targets * recipe.size**2 * 4 * (64 * 2 + 128 * 2 / 4 + 256 * 3 / 16 + 512 * 3 / 64 + 512 * 3 / 256) * 2
    )
    largest_block = 4 * 16 * width * width  # gathered whole for its turn
    activation = 4 * blocks + inside + drawn + planes * (3 if recipe.weight_adversarial else 1) + 2 * largest_block
    return Plan(
        f"{recipe.targets} targets, {sources} sources", learned, frozen, read + learns, 2 * learns + again, looks,
        state / GIB, activation / GIB,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = [
        "| stage, per GPU and step | TFLOP bf16 forward + backward | TFLOP fp32 | states, GiB | activations, GiB | "
        "step, s | whole stage, days |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, recipe in (("pretrain", PAPER_PRETRAIN), ("fine-tune", PAPER_FINETUNE)):
        for sources in (1, recipe.max_sources):
            plan = count(recipe, sources)
            days = plan.step_s * recipe.steps / 86400
            rows.append(
                f"| {name}, {plan.name} | {plan.forward / 1e12:.0f} + {plan.backward / 1e12:.0f} | "
                f"{plan.full_precision / 1e12:.1f} | {plan.state_gib:.1f} | {plan.activation_gib:.1f} | "
                f"{plan.step_s:.1f} | {days:.1f} |"
            )
    exchanged = 3 * 4 * plan.learned * (GPUS - 1) / GPUS / LINK_BYTES
    rows += [
        "",
        f"{plan.learned / 1e6:.1f} M parameters learn, {plan.frozen / 1e6:.1f} M are frozen. Gathering twice and "
        f"reducing once: {1e3 * exchanged:.0f} ms per step at {LINK_BYTES / 1e9:.0f} GB/s, if nothing overlaps.",
    ]
    text = "\n".join(rows)
    print(text)
    if options.write:
        place = Path(__file__).parent / "results" / "training_plan.md"
        place.write_text(
            "# `paper` on 8 H100: computed, not measured\n\n`python benchmarks/training_plan.py --write`; "
            f"{100 * UTILISATION:.0f} % of {PEAK_FLOPS / 1e12:.0f} TFLOP/s bf16.\n\n{text}\n"
        )


if __name__ == "__main__":
    main()
