"""Rendering: ``rasterize`` turns 3D Gaussians into pictures, with one interface and three backends."""

from ffavatar.render.attach import attach, can_attach
from ffavatar.render.rasterizer import rasterize

__all__ = ["attach", "can_attach", "rasterize"]
