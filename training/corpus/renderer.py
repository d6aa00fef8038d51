"""Draw a head with moderngl on an off-screen EGL context (software Mesa is enough).

Framing: the projection of every person is scaled and shifted so that, in the NEUTRAL frontal face,
the middle between the eye centres lands on (0.50, 0.42) and the middle between the lip corners on
(0.50, 0.68) of the picture (x right, y down).  Real faces are aligned to the same two points.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

import cv2
import moderngl
import numpy as np
from numpy.typing import NDArray

from training.corpus.hair import STYLES, grow
from training.corpus.head import FloatArray, HeadGeometry, Identity, rotation
from training.corpus.skin import SkinTexture, inside_mouth, paint

EYES_AT = (0.50, 0.42)
MOUTH_AT = (0.50, 0.68)
Resource = TypeVar("Resource")  # any moderngl object
CAMERA_DISTANCE = 9.2  # mesh units (decimetres) in front of the eyes: no wide-angle distortion

# What a part map shows. The number is drawn into the picture's alpha channel.
PARTS = ("background", "skin", "lips", "mouth", "eyes", "hair", "clothes")
PART_MAP_SIZE = 64

VERTEX_SHADER = """#version 330
uniform mat4 projection;
in vec3 position; in vec3 normal;                           // deformed, per frame
in vec2 uv; in float part; in vec3 rest; in float inside;   // fixed
out vec3 world; out vec3 world_normal; out vec2 texel; out vec3 rest_position; flat out float kind;
out float cavity;
void main() {
    world = position; world_normal = normal; texel = vec2(uv.x, 1.0 - uv.y);
    rest_position = rest; kind = part; cavity = inside;
    gl_Position = projection * vec4(position, 1.0);
    // Mouth cavity and teeth lie close behind the skin and would cut through it on some faces, so
    // they are drawn as if 0.12 units further away.
    gl_Position.z = mix(gl_Position, projection * vec4(position - vec3(0, 0, 0.12), 1.0), inside).z;
}"""

DEVELOP = """
vec3 developed(vec3 colour) {  // highlights roll off instead of clipping
    colour = max(colour, 0.0);
    return pow(colour / (1.0 + 0.16 * colour * colour), vec3(1.0 / 1.15));
}
"""

LIGHT = """
uniform vec3 camera, light;
uniform float ambient, warmth;
// Key, fill and back light on a surface with normal n; wrap bleeds light round the edge.
vec3 lit_by(vec3 n, vec3 wrap) {
    vec3 key = normalize(light), fill = normalize(vec3(-light.x, 0.1, 0.6));
    vec3 sun = vec3(1.0 + 0.05 * warmth, 0.97, 0.92 - 0.09 * warmth);
    vec3 from_key = max(vec3(0.0), (dot(n, key) + wrap) / (1.0 + wrap));
    vec3 from_fill = max(vec3(0.0), (dot(n, fill) + wrap) / (1.0 + wrap));
    float from_behind = max(0.0, dot(n, vec3(0.0, 0.5145, -0.8575)));
    return ambient * (0.85 + 0.15 * n.y) * vec3(0.94, 0.96, 1.0) + 0.72 * from_key * sun
         + 0.22 * from_fill * vec3(0.8, 0.9, 1.0) + 0.15 * from_behind;
}
"""

FRAGMENT_SHADER = (
    """#version 330
uniform sampler2D skin; uniform sampler2D lips;
uniform vec3 iris, clothes, trim, middle;
uniform vec4 eye_centres;  // left xy, right xy
uniform float neckline; uniform int pattern;
in vec3 world; in vec3 world_normal; in vec2 texel; in vec3 rest_position; flat in float kind;
in float cavity;
out vec4 pixel;
"""
    + LIGHT
    + DEVELOP
    + """
vec3 eye_colour(vec2 offset) {
    float radius = length(offset);
    vec3 ring = iris * (0.55 + 0.7 * smoothstep(0.026, 0.055, radius));
    ring *= 0.88 + 0.12 * sin(atan(offset.y, offset.x) * 23.0);
    vec3 white = vec3(0.88, 0.85, 0.83);
    white = mix(white, vec3(0.78, 0.66, 0.62), smoothstep(0.09, 0.16, radius));
    vec3 colour = mix(ring, white, smoothstep(0.059, 0.069, radius));
    return mix(vec3(0.02), colour, smoothstep(0.024, 0.030, radius));
}

vec3 cloth(vec3 r, float edge) {
    vec3 colour = clothes;
    if (pattern == 1) colour = mix(clothes, trim, step(0.5, fract(r.y * 5.5)));
    if (pattern == 2) colour *= 0.88 + 0.12 * sin(r.x * 70.0) * sin(r.y * 60.0);
    if (pattern == 3) {  // a shirt's collar and buttons
        colour = mix(clothes, trim, smoothstep(-0.02, 0.02, edge - 0.36));
        if (r.z > -0.6) colour *= 1.0 - 0.25 * smoothstep(0.02, 0.0, abs(r.x));
    }
    return colour;
}

void main() {
    vec3 n = normalize(world_normal), view = normalize(camera - world);
    vec3 albedo; float gloss = 0.25, sharpness = 22.0, occlusion = 1.0, label = 1.0;
    int part = int(kind + 0.5);
    // Little light gets far into the mouth: 1 at the lips, 0 at the back teeth.
    float inner = smoothstep(-0.12, 0.15, rest_position.z - middle.z);
    if (part == 0) {
        vec4 c = texture(skin, texel);
        float lip = texture(lips, texel).r;
        albedo = c.rgb;
        gloss = mix(mix(0.13, 0.05, c.a), 0.34, lip);
        sharpness = mix(mix(16.0, 8.0, c.a), 36.0, lip);
        label = c.a > 0.5 ? 5.0 : lip > 0.5 ? 2.0 : cavity > 0.5 ? 3.0 : 1.0;
        vec3 r = rest_position - middle;
        // The head keeps light from the neck.
        float below = smoothstep(-0.85, -1.15, r.y) * smoothstep(0.0, -0.45, r.z);
        occlusion = 1.0 - 0.45 * below * (1.0 - smoothstep(-1.5, -2.3, r.y));
        if (cavity > 0.5) occlusion = 0.15 + 0.6 * inner;
        float collar = neckline + 0.55 * smoothstep(0.0, 0.9, abs(r.x));
        if (r.y < collar && r.y < -1.05) {
            float edge = smoothstep(collar - 0.42, collar, r.y);
            albedo = cloth(r, edge) * mix(1.0, 0.8, smoothstep(0.80, 0.84, edge));
            gloss = 0.02; label = 6.0; occlusion = mix(occlusion, 1.0, 0.5);
        }
    } else if (part == 1) {
        vec2 centre = rest_position.x > 0.0 ? eye_centres.xy : eye_centres.zw;
        albedo = eye_colour(rest_position.xy - centre);
        gloss = 1.0; sharpness = 140.0; label = 4.0;
        occlusion = 0.58 + 0.34 * smoothstep(0.10, -0.03, rest_position.y - centre.y);
    } else if (part == 2) {
        albedo = vec3(0.90, 0.87, 0.80); gloss = 0.3; sharpness = 50.0; label = 3.0;
        occlusion = 0.06 + 0.80 * inner;
    } else if (part == 3) {
        albedo = vec3(0.60, 0.25, 0.26); occlusion = 0.08 + 0.42 * inner; label = 3.0;
    } else {
        albedo = vec3(0.10, 0.07, 0.06); gloss = 0.0; label = 4.0;
    }
    // Skin scatters red light further than blue, so its shadows turn warm.
    vec3 lit = lit_by(n, part == 0 ? vec3(0.34, 0.24, 0.20) : vec3(0.25));
    float highlight = pow(max(0.0, dot(n, normalize(normalize(light) + view))), sharpness) * gloss;
    float rim = pow(1.0 - max(0.0, dot(n, view)), 3.0) * 0.12;
    vec3 colour = albedo * lit * occlusion + highlight * 0.7 + rim * albedo;
    pixel = vec4(developed(colour), label / 255.0);
}"""
)

# Ribbons are narrow, so light is worked out at their edges: it costs a third less than per pixel.
HAIR_VERTEX_SHADER = (
    """#version 330
uniform mat4 projection; uniform mat3 turn; uniform vec3 pivot;
in vec3 position; in vec3 normal; in vec3 tangent; in vec2 uv; in float shade; in float follow;
out vec3 lit; out float shine; out vec2 place; flat out float tone;
"""
    + LIGHT
    + """
void main() {
    vec3 world = mix(position, turn * (position - pivot) + pivot, follow);
    vec3 n = normalize(mix(normal, turn * normal, follow));
    vec3 t = normalize(mix(tangent, turn * tangent, follow));
    vec3 view = normalize(camera - world);
    // Kajiya and Kay (1989): a highlight runs across strands, where half-way is square to them.
    float h = dot(t, normalize(normalize(light) + view));
    shine = pow(max(0.0, 1.0 - h * h), 30.0) * max(0.0, dot(n, view));
    lit = lit_by(n, vec3(0.3));
    place = uv; tone = shade;
    gl_Position = projection * vec4(world, 1.0);
}"""
)

HAIR_FRAGMENT_SHADER = (
    """#version 330
uniform vec3 hair;
in vec3 lit; in float shine; in vec2 place; flat in float tone;
out vec4 pixel;
"""
    + DEVELOP
    + """
void main() {
    float across = place.x * 6.0, strand = fract(floor(across) * 0.618 + tone * 7.31);
    // Strands end one by one, and thin out towards their tips.
    float left = 1.0 - smoothstep(0.45 + 0.5 * strand, 1.02, place.y);
    if (abs(fract(across) - 0.5) > 0.5 * left + 0.02) discard;
    vec3 albedo = hair * (0.62 + 0.40 * strand + 0.22 * tone);
    albedo *= 0.72 + 0.28 * min(1.0, place.y * 3.5);
    vec3 colour = albedo * lit + (0.03 + 0.20 * hair) * shine * (0.4 + 0.6 * strand);
    pixel = vec4(developed(colour), 5.0 / 255.0);
}"""
)

BACKGROUND_VERTEX_SHADER = """#version 330
in vec2 corner; out vec2 place;
void main() { place = corner * 0.5 + 0.5; gl_Position = vec4(corner, 0.9999, 1.0); }"""

BACKGROUND_FRAGMENT_SHADER = """#version 330
uniform sampler2D room; in vec2 place; out vec4 pixel;
void main() { pixel = vec4(texture(room, place).rgb, 0.0); }"""


@lru_cache(maxsize=1)
def _context() -> moderngl.Context:
    """One context for all heads of a process: several of them would disturb each other."""
    context = moderngl.create_context(standalone=True, backend="egl")  # pyright: ignore
    context.enable(moderngl.DEPTH_TEST)
    return context


@lru_cache(maxsize=1)
def _programs() -> dict[str, moderngl.Program]:
    sources = {
        "head": (VERTEX_SHADER, FRAGMENT_SHADER),
        "hair": (HAIR_VERTEX_SHADER, HAIR_FRAGMENT_SHADER),
        "background": (BACKGROUND_VERTEX_SHADER, BACKGROUND_FRAGMENT_SHADER),
    }
    return {
        name: _context().program(vertex_shader=vertex, fragment_shader=fragment)
        for name, (vertex, fragment) in sources.items()
    }


def paint_room(identity: Identity, size: int = 128) -> NDArray[np.uint8]:
    """A blurred room (size, size, 3), top row first: a wall, and furniture out of focus."""
    rng = np.random.default_rng(identity.room_seed)
    top, bottom = (np.array(colour, np.float32) for colour in identity.background)
    height = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    room = np.broadcast_to(top + (bottom - top) * height, (size, size, 3)).copy()
    for _ in range(int(rng.integers(0, 7))):  # pictures, shelves, a window, a lamp
        x, y = rng.integers(-20, size, 2)
        width, tall = rng.integers(12, 60, 2)
        tint = room[np.clip(y, 0, size - 1), 0] * rng.uniform(0.6, 1.45) + rng.normal(0, 0.05, 3)
        corner = (int(x + width), int(y + tall))
        cv2.rectangle(room, (int(x), int(y)), corner, [float(c) for c in tint], -1)
    blurred = cv2.GaussianBlur(room, (0, 0), float(rng.uniform(3, 7)))
    return (np.clip(blurred, 0, 1) * 255).astype(np.uint8)


def framed_projection(geometry: HeadGeometry) -> tuple[FloatArray, FloatArray]:
    """Projection matrix (4, 4) that puts eyes and mouth on their fixed places, and the camera (3,).

    A plain perspective camera comes first; a 2D similarity of its clip coordinates (shifts being
    multiples of w) then moves the two projected points exactly where they belong.
    """
    eyes, mouth = geometry.eye_middle, geometry.mouth_centre()
    camera = np.array([0, (eyes[1] + mouth[1]) / 2, eyes[2] + CAMERA_DISTANCE], np.float64)
    near, far = 1.0, 100.0
    perspective = np.array(
        [
            [1, 0, 0, 0],
            [0, 1, 0, 0],
            [0, 0, (far + near) / (near - far), 2 * far * near / (near - far)],
            [0, 0, -1, 0],
        ]
    )
    view = np.eye(4)
    view[:3, 3] = -camera
    matrix = perspective @ view
    eye_point, mouth_point = (project(matrix, point) for point in (eyes, mouth))
    # A similarity (scale, tiny turn, shift) is the one map that sends two points to two points;
    # written with complex numbers x + iy, where it is z -> turn * z + shift.
    eye_z, mouth_z = complex(*eye_point), complex(*mouth_point)
    eye_goal, mouth_goal = (complex(2 * x - 1, 1 - 2 * y) for x, y in (EYES_AT, MOUTH_AT))
    turn = (eye_goal - mouth_goal) / (eye_z - mouth_z)
    shift = eye_goal - turn * eye_z
    adjust = np.eye(4)
    adjust[:2, :2] = [[turn.real, -turn.imag], [turn.imag, turn.real]]
    adjust[:2, 3] = shift.real, shift.imag
    return (adjust @ matrix).astype(np.float32), camera.astype(np.float32)


def project(matrix: NDArray[np.floating], point: FloatArray) -> NDArray[np.floating]:
    """Normalised device coordinates (x right, y up, in [-1, 1]) of a point (3,)."""
    clip = matrix @ np.append(point, 1.0)
    return clip[:2] / clip[3]


def picture_position(matrix: FloatArray, point: FloatArray) -> tuple[float, float]:
    """Where a point (3,) appears in the picture: (x right, y down) in [0, 1]."""
    x, y = project(matrix, point)
    return float(0.5 + x / 2), float(0.5 - y / 2)


class HeadRenderer:
    """Renders one person as RGB pictures and part maps, supersampled for smooth edges."""

    def __init__(self, identity: Identity, size: int = 256, supersampling: float = 2.0) -> None:
        texture = paint(identity)
        self.size = size
        self.inner_size = int(size * supersampling)
        self.identity = identity
        self.geometry = HeadGeometry(identity)
        self.projection, self.camera = framed_projection(self.geometry)
        self._resources: list = []  # moderngl objects
        self._vertices = np.empty((len(self.geometry.rest), 6), np.float32)
        with _context():
            self._upload_mesh()
            self._hair = self._upload_hair(texture)
            self._upload_textures(texture)
            self._make_target()

    def _keep(self, resource: Resource) -> Resource:
        """Remember a GPU object for `release`."""
        self._resources.append(resource)
        return resource

    def _buffer(self, values: NDArray) -> moderngl.Buffer:
        return self._keep(_context().buffer(np.ascontiguousarray(values).tobytes()))

    def _upload_mesh(self) -> None:
        context, geometry = _context(), self.geometry
        inside = inside_mouth()[geometry.source, None]
        fixed = np.concatenate([geometry.uvs, geometry.parts[:, None], geometry.rest, inside], 1)
        self._moving = self._keep(context.buffer(reserve=self._vertices.nbytes, dynamic=True))
        layout = [
            (self._moving, "3f 3f", "position", "normal"),
            (self._buffer(fixed.astype("f4")), "2f 1f 3f 1f", "uv", "part", "rest", "inside"),
        ]
        faces = self._buffer(geometry.faces.astype("i4"))
        self._mesh = self._keep(context.vertex_array(_programs()["head"], layout, faces))
        corners = self._buffer(np.array([[-1, -1], [3, -1], [-1, 3]], "f4"))
        self._backdrop = self._keep(
            context.vertex_array(_programs()["background"], [(corners, "2f", "corner")])
        )

    def _upload_hair(self, texture: SkinTexture) -> moderngl.VertexArray | None:
        """The hair of this person; None if the head is shaved."""
        if self.identity.hair_style not in STYLES:
            return None
        geometry = self.geometry
        mesh = grow(
            STYLES[self.identity.hair_style],
            geometry.neutral,
            geometry.eye_middle,
            texture.grows,
            self.identity.parting,
            np.random.default_rng(self.identity.texture_seed),
        )
        follow = geometry.follow(mesh.positions)[:, None]
        columns = [
            mesh.positions,
            mesh.normals,
            mesh.tangents,
            mesh.uv,
            mesh.shade[:, None],
            follow,
        ]
        layout = [
            (
                self._buffer(np.concatenate(columns, 1).astype("f4")),
                "3f 3f 3f 2f 1f 1f",
                *("position", "normal", "tangent", "uv", "shade", "follow"),
            )
        ]
        faces = self._buffer(mesh.faces.astype("i4"))
        return self._keep(_context().vertex_array(_programs()["hair"], layout, faces))

    def _upload_textures(self, texture: SkinTexture) -> None:
        colour = (np.dstack([texture.colour, texture.hair]) * 255).astype(np.uint8)
        self._textures = [
            self._texture(colour),
            self._texture((texture.lips[..., None] * 255).astype(np.uint8)),
            self._texture(paint_room(self.identity)),
        ]

    def _texture(self, pixels: NDArray[np.uint8]) -> moderngl.Texture:
        size = (pixels.shape[1], pixels.shape[0])
        texture = self._keep(_context().texture(size, pixels.shape[2], pixels.tobytes()))
        texture.build_mipmaps()
        texture.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
        texture.repeat_x = texture.repeat_y = False
        return texture

    def _make_target(self) -> None:
        context, size = _context(), (self.inner_size, self.inner_size)
        colour = self._keep(context.renderbuffer(size, 4))
        depth = self._keep(context.depth_renderbuffer(size))
        self._target = self._keep(context.framebuffer([colour], depth))

    def _set_uniforms(self, pose: FloatArray) -> None:
        identity, geometry, programs = self.identity, self.geometry, _programs()
        # Pictures are read bottom row first; drawn upside down they come out right.
        flipped = np.diag([1, -1, 1, 1]).astype(np.float32) @ self.projection
        for name in ("head", "hair"):
            program = programs[name]
            program["projection"] = tuple(flipped.T.reshape(-1))
            program["camera"] = tuple(self.camera)
            program["light"], program["ambient"] = identity.light, identity.ambient
            program["warmth"] = identity.warmth
        head, hair = programs["head"], programs["hair"]
        head["skin"], head["lips"], programs["background"]["room"] = 0, 1, 2
        head["middle"], head["iris"] = tuple(geometry.eye_middle), identity.iris
        head["clothes"], head["trim"] = identity.clothes, identity.trim
        head["pattern"], head["neckline"] = identity.pattern, -1.45 + identity.neckline
        head["eye_centres"] = tuple(geometry.eye_centres[:, :2].reshape(-1))
        hair["hair"] = identity.hair
        hair["turn"] = tuple(rotation(pose).T.reshape(-1))
        hair["pivot"] = tuple(geometry.pivot)

    def render(
        self, curves: FloatArray, pose: FloatArray
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Picture (size, size, 3) and part map (PART_MAP_SIZE, PART_MAP_SIZE), both uint8.

        curves (52,); pose (yaw, pitch, roll) in rad. The map holds indices of PARTS.
        """
        self._vertices[:, :3], self._vertices[:, 3:] = self.geometry.deform(curves, pose)
        with _context():
            self._moving.write(self._vertices)
            self._set_uniforms(pose)
            for unit, texture in enumerate(self._textures):
                texture.use(unit)
            self._target.use()
            self._target.clear(depth=1.0)
            self._mesh.render()
            if self._hair is not None:
                self._hair.render()
            self._backdrop.render()
            raw = self._target.read(components=4)
        size = self.inner_size
        drawn = np.frombuffer(raw, np.uint8).reshape(size, size, 4)
        every = size // PART_MAP_SIZE
        parts = drawn[every // 2 :: every, every // 2 :: every, 3].copy()
        if size != self.size:
            drawn = cv2.resize(drawn, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(drawn[..., :3]).astype(np.uint8, copy=False), parts

    def release(self) -> None:
        """Free the GPU objects of this person; the context stays."""
        with _context():
            for resource in reversed(self._resources):
                resource.release()
        self._resources.clear()
