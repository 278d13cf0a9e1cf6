"""Rotations (quaternions are wxyz), rigid transforms, the normalised camera and projection."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ffavatar.types import Camera

NORMALISED_FOCAL = 3.0  # focal length in picture sides; a crop cannot reveal it, so it is fixed (docs/conventions.md)


def axis_angle_to_matrix(rotation: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3 3"]:
    """Rodrigues' formula. (..., 3) radians -> (..., 3, 3); smooth at zero."""
    squared = (rotation * rotation).sum(-1)[..., None, None]
    small = squared < 1e-6  # below, the Taylor series keep value and gradient exact to float32
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    first = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    second = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / safe)
    x, y, z = rotation.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    return eye + first * cross + second * (cross @ cross)


def axis_angle_to_quat(rotation: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 4"]:
    """(..., 3) radians -> (..., 4) wxyz, normalised; smooth at zero."""
    squared = (rotation * rotation).sum(-1, keepdim=True)
    small = squared < 1e-6
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    real = torch.where(small, 1 - squared / 8, (angle / 2).cos())
    factor = torch.where(small, 0.5 - squared / 48, (angle / 2).sin() / angle)
    return torch.cat([real, factor * rotation], -1)


def quat_to_axis_angle(quat: Float[Tensor, "*B 4"]) -> Float[Tensor, "*B 3"]:
    """(..., 4) wxyz -> (..., 3) radians, angle in [0, pi]."""
    quat = torch.where(quat[..., :1] < 0, -quat, quat)
    norm = quat[..., 1:].norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(norm, quat[..., :1])
    return quat[..., 1:] * torch.where(norm < 1e-7, torch.full_like(norm, 2.0), angle / norm.clamp_min(1e-12))


def quat_multiply(left: Float[Tensor, "*#B 4"], right: Float[Tensor, "*#B 4"]) -> Float[Tensor, "*B 4"]:
    """Hamilton product: the rotation ``right`` followed by ``left``. (..., 4) x (..., 4) -> (..., 4) wxyz."""
    w1, x1, y1, z1 = left.unbind(-1)
    w2, x2, y2, z2 = right.unbind(-1)
    return torch.stack(
        [
            w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
            w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
            w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
            w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
        ],
        -1,
    )


def quat_rotate(quat: Float[Tensor, "*#B 4"], vector: Float[Tensor, "*#B 3"]) -> Float[Tensor, "*B 3"]:
    """Turn vectors by unit quaternions. (..., 4) wxyz, (..., 3) -> (..., 3)."""
    axis = quat[..., 1:]
    axis, vector = torch.broadcast_tensors(axis, vector)
    twice = 2 * torch.linalg.cross(axis, vector)
    return vector + quat[..., :1] * twice + torch.linalg.cross(axis, twice)


def turn_z_to(normals: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 4"]:
    """The shortest rotation of the z axis to each unit normal."""
    x, y, z = normals.unbind(-1)
    turned = torch.stack([1 + z + 1e-6, -y, x, torch.zeros_like(x)], -1)
    opposite = (1 + z < 1e-6) & (x.abs() + y.abs() < 1e-6)  # any half turn about an axis across is as short
    return F.normalize(torch.where(opposite[..., None], turned.new_tensor([0.0, 1, 0, 0]), turned), dim=-1)


def quat_to_matrix(quat: Float[Tensor, "*B 4"]) -> Float[Tensor, "*B 3 3"]:
    """(..., 4) unit wxyz -> (..., 3, 3)."""
    w, x, y, z = quat.unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def matrix_to_quat(matrix: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 4"]:
    """(..., 3, 3) rotation -> (..., 4) wxyz with w >= 0 (Shepperd's method: the largest component is found first)."""
    m = matrix
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    x, y, z = (2 * m[..., k, k] - trace for k in range(3))
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    # row k is 4 q_k q: each is the quaternion up to length, the one with the largest q_k the most exact
    rows = [[1 + trace, wx, wy, wz], [wx, 1 + x, xy, xz], [wy, xy, 1 + y, yz], [wz, xz, yz, 1 + z]]
    full = torch.stack([torch.stack(row, -1) for row in rows], -2)
    best = full.diagonal(dim1=-2, dim2=-1).argmax(-1)
    quat = torch.take_along_dim(full, best[..., None, None].expand(*best.shape, 1, 4), -2).squeeze(-2)
    quat = torch.nn.functional.normalize(quat, dim=-1)
    return torch.where(quat[..., :1] < 0, -quat, quat)


def normalised_camera(size_px: int, batch: int = 1, device: torch.device | str = "cpu") -> Camera:
    """The fixed camera in which every head crop is seen: focal length 3 sides, looking along the world's -z.

    ``world_to_cam`` is diag(1, -1, -1, 1): world +y is up in the picture and +z comes towards the camera.
    """
    world_to_cam = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], device=device)).expand(batch, 4, 4)
    focal, centre = NORMALISED_FOCAL * size_px, size_px / 2
    K = torch.tensor([[focal, 0, centre], [0, focal, centre], [0, 0, 1.0]], device=device).expand(batch, 3, 3)
    return Camera(world_to_cam, K, size_px, size_px)


def project(points: Float[Tensor, "B P 3"], camera: Camera) -> tuple[Float[Tensor, "B P 2"], Float[Tensor, "B P"]]:
    """World points (B, P, 3) -> pixel positions (B, P, 2) and depths (B, P) in metres."""
    rotation, shift = camera.world_to_cam[..., :3, :3], camera.world_to_cam[..., :3, 3]
    seen = points @ rotation.transpose(-1, -2) + shift[..., None, :]
    depth = seen[..., 2]
    pixels = seen @ camera.K.transpose(-1, -2)
    return pixels[..., :2] / depth[..., None], depth


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Area-weighted normals. (..., V, 3), (F, 3) -> (..., V, 3)."""
    a, b, c = (vertices.index_select(-2, faces[:, k]) for k in range(3))
    face_normal = torch.linalg.cross(b - a, c - a)
    out = torch.zeros_like(vertices)
    for k in range(3):
        out = out.index_add(-2, faces[:, k], face_normal)
    return F.normalize(out, dim=-1)
