"""A tiny download of the NeRSemble benchmark's monocular task, of a drawn person of whom everything is known.

Written from the benchmark toolkit's README and ``FlameProvider`` (scipy's Euler angles, vertices turned about FLAME's
origin, scaled, shifted), not from our reader. The person's true heads are brought to FLAME's form by a similarity that
the reader does not know, as it does not know a real person's FLAME head.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from scipy.spatial.transform import Rotation

from ffavatar.data.synthetic import SyntheticPerson, synthetic_person

TRAIN, HELD_OUT = ("EXP-1-head", "EMO-2-surprise+fear"), ("FREE",)
CAMERAS = ("222200037", "222200046")
SIZE, SCALE = 256, 1.3
FLIP = np.diag([1.0, -1.0, -1.0])
# the drawn head in FLAME's resting place: a nod, smaller, set back
NOD, SMALLER, SET_BACK = Rotation.from_euler("xyz", [7, 1, -2], degrees=True), 0.9, np.array([0.004, 0.012, -0.02])


@dataclass
class Truth:
    """``landmarks[camera]`` (F, 478, 2) true pixels of the held-out sequence."""

    person: SyntheticPerson
    landmarks: dict[str, np.ndarray]


def heads(person: SyntheticPerson) -> tuple[Rotation, np.ndarray]:
    """Resting head y -> R y + t in the drawn pictures' camera world: neck about its joint, root about its own."""
    from ffavatar.head import load_head

    head = load_head()
    import torch

    _, joints = head.neutral(torch.from_numpy(person.identity)[None])
    j = joints[0].double().numpy()
    root, neck = (Rotation.from_rotvec(getattr(person.params, name).numpy()) for name in ("root", "neck"))
    shift = root.apply(neck.apply(-j[1]) + j[1] - j[0]) + j[0] + person.params.translation.numpy()
    return root * neck, shift


def landmarks_of(person: SyntheticPerson) -> np.ndarray:
    """(P, 478, 3) true landmarks in the drawn pictures' camera world."""
    import torch

    from ffavatar.head import load_head

    head = load_head()
    neutral, joints = head.neutral(torch.from_numpy(person.identity)[None])
    return head.landmarks(head.pose(neutral, joints, person.params).vertices).double().numpy()


def film(place: Path, pictures: np.ndarray) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(place), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "6"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for pixels in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def make_benchmark(root: Path, name: str = "393", seed: int = 40, matrices: bool = False) -> Truth:
    """Four training frames in two sequences, three held-out frames without films."""
    person = synthetic_person(seed, shots=7, size=SIZE)
    # capture world -> world of the drawn pictures, whose camera stands at its origin
    capture = Rotation.from_euler("xyz", [95, 20, -8], degrees=True)
    where = np.array([0.1, 0.8, -0.4])
    folder = root / "mono_flame_avatar" / name
    K = np.array([[3.0 * SIZE, 0, SIZE / 2], [0, 3.0 * SIZE, SIZE / 2], [0, 0, 1]])
    # drawn world p is at SIZED (capture p) + where: the capture's unit makes everything larger
    sized = SCALE * SMALLER
    turn, shift = heads(person)
    # drawn head y at R y + t; FLAME's x = SMALLER NOD y + SET_BACK; FLAME in the capture: SCALE W x + translation
    whole = capture * turn * NOD.inv()
    translation = sized * capture.apply(shift) + where - SCALE * whole.apply(SET_BACK)
    cameras, pixels = {}, {}
    points = landmarks_of(person)
    centre = sized * capture.apply(points.mean((0, 1))) + where
    for number, serial in enumerate(CAMERAS):
        pose = np.eye(4)
        pose[:3, :3] = FLIP @ capture.inv().as_matrix()
        pose[:3, 3] = -pose[:3, :3] @ where
        if number:  # the same camera, 30 degrees about the head
            around = Rotation.from_rotvec(np.radians(30) * capture.apply([0, 1, 0])).as_matrix()
            moved = np.eye(4)
            moved[:3, :3], moved[:3, 3] = around, centre - around @ centre
            pose = pose @ moved
        cameras[serial] = pose
        world = sized * capture.apply(points.reshape(-1, 3)).reshape(points.shape) + where
        seen = (world @ pose[:3, :3].T + pose[:3, 3]) @ K.T
        pixels[serial] = seen[..., :2] / seen[..., 2:]
    parts = {TRAIN[0]: slice(0, 2), TRAIN[1]: slice(2, 4), HELD_OUT[0]: slice(4, 7)}
    white = np.where(person.mattes[..., None] > 127, person.images, 255).astype(np.uint8)
    for sequence, rows in parts.items():
        place = folder / "sequences" / sequence
        (place / "tracking").mkdir(parents=True)
        count = len(range(7)[rows])
        track = {
            "rotation": whole[rows].as_euler("XYZ"), "translation": translation[rows], "scale": np.full((1, 1), SCALE),
            "neck": np.zeros((count, 3)), "jaw": np.zeros((count, 3)), "eyes": np.zeros((count, 6)),
            "expression": 0.3 * np.ones((count, 100)), "shape": np.zeros((1, 300)), "frames": np.arange(count),
        }  # fmt: skip
        if matrices:
            track["rotation_matrices"] = whole[rows].as_matrix()
        np.savez(place / "tracking" / "flame2023_tracking.npz", **track)
        if sequence in TRAIN:
            film(place / "images" / f"cam_{CAMERAS[0]}.mp4", white[rows])
            film(place / "alpha_maps" / f"cam_{CAMERAS[0]}.mp4", np.repeat(person.mattes[rows][..., None], 3, 3))
    (folder / "calibration").mkdir()
    parameters = {
        "world_2_cam": {serial: pose.tolist() for serial, pose in cameras.items()},
        "intrinsics": {serial: K.tolist() for serial in CAMERAS},
    }
    (folder / "calibration" / "camera_params.json").write_text(json.dumps(parameters))
    return Truth(person, {serial: found[4:] for serial, found in pixels.items()})
