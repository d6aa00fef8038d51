"""A tiny conversation from text to files, and picking up a stopped run."""

import json
import wave
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the corpus extra is not installed")
pytest.importorskip("typer", reason="the corpus extra is not installed")
pytest.importorskip("tqdm", reason="the corpus extra is not installed")
pytest.importorskip("av", reason="the corpus extra is not installed")

from training.corpus import preview, render
from training.corpus.conversation import PEOPLE

SECONDS = 2.0
FRAMES = 50


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, off_screen_graphics: None, speech_model: None
) -> Path:
    """A rendered conversation of two seconds."""
    out = tmp_path_factory.mktemp("corpus")
    job = render.Job(out, "test", 0, SECONDS, seed=1, size=64)
    # What a killed run leaves behind must not disturb the next one.
    leftover = job.folder.with_name(f".{job.folder.name}")
    leftover.mkdir(parents=True)
    (leftover / "junk").touch()
    return render.render_conversation(job)


def test_all_files_are_there_and_nothing_else(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {"a.mp4", "b.mp4", "a.wav", "b.wav", "truth.npz", "preview.jpg"}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_videos_are_key_frames_only(folder: Path) -> None:
    import av

    for key in PEOPLE:
        with av.open(str(folder / f"{key}.mp4")) as container:
            stream = container.streams.video[0]
            assert stream.average_rate == 25
            frames = list(container.decode(stream))
        assert len(frames) == FRAMES
        assert all(frame.key_frame for frame in frames)
        assert frames[0].width == frames[0].height == 64


def test_voices_are_as_long_as_the_videos(folder: Path) -> None:
    loudest = []
    for key in PEOPLE:
        with wave.open(str(folder / f"{key}.wav")) as file:
            assert (file.getframerate(), file.getnchannels()) == (16_000, 1)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert len(samples) == FRAMES * 640
        loudest.append(np.abs(samples.astype(int)).max())
    assert max(loudest) > 1500


def test_truth_is_complete(folder: Path) -> None:
    truth = np.load(folder / "truth.npz")
    side = 64
    shapes = {"curves": (FRAMES, 52), "pose": (FRAMES, 3), "parts": (FRAMES, side, side)}
    scalars = (
        *("viseme", "phoneme", "aperture", "speaking", "emotion", "sobered", "lifted"),
        *("reaction", "cause", "cause_frame", "context", "context_frame"),
    )
    for key in PEOPLE:
        for name in (*shapes, *scalars):
            assert truth[f"{key}_{name}"].shape == shapes.get(name, (FRAMES,)), name
        assert json.loads(str(truth[f"{key}_identity"]))["name"].startswith("test-")
        assert truth[f"{key}_aperture"][~truth[f"{key}_speaking"]].max(initial=0) < 0.06
        assert truth[f"{key}_parts"].max() < len(truth["part_names"])
    for name in ("curve", "viseme", "phoneme", "emotion", "reaction", "cause", "context", "part"):
        assert len(truth[f"{name}_names"]) > 2
    turns = json.loads(str(truth["transcript"]))
    assert {"speaker", "text", "emotion", "start_frame", "end_frame"} <= set(turns[0])
    speaking = truth[f"{turns[0]['speaker']}_speaking"]
    assert speaking[turns[0]["start_frame"] + 1 : turns[0]["end_frame"] - 1].all()


def test_a_split_can_be_looked_at(folder: Path) -> None:
    import av

    corpus = folder.parents[1]
    preview.write_split(corpus, "test", seconds=1.0)
    assert (corpus / "test.jpg").stat().st_size > 1000
    with av.open(str(corpus / "test.mp4")) as container:
        assert container.streams.audio[0].channels == 2
        video = container.streams.video[0]
        frames = [frame for frame in container.decode(video)]
    assert len(frames) == 25
    assert (frames[0].width, frames[0].height) == (128, 64 + preview.CAPTION_HEIGHT)
    preview.write_split(corpus, "train", seconds=1.0)
    assert not (corpus / "train.jpg").exists()


def test_finished_conversations_are_not_rendered_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "perform", lambda *_: pytest.fail("rendered again"))
    job = render.Job(folder.parents[1], "test", 0, SECONDS, seed=1, size=64)
    assert render.render_conversation(job) == folder


def test_two_test_conversations_come_first() -> None:
    jobs = render.plan_jobs(Path("corpus"), train=3, test=4, seconds=1, seed=0)
    assert [job.split for job in jobs] == ["test"] * 2 + ["train"] * 3 + ["test"] * 2
