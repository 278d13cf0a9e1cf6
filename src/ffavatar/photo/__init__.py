"""From photos to square head crops with matte, landmarks and blendshapes, or the reason why a photo cannot be used."""

from ffavatar.photo.landmarks import Landmarker, LandmarkResult

__all__ = ["LandmarkResult", "Landmarker"]
