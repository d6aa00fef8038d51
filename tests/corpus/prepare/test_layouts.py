"""Every data set's layout, as tiny files."""

import csv
import json

import numpy as np
import pytest

from training.corpus.prepare import dualtalk, folder, seamless, vico
from training.corpus.prepare.source import Dropped


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


class TestFolder:
    def test_two_files_a_folder_and_a_split_screen(self, tmp_path):
        touch(tmp_path, "talk1_a.mp4", "talk1_B.mkv", "talk2/a.mov", "talk2/b.mov", "talk3.webm")
        sources = {source.name: source for source in folder.find(tmp_path).sources}
        assert set(sources) == {"talk1", "talk2", "talk3"}
        assert sources["talk1"].b.video == tmp_path / "talk1_B.mkv"
        assert sources["talk2"].a.video == tmp_path / "talk2" / "a.mov"
        assert (sources["talk3"].a.half, sources["talk3"].b.half) == (0, 1)
        assert sources["talk3"].a.audio == sources["talk3"].b.audio == tmp_path / "talk3.webm"

    def test_sound_and_transcripts_lie_beside(self, tmp_path):
        touch(tmp_path, "t_a.mp4", "t_b.mp4", "t_a.wav", "t_b.srt", "t.json")
        (source,) = folder.find(tmp_path).sources
        assert source.a.audio == tmp_path / "t_a.wav"
        assert source.b.audio == tmp_path / "t_b.mp4"
        assert source.b.words == tmp_path / "t_b.srt"
        assert source.transcript == tmp_path / "t.json"

    def test_splits_are_folders(self, tmp_path):
        touch(tmp_path, "train/x_a.mp4", "train/x_b.mp4", "test/y_a.mp4", "test/y_b.mp4")
        splits = {source.name: source.split for source in folder.find(tmp_path).sources}
        assert splits == {"x": "train", "y": "test"}

    @pytest.mark.parametrize(
        ("names", "reason"),
        [
            (["x_a.mp4"], "got only x_a.mp4"),
            (["x.mp4", "x_a.mp4", "x_b.mp4"], "not both"),
            (["x_a.mp4", "x_a.mkv", "x_b.mp4"], "several videos"),
            (["x.mp4", "x.srt"], "do not say who speaks"),
        ],
    )
    def test_what_does_not_fit_is_dropped_with_the_reason(self, tmp_path, names, reason):
        touch(tmp_path, *names)
        finding = folder.find(tmp_path)
        assert not finding.sources
        assert reason in finding.dropped["train/x"]


def flame(path, frames, **change):
    arrays = {
        "shape": np.zeros((frames, 100)),
        "tex": np.zeros((frames, 50)),
        "exp": np.full((frames, 50), 1.0),
        "pose": np.arange(6) + np.zeros((frames, 6)),
        "cam": np.zeros((frames, 3)),
        "light": np.zeros((frames, 9, 3)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{k: v.astype(np.float32) for k, v in (arrays | change).items()})


class TestDualTalk:
    def test_pairs_by_the_speakers_number(self, tmp_path):
        touch(
            tmp_path,
            *(f"ood/v_sub_video_1_000_speaker{n}.{e}" for n in "12" for e in ("npz", "wav")),
        )
        touch(tmp_path, "test/w_sub_video_2_speaker1.npz", "test/w_sub_video_2_speaker1.wav")
        finding = dualtalk.find(tmp_path)
        (source,) = finding.sources
        assert (source.split, source.name) == ("ood", "v_sub_video_1_000")
        assert source.a.motion == tmp_path / "ood" / "v_sub_video_1_000_speaker1.npz"
        assert source.b.audio == tmp_path / "ood" / "v_sub_video_1_000_speaker2.wav"
        assert "w_sub_video_2_speaker2.npz" in finding.dropped["test/w_sub_video_2"]

    def test_motion_is_expression_jaw_neck(self, tmp_path):
        flame(tmp_path / "x.npz", frames=3)
        motion = dualtalk.read_motion(tmp_path / "x.npz")
        assert motion.shape == (3, 56)
        assert motion.dtype == np.float32
        np.testing.assert_array_equal(motion[0], [1.0] * 50 + [3, 4, 5] + [0, 1, 2])

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"pose": np.zeros((3, 3))}, r"pose \(3, 3\)"),
            ({"exp": np.full((3, 50), np.nan)}, "not finite"),
        ],
    )
    def test_damaged_parameters_are_dropped(self, tmp_path, change, reason):
        flame(tmp_path / "x.npz", frames=3, **change)
        with pytest.raises(Dropped, match=reason):
            dualtalk.read_motion(tmp_path / "x.npz")


def table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


class TestViCo:
    @pytest.mark.parametrize("folder", ["videos", "videos/test"])
    def test_the_challenge(self, tmp_path, folder):
        people = {"speaker_id": "7", "listener_id": "9"}
        table(
            tmp_path / "train.csv", [{"video_id": "v", "uuid": u, **people} for u in ("u1", "u2")]
        )
        touch(tmp_path, f"{folder}/u1.speaker.mp4", f"{folder}/u1.listener.mp4", "audios/u1.wav")
        finding = vico.find(tmp_path)
        (source,) = finding.sources
        assert (source.split, source.name, source.a.person) == ("train", "u1", "7")
        assert source.a.audio == tmp_path / "audios" / "u1.wav"
        assert source.b.video == tmp_path / folder / "u1.listener.mp4"
        assert source.b.audio is None
        assert finding.dropped["train/u2"] == "missing: audio, speaker, listener"

    def test_the_full_data_set(self, tmp_path):
        row = {"attitude": "neutral", "audio": "v_0_9", "speaker": "s", "listener": "l"}
        row |= {"speaker_id": "7", "listener_id": "9", "data_split": "ood"}
        table(tmp_path / "anno.csv", [row])
        touch(tmp_path, "videos/s.mp4", "videos/l.mp4", "audios/v_0_9.wav")
        (source,) = vico.find(tmp_path).sources
        assert (source.split, source.name) == ("ood", "v_0_9")
        assert source.b.video == tmp_path / "videos" / "l.mp4"

    def test_another_table_is_named(self, tmp_path):
        table(tmp_path / "other.csv", [{"x": "1"}])
        assert "got columns ['x']" in vico.find(tmp_path).dropped["other.csv"]


class TestSeamless:
    def test_two_participants_share_an_interaction(self, tmp_path):
        batch = "improvised/dev/0000/0005"
        for participant in ("P0947", "P1275A"):
            stem = f"{batch}/V00_S0809_I00000582_{participant}"
            touch(tmp_path, *(f"{stem}{suffix}" for suffix in (".mp4", ".wav", ".npz")))
        (tmp_path / batch / "V00_S0809_I00000582_P0947.json").write_text(json.dumps({"id": "x"}))
        touch(tmp_path, f"{batch}/V00_S0809_I00000583_P0947.mp4", "improvised/dev/0000/0006.tar")
        finding = seamless.find(tmp_path)
        (source,) = finding.sources
        assert (source.split, source.name) == ("dev", "V00_S0809_I00000582")
        assert (source.a.person, source.b.person) == ("P0947", "P1275A")
        assert source.a.activity is not None
        assert source.b.activity is None
        assert "1 participants" in finding.dropped["dev/V00_S0809_I00000583"]
        assert "extract it first" in finding.dropped["improvised/dev/0000/0006.tar"]
