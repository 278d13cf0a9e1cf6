"""The head model: blendshapes, pose correctives, linear blend skinning, subdivision; FLAME files; the embedded head."""

from ffavatar.head.embedded import BaseMesh, load_base_mesh, load_head
from ffavatar.head.model import JOINTS, HeadArrays, HeadModel, PosedHead
from ffavatar.head.surface import Surface

__all__ = ["JOINTS", "BaseMesh", "HeadArrays", "HeadModel", "PosedHead", "Surface", "load_base_mesh", "load_head"]
