"""Reading sound and video of every kind, and writing a film."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
from visavis_client import AudioError, MediaError, MediaWarning
from visavis_client.film import FilmWriter, VoicePanel, mix_voices
from visavis_client.media import has_audio, read_audio, read_video

TONE_HZ = 440


def tone(seconds, rate, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * TONE_HZ * np.arange(round(seconds * rate)) / rate)


def pitch(samples):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * 16_000 / len(samples)


def write_video(path, greys, times=None, rate=25, size=(64, 48), **options):
    """A video whose frame i is grey of greys[i], shown from times[i] seconds on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "10", **options})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, 12_800)
        stream.codec_context.time_base = Fraction(1, 12_800)
        for i, grey in enumerate(greys):
            image = np.full((size[1], size[0], 3), grey, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = round((times[i] if times is not None else i / rate) * 12_800)
            frame.time_base = Fraction(1, 12_800)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def greys_of(frames):
    return np.array([frame.mean() for frame in frames])


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_rate_and_any_channels(tmp_path, rate, channels):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([tone(0.5, rate)] * channels, axis=1), rate)
    samples = read_audio(path)
    assert samples.dtype == np.float32
    assert abs(len(samples) - 8_000) <= 1
    assert abs(pitch(samples) - TONE_HZ) < 3
    assert 0.45 < np.abs(samples[1000:-1000]).max() < 0.55


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_any_sample_format(tmp_path, subtype):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(0.2, 16_000), 16_000, subtype)
    assert np.abs(read_audio(path) - tone(0.2, 16_000)).max() < 0.02


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_compressed_sound(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(1, 44_100), 44_100)
    samples = read_audio(path)
    assert abs(len(samples) - 16_000) < 1_700
    assert abs(pitch(samples) - TONE_HZ) < 3


def test_channels_are_averaged(tmp_path):
    path = tmp_path / "a.wav"
    left = tone(0.2, 16_000)
    soundfile.write(path, np.stack([left, -left], axis=1), 16_000, "FLOAT")
    with pytest.warns(MediaWarning, match="silent"):
        assert np.abs(read_audio(path)).max() < 1e-6


def test_a_text_file_is_no_sound(tmp_path):
    path = tmp_path / "a.wav"
    path.write_text("Grüße, this is no sound\n")
    with pytest.raises(MediaError, match="text that starts with 'Grüße"):
        read_audio(path)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(0), "0 samples"),
        (np.where(np.arange(8_000) == 4_000, np.nan, 0.1), "sample 4000"),
        (1e4 * tone(0.5, 16_000), "32768"),
    ],
)
def test_sound_that_cannot_be_used(tmp_path, samples, message):
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, 16_000, "FLOAT")
    with pytest.raises(AudioError, match=message):
        read_audio(path)


def test_a_little_too_loud_is_clipped(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(0.1, 16_000, 1.5), 16_000, "FLOAT")
    assert np.abs(read_audio(path)).max() == 1.0


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "noise"])
def test_files_that_are_no_media(tmp_path, kind):
    path = tmp_path / "a.mp4"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(b"" if kind == "empty" else np.random.default_rng(0).bytes(5_000))
    with pytest.raises(MediaError, match=r"a\.mp4"):
        list(read_video(path))


def test_a_video_has_no_sound_and_a_sound_no_video(tmp_path):
    write_video(tmp_path / "v.mp4", [0] * 5)
    assert not has_audio(tmp_path / "v.mp4")
    with pytest.raises(MediaError, match="got a file with video, expected audio"):
        read_audio(tmp_path / "v.mp4")
    soundfile.write(tmp_path / "a.wav", tone(0.1, 16_000), 16_000)
    with pytest.raises(MediaError, match="got a file with audio, expected video"):
        list(read_video(tmp_path / "a.wav"))


@pytest.mark.parametrize("rate", [10, 24, 25, 30, 60])
def test_any_frame_rate_keeps_its_speed(tmp_path, rate):
    path = tmp_path / "v.mp4"
    write_video(path, np.linspace(0, 250, 2 * rate), rate=rate)
    greys = greys_of(read_video(path))
    assert len(greys) == 50
    np.testing.assert_allclose(greys, np.linspace(0, 250, 50), atol=250 / rate + 6)


def test_a_variable_frame_rate_keeps_its_speed(tmp_path):
    path = tmp_path / "v.mp4"
    times = np.array([0.0, 0.04, 0.08, 0.5, 0.52, 0.54, 0.9])
    write_video(path, [0, 40, 80, 120, 160, 200, 240], times)
    greys = greys_of(read_video(path))
    shown = np.array([0, 40, 80, 120, 160, 200, 240])
    for i, grey in enumerate(greys[:23]):
        newest = shown[times <= i / 25 + 0.021]
        assert min(abs(grey - newest[-2:])) < 8, i
    assert abs(greys[11] - 80) < 8 and abs(greys[14] - 200) < 8 and abs(greys[-1] - 240) < 8


def test_a_turned_video_comes_out_upright(tmp_path):
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        image = np.zeros((48, 64, 3), np.uint8)
        image[:, :32] = 255  # white on the left
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    turn_clockwise(path)
    frame = next(read_video(path))
    assert frame.shape == (64, 48, 3)
    assert frame[:20].mean() > 230 and frame[-20:].mean() < 25  # left has become top


def turn_clockwise(path):
    """Write "show me a quarter turned to the right" into an MP4, as a phone does."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # version 0: the matrix comes after 40 bytes
    one = 1 << 16
    content[start : start + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(content))


def test_a_cut_video_is_used_as_far_as_it_goes(tmp_path):
    path = tmp_path / "v.mkv"
    write_video(path, np.tile([30, 200], 50), g="5")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.warns(MediaWarning, match=r"v\.mkv: it (ends|is broken) after"):
        frames = list(read_video(path))
    assert 25 < len(frames) < 75


def test_a_video_cut_before_its_index_is_an_error(tmp_path):
    path = tmp_path / "v.mp4"
    write_video(path, [0, 99] * 20)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaError, match="cut off"):
        list(read_video(path))


def test_a_cut_sound_is_used_as_far_as_it_goes(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(4, 16_000), 16_000)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    samples = read_audio(path)
    assert abs(len(samples) - 32_000) < 100


def test_a_film_has_its_pictures_and_its_sound_in_step(tmp_path):
    path = tmp_path / "film.mp4"
    sound = np.zeros(50 * 640, np.float32)
    sound[25 * 640 :] = tone(1, 16_000)  # from the second second on, when it gets bright
    with FilmWriter(path, (63, 32), mix_voices(None, sound)) as writer:
        for i in range(50):
            writer.write(np.full((32, 63, 3), 220 if i >= 25 else 20, np.uint8))
    greys = greys_of(read_video(path))
    heard = np.abs(read_audio(path))
    assert len(greys) == 50 and abs(len(heard) - 50 * 640) < 1_100
    assert np.argmax(greys > 120) == 25
    assert abs(np.argmax(heard > 0.1) - 25 * 640) < 64  # 4 ms
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.audio[0].codec_context.name == "aac"
        assert (container.streams.video[0].width, container.streams.audio[0].rate) == (64, 48_000)


def test_a_film_into_no_folder_is_an_error(tmp_path):
    with pytest.raises(MediaError, match="cannot be written"):
        FilmWriter(tmp_path / "no" / "film.mp4", (64, 64), np.zeros(640, np.float32))


def test_both_voices_are_on_both_sides(tmp_path):
    user, avatar = np.full(10, 0.5, np.float32), np.zeros(20, np.float32)
    mixed = mix_voices(user, avatar)
    assert mixed.shape == (20, 2)
    assert (mixed[:10, 0] > mixed[:10, 1]).all() and (mixed[:10, 1] > 0).all()
    assert not mixed[10:].any()
    assert np.abs(mix_voices(np.ones(5, np.float32), np.ones(5, np.float32))).max() <= 1


def test_the_panel_shows_the_voice():
    voice = np.zeros(100 * 640, np.float32)
    voice[50 * 640 :] = 0.8
    panel = VoicePanel("user", voice, 128)
    assert panel.frame(0).shape == (128, 128, 3)
    assert (panel.frame(99) != panel.frame(40)).any()
    assert (VoicePanel("user", None, 128).frame(3) == panel.frame(3)).all()
