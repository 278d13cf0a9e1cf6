"""NeRSemble v2 as downloaded (Kirschstein et al., SIGGRAPH 2023): 16 synchronised films per sequence.

Layout, as its own tools read it: ``ID/calibration/camera_params.json`` (``world_2_cam`` per serial, 4 x 4 OpenCV in
metres; one ``intrinsics`` for pictures of 2200 x 3208 px), ``ID/calibration/color_calibration.json`` (per serial,
optional), ``ID/sequences/NAME/images/cam_SERIAL.mp4`` and, where somebody made them, the same under ``alpha_maps``.
The published calibration knows no lens distortion; where ``distortion`` is added to it (a list, or one per serial), it
is taken out of the pictures unless that is switched off.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ffavatar.data.captures.geometry import resized_intrinsics
from ffavatar.data.captures.lens import read_coefficients, undistorted
from ffavatar.data.captures.shots import Moment, Shot
from ffavatar.drive.video import FrameReader
from ffavatar.errors import InputError

CALIBRATED_PX = (2200, 3208)  # width, height
LEFT_OUT = ("BACKGROUND", "GLASSES", "HAIR")
SERIALS = (
    "220700191", "221501007", "222200036", "222200037", "222200038", "222200039", "222200040", "222200041", "222200042",
    "222200043", "222200044", "222200045", "222200046", "222200047", "222200048", "222200049",
)  # fmt: skip


def list_people(root: Path) -> list[str]:
    """Three-digit ids of the people below a download's folder, sorted. Raises ``InputError`` where there is none."""
    found = sorted(p.parent.parent.name for p in root.glob("*/calibration/camera_params.json"))
    if not found:
        raise InputError(f"{root} holds no NeRSemble person (ID/calibration/camera_params.json); give its folder.")
    return found


class NersemblePerson:
    """One person. Raises ``InputError`` where the calibration cannot be read."""

    def __init__(self, folder: Path, undistort: bool = True):
        self.folder = folder
        try:
            content = json.loads((folder / "calibration" / "camera_params.json").read_text(encoding="utf-8"))
            self.K = np.array(content["intrinsics"], np.float64)
            self.cameras = {
                str(serial): np.array(matrix, np.float64) for serial, matrix in content["world_2_cam"].items()
            }
            if self.K.shape != (3, 3) or any(matrix.shape != (4, 4) for matrix in self.cameras.values()):
                raise ValueError("matrices of other shapes")
            known = content.get("distortion") if undistort else None
            per_camera = known if isinstance(known, dict) else dict.fromkeys(self.cameras, known)
            self.lenses = {str(serial): read_coefficients(value) for serial, value in per_camera.items()}
            colours = folder / "calibration" / "color_calibration.json"
            self.colours: dict[str, np.ndarray] = {}
            if colours.is_file():
                table = json.loads(colours.read_text(encoding="utf-8"))
                self.colours = {str(serial): np.array(matrix, np.float64) for serial, matrix in table.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{folder} is no readable NeRSemble person ({error!r}); download it again.") from error

    def sequences(self) -> list[str]:
        """Names of the downloaded sequences that show the head as it is."""
        found = sorted(p.parent.name for p in self.folder.glob("sequences/*/images") if p.is_dir())
        return [name for name in found if name not in LEFT_OUT]

    def moments(
        self, sequences: Sequence[str], frames: int, cameras: Sequence[str], refused: Counter[str]
    ) -> list[Moment]:
        """``frames`` evenly spread instants of each sequence, each a moment of its own: the head moves.

        What is missing or ends early is counted in ``refused``.
        """
        moments = []
        for sequence in sequences:
            shots: dict[int, list[Shot]] = {}
            wanted: list[int] | None = None
            for serial in cameras:
                film = self.folder / "sequences" / sequence / "images" / f"cam_{serial}.mp4"
                if serial not in self.cameras or not film.is_file():
                    refused["a film is missing"] += 1
                    continue
                try:
                    reader = FrameReader(film)
                    if wanted is None:  # the films of a sequence are synchronised: the first one's length holds for all
                        count = reader.count or 0
                        wanted = sorted(set(np.linspace(0, max(count - 1, 0), frames).round().astype(int).tolist()))
                    pictures = frames_of(reader, wanted)
                    alphas = self._alphas(sequence, serial, wanted)
                except InputError:
                    refused["a film cannot be read"] += 1
                    continue
                refused["a film ends early"] += len(wanted) - len(pictures)
                for number, image in pictures.items():
                    size = (image.shape[1], image.shape[0])
                    if serial in self.colours:
                        image = corrected(image, self.colours[serial])
                    K = resized_intrinsics(self.K, CALIBRATED_PX, size)
                    alpha, lens = alphas.get(number), self.lenses.get(serial)
                    image = undistorted(image, K, lens)
                    alpha = None if alpha is None else undistorted(alpha, K, lens)
                    shot = Shot(serial, sequence, number, image, alpha, K, self.cameras[serial])
                    shots.setdefault(number, []).append(shot)
            moments += [Moment(group, [group]) for _, group in sorted(shots.items())]
        refused += Counter()  # zero counts go
        return moments

    def _alphas(self, sequence: str, serial: str, wanted: Sequence[int]) -> dict[int, np.ndarray]:
        film = self.folder / "sequences" / sequence / "alpha_maps" / f"cam_{serial}.mp4"
        if not film.is_file():
            return {}
        return {number: image[..., 0] for number, image in frames_of(FrameReader(film), wanted).items()}


def frames_of(reader: FrameReader, wanted: Sequence[int]) -> dict[int, np.ndarray]:
    """Those of the frames that the film has."""
    found = {}
    for number, frame in enumerate(reader):
        if number in wanted:
            found[number] = frame.image
            if len(found) == len(wanted):
                break
    return found


def corrected(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 with a colour correction of Cheung et al. (2004): ``matrix`` (3, terms) acts on products of the
    linear channels.

    Raises ``InputError`` for another number of terms than 3, 4, 5, 7, 8, 10 or 11.
    """
    linear = _LINEAR[image].reshape(-1, 3)
    moved = np.clip(_terms(linear, matrix.shape[-1]) @ matrix.T, 0, 1)
    encoded = np.where(moved <= 0.0031308, 12.92 * moved, 1.055 * moved ** (1 / 2.4) - 0.055)
    return (encoded.reshape(image.shape) * 255).round().astype(np.uint8)


def _srgb_to_linear() -> np.ndarray:
    value = np.arange(256) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


_LINEAR = _srgb_to_linear()


def _terms(rgb: np.ndarray, count: int) -> np.ndarray:
    r, g, b = rgb.T
    one = np.ones_like(r)
    pairs, squares, triple = [r * g, r * b, g * b], [r * r, g * g, b * b], [r * g * b]
    known = {
        3: [], 4: [one], 5: [*triple, one], 7: [*pairs, one], 8: [*pairs, *triple, one], 10: [*pairs, *squares, one],
        11: [*pairs, *squares, *triple, one],
    }  # fmt: skip
    if count not in known:
        raise InputError(f"A colour calibration of {count} terms is not known; 3, 4, 5, 7, 8, 10 and 11 are.")
    return np.stack([r, g, b, *known[count]], 1)
