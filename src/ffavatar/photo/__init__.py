"""From photos to square head crops with matte, landmarks and blendshapes, or the reason why a photo cannot be used."""

from ffavatar.photo.blendshapes import BLENDSHAPE_NAMES
from ffavatar.photo.front_end import FrontEnd, PhotoResult, load_views
from ffavatar.photo.landmarks import Landmarker, LandmarkResult
from ffavatar.photo.read import open_photo, read_photo
from ffavatar.photo.report import PhotoReport

__all__ = [
    "BLENDSHAPE_NAMES",
    "FrontEnd",
    "LandmarkResult",
    "Landmarker",
    "PhotoReport",
    "PhotoResult",
    "load_views",
    "open_photo",
    "read_photo",
]
