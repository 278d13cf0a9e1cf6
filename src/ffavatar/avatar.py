"""The ``Avatar`` that a user holds, and its container.

The container is one ``.safetensors`` file (a JSON header and aligned buffers), described in docs/container.md: the
head's basis at base vertices, the three parents and barycentric weights of each Gaussian, and the Gaussians, quantised.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor
from torch.nn.functional import normalize

from ffavatar.animate import Rig, render_avatar
from ffavatar.errors import InputError
from ffavatar.files import atomic_path, in_order
from ffavatar.head import HeadArrays, HeadModel, Surface
from ffavatar.kinds import START, a, kind_of
from ffavatar.types import Camera, CanonicalGaussians, HeadParams, Rendering, Shades

FORMAT = "ffavatar"
VERSION = 1
MIGRATIONS: dict[int, Callable[[dict[str, str], dict[str, np.ndarray]], None]] = {}
"""``MIGRATIONS[v]`` brings a container of version v, in place, to version v + 1."""

_LOG_SCALE_RANGE = (-14.0, 0.0)
_SHAPES: dict[str, tuple[str, ...]] = {
    "neutral": ("V", "3"), "joints": ("5", "3"), "faces": ("F", "3"), "lbs_weights": ("V", "5"), "basis_rows": ("M",),
    "joint_expdirs": ("5", "3", "E"), "expdirs": ("M", "3", "E"), "posedirs": ("M", "3", "36"), "identity": ("I",),
    "parents": ("N", "3"), "barycentric": ("N", "3"),
    "offsets": ("N", "3"), "log_scales": ("N", "3"), "quats": ("N", "4"), "opacities": ("N",), "colors": ("N", "3"),
}  # fmt: skip
_SHADE_SHAPES: dict[str, tuple[str, ...]] = {
    "shade_colors": ("N", "K", "3"), "shade_certainty": ("N", "K"), "shade_expression": ("K", "E"),
    "shade_jaw": ("K", "3"), "shade_turn": ("K", "3"),
}  # fmt: skip
"""All of them or none: what older readers pass over, drawing the lasting colours."""
_DTYPES = {
    "neutral": "float32", "joints": "float32", "faces": "int32", "lbs_weights": "float16", "basis_rows": "int32",
    "joint_expdirs": "float32", "expdirs": "float16", "posedirs": "float16", "identity": "float32",
    "parents": "uint16", "barycentric": "float16",
    "offsets": "float16", "log_scales": "float16", "quats": "int8", "opacities": "uint8", "colors": "uint8",
    "shade_colors": "int8", "shade_certainty": "uint8", "shade_expression": "float32", "shade_jaw": "float32",
    "shade_turn": "float32",
}  # fmt: skip
_SHADE_STEPS = 254  # of an int8 in a whole colour: shades reach half of it


@dataclass(frozen=True, repr=False)
class Avatar:
    """One person: Gaussians bound to an animatable head."""

    rig: Rig
    canonical: CanonicalGaussians
    identity: Tensor  # (I,) coefficients of the head model
    about: dict[str, str] = field(default_factory=dict)
    """Free notes kept in the container: sources, date, generator."""

    @property
    def expression_names(self) -> tuple[str, ...]:
        return tuple(self.rig.head.expression_names)

    def __len__(self) -> int:
        """Number of Gaussians."""
        return len(self.canonical)

    def __repr__(self) -> str:
        count = len(self.rig.shades) if self.rig.shades else 0
        shades = f"{count or 'no'} shade{'' if count == 1 else 's'}"
        return f"Avatar({len(self):,} Gaussians, {self.rig.head.edition}, {shades})"

    def neutral_params(self, frames: int = 1) -> HeadParams:
        """The resting head where a head crop shows it."""
        return HeadParams.neutral(frames, len(self.expression_names), self.rig.neutral.device, distance_m=1.15)

    def render(
        self,
        params: HeadParams | None = None,
        size: int = 512,
        background: tuple[float, float, float] = (1.0, 1.0, 1.0),
        camera: Camera | None = None,
    ) -> Rendering:
        """Pictures in the given poses (the neutral one by default), seen by the normalised camera with ``size`` pixels
        a side, or by ``camera``, whose own width and height then count instead. One pose serves many cameras, and one
        camera many poses."""
        with torch.no_grad():
            params = self.neutral_params() if params is None else params
            return render_avatar(self.rig, self.canonical, params, size, background, camera)

    def to(self, device: torch.device | str) -> Avatar:
        """This avatar on ``device``: itself if it is there already, else a copy. Nothing that others hold is moved."""
        rig, place = self.rig, torch.empty(0, device=device).device  # "cuda" is spelt out as "cuda:0"
        head = rig.head.copied_to(place)
        parts = [rig.surface, self.canonical, *([] if rig.shades is None else [rig.shades])]
        tensors = [rig.neutral, rig.joints, self.identity, *(value for part in parts for value in vars(part).values())]
        if head is rig.head and all(value.device == place for value in tensors):
            return self
        rig = Rig(
            head,
            rig.neutral.to(place),
            rig.joints.to(place),
            rig.surface.to(place),
            None if rig.shades is None else rig.shades.to(place),
        )
        return Avatar(rig, self.canonical.to(place), self.identity.to(place), self.about)

    def save(self, path: str | Path, allow_flame: bool = False) -> None:
        """Write the container, atomically.

        Raises:
            InputError: another ending than .safetensors; or the avatar stands on a FLAME basis, whose licence forbids
            passing it on, and ``allow_flame`` is not set.
        """
        head = self.rig.head
        if Path(path).suffix.lower() != ".safetensors":
            raise InputError(f"{path}: an avatar is written as .safetensors; change the file name's ending.")
        if not head.edition.startswith("embedded") and not allow_flame:
            raise InputError(
                f"{path}: this avatar carries the basis of {head.edition} ({head.licence}), which may not be "
                "passed on; "
                "set allow_flame (--allow-flame) to write it for your own use."
            )
        tensors = _pack(self)
        header = {
            "format": FORMAT,
            "version": str(VERSION),
            "edition": head.edition,
            "licence": head.licence,
            "expression_names": json.dumps(list(head.expression_names)),
            "arkit_pose": json.dumps({name: value.tolist() for name, value in head.arkit_pose.items()}),
            "about": json.dumps(self.about),
        }
        with atomic_path(path) as temporary:
            # save_file would leave it unreadable for others
            temporary.write_bytes(in_order(save(tensors, metadata=header)))

    @staticmethod
    @torch.inference_mode(False)  # else what is read under a caller's inference mode could never be trained on
    def load(path: str | Path) -> Avatar:
        """Read a container, bringing older versions up to date.

        Raises:
            InputError: not an avatar, damaged, or made by a newer version.
        """
        header, tensors = _read(path)
        return _unpack(header, tensors)


def _pack(avatar: Avatar) -> dict[str, np.ndarray]:
    head, made = avatar.rig.head, avatar.canonical
    moves = (head.expdirs.abs().amax((1, 2)) > 0) | (head.posedirs.abs().amax((1, 2)) > 0)
    rows = moves.nonzero()[:, 0]
    quats = normalize(made.quats, dim=-1)
    values = {
        "neutral": avatar.rig.neutral,
        "joints": avatar.rig.joints,
        "faces": head.faces,
        "lbs_weights": head.lbs_weights,
        "basis_rows": rows,
        "joint_expdirs": head.joint_expdirs,
        "expdirs": head.expdirs[rows],
        "posedirs": head.posedirs[rows],
        "identity": avatar.identity,
        "parents": avatar.rig.surface.parents,
        "barycentric": avatar.rig.surface.barycentric,
        "offsets": made.offsets,
        "log_scales": made.scales.log().clamp(*_LOG_SCALE_RANGE),
        "quats": (quats / quats.abs().amax(-1, keepdim=True) * 127).round(),
        "opacities": (made.opacities.clamp(0, 1) * 255).round(),
        "colors": (made.colors.clamp(0, 1) * 255).round(),
    }
    shades = avatar.rig.shades
    if shades is not None:
        values |= {
            "shade_colors": (shades.colors * _SHADE_STEPS).round().clamp(-127, 127),
            "shade_certainty": (shades.certainty.clamp(0, 1) * 255).round(),
            "shade_expression": shades.expression,
            "shade_jaw": shades.jaw,
            "shade_turn": shades.turn,
        }
    return {
        name: np.ascontiguousarray(value.detach().cpu().numpy().astype(_DTYPES[name])) for name, value in values.items()
    }


def _read(path: str | Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"There is no avatar file {path}; make one with `ffavatar reconstruct PHOTO... -o {path.name}`."
        )
    try:
        with safe_open(str(path), framework="numpy") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise InputError(
                    f"{path} is a safetensors file but not an avatar; give a file made by `ffavatar reconstruct`."
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        unreadable = f"{path} is not a readable avatar ({_first_line(error)})"
        raise InputError(
            _belongs_elsewhere(path) or f"{unreadable}; it may be truncated or of another kind: make it anew."
        ) from error
    version = header.get("version", "")
    if not version.isdigit() or int(version) > VERSION:
        raise InputError(
            f"{path} has container version {version or '?'}, this ffavatar reads up to {VERSION}; update ffavatar."
        )
    for old in range(int(version), VERSION):
        if old not in MIGRATIONS:
            raise InputError(
                f"{path} has container version {version}, which is no longer read; reconstruct the avatar."
            )
        MIGRATIONS[old](header, tensors)
    _check(path, header, tensors)
    return header, tensors


def _belongs_elsewhere(path: Path) -> str:
    """Says what a file is that is no avatar, and what to do with it; empty where that is not known."""
    try:
        with path.open("rb") as file:
            kind = kind_of(file.read(START))
    except OSError:
        return ""
    match kind:
        case "picture" | "film":
            remedy = f"make an avatar of it first: ffavatar reconstruct {path} -o me.safetensors"
        case "motion file":
            remedy = f"give an avatar (.safetensors), which `ffavatar animate AVATAR --driver {path}` then moves by it"
        case "3D model":
            remedy = "such files are not read back: give the avatar (.safetensors) that it was made from"
        case "JSON file" | "archive":
            remedy = "give a .safetensors file made by `ffavatar reconstruct`"
        case _:
            return ""
    return f"{path} is {a(kind)}, not an avatar; {remedy}."


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _check(path: Path, header: dict[str, str], tensors: dict[str, np.ndarray]) -> None:
    """Names, types, shapes, ranges: all that drawing relies on."""

    def refuse(reason: str) -> InputError:
        return InputError(f"{path} is a damaged avatar ({reason}); make it anew.")

    sizes: dict[str, int] = {}
    for name, shape in (_SHAPES | (_SHADE_SHAPES if _has_shades(tensors) else {})).items():
        if name not in tensors:
            raise refuse(f"{name} is missing")
        value = tensors[name]
        if value.dtype != np.dtype(_DTYPES[name]):
            raise refuse(f"{name} is {value.dtype}, not {_DTYPES[name]}")
        if value.ndim != len(shape):
            raise refuse(f"{name} has {value.ndim} axes")
        for axis, length in zip(shape, value.shape):
            expected = int(axis) if axis.isdigit() else sizes.setdefault(axis, length)
            if length != expected:
                raise refuse(f"{name} has shape {value.shape}")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise refuse(f"{name} holds numbers that are not finite")
    for name in ("faces", "basis_rows", "parents"):
        if tensors[name].size and not 0 <= int(tensors[name].min()) <= int(tensors[name].max()) < sizes["V"]:
            raise refuse(f"{name} points outside the head")
    try:
        names = json.loads(header["expression_names"])
        about = json.loads(header["about"])
        poses = {name: np.array(value, np.float32) for name, value in json.loads(header["arkit_pose"]).items()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise refuse("its header is incomplete") from error
    if "edition" not in header or "licence" not in header:
        raise refuse("its header is incomplete")
    if not isinstance(names, list) or len(names) != sizes["E"] or not all(isinstance(n, str) for n in names):
        raise refuse("its expression names do not fit")
    if not isinstance(about, dict) or any(value.shape != (5, 3) for value in poses.values()):
        raise refuse("its header is incomplete")


def _has_shades(tensors: dict[str, np.ndarray]) -> bool:
    return not _SHADE_SHAPES.keys().isdisjoint(tensors)


def _unpack(header: dict[str, str], tensors: dict[str, np.ndarray]) -> Avatar:
    def real(name: str) -> Tensor:
        return torch.from_numpy(tensors[name].astype(np.float32))

    def index(name: str) -> Tensor:
        return torch.from_numpy(tensors[name].astype(np.int64))

    neutral, rows = real("neutral"), index("basis_rows")
    count = len(neutral)
    expdirs = torch.zeros(count, 3, tensors["expdirs"].shape[2])
    posedirs = torch.zeros(count, 3, 36)
    expdirs[rows], posedirs[rows] = real("expdirs"), real("posedirs")
    head = HeadModel(
        HeadArrays(
            v_template=neutral.numpy(),
            faces=tensors["faces"],
            shapedirs=np.zeros((count, 3, 0), np.float32),  # the identity is in ``neutral`` already
            expdirs=expdirs.numpy(),
            posedirs=posedirs.numpy(),
            J_regressor=np.zeros((5, count), np.float32),
            lbs_weights=normalize(real("lbs_weights"), p=1, dim=1).numpy(),
            expression_names=tuple(json.loads(header["expression_names"])),
            regions={"moving": np.isin(np.arange(count), tensors["basis_rows"])},
            edition=header["edition"],
            licence=header["licence"],
            joints_follow_expression=False,
            arkit_pose={name: np.array(value) for name, value in json.loads(header["arkit_pose"]).items()},
        )
    )
    head.joint_expdirs.copy_(real("joint_expdirs"))
    nothing = torch.zeros(0, 3, dtype=torch.int64)
    surface = Surface(index("parents"), real("barycentric"), nothing, torch.zeros(0, 2), nothing)
    canonical = CanonicalGaussians(
        offsets=real("offsets"),
        quats=normalize(real("quats"), dim=-1),
        scales=real("log_scales").exp(),
        opacities=real("opacities") / 255,
        colors=real("colors") / 255,
    )
    shades = None
    if _has_shades(tensors):
        shades = Shades(
            colors=real("shade_colors") / _SHADE_STEPS,
            certainty=real("shade_certainty") / 255,
            expression=real("shade_expression"),
            jaw=real("shade_jaw"),
            turn=real("shade_turn"),
        )
    rig = Rig(head, neutral, real("joints"), surface, shades)
    return Avatar(rig, canonical, real("identity"), json.loads(header["about"]))
