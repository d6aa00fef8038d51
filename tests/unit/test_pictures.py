"""Pictures leave the server as JPEG, raw, or H.264, and come back alike."""

import sys

import numpy as np
import pytest
import simplejpeg
from visavis_client._h264 import Packets, is_key_frame

from visavis.messages import Options, SessionError
from visavis.serving.pictures import KEY_FRAME_EVERY_S, encoder_of

SIZE = 64


def film(frames: int) -> np.ndarray:
    """A bright square that moves over a soft gradient: (frames, SIZE, SIZE, 3) uint8."""
    gradient = np.linspace(60, 160, SIZE)[:, None, None]
    images = np.broadcast_to(gradient, (frames, SIZE, SIZE, 3)).astype(np.uint8)
    for n, image in enumerate(images):
        image[20:36, n % 40 : n % 40 + 16] = (200, 180, 90)
    return images


def apart(image, other) -> float:
    return float(np.abs(image.astype(int) - other).mean())


def encoded(frames: np.ndarray, **options) -> list[bytes]:
    return list(encoder_of(Options(**options), SIZE).encode(frames))


def test_raw_pictures_are_their_values():
    frames = film(2)
    first, second = encoded(frames, image_format="raw")
    assert first == frames[0].tobytes() and second == frames[1].tobytes()


def test_a_jpeg_is_its_picture_and_quality_is_heeded():
    (good,) = encoded(film(1), jpeg_quality=95)
    (poor,) = encoded(film(1), jpeg_quality=20)
    assert apart(simplejpeg.decode_jpeg(good), film(1)[0]) < 2
    assert len(poor) < len(good)


def decoded(packets: list[bytes]) -> list[np.ndarray]:
    """As the client does."""
    gop, images = None, []
    for index, content in enumerate(packets):
        if gop is None or is_key_frame(content):
            gop = Packets(index)
        gop.append(content)
        images.append(gop.image(index))
    return images


def test_packets_of_h264_come_back_as_their_pictures_at_once():
    frames = film(60)
    encoder = encoder_of(Options(image_format="h264"), SIZE)
    packets = [packet for block in np.split(frames, 12) for packet in encoder.encode(block)]
    assert len(packets) == 60  # none is held back
    images = decoded(packets)
    assert max(apart(*pair) for pair in zip(images, frames, strict=True)) < 4
    keys = [n for n, packet in enumerate(packets) if is_key_frame(packet)]
    assert keys == list(range(0, 60, 25 * KEY_FRAME_EVERY_S))


def test_h264_is_smaller_and_its_rate_factor_is_heeded():
    sizes = {
        name: sum(map(len, encoded(film(25), **options)))
        for name, options in {
            "jpeg": {},
            "h264": {"image_format": "h264"},
            "poor": {"image_format": "h264", "h264_crf": 40},
        }.items()
    }
    assert sizes["poor"] < sizes["h264"] < sizes["jpeg"]


def test_a_new_encoder_begins_with_a_key_frame_that_needs_none_before_it():
    encoder = encoder_of(Options(image_format="h264"), SIZE)
    frames = film(10)
    encoder.encode(frames[:7])
    (packet,) = encoder_of(Options(image_format="h264"), SIZE).encode(frames[7:8])
    assert is_key_frame(packet) and not is_key_frame(encoder.encode(frames[7:8])[0])
    assert apart(decoded([packet])[0], frames[7]) < 4


def test_frames_may_be_asked_for_in_any_order():
    packets = Packets(100)
    frames = film(6)
    for content in encoded(frames, image_format="h264"):
        packets.append(content)
    late, early = packets.image(105), packets.image(101)
    assert apart(late, frames[5]) < 4 and apart(early, frames[1]) < 4
    assert packets.image(105) is late


def test_broken_packets_are_an_error_of_value():
    packets = Packets(0)
    packets.append(b"\x00\x00\x00\x01\x67 nothing of the kind")
    with pytest.raises(ValueError):
        packets.image(0)


def test_an_odd_size_is_refused_for_h264():
    with pytest.raises(SessionError, match="got h264 of 33 pixels a side, expected an even"):
        encoder_of(Options(image_format="h264"), 33)


def test_a_server_without_pyav_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SessionError, match="this server has no PyAV; choose one, or install av"):
        encoder_of(Options(image_format="h264"), SIZE)
