"""Build script: where on FLAME's surface each vertex of the embedded head lies, from the two templates alone.

    python -m ffavatar.drive.register_flame flame_open.npz -o src/ffavatar/drive/data/flame_map.npz --overlay check.png

The npz holds ``templates`` or ``v_template`` (5023, 3), not finite where a vertex is unknown (eyeballs), and ``faces``
(9976, 3). The face landmarker is run on shaded pictures of the FLAME head (as the embedded head's own correspondence
was made); a similarity from the landmarks, then the embedded skin is bent onto FLAME's: landmarks and nearest points
pull, the deformation's Laplacian keeps it smooth, ever less so (in the manner of Amberg et al. 2007, "Optimal step
nonrigid ICP"). Needs the ``build-head`` extra (scipy).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ffavatar.errors import InputError
from ffavatar.geometry import axis_angle_to_matrix
from ffavatar.head import HeadModel, load_head
from ffavatar.photo import FrontEnd
from ffavatar.render.mesh import Lighting, Material, Mesh, project_corners, rasterize_mesh, render_mesh, vertex_normals

Array = NDArray[np.float64]
SIZE = 768  # px of the pictures that the landmarker sees
DISTANCE_M = 1.0
TURNS_DEG = (0.0, -20.0, 20.0)
STIFFNESS = (30.0, 10.0, 3.0, 1.0, 0.4, 0.2)
NEAR_M, AGREE = 0.003, 0.75  # a kept vertex lies this near, and its normal's cosine is at least this
# Centres of FLAME's eyeballs, which Open's template lacks: set by hand so that their irises and lids look right.
EYES, EYE_RADIUS_M = ((0.0312, 0.0233, 0.0272), (-0.0312, 0.0233, 0.0272)), 0.0118


def load_flame(path: Path) -> tuple[Array, NDArray[np.int64], NDArray[np.bool_]]:
    """Vertices (5023, 3), faces between known vertices with their places in FLAME's list, and that list's mask."""
    with np.load(path, allow_pickle=False) as data:
        names = [name for name in ("v_template", "templates") if name in data.files]
        if not names or "faces" not in data.files:
            raise InputError(f"{path} holds no v_template (or templates) and faces; give FLAME's template as npz.")
        vertices = data[names[0]].astype(np.float64)
        faces = data["faces"].astype(np.int64)
    vertices = vertices[0] if vertices.ndim == 3 else vertices
    if vertices.shape != (5023, 3) or faces.shape != (9976, 3):
        raise InputError(f"{path} has not FLAME's 5,023 vertices and 9,976 faces; give FLAME's template as npz.")
    known = np.isfinite(vertices).all(1)
    return np.where(known[:, None], vertices, 0), faces, known[faces].all(1)


def _ball(centre: tuple[float, float, float], count: int = 32) -> tuple[Array, NDArray[np.int64], Array]:
    polar, around = np.meshgrid(np.linspace(0, np.pi, count), np.linspace(0, 2 * np.pi, count), indexing="ij")
    direction = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], -1)
    direction = direction.reshape(-1, 3)
    corner = (np.arange(count - 1)[:, None] * count + np.arange(count - 1)).ravel()
    across = np.stack([corner, corner + count, corner + 1], 1)
    return (
        np.asarray(centre) + EYE_RADIUS_M * direction,
        np.concatenate([across, np.stack([corner + 1, corner + count, corner + count + 1], 1)]),
        direction,
    )


def find_landmarks(vertices: Array, faces: NDArray[np.int64], overlay: Path | None) -> tuple[Array, Array]:
    """The landmarker's 478 points on a head of skin: places (478, 3) and weights (478,) in [0, 1].

    Points are cast on the mesh from three turns of the head; the weight falls with their scatter.
    """
    from PIL import Image, ImageDraw

    parts, indices = [vertices], [faces]
    kinds = [np.zeros(len(faces), np.int32)]
    for centre in EYES:
        ball, ball_faces, direction = _ball(centre)
        indices.append(ball_faces + sum(map(len, parts)))
        parts.append(ball)
        kinds.append(np.where(direction[ball_faces].mean(1)[:, 2] > 0.9, 2, 1).astype(np.int32))
    points, triangles = np.concatenate(parts), np.concatenate(indices).astype(np.int32)
    materials = (
        Material(tint=(0.55, 0.36, 0.28)),
        Material(tint=(0.85, 0.85, 0.85)),
        Material(tint=(0.05, 0.04, 0.03)),
    )
    ambient = np.zeros((9, 3), np.float32)
    ambient[0], ambient[1] = 0.5, 0.2
    light = np.array([[0.3, 0.5, 0.8]], np.float32)
    lighting = Lighting(ambient, light / np.linalg.norm(light), np.full((1, 3), 0.8, np.float32))
    eyes = FrontEnd("cpu")
    seen: list[Array] = []
    for degrees in TURNS_DEG:
        turn = axis_angle_to_matrix(torch.tensor([0.0, np.radians(degrees), 0.0], dtype=torch.float64)).numpy()
        placed = (points @ turn.T + [0, 0, -DISTANCE_M]).astype(np.float32)
        normals = vertex_normals(placed, triangles)
        flat = np.zeros((len(triangles), 3, 2), np.float32)
        mesh = Mesh(
            placed, triangles, flat, np.concatenate(kinds), materials, np.ones(len(placed), np.float32), normals
        )
        drawn = render_mesh(mesh, lighting, SIZE)
        picture = drawn[..., :3] + (1 - drawn[..., 3:]) * 0.8
        image = (np.clip(picture, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)
        found = eyes.analyse(image, "the FLAME head").landmarks
        if found is None:
            raise InputError("the landmarker finds no face on the FLAME head; check the template.")
        pixels = found[:, :2].numpy()
        fragments = rasterize_mesh(project_corners(placed, triangles, SIZE), SIZE, SIZE)
        column, row = np.clip(pixels.astype(int), 0, SIZE - 1).T
        face = fragments.face[row, column]
        hit = (fragments.barycentric[row, column][..., None] * points[triangles[np.maximum(face, 0)]]).sum(1)
        on_skin = (face >= 0) & (face < len(faces))
        seen.append(np.where(on_skin[:, None], hit, np.nan))
        if overlay is not None and degrees == 0:
            sheet = Image.fromarray(image)
            pen = ImageDraw.Draw(sheet)
            for x, y in pixels.tolist():
                pen.ellipse([x - 1, y - 1, x + 1, y + 1], fill=(0, 255, 0))
            sheet.save(overlay)
    stack = np.stack(seen)
    few = np.isfinite(stack).all(-1).sum(0) < 2
    stack[:, few] = 0.0
    middle = np.nanmedian(stack, 0)
    scatter = np.sqrt(np.nanmean(((stack - middle) ** 2).sum(-1), 0))
    return middle, np.where(few, 0.0, 1 / (1 + (scatter / 0.003) ** 2))


def similarity(source: Array, target: Array, weight: Array) -> tuple[float, Array, Array]:
    """Scale, rotation (3, 3) and shift (3,) with the least weighted squares (Umeyama 1991): target = s R source + t."""
    share = weight / weight.sum()
    from_mean, to_mean = share @ source, share @ target
    a, b = source - from_mean, target - to_mean
    left, values, right = np.linalg.svd((b * share[:, None]).T @ a)
    sign = np.diag([1, 1, np.sign(np.linalg.det(left @ right))])
    rotation = left @ sign @ right
    scale = float((values * sign.diagonal()).sum() / (share @ (a * a).sum(1)))
    return scale, rotation, to_mean - scale * rotation @ from_mean


def nearest_on_mesh(
    points: Array, normals: Array, vertices: Array, faces: NDArray[np.int64], candidates: int = 24
) -> tuple[NDArray[np.int64], Array, Array, Array]:
    """Nearest triangle whose normal agrees: faces (P,), barycentrics (P, 3), distances (P,), cosines (P,)."""
    from scipy.spatial import cKDTree

    corners = vertices[faces]
    face_normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    face_normal /= np.maximum(np.linalg.norm(face_normal, axis=1, keepdims=True), 1e-12)
    _, near = cKDTree(corners.mean(1)).query(points, candidates)
    bary = np.stack([_barycentric(points, corners[near[:, k]]) for k in range(candidates)], 1)
    place = (bary[..., None] * corners[near]).sum(2)
    distance = np.linalg.norm(place - points[:, None], axis=-1)
    cosine = (face_normal[near] * normals[:, None]).sum(-1)
    best = (distance + 0.02 * (cosine < 0.5)).argmin(1)
    rows = np.arange(len(points))
    return near[rows, best], bary[rows, best], distance[rows, best], cosine[rows, best]


def _barycentric(points: Array, corners: Array) -> Array:
    """Of the point of each triangle (P, 3, 3) that is nearest to the projection, by clamping; exact inside."""
    a, b, c = corners.transpose(1, 0, 2)
    ab, ac, ap = b - a, c - a, points - a
    d00, d01, d11 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    d20, d21 = (ap * ab).sum(1), (ap * ac).sum(1)
    denominator = np.maximum(d00 * d11 - d01 * d01, 1e-18)
    v, w = (d11 * d20 - d01 * d21) / denominator, (d00 * d21 - d01 * d20) / denominator
    bary = np.clip(np.stack([1 - v - w, v, w], 1), 0, None)
    return bary / bary.sum(1, keepdims=True)


def bend(
    head: HeadModel,
    start: Array,
    skin: NDArray[np.bool_],
    target: Array,
    weight: Array,
    flame: Array,
    faces: NDArray[np.int64],
) -> Array:
    """The embedded head's vertices ``start`` bent onto FLAME's surface. Rows outside ``skin`` follow smoothly."""
    from scipy.sparse import coo_matrix, diags, vstack
    from scipy.sparse.linalg import splu

    own = head.faces.numpy()
    count = len(start)
    side = np.concatenate([own[:, [0, 1]], own[:, [1, 2]], own[:, [2, 0]]])
    side = np.unique(np.sort(side, 1), axis=0)
    link = coo_matrix((np.ones(len(side)), (side[:, 0], side[:, 1])), (count, count))
    link = link + link.T
    laplacian = diags(1 / np.maximum(np.asarray(link.sum(1)).ravel(), 1)) @ link - diags(np.ones(count))
    corner = own[head.landmark_faces.numpy()]
    rows = np.repeat(np.arange(len(corner)), 3)
    picks = coo_matrix((head.landmark_barycentric.numpy().ravel(), (rows, corner.ravel())), (len(corner), count))
    shift = np.zeros_like(start)
    for stiffness in STIFFNESS:
        for _ in range(3):
            now = start + shift
            normals = vertex_normals(now.astype(np.float32), own.astype(np.int32)).astype(np.float64)
            face, bary, distance, cosine = nearest_on_mesh(now, normals, flame, faces)
            goal = (bary[..., None] * flame[faces[face]]).sum(1)
            pull = np.where(skin & (cosine > 0.5), 1 / (1 + (distance / 0.006) ** 2), 0)
            smooth = 4 * np.sqrt(stiffness) * laplacian
            anchored = np.sqrt(2.0) * diags(weight) @ picks
            a = vstack([diags(pull), anchored, smooth, 1e-3 * diags(np.ones(count))])
            b = np.concatenate([
                pull[:, None] * (goal - start), np.sqrt(2.0) * weight[:, None] * (target - picks @ start),
                np.zeros((2 * count, 3)),
            ])  # fmt: skip
            shift = splu((a.T @ a).tocsc()).solve(a.T @ b)
    return start + shift


def _rim_centre(vertices: Array, faces: NDArray[np.int64]) -> Array:
    """Middle of the mesh's lower rim, which stands for FLAME's root joint: it is not in the template."""
    side = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    edges, times = np.unique(side, axis=0, return_counts=True)
    rim = vertices[np.unique(edges[times == 1])]
    return rim[rim[:, 1] < -0.1].mean(0) * [0, 1, 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("template", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--overlay", type=Path)
    options = parser.parse_args()
    flame, all_faces, known = load_flame(options.template)
    faces = all_faces[known]
    head = load_head()
    target, weight = find_landmarks(flame, faces, options.overlay)
    neutral = head.v_template.double().numpy()
    source = head.landmarks(head.v_template[None])[0].double().numpy()
    weight = weight * head.landmark_weights.double().numpy()
    weight[468:] = 0  # irises lie on eyeballs that FLAME Open's template does not have
    scale, rotation, shift = similarity(source, target, weight)
    # both templates are symmetric: only a nod may remain between them
    nod = np.arctan2(rotation[2, 1], rotation[1, 1])
    rotation = axis_angle_to_matrix(torch.tensor([nod, 0.0, 0.0], dtype=torch.float64)).numpy()
    shift = np.average(target - scale * source @ rotation.T, axis=0, weights=weight) * [0, 1, 1]
    start = scale * neutral @ rotation.T + shift
    regions: dict[str, NDArray[np.bool_]] = {name: mask.numpy().astype(np.bool_) for name, mask in head.regions.items()}
    skin: NDArray[np.bool_] = regions["skin"] & ~regions["interior"] & ~regions["torso"]
    bent = bend(head, start, skin, target, weight, flame, faces)
    normals = vertex_normals(bent.astype(np.float32), head.faces.numpy().astype(np.int32)).astype(np.float64)
    face, bary, distance, cosine = nearest_on_mesh(bent, normals, flame, faces)
    kept = skin & (distance < NEAR_M) & (cosine > AGREE)
    joints = scale * (head.J_regressor @ head.v_template).double().numpy() @ rotation.T + shift
    joints[0], joints[3:] = _rim_centre(flame, faces), EYES
    placed = (bary[kept][..., None] * flame[faces[face[kept]]]).sum(1)
    np.savez_compressed(
        options.output,
        vertex=np.flatnonzero(kept).astype(np.uint16),
        corners=all_faces[known][face[kept]].astype(np.uint16),
        barycentric=bary[kept].astype(np.float16),
        face_centre=placed[regions["face"][kept]].mean(0).astype(np.float32),
        scale=np.float32(scale),
        rotation=rotation.astype(np.float32),
        joints=joints.astype(np.float32),
    )
    corners = bent[head.faces.numpy()[head.landmark_faces.numpy()]]
    miss = np.linalg.norm((corners * head.landmark_barycentric.numpy()[..., None]).sum(1) - target, axis=1)
    print(f"scale {scale:.4f}, nod {np.degrees(nod):.2f} degrees, shift {shift.round(4).tolist()} m")
    print(f"landmarks {1e3 * np.average(miss, weights=weight):.2f} mm; {kept.sum()} of {skin.sum()} vertices kept")
    for name in ("face", "lips", "eyelids", "scalp", "ears", "neck"):
        mask = regions[name] & skin
        print(f"{name}: {(kept & mask).sum()} of {mask.sum()} kept, {1e3 * distance[kept & mask].mean():.2f} mm away")
    print("joints", joints.round(4).tolist())


if __name__ == "__main__":
    main()
