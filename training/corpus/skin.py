"""Paint a person's skin, lips, brows and hair as a texture.

`anny` has UV masks but no photographs of skin, so everything is painted by formula.  Shapes such
as brows and hairline are defined in object space (relative to the eyes) and carried to the texture
through a map that gives, for every texel, its triangle and barycentric coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from training.corpus.head import (
    LEFT_EYE,
    RIGHT_EYE,
    SKIN,
    TEETH,
    TONGUE,
    FloatArray,
    Identity,
    IntArray,
    asset_folder,
    identity_vertices,
    load_base_mesh,
    vertex_parts,
    vertex_uvs,
)

TEXTURE_SIZE = 1024


@dataclass(frozen=True)
class SkinTexture:
    """`colour` (N,N,3) and `hair` coverage, `lips` mask (N,N), all in [0,1]; top row first.

    `grows` (19158,) is positive at base vertices where hair grows.
    """

    colour: FloatArray
    hair: FloatArray
    lips: FloatArray
    grows: FloatArray


@lru_cache(maxsize=8)
def _mask(name: str) -> FloatArray:
    path = asset_folder() / f"mpfb2/textures/mpfb_{name}.jpg"
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    resized = cv2.resize(image, (TEXTURE_SIZE, TEXTURE_SIZE), interpolation=cv2.INTER_AREA)
    return resized.astype(np.float32) / 255


@lru_cache(maxsize=1)
def _texel_map() -> tuple[IntArray, FloatArray]:
    """Base vertex indices (N,N,3) and barycentric weights (N,N,3) per texel; weights 0 = none."""
    mesh, size = load_base_mesh(), TEXTURE_SIZE
    indices = np.zeros((size, size, 3), np.int64)
    weights = np.zeros((size, size, 3), np.float32)
    eye_height = mesh.vertices[LEFT_EYE, 1].mean()
    on_head = (vertex_parts()[mesh.faces] == SKIN).all(1)
    on_head &= mesh.vertices[mesh.faces][:, :, 1].max(1) > eye_height - 1.7
    for face, uv_face in zip(mesh.faces[on_head], mesh.uv_faces[on_head], strict=True):
        corners = mesh.uvs[uv_face] * [size, -size] + [0, size]
        (x0, y0), (x1, y1) = np.floor(corners.min(0)), np.ceil(corners.max(0))
        xs, ys = np.meshgrid(np.arange(max(x0, 0), x1 + 1), np.arange(max(y0, 0), y1 + 1))
        (ax, ay), (bx, by), (cx, cy) = corners
        area = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy)
        if abs(area) < 1e-9:
            continue
        u = ((by - cy) * (xs - cx) + (cx - bx) * (ys - cy)) / area
        v = ((cy - ay) * (xs - cx) + (ax - cx) * (ys - cy)) / area
        bary = np.stack([u, v, 1 - u - v], -1)
        # A margin beyond the edges keeps texture filtering from bleeding in unpainted texels.
        inside = (bary > -0.05).all(-1) & (xs < size) & (ys < size)
        rows, columns = ys[inside].astype(int), xs[inside].astype(int)
        indices[rows, columns] = face
        weights[rows, columns] = bary[inside]
    return indices, weights


def _noise(rng: np.random.Generator, sigma_x: float, sigma_y: float = 0.0) -> FloatArray:
    """Unit-variance smooth noise (N, N)."""
    white = rng.standard_normal((TEXTURE_SIZE, TEXTURE_SIZE)).astype(np.float32)
    smooth = cv2.GaussianBlur(white, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y)
    return smooth / smooth.std()


def _blend(colour: FloatArray, target: FloatArray, alpha: FloatArray) -> FloatArray:
    return colour + (target - colour) * alpha[..., None]


def _hair_line_distance(positions: FloatArray, eyes: FloatArray, hairline: float) -> FloatArray:
    """Height (...) above the hairline for positions (...,3): positive where hair grows."""
    middle = eyes.mean(0)
    across = np.abs(positions[..., 0])
    height = positions[..., 1] - middle[1]
    behind = np.clip(middle[2] - positions[..., 2] - 0.1, 0, 3)
    line = 0.62 + hairline - 0.30 * behind - 0.55 * np.clip(across - 0.55, 0, 1)
    # Behind the ears the hair reaches down to the neck.
    line -= 2.2 * np.clip(behind - 0.75, 0, 0.5)
    return height - line


def _brow_mask(positions: FloatArray, eyes: FloatArray, identity: Identity) -> FloatArray:
    mask = np.zeros(positions.shape[:2], np.float32)
    for eye in eyes:
        outwards = (positions[..., 0] - eye[0]) * np.sign(eye[0])
        height = positions[..., 1] - eye[1]
        arch = 0.035 * np.cos(np.clip((outwards - 0.05) * 6, -2, 2)) * identity.brow_arch
        centre = 0.20 + arch - 0.16 * np.clip(outwards - 0.14, 0, 1)
        thickness = np.clip(0.040 - 0.07 * np.clip(outwards + 0.02, 0, 1), 0.012, 1)
        thickness = thickness * identity.brow_thickness
        ends = _soft_step(outwards + 0.17, 0.02) * _soft_step(0.28 - outwards, 0.02)
        in_front = positions[..., 2] - eye[2] > -0.2
        mask = np.maximum(mask, np.exp(-(((height - centre) / thickness) ** 2)) * ends * in_front)
    return mask


def _soft_step(values: FloatArray, width: float) -> FloatArray:
    return 1 / (1 + np.exp(-np.clip(values / width, -50, 50)))


def _cheek_mask(positions: FloatArray, eyes: FloatArray) -> FloatArray:
    mask = np.zeros(positions.shape[:2], np.float32)
    height = positions[..., 1] - eyes[:, 1].mean()
    for eye in eyes:
        across = (positions[..., 0] - eye[0] * 1.35) / 0.22
        mask = np.maximum(mask, np.exp(-(across**2 + ((height + 0.42) / 0.18) ** 2)))
    return mask * (positions[..., 2] > eyes[0, 2] - 0.3)


def _beard_mask(positions: FloatArray, eyes: FloatArray) -> FloatArray:
    """Where men's shaved beard darkens the skin a little."""
    height = positions[..., 1] - eyes[:, 1].mean()
    lower_face = _soft_step(-0.62 - height - 0.25 * np.abs(positions[..., 0]) ** 2, 0.05)
    return lower_face * _soft_step(height + 1.25, 0.05) * (positions[..., 2] > eyes[0, 2] - 1.0)


def paint(identity: Identity) -> SkinTexture:
    """The texture of one person."""
    vertices = identity_vertices(identity)
    eyes = np.stack([vertices[LEFT_EYE].mean(0), vertices[RIGHT_EYE].mean(0)])
    indices, weights = _texel_map()
    positions = (vertices[indices] * weights[..., None]).sum(2)
    covered = (weights.sum(-1) > 0.5).astype(np.float32)
    rng = np.random.default_rng(identity.texture_seed)
    pores, blotches = _noise(rng, 1.2), _noise(rng, 18)
    skin, hair_colour = np.array(identity.skin, np.float32), np.array(identity.hair, np.float32)

    colour = skin * (1 + 0.014 * pores + 0.025 * blotches)[..., None]
    redness = np.array([0.0, 1.0, 1.0], np.float32)
    colour = colour * (1 - 0.10 * _cheek_mask(positions, eyes)[..., None] * redness)
    colour = colour * (1 - 0.12 * _mask("ears")[..., None] * redness)
    colour = colour * (1 - 0.12 * _mask("eyelids")[..., None])
    if identity.gender == "male":
        colour = _blend(colour, skin * 0.78, 0.35 * _beard_mask(positions, eyes) * covered)
    lips, mouth = _mask("lips"), _mask("inside-mouth")
    colour = _blend(colour, skin * np.array([0.84, 0.52, 0.53], np.float32), 0.85 * lips)
    colour = _blend(colour, np.array([0.30, 0.07, 0.08], np.float32), mouth)

    brows = cv2.GaussianBlur(_brow_mask(positions, eyes, identity) * covered, (0, 0), 1.0)
    brows = brows * np.clip(0.85 + 0.25 * pores, 0, 1)
    colour = _blend(colour, np.minimum(hair_colour, skin * 0.75), 0.85 * brows)
    distance = _hair_line_distance(positions, eyes, identity.hairline) + 0.02 * blotches
    hair = _soft_step(distance, 0.025) * covered * (1 - _mask("ears"))
    hair = cv2.GaussianBlur(hair.astype(np.float32), (0, 0), 1.0)
    if identity.hair_style == "shaved":
        hair = hair * 0.55
    streaks = _noise(rng, 1.0, 9.0)
    colour = _blend(colour, hair_colour * (1 + 0.2 * streaks)[..., None], hair)

    return SkinTexture(
        colour=np.clip(colour, 0, 1).astype(np.float32),
        hair=hair,
        lips=lips,
        grows=_growth(identity, vertices, eyes),
    )


def _mask_at_vertices(name: str) -> FloatArray:
    """A UV mask looked up at the base vertices (19158,); 0 for parts other than skin."""
    size = TEXTURE_SIZE
    pixels = (vertex_uvs() * [size, -size] + [0, size]).astype(int).clip(0, size - 1)
    return _mask(name)[pixels[:, 1], pixels[:, 0]] * (vertex_parts() == SKIN)


@lru_cache(maxsize=1)
def inside_mouth() -> FloatArray:
    """1 for base vertices (19158,) of the mouth cavity, teeth and tongue, else 0."""
    cavity = _mask_at_vertices("inside-mouth") > 0.5
    return (cavity | np.isin(vertex_parts(), (TEETH, TONGUE))).astype(np.float32)


def _growth(identity: Identity, vertices: FloatArray, eyes: FloatArray) -> FloatArray:
    distance = _hair_line_distance(vertices, eyes, identity.hairline)
    grows = (distance > 0) & (vertex_parts() == SKIN) & (vertices[:, 1] > eyes[0, 1] - 0.9)
    is_ear = _mask_at_vertices("ears") > 0.3
    return (grows & ~is_ear).astype(np.float32)
