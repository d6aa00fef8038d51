"""How people move in a conversation; needs neither head assets nor a voice."""

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the corpus extra (scipy) is not installed")

from tests.corpus.curve_names import CURVES
from training.corpus.behaviour import (
    POSE_LIMITS,
    REACTION_FACE,
    REACTION_POSE,
    RISE_S,
    SPEAKER_MOOD,
    Motion,
    due_emotions,
    motions,
)
from training.corpus.causes import REACTIONS, Memory, Reaction
from training.corpus.conversation import Conversation, Turn
from training.corpus.dialogues import EMOTIONS
from training.corpus.voice import Phoneme
from visavis.config import FRAME_RATE_HZ

SYMBOLS = "mˈɑmə wˈɛnt hˈOm."


def conversation(emotion: str, reactions: list[Reaction], seconds: float = 5.0) -> Conversation:
    """One turn of person a, from 1 s to 3 s."""
    edges = np.linspace(1.0, 3.0, len(SYMBOLS) + 1)
    phonemes = [
        Phoneme(symbol, float(edges[i]), float(edges[i + 1])) for i, symbol in enumerate(SYMBOLS)
    ]
    turns = [Turn("a", "Mamma went home.", emotion, 1.0, 3.0, phonemes)]
    return Conversation(seconds, {}, turns, [], reactions)


def moving(talk: Conversation, seed: int = 0) -> dict[str, Motion]:
    return motions(talk, CURVES, np.random.default_rng(seed))


def test_all_names_exist() -> None:
    assert set(SPEAKER_MOOD) == set(EMOTIONS)
    assert set(REACTION_FACE) == set(RISE_S) <= set(REACTIONS)
    assert set(REACTION_POSE) <= set(REACTIONS)
    for values in [*SPEAKER_MOOD.values(), *REACTION_FACE.values()]:
        CURVES.vector(values)


def test_a_smile_is_mirrored_when_its_reaction_says() -> None:
    smile = Reaction("b", "smile", "happy_turn", 1.0, 1.6, 3.4, 1.0)
    talk = moving(conversation("happy", [smile]))
    column = CURVES.index["mouthSmileLeft"]
    starts = [int(np.argmax(talk[person].curves[:, column] > 0.3)) for person in "ab"]
    assert starts[0] == pytest.approx(FRAME_RATE_HZ, abs=8)
    assert starts[1] == pytest.approx(1.6 * FRAME_RATE_HZ, abs=8)
    assert not talk["b"].curves[:, CURVES.index["jawOpen"]].any()
    assert talk["a"].speaking[30:70].all()
    assert not talk["b"].speaking.any()


def test_a_nod_dips_the_head_after_its_start() -> None:
    nod = Reaction("b", "nod", "phrase_end", 3.0, 3.2, 4.1, 1.0)
    still, nodding = (conversation("neutral", reactions) for reactions in ([], [nod]))
    extra = np.zeros(nodding.frames)
    for seed in range(12):
        extra += moving(nodding, seed)["b"].pose[:, 1] - moving(still, seed)["b"].pose[:, 1]
    start = int(3.2 * FRAME_RATE_HZ)
    assert (extra / 12)[start : start + 20].max() > 0.03


def test_a_laugh_shows_on_the_face_and_shakes_the_head() -> None:
    laugh = Reaction("b", "laugh", "joke", 3.0, 3.2, 4.6, 1.0)
    motion = moving(conversation("happy", [laugh]))["b"]
    middle = slice(int(3.5 * FRAME_RATE_HZ), int(4.3 * FRAME_RATE_HZ))
    assert motion.curves[middle, CURVES.index["mouthSmileLeft"]].mean() > 0.6
    assert motion.curves[middle, CURVES.index["cheekSquintLeft"]].mean() > 0.6


def test_bad_news_weakens_the_smile_of_who_told_it() -> None:
    talk = conversation("happy", [])
    glad = moving(talk)["a"].curves[:, CURVES.index["mouthSmileLeft"]].max()
    talk.memory = Memory()
    talk.memory.news("bad_news", 0.0, teller="a")
    sober = moving(talk)["a"].curves[:, CURVES.index["mouthSmileLeft"]].max()
    assert sober < 0.6 * glad


@pytest.mark.parametrize(
    ("emotion", "heard"), [("sad", "concerned"), ("happy", "happy"), ("angry", "concerned")]
)
def test_what_is_due_to_speaker_and_listener(emotion: str, heard: str) -> None:
    talk = conversation(emotion, [])
    calm = np.zeros(talk.frames, np.float32)
    assert EMOTIONS[due_emotions(talk, "a", calm)[40]] == emotion
    assert EMOTIONS[due_emotions(talk, "b", calm)[40]] == heard
    assert EMOTIONS[due_emotions(talk, "b", calm)[5]] == "neutral"


def test_joy_is_not_due_to_a_listener_with_bad_news_on_their_mind() -> None:
    talk = conversation("happy", [])
    sobered = np.ones(talk.frames, np.float32)
    assert EMOTIONS[due_emotions(talk, "b", sobered)[40]] == "neutral"
    assert EMOTIONS[due_emotions(talk, "a", sobered)[40]] == "happy"


def test_poses_stay_moderate_and_curves_in_range() -> None:
    for seed in range(3):
        for motion in moving(conversation("surprised", []), seed).values():
            assert (np.abs(motion.pose) <= POSE_LIMITS + 1e-6).all()
            assert motion.curves.min() >= 0
            assert motion.curves.max() <= 1


def test_blinks_come_every_few_seconds() -> None:
    motion = moving(Conversation(60.0, {}))["b"]
    closed = motion.curves[:, CURVES.index["eyeBlinkLeft"]] > 0.9
    blinks = np.count_nonzero(np.diff(closed.astype(int)) == 1)
    assert 8 <= blinks <= 30
