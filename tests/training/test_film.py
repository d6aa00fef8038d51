"""Films hold the frames and the sound that they were given."""

import av
import numpy as np
import pytest

from training.film import write_video


@pytest.mark.parametrize("channels", [0, 1, 2])
def test_a_film_keeps_size_length_and_sound(tmp_path, channels):
    frames = np.random.default_rng(0).integers(0, 256, (30, 64, 128, 3), np.uint8)
    sound = np.zeros((channels, 30 * 640), np.float32).squeeze()
    write_video(tmp_path / "new" / "film.mp4", iter(frames), sound if channels else None)
    with av.open(str(tmp_path / "new" / "film.mp4")) as film:
        lengths_s = [(stream.duration or 0) * (stream.time_base or 0) for stream in film.streams]
        assert lengths_s == [pytest.approx(1.2)] * (1 + (channels > 0))
        assert [audio.layout.nb_channels for audio in film.streams.audio] == [channels][:channels]
        found = [frame.to_ndarray(format="rgb24").shape for frame in film.decode(video=0)]
    assert found == [(64, 128, 3)] * 30
