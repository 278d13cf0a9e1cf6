"""The mesh rasteriser and shader: exact geometry, both backends, independence of the thread count."""

import numpy as np
import pytest

from ffavatar.errors import InputError
from ffavatar.render.library import load_library
from ffavatar.render.mesh import (
    Lighting,
    Material,
    Mesh,
    light_matrix,
    project_corners,
    rasterize_mesh,
    render_mesh,
    sh_basis,
    shade_fragments,
    vertex_normals,
)

BACKENDS = ["numpy", "native"] if load_library() is not None else ["numpy"]


def sphere(radius=0.1, centre=(0.0, 0.0, -1.0), rings=24, around=36):
    theta, phi = np.meshgrid(
        np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, around, endpoint=False), indexing="ij"
    )
    unit = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(rings - 1), np.arange(around), indexing="ij")
    a, b = i * around + j, i * around + (j + 1) % around
    faces = np.concatenate([np.stack([a, b, a + around], -1), np.stack([b, b + around, a + around], -1)]).reshape(-1, 3)
    vertices = (unit * radius + centre).astype(np.float32)
    keep = [len(set(map(tuple, vertices[f].round(7)))) == 3 for f in faces]
    return vertices, faces[keep].astype(np.int32), unit


def mesh_of(vertices, faces, material, uvs=None):
    uvs = np.zeros((len(faces), 3, 2), np.float32) if uvs is None else uvs
    return Mesh(
        np.asarray(vertices, np.float32), faces, uvs, np.zeros(len(faces), np.int32), (material,),
        np.ones(len(vertices), np.float32), vertex_normals(vertices, faces),
    )  # fmt: skip


def ambient(level):
    out = np.zeros((9, 3), np.float32)
    out[0] = level
    return out


def quad(z, half=1.0):
    vertices = np.array([[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]], np.float32)
    return vertices, np.array([[0, 1, 2], [0, 2, 3]], np.int32)


@pytest.mark.parametrize("backend", BACKENDS)
def test_depth_and_barycentrics_are_those_of_the_ray_and_the_plane(backend):
    rng = np.random.default_rng(0)
    vertices = np.array([[-0.3, -0.2, -0.8], [0.4, -0.3, -1.5], [0.05, 0.35, -1.1]]) + rng.normal(0, 0.01, (3, 3))
    faces = np.array([[0, 1, 2]], np.int32)
    size = 64
    got = rasterize_mesh(project_corners(vertices, faces, size), size, size, backend=backend)
    rows, columns = np.nonzero(got.face == 0)
    assert len(rows) > 300
    ray = np.stack(
        [(columns + 0.5 - size / 2) / (3 * size), -(rows + 0.5 - size / 2) / (3 * size), -np.ones(len(rows))], -1
    )
    normal = np.cross(vertices[1] - vertices[0], vertices[2] - vertices[0])
    depth = (vertices[0] @ normal) / (ray @ normal)
    np.testing.assert_allclose(got.depth[rows, columns], depth, rtol=2e-6)
    point = np.einsum("nk,kc->nc", got.barycentric[rows, columns], vertices)
    np.testing.assert_allclose(point, ray * depth[:, None], atol=3e-6)
    assert np.isinf(got.depth[got.face < 0]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_nearest_wins_and_what_is_too_near_or_behind_is_left_out(backend):
    near, faces = quad(-1.0)
    far, _ = quad(-2.0)
    behind, _ = quad(0.5)
    vertices = np.concatenate([far, near, behind])
    every = np.concatenate([faces, faces + 4, faces + 8])
    got = rasterize_mesh(project_corners(vertices, every, 16), 16, 16, backend=backend)
    assert set(np.unique(got.face)) == {2, 3}
    np.testing.assert_allclose(got.depth, 1.0, rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_shared_edge_leaves_no_hole_and_picture_edges_are_kept(backend):
    vertices, faces = quad(-1.0)
    got = rasterize_mesh(project_corners(vertices, faces, 33), 33, 33, backend=backend)
    assert (got.face >= 0).all()


@pytest.mark.skipif(len(BACKENDS) < 2, reason="the native library is not built")
def test_native_agrees_with_numpy_with_cutouts_lights_and_shadows():
    rng = np.random.default_rng(1)
    vertices, faces, _ = sphere()
    card, card_faces = quad(-0.8, 0.05)
    texture = rng.integers(0, 256, (8, 8, 4), dtype=np.uint8)
    corners = np.array([[[0, 0], [2, 0], [2, 2]], [[0, 0], [2, 2], [0, 2]]], np.float32)
    points = np.concatenate([vertices, card])
    triangles = np.concatenate([faces, card_faces + len(vertices)])
    mesh = Mesh(
        points, triangles, np.concatenate([np.zeros((len(faces), 3, 2), np.float32), corners]),
        np.concatenate([np.zeros(len(faces)), np.ones(2)]).astype(np.int32),
        (Material(tint=(0.6, 0.4, 0.3), wrap=0.4, environment=0.2), Material(texture, cutout=0.5, softness=0.7)),
        rng.uniform(0.3, 1, len(points)).astype(np.float32), vertex_normals(points, triangles),
    )  # fmt: skip
    directions = np.array([[0.5, 0.6, 0.62], [-0.6, 0.0, 0.8]], np.float32)
    light = Lighting(
        rng.normal(0.2, 0.1, (9, 3)).astype(np.float32), directions, rng.uniform(0, 1, (2, 3)).astype(np.float32)
    )
    drawn = [render_mesh(mesh, light, 48, backend=b) for b in ("native", "numpy")]
    # A sample on the very edge of a triangle or texel may fall on either side.
    assert np.mean(np.abs(drawn[0] - drawn[1]).max(-1) > 2e-3) < 0.004
    fragments = [
        rasterize_mesh(
            project_corners(points, triangles, 96), 96, 96, uvs=mesh.uvs, face_material=mesh.face_material,
            materials=mesh.materials, backend=b,
        )
        for b in ("native", "numpy")
    ]  # fmt: skip
    assert np.mean(fragments[0].face != fragments[1].face) < 0.002


@pytest.mark.skipif(len(BACKENDS) < 2, reason="the native library is not built")
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_the_number_of_threads_changes_no_bit(threads):
    vertices, faces, _ = sphere()
    mesh = mesh_of(vertices, faces, Material(wrap=0.4))
    light = Lighting(ambient(0.3), np.array([[0.6, 0.0, 0.8]], np.float32), np.ones((1, 3), np.float32))
    one, many = (render_mesh(mesh, light, 40, threads=t) for t in (1, threads))
    assert np.array_equal(one, many)


@pytest.mark.parametrize("backend", BACKENDS)
def test_normals_of_a_sphere_point_outwards(backend, monkeypatch):
    if backend == "numpy":
        monkeypatch.setattr("ffavatar.render.mesh.load_library", lambda: None)
    vertices, faces, unit = sphere()
    normals = vertex_normals(vertices, faces)
    used = np.unique(faces)
    cosine = np.abs((normals[used] * unit[used]).sum(1))
    assert cosine.min() > 0.99


@pytest.mark.parametrize("backend", BACKENDS)
def test_ambient_light_alone_gives_the_albedo_and_coverage(backend):
    vertices, faces = quad(-1.0, 0.05)
    mesh = mesh_of(vertices, faces, Material(tint=(0.5, 0.25, 0.125), specular=0.0))
    drawn = render_mesh(mesh, Lighting(ambient(0.8)), 40, backend=backend)
    assert drawn[..., 3].sum() == pytest.approx((3 * 40 * 0.1) ** 2, rel=0.02)
    np.testing.assert_allclose(drawn[20, 20], [0.4, 0.2, 0.1, 1], rtol=1e-5)
    assert (drawn[0, 0] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_card_between_lamp_and_wall_casts_its_shadow(backend):
    wall, faces = quad(-1.0, 0.3)
    card, _ = quad(-0.9, 0.06)
    vertices, triangles = np.concatenate([wall, card]), np.concatenate([faces, faces + 4])
    mesh = mesh_of(vertices, triangles, Material(specular=0.0))
    toward = np.array([[0.6, 0.0, 0.8]], np.float32)
    light = Lighting(ambient(0.0), toward, np.ones((1, 3), np.float32))
    drawn = render_mesh(mesh, light, 64, backend=backend)[..., 0]
    # The shadow lies opposite to the lamp: 0.1 m behind the card it has moved by 0.1 * 0.6 / 0.8 to -x.
    column = round(32 + 3 * 64 * (-0.1 * 0.6 / 0.8 - 0.04))
    assert drawn[32, column] < 0.05
    assert drawn[32, 64 - column] == pytest.approx(0.8, rel=0.02)
    bare = shade_fragments(
        mesh, rasterize_mesh(project_corners(vertices, triangles, 64), 64, 64, backend=backend),
        Lighting(light.ambient, toward, light.colors, shadows=False), backend=backend,
    )  # fmt: skip
    assert bare[32, column, 0] == pytest.approx(0.8, rel=0.02)


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_transparent_cutouts_cover_half_of_the_samples(backend):
    vertices, faces = quad(-1.0)
    texture = np.full((2, 2, 4), 128, np.uint8)
    kwargs = dict(uvs=np.zeros((2, 3, 2), np.float32), face_material=np.zeros(2, np.int32), backend=backend)
    corners = project_corners(vertices, faces, 32)
    soft = rasterize_mesh(corners, 32, 32, materials=(Material(texture, cutout=0.5, softness=1.0),), **kwargs)
    assert np.mean(soft.face >= 0) == 0.5
    hole = rasterize_mesh(corners, 32, 32, materials=(Material(texture, cutout=0.6),), **kwargs)
    assert (hole.face < 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_textures_are_read_with_v_up(backend):
    vertices, faces = quad(-1.0, 0.1)
    texture = np.zeros((2, 2, 4), np.uint8)
    texture[0] = [255, 0, 0, 255]  # row 0: v near 1
    texture[1] = [0, 255, 0, 255]
    corner = np.array([[0, 0.25], [1, 0.25], [1, 0.75], [0, 0.75]], np.float32)
    mesh = mesh_of(vertices, faces, Material(texture, specular=0.0), corner[faces])
    drawn = render_mesh(mesh, Lighting(ambient(1.0)), 32, supersample=1, backend=backend)
    covered = np.flatnonzero(drawn[:, 16, 3] == 1)
    assert drawn[covered[0], 16, 0] > 0.8 > 0.2 > drawn[covered[0], 16, 1]
    assert drawn[covered[-1], 16, 1] > 0.8


def test_sh_basis_is_orthogonal_over_the_sphere():
    rng = np.random.default_rng(3)
    directions = rng.normal(size=(200_000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    basis = sh_basis(directions)
    gram = basis.T @ basis / len(basis)
    off = gram - np.diag(np.diag(gram))
    assert np.abs(off).max() < 0.01


def test_the_light_matrix_is_a_scaled_rotation_that_centres_the_scene():
    matrix = light_matrix(np.array([0.3, 0.8, 0.5]), np.array([0.1, -0.2, -1.0]), 0.5, 100)
    centre = matrix[:, :3] @ [0.1, -0.2, -1.0] + matrix[:, 3]
    np.testing.assert_allclose(centre, [50, 50, 1.0], atol=1e-4)
    scaled = matrix[:, :3] / [[100.0], [100.0], [1.0]]
    np.testing.assert_allclose(scaled @ scaled.T, np.eye(3), atol=1e-6)
    lamp_side = matrix[:, :3] @ (np.array([0.1, -0.2, -1.0]) + 0.1 * np.array([0.3, 0.8, 0.5])) + matrix[:, 3]
    assert lamp_side[2] < centre[2]


def test_wrong_input_is_refused():
    with pytest.raises(InputError, match="corners"):
        rasterize_mesh(np.zeros((3, 3)), 4, 4)
    with pytest.raises(InputError, match="belong together"):
        rasterize_mesh(np.zeros((1, 3, 3)), 4, 4, uvs=np.zeros((1, 3, 2)))
    with pytest.raises(InputError, match="face_material"):
        rasterize_mesh(
            np.ones((1, 3, 3)), 4, 4, uvs=np.zeros((1, 3, 2)), face_material=np.array([1]), materials=(Material(),)
        )
    with pytest.raises(InputError, match="backend"):
        rasterize_mesh(np.zeros((1, 3, 3)), 4, 4, backend="gpu")
    with pytest.raises(InputError, match="texture"):
        vertices, faces = quad(-1.0)
        render_mesh(mesh_of(vertices, faces, Material(np.zeros((2, 2, 3), np.uint8))), Lighting(ambient(1.0)), 8)


def test_without_the_library_auto_falls_back_and_native_says_why(monkeypatch):
    monkeypatch.setattr("ffavatar.render.mesh.load_library", lambda: None)
    vertices, faces = quad(-1.0)
    corners = project_corners(vertices, faces, 8)
    assert (rasterize_mesh(corners, 8, 8).face >= 0).all()
    with pytest.raises(InputError, match=r"ffavatar\.render\.build"):
        rasterize_mesh(corners, 8, 8, backend="native")
