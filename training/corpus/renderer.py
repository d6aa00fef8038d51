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

from training.corpus.head import FloatArray, HeadGeometry, Identity
from training.corpus.skin import TEXTURE_SIZE, SkinTexture, inside_mouth, paint

EYES_AT = (0.50, 0.42)
MOUTH_AT = (0.50, 0.68)
Resource = TypeVar("Resource")  # any moderngl object
CAMERA_DISTANCE = 9.2  # mesh units (decimetres) in front of the eyes: no wide-angle distortion

VERTEX_SHADER = """#version 330
uniform mat4 projection;
in vec3 position; in vec3 normal;                           // deformed, per frame
in vec2 uv; in float part; in vec3 rest; in float inside;   // fixed
out vec3 world; out vec3 world_normal; out vec2 texel; out vec3 rest_position; flat out float kind;
void main() {
    world = position; world_normal = normal; texel = vec2(uv.x, 1.0 - uv.y);
    rest_position = rest; kind = part;
    gl_Position = projection * vec4(position, 1.0);
    // Mouth cavity and teeth lie close behind the skin and would cut through it on some faces, so
    // they are drawn as if 0.12 units further away.
    gl_Position.z = mix(gl_Position, projection * vec4(position - vec3(0, 0, 0.12), 1.0), inside).z;
}"""

FRAGMENT_SHADER = """#version 330
uniform sampler2D skin; uniform sampler2D lips;
uniform vec3 camera, hair, iris, clothes, light, middle;
uniform vec4 eye_centres;  // left xy, right xy
uniform float neckline, ambient;
in vec3 world; in vec3 world_normal; in vec2 texel; in vec3 rest_position; flat in float kind;
out vec4 pixel;

vec3 eye_colour(vec2 offset) {
    float radius = length(offset);
    vec3 ring = iris * (0.65 + 0.6 * smoothstep(0.03, 0.055, radius));
    vec3 colour = mix(ring, vec3(0.92, 0.90, 0.89), smoothstep(0.060, 0.068, radius));
    return mix(vec3(0.02), colour, smoothstep(0.024, 0.030, radius));
}

void main() {
    vec3 n = normalize(world_normal), view = normalize(camera - world);
    vec3 albedo; float gloss = 0.25, sharpness = 22.0, occlusion = 1.0;
    int part = int(kind + 0.5);
    if (part == 0) {
        vec4 c = texture(skin, texel);
        float lip = texture(lips, texel).r;
        albedo = c.rgb;
        gloss = mix(mix(0.14, 0.08, c.a), 0.40, lip);
        sharpness = mix(mix(18.0, 8.0, c.a), 40.0, lip);
        vec3 r = rest_position - middle;
        float collar = neckline - 0.55 * smoothstep(0.0, 0.9, abs(r.x)) * -1.0;
        if (r.y < collar && r.y < -1.05) {
            float edge = smoothstep(collar - 0.07, collar - 0.06, r.y);
            albedo = clothes * mix(1.0, 0.8, edge); gloss = 0.02;
        }
    } else if (part == 1) {
        vec2 centre = rest_position.x > 0.0 ? eye_centres.xy : eye_centres.zw;
        albedo = eye_colour(rest_position.xy - centre);
        gloss = 1.1; sharpness = 120.0;
        occlusion = 0.62 + 0.30 * smoothstep(0.10, -0.02, rest_position.y - centre.y);
    } else if (part == 2) {
        albedo = vec3(0.95, 0.93, 0.87); gloss = 0.4; sharpness = 50.0; occlusion = 0.8;
    } else if (part == 3) {
        albedo = vec3(0.70, 0.30, 0.31); occlusion = 0.7;
    } else if (part == 4) {
        albedo = vec3(0.20, 0.13, 0.11); gloss = 0.0;
    } else {
        float strand = 0.5 + 0.5 * sin(rest_position.x * 55.0 + 6.0 * sin(rest_position.y * 2.0));
        albedo = hair * (0.93 + 0.12 * strand); gloss = 0.22; sharpness = 12.0;
    }
    const float wrap = 0.25;  // light bleeding round the edge imitates scattering in skin
    vec3 key = normalize(light), fill = normalize(vec3(-light.x, 0.1, 0.6));
    float from_key = max(0.0, (dot(n, key) + wrap) / (1.0 + wrap));
    float from_fill = max(0.0, (dot(n, fill) + wrap) / (1.0 + wrap));
    float from_behind = max(0.0, dot(n, normalize(vec3(0.0, 0.6, -1.0))));
    vec3 lit = ambient * vec3(0.92, 0.95, 1.0) + 0.72 * from_key * vec3(1.0, 0.97, 0.92)
             + 0.24 * from_fill * vec3(0.8, 0.9, 1.0) + 0.15 * from_behind;
    float highlight = pow(max(0.0, dot(n, normalize(key + view))), sharpness) * gloss;
    float rim = pow(1.0 - max(0.0, dot(n, view)), 3.0) * 0.15;
    vec3 colour = albedo * lit * occlusion + highlight * 0.7 + rim * albedo;
    pixel = vec4(pow(clamp(colour, 0.0, 1.0), vec3(1.0 / 1.15)), 1.0);
}"""

BACKGROUND_VERTEX_SHADER = """#version 330
in vec2 corner; out float height;
void main() { height = corner.y * 0.5 + 0.5; gl_Position = vec4(corner, 0.9999, 1.0); }"""

BACKGROUND_FRAGMENT_SHADER = """#version 330
uniform vec3 top, bottom; in float height; out vec4 pixel;
void main() { pixel = vec4(mix(bottom, top, height), 1.0); }"""


@lru_cache(maxsize=1)
def _context() -> moderngl.Context:
    """One context for all heads of a process: several of them would disturb each other."""
    context = moderngl.create_context(standalone=True, backend="egl")  # pyright: ignore
    context.enable(moderngl.DEPTH_TEST)
    return context


@lru_cache(maxsize=1)
def _programs() -> tuple[moderngl.Program, moderngl.Program]:
    context = _context()
    head = context.program(vertex_shader=VERTEX_SHADER, fragment_shader=FRAGMENT_SHADER)
    background = context.program(
        vertex_shader=BACKGROUND_VERTEX_SHADER, fragment_shader=BACKGROUND_FRAGMENT_SHADER
    )
    return head, background


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
    """Renders one person as RGB pictures (size, size, 3) uint8, supersampled for smooth edges."""

    def __init__(self, identity: Identity, size: int = 256, supersampling: float = 2.0) -> None:
        texture = paint(identity)
        self.size = size
        self.inner_size = int(size * supersampling)
        self.geometry = HeadGeometry(identity, texture.scalp_offset)
        self.projection, self.camera = framed_projection(self.geometry)
        self._resources: list = []  # moderngl objects
        with _context():
            self._upload_mesh()
            self._upload_texture(texture)
            self._make_target()

    def _keep(self, resource: Resource) -> Resource:
        """Remember a GPU object for `release`."""
        self._resources.append(resource)
        return resource

    def _upload_mesh(self) -> None:
        context, (head, background) = _context(), _programs()
        geometry = self.geometry
        inside = inside_mouth()[geometry.source, None]
        fixed = np.concatenate([geometry.uvs, geometry.parts[:, None], geometry.rest, inside], 1)
        self._moving = self._keep(context.buffer(reserve=len(geometry.rest) * 24, dynamic=True))
        fixed_buffer = self._keep(context.buffer(fixed.astype("f4").tobytes()))
        faces = self._keep(context.buffer(geometry.faces.astype("i4").tobytes()))
        layout = [
            (self._moving, "3f 3f", "position", "normal"),
            (fixed_buffer, "2f 1f 3f 1f", "uv", "part", "rest", "inside"),
        ]
        self._mesh = self._keep(context.vertex_array(head, layout, faces))
        corners = np.array([[-1, -1], [3, -1], [-1, 3]], "f4")
        corner_buffer = self._keep(context.buffer(corners.tobytes()))
        self._backdrop = self._keep(
            context.vertex_array(background, [(corner_buffer, "2f", "corner")])
        )

    def _upload_texture(self, texture: SkinTexture) -> None:
        colour = (np.dstack([texture.colour, texture.hair]) * 255).astype(np.uint8)
        self._skin = self._texture(colour)
        self._lips = self._texture((texture.lips[..., None] * 255).astype(np.uint8))

    def _texture(self, pixels: NDArray[np.uint8]) -> moderngl.Texture:
        size = (TEXTURE_SIZE, TEXTURE_SIZE)
        texture = self._keep(_context().texture(size, pixels.shape[2], pixels.tobytes()))
        texture.build_mipmaps()
        texture.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
        return texture

    def _make_target(self) -> None:
        context, size = _context(), (self.inner_size, self.inner_size)
        colour = self._keep(context.renderbuffer(size, 4))
        depth = self._keep(context.depth_renderbuffer(size))
        self._target = self._keep(context.framebuffer([colour], depth))

    def _set_uniforms(self) -> None:
        identity, geometry = self.geometry.identity, self.geometry
        head, background = _programs()
        head["skin"], head["lips"] = 0, 1
        head["projection"] = tuple(self.projection.T.reshape(-1))
        head["camera"], head["middle"] = tuple(self.camera), tuple(geometry.eye_middle)
        head["hair"], head["iris"], head["clothes"] = identity.hair, identity.iris, identity.clothes
        head["light"], head["ambient"] = identity.light, identity.ambient
        head["neckline"] = -1.45 + identity.neckline
        head["eye_centres"] = tuple(geometry.eye_centres[:, :2].reshape(-1))
        background["top"], background["bottom"] = identity.background

    def render(self, curves: FloatArray, pose: FloatArray) -> NDArray[np.uint8]:
        """One picture for curves (52,) and pose (yaw, pitch, roll) in rad."""
        vertices, normals = self.geometry.deform(curves, pose)
        with _context():
            self._moving.write(np.concatenate([vertices, normals], 1).astype("f4").tobytes())
            self._set_uniforms()
            self._skin.use(0)
            self._lips.use(1)
            self._target.use()
            self._target.clear(depth=1.0)
            self._mesh.render()
            self._backdrop.render()
            raw = self._target.read(components=3)
        size = self.inner_size
        picture = np.frombuffer(raw, np.uint8).reshape(size, size, 3)[::-1]
        if size == self.size:
            return picture.copy()
        smooth = cv2.resize(picture, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return smooth.astype(np.uint8, copy=False)

    def release(self) -> None:
        """Free the GPU objects of this person; the context stays."""
        with _context():
            for resource in reversed(self._resources):
                resource.release()
        self._resources.clear()
