"""FFAvatar: animatable 3D Gaussian head avatars from a few photos."""

__version__ = "0.1.0"
