"""This is where faces are found and brought into the place that the networks expect.

An aligned picture is square; the midpoint of the eyes is at (0.50, 0.42) of its side and the middle
of the mouth at (0.50, 0.68), x to the right and y down. A portrait is aligned for itself. A video
keeps one transform for the whole track, so that the head's motion stays visible.

Pixel coordinates are continuous: a picture W wide spans 0 to W. Points of the plane are complex
numbers where that makes rotating and scaling one multiplication.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from visavis_client._errors import (
    InputError,
    MediaWarning,
    NoFaceError,
    PortraitError,
    SeveralFacesError,
)
from visavis_client._types import Portrait

EYES = 0.50 + 0.42j
MOUTH = 0.50 + 0.68j

_WEIGHTS = Path(__file__).parent / "weights"
_DETECTOR_SIDE = 128
_MESH_SIDE = 192
_MIN_SCORE = 0.5
_PARTS = (1.0, 0.55, 0.3)  # of the shorter side, when a face is sought closely
_TRACK_PARTS = (1.0, 0.55)  # the last is too slow for video
_MAX_OVERLAP = 0.3  # two boxes that share more are one face

# MediaPipe's 468-point mesh: eye corners, lip corners, extremes of the face's outline.
_EYE_CORNERS = (33, 133, 362, 263)
_LIP_CORNERS = (61, 291)
_OUTLINE = (10, 152, 234, 454)

_SAMPLE_EVERY = 5  # frames of a track between two looks at the face
_FIT_SAMPLES = 5
_MAX_DRIFT = 0.15  # of the side, before a track is fitted anew
_MAX_ZOOM = 1.4
_DRIFTED_SAMPLES = 3
_MAX_BEYOND = 0.3  # of an aligned portrait, before it looks odd


View = tuple[float, float, float]  # a square part of a picture: x, y of its center, side


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a picture. box: (left, top, right, bottom). landmarks: (468, 2) float32 x, y."""

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float

    @property
    def eyes(self) -> complex:
        """The midpoint between the eyes, which a blink does not move."""
        return self._middle(_EYE_CORNERS)

    @property
    def mouth(self) -> complex:
        """The midpoint between the lip corners."""
        return self._middle(_LIP_CORNERS)

    @property
    def center(self) -> complex:
        """The middle of the face's outline."""
        outline = self.landmarks[list(_OUTLINE)]
        return complex(*(outline.min(axis=0) + outline.max(axis=0)) / 2)

    @property
    def width(self) -> float:
        """Width of the box in pixels."""
        return self.box[2] - self.box[0]

    def _middle(self, points: tuple[int, ...]) -> complex:
        return complex(*self.landmarks[list(points)].mean(axis=0))


@dataclass(frozen=True)
class Alignment:
    """A similarity transform: pixel = origin + turn * z, where z is in the aligned unit square."""

    origin: complex
    turn: complex  # its length is the side of the crop in pixels, its angle the head's roll

    @classmethod
    def of(cls, eyes: complex, mouth: complex) -> Alignment:
        """The transform that brings these two points into their places."""
        turn = (mouth - eyes) / (MOUTH - EYES)
        return cls(eyes - turn * EYES, turn)

    def locate(self, pixel: complex) -> complex:
        """Where a pixel of the picture lies in the aligned unit square."""
        return (pixel - self.origin) / self.turn

    def beyond(self, height: int, width: int) -> float:
        """How much of the aligned square lies beyond a picture of that size, 0 to 1."""
        x, y = np.meshgrid(np.linspace(0, 1, 33), np.linspace(0, 1, 33))
        pixels = self.origin + self.turn * (x + 1j * y)
        inside = (pixels.real >= 0) & (pixels.real <= width)
        inside &= (pixels.imag >= 0) & (pixels.imag <= height)
        return 1 - float(inside.mean())

    def crop(self, image: np.ndarray, size: int) -> np.ndarray:
        """The aligned (size, size, 3) uint8 part of `image`."""
        return _warp(image, self.origin, self.turn / size, size)


class FaceFinder:
    """Finds faces and their 468 landmarks. One thread at a time may use it."""

    def __init__(self) -> None:
        self._detector = _Network("face_detection_short_range.tflite")
        self._mesh = _Network("face_landmark.tflite")

    def find(self, image: np.ndarray, *, parts: Sequence[float] = _PARTS) -> list[Face]:
        """The faces of an (H, W, 3) uint8 picture, from left to right.

        The detector sees the whole picture. When it finds nothing, it looks from farther away (a
        face that fills the picture) and closer (a small one), at squares that are such `parts` of
        the shorter side.
        """
        height, width = image.shape[:2]
        whole = (width / 2, height / 2, float(max(height, width)))
        farther = (width / 2, height / 2, 1.6 * max(height, width))
        looks = [[whole], [farther], *(_parts(width, height, part) for part in parts)]
        return next((faces for views in looks if (faces := self._look(image, views))), [])

    def find_near(self, image: np.ndarray, alignment: Alignment) -> list[Face]:
        """The faces around the place where one was before."""
        middle = alignment.origin + alignment.turn * (0.5 + 0.5j)
        return self._look(image, [(middle.real, middle.imag, 1.5 * abs(alignment.turn))])

    def _look(self, image: np.ndarray, views: list[View]) -> list[Face]:
        found = [face for view in views for face in self._faces_in(image, *view)]
        found.sort(key=lambda face: -face.score)
        kept: list[Face] = []
        for face in found:
            if all(_overlap(face.box, other.box) < _MAX_OVERLAP for other in kept):
                kept.append(face)
        return sorted(kept, key=lambda face: face.box[0])

    def _faces_in(self, image: np.ndarray, x: float, y: float, side: float) -> Iterator[Face]:
        corner = complex(x - side / 2, y - side / 2)
        view = _warp(image, corner, side / _DETECTOR_SIDE, _DETECTOR_SIDE, outside="black")
        boxes, scores = self._detector(view / np.float32(127.5) - 1)
        scores = _sigmoid(scores[0, :, 0])
        for i in _distinct(boxes[0], scores):
            points = (boxes[0, i, :16] / _DETECTOR_SIDE).reshape(8, 2)  # center, size, keypoints
            points[[0, *range(2, 8)]] += _anchors()[i]
            score, landmarks = self._landmarks(image, corner, side, points)
            if score > _MIN_SCORE:
                center, half = points[0], points[1] / 2
                left, top = side * (center - half) + (corner.real, corner.imag)
                right, bottom = side * (center + half) + (corner.real, corner.imag)
                box = (float(left), float(top), float(right), float(bottom))
                yield Face(box, landmarks, float(scores[i]))

    def _landmarks(
        self, image: np.ndarray, corner: complex, side: float, points: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """(score, (468, 2) pixels) of the mesh on a detection, turned upright by the eyes."""
        center = corner + side * complex(*points[0])
        eye_line = complex(*(points[3] - points[2]))
        turn = 1.5 * side * points[1].max() * eye_line / abs(eye_line)
        origin = center - turn * (0.5 + 0.5j)
        view = _warp(image, origin, turn / _MESH_SIDE, _MESH_SIDE, outside="black")
        mesh, score = self._mesh(view / np.float32(255))
        unit = mesh.reshape(468, 3)[:, :2] / _MESH_SIDE
        pixels = origin + turn * (unit[:, 0] + 1j * unit[:, 1])
        return float(_sigmoid(score).ravel()[0]), np.stack([pixels.real, pixels.imag], axis=1)


class FaceTrack:
    """Cuts the aligned face out of the frames of one video, with one transform for all of them.

    The transform is the median of the first looks at the face. It is fitted anew only when the face
    has left its place. Before a face was seen, the middle of the picture is cut out.
    """

    def __init__(self, size: int, *, finder: FaceFinder | None = None) -> None:
        self._size = size
        self._finder = finder or FaceFinder()
        self._alignment: Alignment | None = None
        self._drifted: list[Face] = []
        self._frames = 0

    def fit(self, frames: Iterable[np.ndarray]) -> None:
        """Fit the transform to the beginning of a video, (H, W, 3) uint8 frames; NoFaceError when
        there is no face in all of it."""
        seen: list[Face] = []
        count = 0
        for count, frame in enumerate(frames, 1):
            if (count - 1) % _SAMPLE_EVERY == 0 and (face := self._largest(frame)) is not None:
                seen.append(face)
            if len(seen) == _FIT_SAMPLES:
                break
        if not seen:
            raise NoFaceError(
                f"user video: got {count} frames without a face, expected one that looks at the "
                "camera; use another recording, or leave the video out"
            )
        self._alignment = _median_alignment(seen)

    def crop(self, frame: np.ndarray) -> np.ndarray:
        """The aligned (S, S, 3) uint8 face of the next (H, W, 3) uint8 frame."""
        if self._alignment is None or self._frames % _SAMPLE_EVERY == 0:
            self._look(frame)
        self._frames += 1
        return (self._alignment or _center_square(frame)).crop(frame, self._size)

    def _look(self, frame: np.ndarray) -> None:
        face = self._nearest(frame)
        if face is None:
            return
        if self._alignment is None:
            self._alignment = _median_alignment([face])
        elif _in_place(face, self._alignment):
            self._drifted.clear()
        else:
            self._drifted.append(face)
        if len(self._drifted) == _DRIFTED_SAMPLES:
            self._alignment = _median_alignment(self._drifted)
            self._drifted.clear()

    def _largest(self, frame: np.ndarray) -> Face | None:
        return max(
            self._finder.find(frame, parts=_TRACK_PARTS), key=lambda face: face.width, default=None
        )

    def _nearest(self, frame: np.ndarray) -> Face | None:
        alignment = self._alignment
        if alignment is None:
            return self._largest(frame)
        faces = self._finder.find_near(frame, alignment)
        faces = faces or self._finder.find(frame, parts=_TRACK_PARTS)
        return min(faces, key=lambda f: abs(alignment.locate(f.eyes) - EYES), default=None)


def as_portrait(
    portrait: str | Path | np.ndarray | Portrait, size: int, *, face_index: int | None = None
) -> Portrait:
    """`portrait` as an aligned portrait of side `size`: a file, an (H, W, 3) uint8 picture, or one
    that is aligned already."""
    if isinstance(portrait, Portrait):
        if portrait.image.shape[0] != size:
            raise PortraitError(
                f"portrait: got an aligned one of side {portrait.image.shape[0]}, expected {size}, "
                "the server's; align it anew from the original picture"
            )
        return portrait
    image = portrait if isinstance(portrait, np.ndarray) else read_image(portrait)
    return align_portrait(image, size, face_index=face_index)


def align_portrait(image: np.ndarray, size: int, *, face_index: int | None = None) -> Portrait:
    """The aligned portrait of an (H, W, 3) uint8 picture.

    NoFaceError without a face; SeveralFacesError with several and no `face_index`, which counts
    from the left.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise PortraitError(
            f"portrait: got {image.shape} {image.dtype}, expected (H, W, 3) uint8 RGB; convert it"
        )
    face = _choose(FaceFinder().find(image), image, face_index)
    alignment = Alignment.of(face.eyes, face.mouth)
    _warn_of_poor(alignment, face, image, size)
    center = alignment.locate(face.center)
    centers = np.array([[MOUTH.real, MOUTH.imag], [center.real, center.imag]], np.float32)
    return Portrait(alignment.crop(image, size), centers)


def read_image(path: str | Path) -> np.ndarray:
    """A picture file as (H, W, 3) uint8, turned as its EXIF data says; PortraitError otherwise."""
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                grey = Image.new("RGBA", upright.size, (128, 128, 128, 255))
                upright = Image.alpha_composite(grey, upright.convert("RGBA"))
            return np.asarray(upright.convert("RGB"))
    except FileNotFoundError as error:
        raise PortraitError(f"{path}: there is no such file; check the path") from error
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
        raise PortraitError(
            f"{path}: got a file that cannot be read as a picture ({error}), expected JPEG, PNG or "
            "WebP; open it in a viewer and save it anew"
        ) from error


def _choose(faces: list[Face], image: np.ndarray, face_index: int | None) -> Face:
    height, width = image.shape[:2]
    if not faces:
        raise NoFaceError(
            f"portrait: got no face in {width}x{height} pixels, expected one that looks at the "
            "camera; use a frontal picture with the whole face in it"
        )
    listed = "; ".join(
        f"{i}: {face.width:.0f} pixels wide at ({face.eyes.real:.0f}, {face.eyes.imag:.0f})"
        for i, face in enumerate(faces)
    )
    if face_index is not None:
        if not 0 <= face_index < len(faces):
            raise PortraitError(
                f"face_index: got {face_index}, expected 0 to {len(faces) - 1} ({listed})"
            )
        return faces[face_index]
    if len(faces) > 1:
        raise SeveralFacesError(
            f"portrait: got {len(faces)} faces, expected one ({listed}); choose with face_index, "
            "or cut the picture",
            boxes=[face.box for face in faces],
        )
    return faces[0]


def _warn_of_poor(alignment: Alignment, face: Face, image: np.ndarray, size: int) -> None:
    if abs(alignment.turn) < size / 2:
        _warn(
            f"portrait: the face is {face.width:.0f} pixels wide, too few for a picture of "
            f"{size}x{size}; the avatar will be blurred. Use a larger picture"
        )
    beyond = alignment.beyond(*image.shape[:2])
    if beyond > _MAX_BEYOND:
        _warn(
            f"portrait: {beyond:.0%} of the aligned square lies beyond the picture and is filled "
            "with its drawn-out edge. Use a picture with more around the head"
        )


def _warn(message: str) -> None:
    warnings.warn(message, MediaWarning, stacklevel=4)


def _median_alignment(faces: list[Face]) -> Alignment:
    def median(points: list[complex]) -> complex:
        return complex(np.median([p.real for p in points]), np.median([p.imag for p in points]))

    return Alignment.of(median([f.eyes for f in faces]), median([f.mouth for f in faces]))


def _in_place(face: Face, alignment: Alignment) -> bool:
    eyes, mouth = alignment.locate(face.eyes), alignment.locate(face.mouth)
    zoom = abs(mouth - eyes) / abs(MOUTH - EYES)
    return abs((eyes + mouth) / 2 - (EYES + MOUTH) / 2) < _MAX_DRIFT and (
        1 / _MAX_ZOOM < zoom < _MAX_ZOOM
    )


def _center_square(frame: np.ndarray) -> Alignment:
    height, width = frame.shape[:2]
    side = min(height, width)
    return Alignment(complex((width - side) / 2, (height - side) / 2), side)


def _parts(width: int, height: int, part: float) -> list[View]:
    """Overlapping squares over the picture, whose side is `part` of its shorter side."""
    side = part * min(width, height)

    def centers(length: int) -> list[float]:
        count = 1 if length <= side else max(2, round(1.5 * length / side))
        return np.linspace(side / 2, length - side / 2, count).tolist()

    return [(x, y, side) for y in centers(height) for x in centers(width)]


def _warp(
    image: np.ndarray, origin: complex, step: complex, size: int, *, outside: str = "edge"
) -> np.ndarray:
    """(size, size, 3) uint8, whose point z (in its own pixels) shows origin + step * z.

    `outside` the picture there is "black" or its "edge", drawn out.
    """
    corners = np.array([origin + step * z for z in (0, size, size * 1j, size + size * 1j)])
    margin = 2 + abs(step)
    left, top = (int(np.floor(v.min() - margin)) for v in (corners.real, corners.imag))
    right, bottom = (int(np.ceil(v.max() + margin)) for v in (corners.real, corners.imag))
    part = Image.fromarray(_cut(image, left, top, right, bottom, outside))
    shrink = max(1, int(abs(step)))  # average first, or a large picture would alias
    part = part.reduce(shrink)
    start = (origin - complex(left, top)) / shrink
    step /= shrink
    matrix = (step.real, -step.imag, start.real, step.imag, step.real, start.imag)
    warped = part.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(warped)


def _cut(
    image: np.ndarray, left: int, top: int, right: int, bottom: int, outside: str
) -> np.ndarray:
    """The part of `image` in a box that may reach beyond it."""
    height, width = image.shape[:2]
    if outside == "edge":
        rows = np.clip(np.arange(top, bottom), 0, height - 1)
        columns = np.clip(np.arange(left, right), 0, width - 1)
        return image[rows[:, None], columns]
    part = np.zeros((bottom - top, right - left, 3), np.uint8)
    inside = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    y, x = max(-top, 0), max(-left, 0)
    part[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return part


@functools.cache
def _anchors() -> np.ndarray:
    """(896, 2) anchor centers x, y of the short-range detector: 2 a cell at 16x16, 6 at 8x8."""
    layers = []
    for cells, per_cell in ((16, 2), (8, 6)):
        centers = (np.arange(cells) + 0.5) / cells
        y, x = np.meshgrid(centers, centers, indexing="ij")
        layers.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), per_cell, axis=0))
    return np.concatenate(layers).astype(np.float32)


def _distinct(boxes: np.ndarray, scores: np.ndarray) -> Iterator[int]:
    """The best anchor of each face."""
    kept: list[tuple[float, float, float, float]] = []
    for i in np.argsort(-scores):
        if scores[i] <= _MIN_SCORE:
            return
        center = _anchors()[i] * _DETECTOR_SIDE + boxes[i, :2]
        half = boxes[i, 2:4] / 2
        box = (*(center - half), *(center + half))
        if all(_overlap(box, other) < _MAX_OVERLAP for other in kept):
            kept.append(box)
            yield int(i)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Intersection over union of two boxes."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    total = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / total if total > 0 else 0.0


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -50, 50)))


class _Network:
    """A TFLite network of one input."""

    def __init__(self, name: str) -> None:
        self._interpreter = _interpreter(_WEIGHTS / name)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """image: (S, S, 3) float32; every output, with its batch axis of 1."""
        self._interpreter.set_tensor(self._input, image[None].astype(np.float32))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


def _interpreter(path: Path) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError as error:
        raise InputError(
            "face: the package ai-edge-litert is missing, which finds faces; install it with "
            "`pip install 'visavis[client]'`, or pass an aligned Portrait"
        ) from error
    # The default delegate is twice as fast (1 ms for 3), but announces itself on stderr.
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return Interpreter(str(path), num_threads=1, experimental_op_resolver_type=plain)
