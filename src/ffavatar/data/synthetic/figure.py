"""A sampled person as meshes: built once per person, then posed per shot.

Parts: skin and shirt (the head model's own triangles), eyeballs, teeth, tongue, brows, lashes, hair (artwork cards or
shells of fur), glasses. Ambient occlusion is baked per person, mouth shut and mouth open, and mixed by the jaw.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ffavatar.data.synthetic import garments, painting, strands, wraps
from ffavatar.data.synthetic.artwork import Artwork, Proxy
from ffavatar.data.synthetic.body import EYES, Body, Neutral
from ffavatar.data.synthetic.glasses import lens_texture, make_glasses
from ffavatar.data.synthetic.people import Person
from ffavatar.data.synthetic.variety import Headwear, stream
from ffavatar.render.mesh import Array, Material, Mesh, light_matrix, rasterize_mesh, vertex_normals
from ffavatar.types import HeadParams

SHIRT_LIFT_M = 0.0035
FUR_LAYERS = 9
HAIR_TEXTURE_PX = 512
OPEN_JAW_RAD = 0.3  # the pose whose occlusion stands for an open mouth
# Hair below the first height hangs on the chest, above the second it turns with the head.
HANG_LOW_M, HANG_HIGH_M = -0.21, -0.06
_OCCLUSION_PX = 128


@dataclass(frozen=True)
class Part:
    """One mesh of a person; ``kind`` says how it is posed."""

    kind: str  # body, proxy, hair, glasses, worn, shells
    faces: Array
    uvs: Array
    face_material: Array  # rows of `Figure.materials`
    proxy: Proxy | None = None
    rest: Array | None = None  # hair, glasses, worn: (P, 3) in the neutral head of this identity
    head_share: Array | None = None  # hair, worn: (P,) 1 turns with the head, 0 stays with the torso
    shells: strands.Shells | None = None


@dataclass(frozen=True)
class Figure:
    """A person ready to be posed."""

    person: Person
    neutral: Neutral
    lift: Array  # (V,) metres the shirt stands off the skin
    parts: tuple[Part, ...]
    materials: tuple[Material, ...]
    occlusion: tuple[Array, Array]  # mouth shut, mouth open: (all vertices,)


def build_figure(body: Body, person: Person, artwork: Artwork | None) -> Figure:
    """Paint, dress and bake one person."""
    neutral = body.neutral(person.identity)
    atlas = painting.paint_atlas(body, person, artwork)
    materials: list[Material] = []
    parts: list[Part] = []

    def add(material: Material) -> int:
        materials.append(material)
        return len(materials) - 1

    skin = add(Material(atlas, specular=0.22 * person.gloss, gloss=14, wrap=0.4, environment=0.14 * person.gloss))
    shirt = add(Material(atlas, specular=0.02, gloss=6, wrap=0.12))
    eyes = add(Material(painting.paint_eye(person, artwork), tint=(0.86, 0.84, 0.82), specular=1.0, gloss=120,
                        wrap=0.15, environment=0.5))  # fmt: skip
    inside = add(Material(atlas, tint=(0.8, 0.6, 0.6), specular=0.3, gloss=30, wrap=0.3))
    teeth = add(Material(tint=tuple(0.75 * person.teeth_tint), specular=0.3, gloss=40, wrap=0.3))
    tongue = add(Material(tint=(0.33, 0.1, 0.1), specular=0.3, gloss=25, wrap=0.4))
    parts.append(_body_part(body, person, skin, shirt, eyes, inside, teeth, tongue, own_teeth=person.teeth is None))

    def hang(kind: str, name: str, material: Material) -> None:
        assert artwork is not None
        proxy = artwork.proxy(kind, name)
        row = add(material)
        parts.append(Part("proxy", proxy.faces, proxy.uvs, np.full(len(proxy.faces), row, np.int32), proxy))

    if artwork is not None:
        if person.teeth is not None:
            texture = artwork.texture(artwork.teeth_texture(), HAIR_TEXTURE_PX)
            tint = tuple(0.95 * person.teeth_tint)
            hang("teeth", person.teeth, Material(texture, tint=tint, specular=0.3, gloss=40, wrap=0.3, cutout=0.25))
        if person.brows is not None:
            texture = artwork.texture(artwork.proxy("eyebrows", person.brows).texture, HAIR_TEXTURE_PX)
            texture = painting.tint_hair(texture, np.clip(person.hair_color, 0.008, 0.25), 0.1)
            hang(
                "eyebrows",
                person.brows,
                Material(texture, specular=0.0, cutout=0.36 / person.brow_strength, softness=0.8),
            )
        if person.lashes is not None:
            texture = artwork.texture(artwork.proxy("eyelashes", person.lashes).texture, HAIR_TEXTURE_PX)
            hang(
                "eyelashes",
                person.lashes,
                Material(texture, tint=(0.12, 0.1, 0.1), specular=0.0, cutout=0.45, softness=0.9),
            )
    worn = person.variety.headwear
    hair: Part | None = None
    if person.hair == "fur":
        hair = _fur(body, person, neutral, add)
    elif person.hair == "cards":
        hair = _cards(body, person, neutral, add)
    elif person.hair not in (None, "buzz"):
        assert artwork is not None and person.hair is not None
        hair = _card_hair(body, person, neutral, artwork, add)
    if hair is not None:
        parts.append(_pressed(body, neutral, hair, worn) if worn is not None else hair)
    if person.variety.beard is not None:
        parts.append(_beard(body, person, neutral, add))
    if person.glasses:
        parts.append(_glasses(body, person, neutral, add))
    parts += _worn(body, person, neutral, add)
    lift = _shirt_lift(body, person)
    figure = Figure(person, neutral, lift, tuple(parts), tuple(materials), (np.zeros(0), np.zeros(0)))
    return replace(figure, occlusion=(_bake(body, figure, 0.0), _bake(body, figure, OPEN_JAW_RAD)))


def pose_figure(body: Body, figure: Figure, params: HeadParams) -> list[Mesh]:
    """The person's triangles for each of P rows of parameters, in the world of the normalised camera."""
    points, torso, head = body.pose(figure.neutral, params)
    meshes = []
    faces = np.concatenate([p.faces + o for p, o in zip(figure.parts, _offsets(body, figure))]).astype(np.int32)
    uvs = np.concatenate([p.uvs for p in figure.parts]).astype(np.float32)
    kinds = np.concatenate([p.face_material for p in figure.parts]).astype(np.int32)
    for row in range(len(params)):
        vertices = []
        for part in figure.parts:
            if part.kind == "body":
                own = points[row, : len(body.template)]
                if figure.person.teeth is None:
                    own = own + body.teeth_drop @ head[row, :, :3].T
                vertices.append(own + vertex_normals(own, body.faces) * figure.lift[:, None])
            elif part.shells is not None:
                own = points[row, : len(body.template)]
                shells = part.shells
                out = vertex_normals(own, body.faces[body.faces_of("skin")])[shells.rows] * shells.along[:, None]
                vertices.append(own[shells.rows] + out + shells.lean @ head[row, :, :3].T)
            elif part.kind == "proxy":
                assert part.proxy is not None
                vertices.append(body.hang(part.proxy, points[row], figure.neutral.all, head[row, :, :3]))
            else:
                assert part.rest is not None
                turned = part.rest @ head[row, :, :3].T + head[row, :, 3]
                if part.head_share is not None:
                    still = part.rest @ torso[row, :, :3].T + torso[row, :, 3]
                    turned = still + part.head_share[:, None] * (turned - still)
                vertices.append(turned)
        joined = np.concatenate(vertices).astype(np.float32)
        shut, opened = figure.occlusion
        share = np.clip(float(params.jaw[row, 0]) / OPEN_JAW_RAD, 0, 1)
        occlusion = shut + share * (opened - shut) if len(shut) else np.ones(len(joined))
        meshes.append(
            Mesh(
                joined, faces, uvs, kinds, figure.materials, occlusion.astype(np.float32), vertex_normals(joined, faces)
            )
        )
    return meshes


def _offsets(body: Body, figure: Figure) -> list[int]:
    sizes = []
    for part in figure.parts:
        if part.shells is not None:
            sizes.append(len(part.shells.rows))
        elif part.proxy is not None:
            sizes.append(len(part.proxy.weights))
        else:
            sizes.append(len(body.template) if part.rest is None else len(part.rest))
    return [0, *np.cumsum(sizes)[:-1].tolist()]


def _body_part(
    body: Body, person: Person, skin: int, shirt: int, eyes: int, inside: int, teeth: int, tongue: int, own_teeth: bool
) -> Part:
    kind = np.full(len(body.faces), skin, np.int32)
    clothed = painting.shirt_mask(body.template, person.collar)[body.faces].mean(1) > 0.5
    kind[clothed] = shirt
    kind[body.faces_of("mouth_interior")] = inside
    kind[body.faces_of("teeth_upper", "teeth_lower")] = teeth
    kind[body.faces_of("tongue")] = tongue
    uvs = body.uvs.copy()
    balls = np.concatenate([body.faces_of(name) for name in EYES])
    kind[balls], uvs[balls] = eyes, body.eye_uvs()
    kept = np.ones(len(body.faces), bool)
    if not own_teeth:
        kept[body.faces_of("teeth_upper", "teeth_lower")] = False
    return Part("body", body.faces[kept], uvs[kept], kind[kept])


def _card_hair(body: Body, person: Person, neutral: Neutral, artwork: Artwork, add) -> Part:
    """Artwork hair on this identity's head, maybe mirrored, kept off the skin."""
    assert person.hair is not None
    proxy = artwork.proxy("hair", person.hair)
    everything = neutral.all
    rest = body.hang(proxy, everything, everything)
    faces, uvs = proxy.faces, proxy.uvs
    if person.hair_mirrored:
        rest, faces = rest * [-1, 1, 1], faces[:, ::-1]
        uvs = uvs[:, ::-1]
    centre = painting.HEAD_CENTRE.astype(np.float64)
    above = painting.smoothstep(-0.04, 0.02, rest[:, 1])[:, None]
    rest = rest + (rest - centre) * (person.hair_volume - 1) * above
    rest = _keep_outside(body, neutral, rest, 0.0025)
    texture = painting.tint_hair(artwork.texture(proxy.texture, HAIR_TEXTURE_PX), person.hair_color)
    row = add(Material(texture, specular=0.12, gloss=18, wrap=0.25, environment=0.12, cutout=0.4, softness=0.8))
    share = painting.smoothstep(HANG_LOW_M, HANG_HIGH_M, rest[:, 1])
    return Part("hair", np.ascontiguousarray(faces), np.ascontiguousarray(uvs), np.full(len(faces), row, np.int32),
                rest=rest, head_share=share)  # fmt: skip


def _keep_outside(body: Body, neutral: Neutral, points: Array, margin_m: float) -> Array:
    """Lift points that lie less than ``margin_m`` above the nearest part of the skin of head or torso."""
    skin = np.flatnonzero(body.regions["skin"] & ~body.regions["mouth_interior"])
    normals = vertex_normals(neutral.vertices, body.faces[body.faces_of("skin")])
    anchor, out = neutral.vertices[skin].astype(np.float32), points.copy()
    for start in range(0, len(points), 512):
        block = points[start : start + 512].astype(np.float32)
        distance = (anchor**2).sum(1) - 2 * block @ anchor.T  # + |block|^2, the same for all anchors
        nearest = skin[distance.argmin(1)]
        normal = normals[nearest].astype(np.float64)
        height = ((block - neutral.vertices[nearest]) * normal).sum(1)
        near = np.linalg.norm(block - neutral.vertices[nearest], axis=1) < 0.02
        out[start : start + 512] += normal * (np.maximum(margin_m - height, 0) * near)[:, None]
    return out


def _fur(body: Body, person: Person, neutral: Neutral, add) -> Part:
    """Short hair as shells: the scalp's triangles repeated outwards, each layer with fewer of a texture's strands."""
    rng = np.random.default_rng([person.seed, 7])
    depth = painting.hairline_depth(body.template, person.hairline)
    scalp = body.regions["skin"] & (painting.ear_mask(body.template) < 0.5) & (depth > -12)
    chosen = np.flatnonzero(scalp[body.faces].all(1))
    used, faces = np.unique(body.faces[chosen], return_inverse=True)
    faces = faces.reshape(-1, 3)
    normals = vertex_normals(neutral.vertices, body.faces[body.faces_of("skin")])[used].astype(np.float64)
    root = neutral.vertices[used]
    length = person.fur_length_m * (0.45 + 0.55 * painting.smoothstep(0.02, 0.1, root[:, 1]))
    length = length * painting.smoothstep(-6, 14, depth[used]) + 0.0008
    comb = np.array([rng.normal(0, 0.5), -0.3, rng.normal(0, 0.6)])
    lean = comb - (normals @ comb)[:, None] * normals
    wave = painting.noise_at(rng, np.arange(len(used)) * 37 % painting.ATLAS_PX**2, 4)[:, None] * rng.uniform(0.0, 0.25)
    strands = painting.paint_fur(body, person)
    points, triangles, kinds = [], [], []
    layers = FUR_LAYERS + int(person.fur_length_m / 0.007)
    for layer in range(layers):
        height = (layer + 0.5) / layers
        reach = length[:, None] * height
        points.append(root + reach * (normals * (1 + wave) + lean * height * 0.8) + normals * 0.0006)
        triangles.append(faces + layer * len(used))
        shade = 0.55 + 0.6 * height
        row = add(
            Material(
                strands, tint=tuple(person.hair_color * shade), specular=0.08, gloss=12, wrap=0.25, environment=0.06,
                cutout=0.08 + 0.72 * height, softness=0.25,
            )
        )  # fmt: skip
        kinds.append(np.full(len(faces), row, np.int32))
    uvs = np.tile(body.uvs[chosen], (layers, 1, 1))
    rest = np.concatenate(points)
    return Part("hair", np.concatenate(triangles), uvs, np.concatenate(kinds), rest=rest, head_share=np.ones(len(rest)))


def _cards(body: Body, person: Person, neutral: Neutral, add) -> Part:
    """Long procedural hair, kept off the skin."""
    assert person.variety.cut is not None
    rng = stream(person.seed, "cards")
    made = strands.cards(body, neutral, person.variety.cut, person.hairline, rng)
    rest = _keep_outside(body, neutral, made.vertices, 0.003)
    texture = strands.strand_texture(rng, person.hair_color, person.variety.cut.tips)
    row = add(Material(texture, specular=0.14, gloss=20, wrap=0.25, environment=0.1, cutout=0.35, softness=0.8))
    share = painting.smoothstep(HANG_LOW_M, HANG_HIGH_M, rest[:, 1])
    return Part("hair", made.faces, made.uvs, np.full(len(made.faces), row, np.int32), rest=rest, head_share=share)


def _pressed(body: Body, neutral: Neutral, hair: Part, worn: Headwear) -> Part:
    """Hair under what is worn on the head: pressed onto the scalp above its edge."""
    assert hair.rest is not None
    field = wraps.head_field(body, neutral, smooth=5)
    d = hair.rest - field.centre
    azimuth, elevation = np.arctan2(d[:, 0], d[:, 2]), np.arctan2(d[:, 1], np.hypot(d[:, 0], d[:, 2]))
    under = painting.smoothstep(-0.12, 0.02, elevation - garments.hat_edge(worn, azimuth))
    radius = np.linalg.norm(d, axis=1)
    most = field.at(azimuth, elevation) + garments.HAIR_UNDER_HAT_M
    factor = 1 - under * (1 - np.minimum(most / np.maximum(radius, 1e-6), 1))
    return replace(hair, rest=field.centre + d * factor[:, None])


def _beard(body: Body, person: Person, neutral: Neutral, add) -> Part:
    beard = person.variety.beard
    assert beard is not None
    shells = strands.beard_shells(body, neutral, beard, stream(person.seed, "beard shells"))
    texture = painting.paint_beard(body, person, beard)
    rows = []
    for layer in range(strands.BEARD_LAYERS):
        height = (layer + 0.5) / strands.BEARD_LAYERS
        tint = beard.color * (0.6 + 0.55 * height)
        material = Material(
            texture, tint=(float(tint[0]), float(tint[1]), float(tint[2])), specular=0.06, gloss=12, wrap=0.25,
            environment=0.04, cutout=0.08 + 0.68 * height, softness=0.25,
        )  # fmt: skip
        rows.append(add(material))
    return Part("shells", shells.faces, shells.uvs, np.array(rows, np.int32)[shells.layer], shells=shells)


def _glasses(body: Body, person: Person, neutral: Neutral, add) -> Part:
    frames = person.variety.frames
    made = make_glasses(body, neutral, np.random.default_rng([person.seed, 8]), frames)
    color = frames.color
    frame = add(Material(tint=(float(color[0]), float(color[1]), float(color[2])), specular=0.8, gloss=50,
                         environment=0.6))  # fmt: skip
    texture = lens_texture(stream(person.seed, "lens texture"), frames)
    cutout = 0.0 if frames.style == "sun" else 0.4
    lens = add(Material(texture, specular=1.0, gloss=90, environment=1.0, cutout=cutout, softness=1.0))
    kinds = np.where(made.lens, lens, frame).astype(np.int32)
    return Part("glasses", made.faces, made.uvs, kinds, rest=made.vertices)


def _worn(body: Body, person: Person, neutral: Neutral, add) -> list[Part]:
    """Collars, scarves, hoods, caps: what ``garments`` makes of this person's clothes and headwear."""
    clothes, worn, out = person.variety.clothes, person.variety.headwear, []
    rng = stream(person.seed, "garments")
    first = clothes.color if clothes.kind != "tee" else person.shirt_color
    pieces = [(p, first, person.shirt_color if clothes.kind == "jacket" else clothes.second, clothes.pattern)
              for p in garments.dress(body, neutral, person.collar, clothes, rng)]  # fmt: skip
    if worn is not None:
        head = garments.cover_head(body, neutral, worn, stream(person.seed, "headwear shape"))
        pieces += [(p, worn.color, worn.second, worn.pattern) for p in head]
    for piece, color, second, pattern in pieces:
        chosen = second if piece.second else color
        texture = garments.cloth_texture(rng, chosen, color if piece.second else second, pattern)
        row = add(Material(texture, specular=0.03, gloss=8, wrap=0.15))
        kinds = np.full(len(piece.faces), row, np.int32)
        out.append(Part("worn", piece.faces, piece.uvs, kinds, rest=piece.vertices, head_share=piece.head_share))
    return out


def _shirt_lift(body: Body, person: Person) -> Array:
    """(V,) metres that cloth stands off the skin: thicker for coats, uneven where it folds."""
    clothes, rng = person.variety.clothes, stream(person.seed, "lift")
    mask = painting.shirt_mask(body.template, person.collar) * body.regions["skin"]
    x, y, z = body.template.T
    waves = sum(
        rng.normal(0, 0.4) * np.sin(a * x + b * y + c * z + rng.uniform(0, 6.3))
        for a, b, c in rng.normal(0, 45, (6, 3))
    )
    over = painting.smoothstep(0.0, 0.03, -0.118 - y + 0.25 * np.abs(x))  # thin again where the neck comes out
    lift = SHIRT_LIFT_M + (clothes.lift_m - SHIRT_LIFT_M + clothes.fold_m * (1 + np.clip(waves, -1, 1))) * over
    return np.maximum(lift, 0.002) * mask


def _bake(body: Body, figure: Figure, jaw: float) -> Array:
    """(all vertices,) share of the sky each sees, from depth maps of 26 directions around the resting person."""
    expression = torch.zeros(1, len(body.expressions))
    zero = torch.zeros(1, 3)
    params = HeadParams(zero, zero, zero, torch.tensor([[jaw, 0.0, 0.0]]), zero, zero, expression)
    mesh = pose_figure(body, figure, params)[0]
    golden = np.pi * (3 - np.sqrt(5))
    k = np.arange(26)
    y = 1 - 2 * (k + 0.5) / len(k)
    directions = np.stack([np.sqrt(1 - y * y) * np.sin(golden * k), y, np.sqrt(1 - y * y) * np.cos(golden * k)], -1)
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    centre, radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
    seen, total = np.zeros(len(mesh.vertices)), np.zeros(len(mesh.vertices))
    lifted = mesh.vertices + mesh.normals * 0.003
    for direction in directions:
        matrix = light_matrix(direction, centre, radius, _OCCLUSION_PX)
        place = mesh.vertices @ matrix[:, :3].T + matrix[:, 3]
        depth = rasterize_mesh(
            place[mesh.faces], _OCCLUSION_PX, _OCCLUSION_PX, uvs=mesh.uvs, face_material=mesh.face_material,
            materials=mesh.materials, orthographic=True,
        ).depth  # fmt: skip
        at = lifted @ matrix[:, :3].T + matrix[:, 3]
        column, line = np.clip(at[:, :2], 0, _OCCLUSION_PX - 1).astype(int).T
        weight = np.maximum(mesh.normals @ direction, 0) + 0.1
        seen += weight * (depth[line, column] >= at[:, 2] - 0.002)
        total += weight
    return np.clip(seen / total * 1.15, 0.06, 1) ** 0.9
