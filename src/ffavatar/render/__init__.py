"""Rendering: ``rasterize`` turns 3D Gaussians into pictures, with one interface and three backends."""

from ffavatar.render.attach import attach, can_attach
from ffavatar.render.rasterizer import Backend, rasterize

__all__ = ["Backend", "attach", "can_attach", "rasterize"]
