"""This is where a conversation's truth becomes arrays: what `truth.npz` holds.

Legend: T frames, S side of the part map. Every name of a person has the prefix `a_` or `b_`.

    curves (T,52) f32      ARKit weights              curve_names
    pose (T,3) f32         yaw, pitch, roll in rad
    aperture (T,) f32      inner-lip opening of the mesh, in its units (dm)
    viseme (T,) i64                                   viseme_names
    phoneme (T,) i16       -1 in silence              phoneme_names
    speaking (T,) bool     this person's voice is heard (turns, back-channels, laughter)
    emotion (T,) i64       what is due to them        emotion_names
    parts (T,S,S) u8       what each place shows      part_names (from the renderer)
    reaction (T,) i8       the latest one under way   reaction_names
    cause (T,) i8          its cause                  cause_names
    cause_frame (T,) i32   when that was, or -1
    context (T,) i8        what swayed it             context_names
    context_frame (T,) i32 when that was, or -1
    sobered, lifted (T,) f16  weight of bad and of good news on them, in [0, 1]

Of both: `floor` (T,) i8, who has the turn (0 nobody, 1 a, 2 b, 3 both); `transcript` (turns),
`utterances` (back-channels, laughter) and `reactions`, JSON lists whose frames count from 0, ends
exclusive; `a_identity`, `b_identity`, JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from training.corpus.behaviour import Motion, context_weights
from training.corpus.causes import CAUSES, CONTEXTS, REACTIONS
from training.corpus.conversation import PEOPLE, Conversation
from training.corpus.curves import frame_times
from training.corpus.dialogues import EMOTIONS
from training.corpus.head import curve_names
from training.corpus.lips import PHONEME_VISEMES, VISEMES
from visavis.config import FRAME_RATE_HZ

PHONEMES = tuple(sorted(PHONEME_VISEMES))
Arrays = dict[str, NDArray]


def frame_of(seconds: float) -> int:
    """The frame that shows a time."""
    return int(seconds * FRAME_RATE_HZ)


def names() -> Arrays:
    """What the numbers in the arrays stand for."""
    return {
        "viseme_names": np.array(VISEMES),
        "phoneme_names": np.array(PHONEMES),
        "emotion_names": np.array(EMOTIONS),
        "reaction_names": np.array(REACTIONS),
        "cause_names": np.array(CAUSES),
        "context_names": np.array(CONTEXTS),
        "curve_names": np.array(curve_names()),
    }


def phoneme_track(conversation: Conversation, person: str) -> NDArray[np.int16]:
    """Index of the phoneme that sounds in the middle of each frame (T,), -1 for none."""
    times = frame_times(conversation.frames)
    track = np.full(conversation.frames, -1, np.int16)
    for phoneme in conversation.phonemes(person):
        if phoneme.symbol in PHONEME_VISEMES:
            sounds = slice(*np.searchsorted(times, (phoneme.start, phoneme.end)))
            track[sounds] = PHONEMES.index(phoneme.symbol)
    return track


def reaction_tracks(conversation: Conversation, person: str) -> Arrays:
    """The latest reaction under way in each frame, its cause and its context."""
    frames = conversation.frames
    tracks = {name: np.zeros(frames, np.int8) for name in ("reaction", "cause", "context")}
    times = {name: np.full(frames, -1, np.int32) for name in ("cause_frame", "context_frame")}
    mine = [reaction for reaction in conversation.reactions if reaction.person == person]
    for reaction in sorted(mine, key=lambda r: r.start):
        shown = slice(frame_of(reaction.start), frame_of(reaction.end) + 1)
        tracks["reaction"][shown] = REACTIONS.index(reaction.kind)
        tracks["cause"][shown] = CAUSES.index(reaction.cause)
        tracks["context"][shown] = CONTEXTS.index(reaction.context)
        times["cause_frame"][shown] = frame_of(reaction.cause_time)
        known = reaction.context_time
        times["context_frame"][shown] = -1 if known is None else frame_of(known)
    return tracks | times


def floor_track(conversation: Conversation) -> NDArray[np.int8]:
    """Who has the turn (T,): 0 nobody, 1 a, 2 b, 3 both at once."""
    times = frame_times(conversation.frames)
    floor = np.zeros(conversation.frames, np.int8)
    for turn in conversation.turns:
        floor[(times >= turn.start) & (times < turn.end)] |= PEOPLE.index(turn.speaker) + 1
    return floor


def person_arrays(conversation: Conversation, person: str, motion: Motion) -> Arrays:
    """What is known of one person, without prefix; render.py adds what hangs on their looks."""
    return {
        "curves": motion.curves.astype(np.float32),
        "pose": motion.pose,
        "viseme": motion.viseme,
        "phoneme": phoneme_track(conversation, person),
        "speaking": motion.speaking,
        "emotion": motion.emotion,
        "sobered": context_weights(conversation, "bad_news", person).astype(np.float16),
        "lifted": context_weights(conversation, "good_news", person).astype(np.float16),
        **reaction_tracks(conversation, person),
    }


def _span(start: float, end: float, frames: int) -> dict[str, int]:
    last = min(int(np.ceil(end * FRAME_RATE_HZ)), frames)
    return {"start_frame": frame_of(start), "end_frame": last}


def transcript(conversation: Conversation) -> str:
    """The turns as JSON."""
    rows = [
        {"speaker": t.speaker, "text": t.text, "emotion": t.emotion, "interrupted": t.interrupted}
        | _span(t.start, t.end, conversation.frames)
        for t in conversation.turns
    ]
    return json.dumps(rows, ensure_ascii=False)


def utterances(conversation: Conversation) -> str:
    """Back-channels and laughter as JSON."""
    rows = [
        {"speaker": u.person, "kind": u.kind, "text": u.text}
        | _span(u.start, u.end, conversation.frames)
        for u in conversation.utterances
        if frame_of(u.start) < conversation.frames
    ]
    return json.dumps(rows, ensure_ascii=False)


def reactions(conversation: Conversation) -> str:
    """All reactions as JSON, with cause and context."""
    rows = []
    for reaction in sorted(conversation.reactions, key=lambda r: r.start):
        if frame_of(reaction.start) >= conversation.frames:
            continue
        row = asdict(reaction)
        context_time = row.pop("context_time")
        row["cause_frame"] = frame_of(row.pop("cause_time"))
        row["context_frame"] = None if context_time is None else frame_of(context_time)
        row |= _span(row.pop("start"), row.pop("end"), conversation.frames)
        row["strength"] = round(float(row["strength"]), 3)
        rows.append(row)
    return json.dumps(rows)


def shared_arrays(conversation: Conversation) -> Arrays:
    """What is known of the conversation as a whole."""
    return {
        "floor": floor_track(conversation),
        "transcript": np.array(transcript(conversation)),
        "utterances": np.array(utterances(conversation)),
        "reactions": np.array(reactions(conversation)),
        **names(),
    }
