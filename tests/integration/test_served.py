"""A corpus's people speak through a real server, and their films stand in the table's folder."""

import json

import numpy as np
import pytest
import soundfile

from tests.integration.conftest import CONFIG, sound, video

pytest.importorskip("torch")

from training import served
from training.data import video_frames
from training.film import Film

FRAMES = 30


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "test" / "conversation_0003"
    folder.mkdir(parents=True)
    for seed, person in enumerate("ab"):
        soundfile.write(folder / f"{person}.wav", sound(FRAMES, seed), 16_000)
        with Film.open(folder / f"{person}.mp4", CONFIG.image_size) as film:
            for picture in video(FRAMES, seed):
                film.add(picture)
    turns = [{"speaker": "b", "text": "My dog died.", "start_frame": 3, "end_frame": 20}]
    np.savez(folder / "truth.npz", transcript=json.dumps(turns))
    return folder.parent


def test_every_person_is_the_avatar_once(server, corpus, tmp_path):
    served.main(corpus, tmp_path / "out", server.grpc_url, seconds=0.6)
    films = {
        person: video_frames(tmp_path / "out/conversation_0003" / f"{person}.mp4", 32)
        for person in "ab"
    }
    assert [len(film) for film in films.values()] == [15, 15]
    assert (films["a"] != films["b"]).any()


def test_a_folder_without_conversations_is_refused(tmp_path):
    with pytest.raises(Exception, match="expected a corpus"):
        served.main(tmp_path, tmp_path / "out")
