"""This is where hair grows: strips of strands that follow a comb direction round the head.

Every strip starts on the scalp and is walked step by step: along the style's comb direction at
first, then more and more downwards, kept off the head and out of the face. Strips are narrow
ribbons; the renderer cuts strands out of them. They move with the head, not with the face.

Units are mesh units (decimetres); positions are relative to nothing but the mesh itself, `local`
ones to the middle between the eyes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from training.corpus.head import SKIN, FloatArray, IntArray, load_base_mesh, vertex_parts

STEPS = 9
STRIPS = 650
LONGEST_STEP = 0.55


@dataclass(frozen=True)
class HairStyle:
    """`comb` names the direction; `lift` how far hair stands off, `curl` how far it winds."""

    comb: str  # down, forward, back, side or part
    length: float
    fringe: float  # length of what grows in front
    lift: float
    gravity: float  # 0: keeps its direction, 1: hangs
    curl: float = 0.0
    width: float = 0.085


STYLES: dict[str, HairStyle] = {
    "crop": HairStyle("forward", 0.30, 0.24, 0.07, 0.05),
    "short": HairStyle("side", 0.55, 0.50, 0.13, 0.10),
    "back": HairStyle("back", 0.95, 0.90, 0.16, 0.10),
    "curly": HairStyle("down", 0.80, 0.40, 0.26, 0.15, curl=0.055, width=0.075),
    "fringe": HairStyle("down", 1.75, 0.58, 0.12, 0.75, width=0.11),
    "bob": HairStyle("part", 1.95, 1.85, 0.13, 0.75, width=0.11),
    "long": HairStyle("part", 3.40, 3.30, 0.14, 0.85, width=0.13),
    "wavy": HairStyle("part", 3.00, 2.90, 0.22, 0.80, curl=0.045, width=0.12),
}
FACE_HALF_WIDTH = 0.80  # hair that falls beside the face stays outside of this
FRONT = 0.45  # |z| behind the eyes up to which a root belongs to the fringe


@dataclass(frozen=True)
class HairMesh:
    """Ribbons: positions, normals, tangents (N,3), uv (N,2), shade (N,), faces (M,3).

    `uv` runs across a ribbon in [0, 1] and along it from the root 0 to the tip 1; `shade` is a
    random number of the ribbon.
    """

    positions: FloatArray
    normals: FloatArray
    tangents: FloatArray
    uv: FloatArray
    shade: FloatArray
    faces: IntArray


def _unit(vectors: FloatArray) -> FloatArray:
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-9)


def vertex_normals(vertices: FloatArray) -> FloatArray:
    """Normals (19158, 3) of the base mesh's skin."""
    faces = load_base_mesh().faces
    faces = faces[(vertex_parts()[faces] == SKIN).all(1)]
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    normals = np.zeros_like(vertices)
    np.add.at(normals, faces.reshape(-1), np.repeat(np.cross(b - a, c - a), 3, axis=0))
    return _unit(normals)


def scatter_roots(
    vertices: FloatArray, grows: FloatArray, count: int, rng: np.random.Generator
) -> FloatArray:
    """`count` points (count, 3) spread evenly over the faces all of whose vertices grow hair."""
    faces = load_base_mesh().faces
    faces = faces[(grows[faces] > 0).all(1)]
    corners = vertices[faces]
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    chosen = corners[rng.choice(len(faces), count, p=area / area.sum())]
    weights = rng.dirichlet([1, 1, 1], count)[:, :, None]
    return (chosen * weights).sum(1).astype(np.float32)


def comb_direction(comb: str, local: FloatArray, parting: float) -> FloatArray:
    """Unit vectors (...,3) in which hair at `local` is combed."""
    direction = np.zeros_like(local)
    side = np.where(local[..., 0] >= parting, 1.0, -1.0)
    if comb == "forward":
        direction[...] = (0.0, -0.2, 1.0)
        direction[..., 0] = 0.5 * parting / 0.3
    elif comb == "back":
        direction[...] = (0.0, 0.1, -1.0)
        direction[..., 0] = 0.4 * local[..., 0]
    elif comb == "side":
        direction[...] = (0.0, -0.15, 0.35)
        direction[..., 0] = -np.sign(parting or 1.0) * np.where(side * parting > 0, -0.6, 1.0)
    elif comb == "part":
        direction[...] = (0.0, -0.35, -0.30)
        direction[..., 0] = side
    else:  # away from the crown
        direction = local - np.array([0.0, 1.25, -1.1], np.float32)
    return _unit(direction).astype(np.float32)


def _keep_out_of_face(local: FloatArray, height: float) -> FloatArray:
    """Move points in front of the face, below a height, to its sides."""
    before = (local[:, 1] < height) & (local[:, 2] > -1.0) & (np.abs(local[:, 0]) < FACE_HALF_WIDTH)
    moved = local.copy()
    moved[before, 0] = np.where(local[before, 0] >= 0, FACE_HALF_WIDTH, -FACE_HALF_WIDTH)
    return moved


def grow(
    style: HairStyle, vertices: FloatArray, eye_middle: FloatArray, grows: FloatArray,
    parting: float, rng: np.random.Generator,
) -> HairMesh:  # fmt: skip
    """The hair of a head.

    vertices: (19158, 3) neutral; grows: (19158,) positive where hair grows; parting: x.
    """
    normals = vertex_normals(vertices)
    # Hair lies on head and neck, and disappears behind the shoulders.
    skin = np.flatnonzero((vertex_parts() == SKIN) & (vertices[:, 1] > eye_middle[1] - 1.35))
    tree = KDTree(vertices[skin])
    if style.gravity < 0.5:  # short hair on the back of the head is never seen
        grows = grows * (normals[:, 2] > -0.45)
    roots = scatter_roots(vertices, grows, STRIPS, rng)
    local = roots - eye_middle
    in_front = np.clip((local[:, 2] + FRONT + 0.3) / 0.3, 0, 1) * (local[:, 1] > 0.4)
    length = style.length + (style.fringe - style.length) * in_front
    step = (length * rng.uniform(0.8, 1.1, STRIPS) / STEPS)[:, None].astype(np.float32)
    stand = (style.lift * rng.uniform(0.15, 1.0, STRIPS)).astype(np.float32)
    phase = rng.uniform(0, 2 * np.pi, (STRIPS, 1))
    long_style = style.gravity > 0.5
    lowest_fringe = 0.05 if style.comb == "down" else 0.35

    points, surface = [roots], [normals[skin[tree.query(roots)[1]]]]
    heading = comb_direction(style.comb, local, parting) + rng.normal(0, 0.12, (STRIPS, 3))
    for index in range(1, STEPS + 1):
        travelled = index / STEPS
        hang = min(1.0, style.gravity * 2.2 * travelled)
        # Along the head: only what has left it may point outwards.
        flat = heading - np.clip((heading * surface[-1]).sum(1), 0, None)[:, None] * surface[-1]
        wanted = (1 - hang) * _unit(flat) + hang * np.array([0, -1, 0])
        winding = 2 * np.pi * 2.5 * travelled + phase
        sideways = np.concatenate([np.cos(winding), np.sin(winding), np.sin(winding + 1)], 1)
        point = points[-1] + step * _unit(wanted) + style.curl * sideways * (travelled > 0.1)
        if long_style:
            point = _keep_out_of_face(point - eye_middle, lowest_fringe) + eye_middle
        nearest = skin[tree.query(point)[1]]
        normal = normals[nearest]
        height = ((point - vertices[nearest]) * normal).sum(1)
        # Hair leaves the scalp within its first quarter and then lies on what is below.
        needed = stand * min(1.0, 0.35 + 2.6 * travelled) - height
        point = point + np.clip(needed, 0, None)[:, None] * normal
        points.append(point.astype(np.float32))
        surface.append(normal)
    walks = np.stack(points, 1)
    # Front and outer ribbons first: what they hide is not shaded at all.
    order = np.argsort(-(walks[:, :, 2].mean(1) + 2 * stand))
    # Hair that had to leave the face in one leap would be a bar across the forehead.
    leap = np.linalg.norm(np.diff(walks, axis=1), axis=2).max(1)
    order = order[leap[order] < LONGEST_STEP]
    return _ribbons(walks[order], np.stack(surface, 1)[order], style.width, rng)


def _ribbons(
    points: FloatArray, surface: FloatArray, width: float, rng: np.random.Generator
) -> HairMesh:
    """Ribbons along walks (S, K, 3) that lie flat on the head."""
    strips, steps = points.shape[:2]
    tangents = _unit(np.gradient(points, axis=1))
    # Walks smoothed normals: single vertices would make the light flicker along a ribbon.
    smooth = surface.copy()
    for _ in range(2):
        smooth[:, 1:-1] = (smooth[:, :-2] + smooth[:, 1:-1] + smooth[:, 2:]) / 3
    normals = _unit(smooth - (smooth * tangents).sum(-1, keepdims=True) * tangents)
    across = np.cross(tangents, normals)
    widths = width * rng.uniform(0.7, 1.3, (strips, 1, 1)) * np.ones((1, steps, 1))
    edges = np.stack([points - across * widths / 2, points + across * widths / 2], 2)
    along = np.broadcast_to(np.linspace(0, 1, steps)[None, :, None], (strips, steps, 2))
    over = np.broadcast_to(np.array([0.0, 1.0]), (strips, steps, 2))
    shade = np.broadcast_to(rng.random((strips, 1, 1)), (strips, steps, 2))
    corner = np.arange(strips)[:, None] * steps * 2 + 2 * np.arange(steps - 1)
    quads = np.stack([corner, corner + 1, corner + 2, corner + 1, corner + 3, corner + 2], -1)

    def flat(values: FloatArray) -> FloatArray:
        return np.ascontiguousarray(values.reshape(-1, values.shape[-1]), np.float32)

    return HairMesh(
        positions=flat(edges),
        normals=flat(np.repeat(normals[:, :, None], 2, axis=2)),
        tangents=flat(np.repeat(tangents[:, :, None], 2, axis=2)),
        uv=flat(np.stack([over, along], -1)),
        shade=np.ascontiguousarray(shade.reshape(-1), np.float32),
        faces=quads.reshape(-1, 3).astype(np.int32),
    )
