"""The gallery shows the moments that the truth knows, at their frames."""

import cv2
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from tests.cache import save_track, write_cache
from training import gallery
from training.data import tracks
from training.film import read_frames, write_video

FRAMES, SIDE = 120, 32


def write_track(folder, generator):
    speaking = np.zeros(FRAMES, bool)
    speaking[40:80] = True
    phoneme = np.where(speaking, "a", "").astype("<U4")
    phoneme[60:63] = "p"
    cause = np.full(FRAMES, "", dtype="<U8")
    cause[90:110] = "joke"
    frames = (
        np.zeros((FRAMES, SIDE, SIDE, 3), np.uint8)
        + np.arange(FRAMES, dtype=np.uint8)[:, None, None, None]
    )
    save_track(
        folder,
        frames,
        np.zeros((FRAMES // 5, 2, 2)),
        speaking=speaking,
        phoneme=phoneme,
        cause=cause,
    )


@pytest.fixture
def cache(tmp_path):
    return write_cache(tmp_path / "cache", write_track, train=0)


def test_moments_are_where_they_happen(cache):
    found = gallery.moments(tracks(cache, "test")[0], FRAMES, 5)
    assert (found["lips meet"], found["a turn begins"]) == (61, 40)
    assert found["a reaction"] == 95 and found["a seam"] % 5 == 0 and 40 <= found["a seam"] < 80


def test_turns_begin_after_silence_only():
    speaking = np.zeros(60, bool)
    speaking[20:30] = speaking[33:40] = True  # a breath is no new turn
    assert gallery.turn_begins(speaking) == [20]


def test_a_film_and_a_sheet_of_some_people(cache, tmp_path):
    for track in tracks(cache, "test"):
        write_video(tmp_path / "made" / f"{track.name}.mp4", np.asarray(track.frames))
        voice = tmp_path / "voices" / f"{track.name}.wav"
        voice.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(voice, np.zeros(FRAMES * 640), 16_000)
    app = gallery.typer.Typer()
    app.command()(gallery.main)
    options = ["--cache", cache, "--videos", tmp_path / "made", "--voices", tmp_path / "voices"]
    options += ["--out", tmp_path / "out", "--people", 2, "--seconds", 2]
    result = CliRunner().invoke(app, [str(option) for option in options])
    assert result.exit_code == 0, result.output
    films = sorted((tmp_path / "out").glob("*.mp4"))
    assert [film.stem for film in films] == ["conversation_0000_a", "conversation_0001_a"]
    shown = list(read_frames(films[0]))
    assert len(shown) == 50 and shown[0].shape[1] == 2 * 256
    assert abs(int(shown[25][150, 300, 0]) - 40) < 6  # the turn begins in the middle
    sheet = cv2.imread(str(tmp_path / "out" / "conversation_0000_a.jpg"))
    assert sheet.shape == (8 * 128, 11 * 128, 3)
    assert abs(int(sheet[20, 5 * 128 + 64, 0]) - 61) < 6  # the middle of "lips meet"

    empty = CliRunner().invoke(
        app, [*map(str, options[:2]), "--videos", str(tmp_path), "--out", "x"]
    )
    assert empty.exit_code == 2 and "got no video of a held-out track" in " ".join(
        empty.output.replace("│", " ").split()
    )
