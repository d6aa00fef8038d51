"""This is where a conversation becomes motion: expressions, nods, gaze, blinks, head motion.

Rules, for two people A and B; lips are in lips.py, reactions and their causes in causes.py:

Speaking
- The turn's emotion shows on the face, smiles less so while bad news weighs on the speaker.
- On stressed syllables, about every 1.2 s, the head dips a little and the brows rise.
- At the beginning of a turn the gaze wanders off for a moment (most of the time), then returns to
  the partner; before the end of a long turn it is always there, which offers the turn.

Listening
- Each reaction has its own motion: a nod dips the head once or twice; a smile, concern, surprise
  and a startle fade in and out on the face, with a little head motion; a laugh adds shut eyes and a
  shaking head.
- On bad news the gaze drops for a moment.
- Head posture follows the partner's slow drift, 2-4 s later and weaker (mimicry: Chartrand and
  Bargh 1999, "The chameleon effect").

Always
- Good news leaves a faint smile that fades over a minute; bad news raised inner brows.
- Slow random head drift, blinks every 2-5 s (one more at many turn ends; fewer while listening
  than while speaking: Bentivoglio et al. 1997), gaze on the partner with short saccades, the eyes
  turned against the head so that they keep looking.
- Curves that move the lips are held back while the lips must close.

Units: 25 frames a second, curves in [0, 1], angles in rad (yaw left, pitch down, roll).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from training.corpus.causes import Reaction
from training.corpus.conversation import PARTNER, PEOPLE, Conversation, Turn
from training.corpus.curves import (
    CurveSet,
    FloatArray,
    bump,
    envelope,
    frame_times,
    smooth_noise,
)
from training.corpus.dialogues import EMOTIONS
from training.corpus.lips import lip_motion
from visavis.config import FRAME_RATE_HZ

POSE_LIMITS = np.array([0.17, 0.12, 0.08])  # yaw, pitch, roll: soft limits

SPEAKER_MOOD: dict[str, dict[str, float]] = {
    "neutral": {},
    "happy": {"mouthSmile": 0.50, "cheekSquint": 0.55, "eyeSquint": 0.25, "browOuterUp": 0.15},
    "sad": {"mouthFrown": 0.55, "browInnerUp": 0.85, "eyeSquint": 0.10, "mouthShrugLower": 0.15},
    "surprised": {"browInnerUp": 0.70, "browOuterUp": 0.75, "eyeWide": 0.65},
    "concerned": {"browInnerUp": 0.75, "browDown": 0.25, "mouthFrown": 0.25, "eyeSquint": 0.10},
    "angry": {"browDown": 0.75, "noseSneer": 0.25, "mouthFrown": 0.20, "eyeSquint": 0.30},
}
REACTION_FACE: dict[str, dict[str, float]] = {
    "smile": {"mouthSmile": 0.55, "cheekSquint": 0.45, "eyeSquint": 0.15},
    "concern": {"mouthFrown": 0.35, "browInnerUp": 0.75, "browDown": 0.15},
    "surprise": {"browInnerUp": 0.45, "browOuterUp": 0.60, "eyeWide": 0.45},
    "startle": {"browOuterUp": 0.45, "browInnerUp": 0.30, "eyeWide": 0.35, "mouthPress": 0.25},
    "laugh": {"mouthSmile": 0.85, "cheekSquint": 0.85, "eyeSquint": 0.60, "browOuterUp": 0.10},
}
RISE_S = {"smile": 0.4, "concern": 0.6, "surprise": 0.2, "startle": 0.15, "laugh": 0.25}
# Head motion of a reaction: yaw, pitch, roll in rad at strength 1; the roll's sign is random.
REACTION_POSE = {
    "concern": (0.0, 0.025, 0.035),
    "surprise": (0.0, -0.035, 0.0),
    "startle": (0.0, -0.030, 0.0),
    "laugh": (0.0, -0.045, 0.015),
}
LIP_CURVES = ("mouthSmile", "mouthFrown", "mouthShrugLower", "mouthPress", "noseSneer")
# What a listener is due to feel while the partner speaks with an emotion.
HEARD_EMOTION = {"sad": "concerned", "angry": "concerned"}
SOBERED = 0.5  # from this weight of bad news on, joy is not due


@dataclass
class Motion:
    """What one person does: curves (T,52), pose (T,3), viseme (T,), emotion (T,), speaking (T,)."""

    curves: FloatArray
    pose: FloatArray
    viseme: NDArray[np.int64]
    emotion: NDArray[np.int64]
    speaking: NDArray[np.bool_]


def context_weights(conversation: Conversation, kind: str, person: str) -> FloatArray:
    """How much the events of a kind weigh on a person (T,), in [0, 1]."""
    times = frame_times(conversation.frames)
    memory = conversation.memory
    return np.array([memory.weight(kind, person, time) for time in times], np.float32)


def due_emotions(conversation: Conversation, person: str, sobered: FloatArray) -> NDArray[np.int64]:
    """Index of the emotion due to a person (T,): their own turn's, or what they heard.

    A turn's emotion lasts until the next turn. Who listens to sad or angry words is concerned; who
    is being consoled stays sad; who has bad news on their mind does not become happy.
    """
    due = np.full(conversation.frames, EMOTIONS.index("neutral"))
    times = frame_times(conversation.frames)
    own = "neutral"
    for turn in conversation.turns:
        emotion = turn.emotion
        if turn.speaker == person:
            own = emotion
        elif emotion == "concerned":
            emotion = "sad" if own == "sad" else "concerned"
        else:
            emotion = HEARD_EMOTION.get(emotion, emotion)
        due[times >= turn.start] = EMOTIONS.index(emotion)
    listening = np.ones(conversation.frames, bool)
    for start, end in conversation.spoken(person):
        listening &= (times < start) | (times >= end)
    glad = due == EMOTIONS.index("happy")
    due[glad & listening & (sobered > SOBERED)] = EMOTIONS.index("neutral")
    return due


def _own_moods(
    person: str, conversation: Conversation, sobered: FloatArray, curve_set: CurveSet,
    rng: np.random.Generator,
) -> FloatArray:  # fmt: skip
    """Expression curves (T,52) of the own turns."""
    times = frame_times(conversation.frames)
    curves = np.zeros((conversation.frames, len(curve_set.names)), np.float32)
    for turn in conversation.turns:
        strength = rng.uniform(0.85, 1.1)
        if turn.speaker != person:
            continue
        shown = envelope(times, turn.start - 0.1, turn.end + 0.25, 0.4) * strength
        if turn.emotion == "happy":
            shown *= 1 - 0.6 * sobered
        curves += shown[:, None] * curve_set.vector(SPEAKER_MOOD[turn.emotion])
    return curves


def _reaction_faces(reactions: list[Reaction], frames: int, curve_set: CurveSet) -> FloatArray:
    """Expression curves (T,52) of the own reactions."""
    times = frame_times(frames)
    curves = np.zeros((frames, len(curve_set.names)), np.float32)
    for reaction in reactions:
        if reaction.kind not in REACTION_FACE:
            continue
        rise = RISE_S[reaction.kind]
        shown = envelope(times, reaction.start, reaction.end, rise) * min(reaction.strength, 1.3)
        curves = np.maximum(curves, shown[:, None] * curve_set.vector(REACTION_FACE[reaction.kind]))
    return curves


def _expressions(
    person: str, conversation: Conversation, closing: FloatArray, curve_set: CurveSet,
    rng: np.random.Generator,
) -> FloatArray:  # fmt: skip
    """All expression curves (T,52): moods, reactions, and what lies on one's mind."""
    frames = conversation.frames
    sobered = context_weights(conversation, "bad_news", person)
    lifted = context_weights(conversation, "good_news", person)
    mine = [reaction for reaction in conversation.reactions if reaction.person == person]
    curves = _own_moods(person, conversation, sobered, curve_set, rng)
    curves = np.maximum(curves, _reaction_faces(mine, frames, curve_set))
    faint_smile = curve_set.vector({"mouthSmile": 0.16, "cheekSquint": 0.12})
    worry = curve_set.vector({"browInnerUp": 0.22, "mouthFrown": 0.08})
    calm = (1 - sobered)[:, None]
    curves = np.maximum(curves, calm * (0.3 + lifted)[:, None] * faint_smile)
    curves = np.maximum(curves, sobered[:, None] * worry)
    # A held expression varies a little.
    curves *= 1 + 0.12 * smooth_noise(rng, frames, 1.0)[:, None]
    for name in LIP_CURVES:
        curves[:, curve_set.columns(name)] *= (1 - 0.75 * closing)[:, None]
    return np.clip(curves, 0, 1)


def _blinks(turns: list[Turn], speaking: NDArray[np.bool_], rng: np.random.Generator) -> FloatArray:
    """How far the lids are closed (T,)."""
    frames = len(speaking)
    closed = np.zeros(frames + 8, np.float32)
    starts = [turn.end + rng.uniform(0, 0.2) for turn in turns if rng.random() < 0.35]
    clock = rng.uniform(0.3, 3.0)
    while clock * FRAME_RATE_HZ < frames:
        starts.append(clock)
        slower = 1.0 if speaking[int(clock * FRAME_RATE_HZ)] else 1.3
        clock += rng.uniform(2.0, 5.0) * slower
    for start in starts:
        frame = int(start * FRAME_RATE_HZ)
        if frame < frames:
            shape = np.array([0.35, 0.95, 1.0, 0.6, 0.2])
            closed[frame : frame + 5] = np.maximum(closed[frame : frame + 5], shape)
    return closed[:frames]


def _emphasis(
    person: str, turns: list[Turn], frames: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Head dips (T,) in rad and brow raises (T,) on stressed syllables of the own speech."""
    times = frame_times(frames)
    dips, brows = np.zeros(frames, np.float32), np.zeros(frames, np.float32)
    for turn in turns:
        if turn.speaker != person:
            continue
        last = -np.inf
        for phoneme in turn.phonemes:
            if phoneme.symbol != "ˈ" or phoneme.start - last < rng.uniform(0.8, 1.6):
                continue
            last = phoneme.start
            dips += rng.uniform(0.02, 0.05) * bump(times, last, last + 0.2, 0.15)
            brows += rng.uniform(0.15, 0.4) * bump(times, last - 0.05, last + 0.25, 0.15)
    return dips, np.clip(brows, 0, 0.5)


def _nod(reaction: Reaction, times: NDArray[np.float64], rng: np.random.Generator) -> FloatArray:
    """Pitch (T,) in rad: down first; the second nod of a pair is weaker."""
    cycles = int(rng.integers(1, 3))
    seconds = cycles / rng.uniform(1.7, 2.3)
    phase = np.clip((times - reaction.start) / seconds, 0, 1)
    wave = (1 - np.cos(2 * np.pi * cycles * phase)) / 2 * (1 - 0.4 * phase)
    return (0.08 * reaction.strength * wave).astype(np.float32)


def _reaction_poses(reactions: list[Reaction], frames: int, rng: np.random.Generator) -> FloatArray:
    """Head motion (T,3) in rad of the own reactions."""
    times = frame_times(frames)
    pose = np.zeros((frames, 3), np.float32)
    for reaction in reactions:
        if reaction.kind == "nod":
            pose[:, 1] += _nod(reaction, times, rng)
        if reaction.kind not in REACTION_POSE:
            continue
        shown = envelope(times, reaction.start, reaction.end, 0.5) * reaction.strength
        side = np.array([1, 1, rng.choice([-1, 1])])
        pose += shown[:, None] * np.array(REACTION_POSE[reaction.kind]) * side
        if reaction.kind == "laugh":
            shake = np.sin(2 * np.pi * 4.8 * (times - reaction.start))
            pose[:, 1] += (0.012 * shown * shake).astype(np.float32)
    return pose


def _drift(speaking: NDArray[np.bool_], rng: np.random.Generator) -> FloatArray:
    """The head's own slow motion (T,3) in rad, livelier while speaking."""
    energy = gaussian_filter1d(np.where(speaking, 1.0, 0.6), 8)
    noise = np.stack([smooth_noise(rng, len(speaking), s) for s in (1.4, 1.1, 1.6)], 1)
    return (noise * np.array([0.055, 0.022, 0.024]) * energy[:, None]).astype(np.float32)


def _mimicry(partner_drift: FloatArray, rng: np.random.Generator) -> FloatArray:
    """The partner's slow posture, later, weaker, and mirrored left to right."""
    delay = int(rng.uniform(2, 4) * FRAME_RATE_HZ)
    slow = gaussian_filter1d(partner_drift, 1.2 * FRAME_RATE_HZ, axis=0)
    later = np.concatenate([np.zeros((delay, 3), np.float32), slow])[: len(slow)]
    return (0.6 * later * np.array([-1, 1, -1])).astype(np.float32)


def _gaze(
    person: str, conversation: Conversation, pose: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Gaze relative to the head (T,2): left and up, in units of the eyeLook curves."""
    frames = len(pose)
    gaze = np.zeros((frames, 2), np.float32)
    position = 0
    while position < frames:  # saccades about the partner's face
        length = int(rng.uniform(0.6, 2.0) * FRAME_RATE_HZ)
        gaze[position : position + length] = rng.normal(0, [0.05, 0.03])
        position += length
    times = frame_times(frames)
    for turn in conversation.turns:
        if turn.speaker == person and rng.random() < 0.65:
            away = (times > turn.start - 0.1) & (times < turn.start + rng.uniform(0.5, 1.2))
            gaze[away] = rng.choice([-1, 1]) * rng.uniform(0.25, 0.5), rng.uniform(-0.3, 0.25)
    for reaction in conversation.reactions:
        if reaction.person == person and reaction.cause == "bad_news":
            down = (times > reaction.start + 0.3) & (times < reaction.start + rng.uniform(0.9, 1.6))
            gaze[down] = rng.normal(0, 0.08), -0.4
    # The eyes turn about 0.37 rad at full eyeLook weight: they undo two thirds of the head's turn.
    gaze[:, 0] -= pose[:, 0] / 0.6
    gaze[:, 1] += pose[:, 1] / 0.6
    return gaze


def add_gaze(curves: FloatArray, gaze: FloatArray, curve_set: CurveSet) -> None:
    """Set the eye curves of (T,52) to a gaze (T,2): left and up."""
    left, up = gaze[:, 0], gaze[:, 1]
    for name, value in {
        "eyeLookOutLeft": left, "eyeLookInRight": left, "eyeLookInLeft": -left,
        "eyeLookOutRight": -left, "eyeLookUp": up, "eyeLookDown": -up,
    }.items():  # fmt: skip
        for column in curve_set.columns(name):
            curves[:, column] = np.clip(value, 0, 0.7)


def _person_motion(
    person: str, conversation: Conversation, speaking: NDArray[np.bool_], posture: FloatArray,
    curve_set: CurveSet, rng: np.random.Generator,
) -> Motion:  # fmt: skip
    frames = conversation.frames
    mine = [reaction for reaction in conversation.reactions if reaction.person == person]
    lips, viseme, closing = lip_motion(conversation.phonemes(person), frames, curve_set)
    dips, brows = _emphasis(person, conversation.turns, frames, rng)
    pose = posture + _reaction_poses(mine, frames, rng)
    pose[:, 1] += dips
    pose = (POSE_LIMITS * np.tanh(pose / POSE_LIMITS)).astype(np.float32)
    curves = lips + _expressions(person, conversation, closing, curve_set, rng)
    for name in ("browInnerUp", "browOuterUp"):
        curves[:, curve_set.columns(name)] += brows[:, None]
    blinks = _blinks(conversation.turns, speaking, rng)[:, None]
    add_gaze(curves, _gaze(person, conversation, pose, rng), curve_set)
    # A blinking lid would be held open by the wide-eyed and doubled by the squinting shape.
    for name in ("eyeWide", "eyeSquint"):
        curves[:, curve_set.columns(name)] *= 1 - blinks
    curves[:, curve_set.columns("eyeBlink")] = blinks
    sobered = context_weights(conversation, "bad_news", person)
    emotion = due_emotions(conversation, person, sobered)
    return Motion(np.clip(curves, 0, 1), pose, viseme, emotion, speaking)


def motions(
    conversation: Conversation, curve_set: CurveSet, rng: np.random.Generator
) -> dict[str, Motion]:
    """All motion of both people."""
    times = frame_times(conversation.frames)
    speaking = {person: np.zeros(conversation.frames, bool) for person in PEOPLE}
    for person in PEOPLE:
        for start, end in conversation.spoken(person):
            speaking[person] |= (times >= start) & (times < end)
    drifts = {person: _drift(speaking[person], rng) for person in PEOPLE}
    return {
        person: _person_motion(
            person, conversation, speaking[person],
            drifts[person] + _mimicry(drifts[PARTNER[person]], rng), curve_set, rng,
        )
        for person in PEOPLE
    }  # fmt: skip
