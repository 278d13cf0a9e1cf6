"""Rendering: ``rasterize`` turns 3D Gaussians into pictures, with one interface and three backends."""

from ffavatar.render.rasterizer import rasterize

__all__ = ["rasterize"]
