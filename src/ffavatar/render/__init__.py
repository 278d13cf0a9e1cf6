"""Rendering: ``rasterize`` turns 3D Gaussians into pictures, with one interface and three backends; ``attach`` hangs
them on a posed mesh, ``mean_ssim`` compares pictures."""

from ffavatar.render.attach import attach, can_attach, mix_shades
from ffavatar.render.rasterizer import Backend, rasterize
from ffavatar.render.similarity import mean_ssim

__all__ = ["Backend", "attach", "can_attach", "mean_ssim", "mix_shades", "rasterize"]
