"""From recordings to folders that training reads; stopping, going on, and damaged files."""

import json
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
from typer.testing import CliRunner

from training.corpus.prepare import __main__ as command
from training.corpus.prepare import report, run
from training.corpus.prepare.conversation import Kept, Outcome, Settings
from training.corpus.prepare.folder import find
from training.corpus.prepare.source import PEOPLE, Recording, Source
from training.data import truth_of, video_frames

SETTINGS = Settings(size=64, shortest_s=2.0)
START_S, FRAMES = 0.5, 83  # 100 frames at 30 a second
RATE = 44_100


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, talking_man, portrait, dialogue, write_film) -> Path:
    """A split screen with a voice a channel, a broken pair, and half a pair."""
    root = tmp_path_factory.mktemp("recordings")
    still = np.zeros_like(talking_man[0])
    still[8:136, 24:152] = portrait[::2, ::2]
    film = [np.concatenate([frame, still], axis=1) for frame in talking_man]
    voices = [dialogue[key][round(START_S * 16_000) :][: 16_000 * 10 // 3] for key in PEOPLE]
    sound = np.stack([soxr.resample(voice, 16_000, RATE) for voice in voices], axis=1)
    write_film(root / "talk.mkv", film, rate=30, sound=sound, sound_rate=RATE)
    words = [{"speaker": "a", "text": "I lost it.", "start_s": 1.0, "end_s": 2.0, "emotion": "sad"}]
    (root / "talk.json").write_text(json.dumps(words))
    (root / "broken_a.mp4").write_bytes((root / "talk.mkv").read_bytes()[:700])
    (root / "broken_b.mp4").write_bytes(b"not a film")
    return root


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, recordings) -> Path:
    """What becomes of them; one process, this one."""
    out = tmp_path_factory.mktemp("corpus")
    run.begin(out, SETTINGS)
    for source in find(recordings).sources:
        run.work(source, out, SETTINGS)
    return out


def test_a_split_screen_becomes_a_folder(prepared):
    folder = prepared / "train" / "conversation_talk_000"
    names = {path.name for path in folder.iterdir()}
    assert names == {"a.mp4", "b.mp4", "a.wav", "b.wav", "truth.npz", "preview.jpg"}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    for key in PEOPLE:
        with av.open(str(folder / f"{key}.mp4")) as container:
            frames = list(container.decode(video=0))
            assert container.streams.video[0].average_rate == 25
        assert len(frames) == FRAMES
        assert all(frame.key_frame and frame.width == frame.height == 64 for frame in frames)
        samples, rate = soundfile.read(folder / f"{key}.wav")
        assert (rate, samples.shape) == (16_000, (FRAMES * 640,))


def test_each_half_is_its_own_person(prepared):
    folder = prepared / "train" / "conversation_talk_000"
    changes = {
        k: np.diff(video_frames(folder / f"{k}.mp4", 64).astype(int), axis=0) for k in PEOPLE
    }
    assert np.abs(changes["a"]).mean() > 5 * np.abs(changes["b"]).mean()  # b is a still picture
    truth = np.load(folder / "truth.npz")
    assert np.ptp(truth["a_aperture"]) > 10 * np.ptp(truth["b_aperture"])


def test_truth_is_of_the_crop(prepared):
    truth = np.load(prepared / "train" / "conversation_talk_000" / "truth.npz")
    for key in PEOPLE:
        landmarks = truth[f"{key}_landmarks"]
        assert (landmarks.shape, landmarks.dtype) == ((FRAMES, 468, 2), np.float16)
        assert truth[f"{key}_seen"].all()
        middle = np.median(landmarks.astype(float), axis=0)
        np.testing.assert_allclose(middle[[33, 133, 362, 263]].mean(0), (0.50, 0.42), atol=0.01)
        np.testing.assert_allclose(truth[f"{key}_region_centers"][0], (0.50, 0.68), atol=0.01)
        assert truth[f"{key}_pose"].shape == (FRAMES, 3)
        assert not np.isnan(truth[f"{key}_pose"]).any()
    assert "a_curves" not in truth


def test_each_channel_is_its_own_voice(prepared, dialogue):
    folder = prepared / "train" / "conversation_talk_000"
    truth = np.load(folder / "truth.npz")
    for key in PEOPLE:
        ours, _ = soundfile.read(folder / f"{key}.wav", dtype="float32")
        original = dialogue[key][round(START_S * 16_000) :][: len(ours)]
        ours = ours[: len(original)]
        assert np.corrcoef(ours, original)[0, 1] > 0.98
        loud = np.abs(original[: len(original) // 640 * 640]).reshape(-1, 640).max(1) > 0.05
        assert truth[f"{key}_speaking"][: len(loud)][loud].mean() > 0.9


def test_training_reads_what_is_known_and_makes_nothing_up(prepared):
    truth = np.load(prepared / "train" / "conversation_talk_000" / "truth.npz")
    known = {key: truth_of(truth, key) for key in PEOPLE}
    for name, values in known["a"].items():
        assert values.shape[:1] == (() if name == "transcript" else (FRAMES,))
    assert known["a"]["emotion"][[24, 25, FRAMES - 1]].tolist() == ["neutral", "sad", "sad"]
    assert known["b"]["emotion"][25] == "concerned"
    without = {key: truth[key] for key in truth.files if key != "transcript"}
    assert set(truth_of(without, "a")["emotion"]) == {"neutral"}
    turn = {"speaker": "a", "text": "Hm.", "start_frame": 3, "end_frame": 9}
    unknown = without | {"transcript": np.array(json.dumps([turn]))}
    assert set(truth_of(unknown, "a")["emotion"]) == {"neutral"}


def test_a_broken_file_costs_only_itself(prepared):
    record = json.loads((prepared / "records" / "train--broken.json").read_text())
    assert record["kept"] == []
    assert "broken_a.mp4" in record["reason"]
    assert (prepared / "train" / "conversation_talk_000").is_dir()


def test_a_second_run_touches_nothing(prepared, recordings, monkeypatch):
    monkeypatch.setattr(run, "_in_pool", lambda *_: pytest.fail("nothing was waiting"))
    outcomes = run.prepare_all(find(recordings).sources, prepared, SETTINGS, workers=1)
    kept = {outcome.name: [k.folder for k in outcome.kept] for outcome in outcomes}
    assert kept == {"broken": [], "talk": ["train/conversation_talk_000"]}


def test_what_a_kill_left_behind_is_done_again(tmp_path, monkeypatch):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "train--x.started").touch()
    (tmp_path / "records" / ".train--x.json").write_text('{"na')
    done = []

    def in_pool(sources, out, settings, workers):
        for source in sources:
            done.append(source.name)
            monkeypatch.setattr(run, "prepare", lambda s, *_: Outcome(s.name, s.split, reason="no"))
            run.work(source, out, settings)
            yield source

    monkeypatch.setattr(run, "_in_pool", in_pool)
    (outcome,) = run.prepare_all([empty("x")], tmp_path, SETTINGS, workers=1)
    assert (done, outcome.reason) == (["x"], "no")
    assert [path.name for path in (tmp_path / "records").iterdir()] == ["train--x.json"]


def test_other_settings_need_another_folder(prepared):
    with pytest.raises(ValueError, match="another --out"):
        run.prepare_all([], prepared, Settings(size=128, shortest_s=2.0), workers=1)


def empty(name):
    return Source(name, "train", Recording("p"), Recording("q"))


def test_a_file_that_kills_its_process_is_tried_again_alone_and_dropped(tmp_path, monkeypatch):
    tried = []

    def in_pool(sources, out, settings, workers):
        for source in sources:
            tried.append((source.name, len(sources)))
            run._started(out, source).touch()
            if source.name == "poison":
                raise BrokenProcessPool
            run._write_record(out, source, Outcome(source.name, "train", [Kept("f", 1.0, {})]))
            run._started(out, source).unlink()
            yield source

    monkeypatch.setattr(run, "_in_pool", in_pool)
    sources = [empty(name) for name in ("fine", "poison", "good")]
    outcomes = run.prepare_all(sources, tmp_path, SETTINGS, workers=1)
    assert {o.name: o.reason for o in outcomes} == {
        "fine": None,
        "poison": run.CRASHED,
        "good": None,
    }
    assert tried == [("fine", 3), ("poison", 3), ("poison", 1), ("good", 1)]


def test_a_pool_that_cannot_start_is_an_error(tmp_path, monkeypatch):
    def in_pool(*_):
        raise BrokenProcessPool
        yield

    monkeypatch.setattr(run, "_in_pool", in_pool)
    with pytest.raises(BrokenProcessPool):
        run.prepare_all([empty("x")], tmp_path, SETTINGS, workers=1)


def test_conversations_of_the_same_name_get_folders_of_their_own():
    names = [source.name for source in run._with_own_names([empty("x"), empty("x"), empty("x_2")])]
    assert len(set(names)) == 3
    assert names[0] == "x"


def test_the_report_adds_up():
    kept = [Kept("f0", 10.0, {"a": 2.0, "b": 3.0}), Kept("f1", 5.0, {"a": 1.0, "b": 0.0})]
    outcomes = [
        Outcome("x", "train", kept, lost_s={"no face of a": 2.5}),
        Outcome("y", "train", reason="nobody speaks"),
    ]
    assert report.summary(outcomes, {"z": "missing: wav"}) == {
        "conversations_kept": 1,
        "conversations_dropped": 2,
        "folders": 2,
        "seconds_kept": 15.0,
        "seconds_speaking": 6.0,
        "seconds_lost_of_the_kept": {"no face of a": 2.5},
    }


@pytest.fixture
def dualtalk(tmp_path, dialogue) -> Path:
    """A pair of clips in DualTalk's layout, and one with a parameter file that is cut off."""
    root = tmp_path / "DualTalk_Dataset"
    (root / "train").mkdir(parents=True)
    for name in ("v_sub_video_1_000", "w_sub_video_2"):
        for speaker, key in enumerate(PEOPLE, 1):
            stem = root / "train" / f"{name}_speaker{speaker}"
            soundfile.write(f"{stem}.wav", dialogue[key], 16_000, subtype="FLOAT")
            motion = {"exp": np.zeros((200, 50)), "pose": np.full((200, 6), speaker / 10)}
            np.savez(f"{stem}.npz", **{k: v.astype(np.float32) for k, v in motion.items()})
    damaged = root / "train" / "w_sub_video_2_speaker1.npz"
    damaged.write_bytes(damaged.read_bytes()[:-3000])
    return root


def test_dualtalk_from_the_command_line(dualtalk, tmp_path, monkeypatch):
    def here(sources, out, settings, workers):  # processes take seconds to start
        for source in sources:
            run.work(source, out, settings)
            yield source

    monkeypatch.setattr(run, "_in_pool", here)
    app = command.typer.Typer()
    app.command()(command.main)
    out = tmp_path / "out"
    result = CliRunner().invoke(app, [str(dualtalk), "--from", "dualtalk", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "w_sub_video_2" in result.output
    folder = out / "train" / "conversation_v_sub_video_1_000_000"
    assert {path.name for path in folder.iterdir()} == {"a.wav", "b.wav", "truth.npz"}
    truth = np.load(folder / "truth.npz")
    assert truth["b_motion"].shape == (200, 56)
    np.testing.assert_allclose(truth["b_motion"][:, 50:], 0.2)
    assert truth["a_speaking"].shape == (200,)
    assert soundfile.info(folder / "a.wav").frames == 200 * 640
    totals = json.loads((out / "report.json").read_text())
    assert totals["summary"]["conversations_kept"] == 1
    assert totals["summary"]["conversations_dropped"] == 1
    assert "BadZipFile" in totals["conversations"][1]["reason"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--from", "folder"], "got no folder there"),
        ([".", "--from", "vico"], "got nothing of the layout vico"),
        ([".", "--from", "folder", "--size", "63"], "expected an even number"),
    ],
)
def test_mistakes_are_explained(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    app = command.typer.Typer()
    app.command()(command.main)
    result = CliRunner().invoke(app, [*arguments, "--out", "out"], env={"COLUMNS": "300"})
    assert result.exit_code == 2
    assert message in result.output
