"""This is where a script is performed: turns in time, two voices, and what each listener does.

Timing follows what is known of talk: the next speaker starts about 0.2 s after the last, sometimes
a little before its end (Stivers et al. 2009, "Universals and cultural variation in turn-taking in
conversation"), bad news and new topics after a longer pause. A marked line interrupts: both speak,
the first gives up. Listeners say "mm-hm" at phrase ends and laugh at punchlines (see causes.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from training.corpus.causes import (
    Memory,
    Reaction,
    sway,
    to_interruption,
    to_laughter,
    to_phrase_end,
    to_punchline,
    to_turn,
)
from training.corpus.dialogues import Line, Topic, topics
from training.corpus.voice import Phoneme, Speech, SpeechSynthesizer, Voice, laughter
from visavis.config import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

PEOPLE: tuple[str, str] = ("a", "b")
PARTNER = {"a": "b", "b": "a"}
PAUSES = frozenset(".,!?;:—…<>")
# Said by a listener at the phrase ends of a turn with an emotion; phonemes where spelling misleads.
BACKCHANNELS: dict[str, tuple[str, ...]] = {
    "neutral": ("mm-hm", "Yeah.", "Right.", "I see."),
    "happy": ("mm-hm", "Yeah!", "Nice."),
    "sad": ("mm", "Oh.", "Oh no."),
    "surprised": ("Wow.", "Really?", "mm"),
    "concerned": ("mm", "Yes.", "mm-hm"),
    "angry": ("mm", "Oh.", "Yeah."),
}
HUMMED = {"mm-hm": "m hˈm.", "mm": "ˈm."}


@dataclass(frozen=True)
class Turn:
    """One turn placed in time; all times in s from the start of the conversation."""

    speaker: str
    text: str
    emotion: str
    start: float
    end: float
    phonemes: list[Phoneme]
    interrupted: bool = False

    @property
    def phrase_ends(self) -> list[float]:
        """Times at which a phrase ends: the pauses in the turn, and its end."""
        pauses = [p.start for p in self.phonemes if p.symbol in PAUSES]
        pauses = [time for time in pauses if self.start + 0.5 < time < self.end - 0.5]
        # Pauses that follow each other closely are one.
        ends: list[float] = []
        for time in [*pauses, self.end]:
            if not ends or time - ends[-1] > 0.5:
                ends.append(time)
        return ends


@dataclass(frozen=True)
class Utterance:
    """A sound that takes no turn: `kind` is "backchannel" or "laugh"."""

    person: str
    kind: str
    text: str
    start: float
    end: float
    phonemes: list[Phoneme]


@dataclass
class Conversation:
    """A performed script: turns, other utterances, reactions, and each voice (N,) float32."""

    seconds: float
    voices: dict[str, NDArray[np.float32]]
    turns: list[Turn] = field(default_factory=list)
    utterances: list[Utterance] = field(default_factory=list)
    reactions: list[Reaction] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)

    @property
    def frames(self) -> int:
        """Video frames of the whole conversation."""
        return int(self.seconds * FRAME_RATE_HZ)

    def phonemes(self, person: str) -> list[Phoneme]:
        """All that a person says, in time."""
        own = [p for turn in self.turns if turn.speaker == person for p in turn.phonemes]
        own += [p for other in self.utterances if other.person == person for p in other.phonemes]
        return sorted(own, key=lambda phoneme: phoneme.start)

    def spoken(self, person: str) -> list[tuple[float, float]]:
        """When a person's voice is heard: turns, back-channels and laughter."""
        turns = [(turn.start, turn.end) for turn in self.turns if turn.speaker == person]
        return turns + [(o.start, o.end) for o in self.utterances if o.person == person]


def write_script(split: str, number: int, seed: int) -> list[Topic]:
    """The topics of a conversation in order, more than it has time for.

    Of three conversations one has bad news early on, one good news, one none; jokes come later in
    all of them, so the same joke is heard after different news. Consecutive conversations walk
    through one shuffled list of each kind, so that all of them get used.
    """

    def walk(kind: str, step: int) -> Iterator[Topic]:
        of_kind = [topic for topic in topics(split) if topic.kind == kind]
        order = np.random.default_rng([seed, 99, *kind.encode()]).permutation(len(of_kind))
        for i in range(len(of_kind)):
            yield of_kind[order[(number * step + i) % len(of_kind)]]

    small, stories, jokes = walk("small", 3), walk("story", 2), walk("joke", 2)
    news = next(walk(("bad", "good")[number % 3], 1)) if number % 3 < 2 else None
    sequel = None
    if news is not None:
        named = (t for t in topics(split) if t.kind == "sequel" and t.name == news.name)
        sequel = next(named, None)
    script = [next(small), news, next(stories), next(jokes), next(small), sequel, next(stories)]
    script += [next(jokes), next(small), *stories, *small]
    return [topic for topic in script if topic is not None]


def silent_ends(spoken: Speech) -> tuple[float, float]:
    """Seconds of silence before and after synthetic speech, less a margin.

    The synthesizer starts and ends with sentence marks and punctuation, which are silent.
    """
    margin = 0.06
    trailing = [p for p in spoken.phonemes[-3:] if p.symbol in PAUSES]
    voice_ends = trailing[0].start + margin if trailing else spoken.seconds
    return max(spoken.phonemes[0].end - margin, 0.0), max(spoken.seconds - voice_ends, 0.0)


def cut_off(spoken: Speech, seconds: float) -> Speech:
    """The first `seconds` of speech, dying away: who is interrupted stops."""
    samples = spoken.samples[: int(seconds * SAMPLE_RATE_HZ)].copy()
    fade = min(len(samples), int(0.09 * SAMPLE_RATE_HZ))
    samples[len(samples) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    kept = [p for p in spoken.phonemes if p.start < seconds]
    last = Phoneme(kept[-1].symbol, kept[-1].start, min(kept[-1].end, seconds))
    return Speech(samples, [*kept[:-1], last])


class Stage:
    """Performs a script line by line. `clock` is when the last turn ended, in s."""

    def __init__(
        self, seconds: float, voices: dict[str, Voice], speech: SpeechSynthesizer,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        total = int(seconds * FRAME_RATE_HZ) * SAMPLES_PER_FRAME
        silence = {person: np.zeros(total, np.float32) for person in PEOPLE}
        self.conversation = Conversation(seconds, silence)
        self._voices, self._speech, self._rng = voices, speech, rng
        self._quiet_from = dict.fromkeys(PEOPLE, 0.0)  # from when on each is silent again
        self.clock = float(rng.uniform(0.5, 1.0))

    @property
    def is_over(self) -> bool:
        """Nothing more can be said in time."""
        return self.clock >= self.conversation.seconds - 1

    def topic(self, topic: Topic, first: str) -> None:
        """All lines of a topic, as far as time allows; `first` begins."""
        order = (first, PARTNER[first])
        interrupted = [line.interrupts for line in topic.lines[1:]] + [False]
        for index, (line, cut) in enumerate(zip(topic.lines, interrupted, strict=True)):
            if self.is_over:
                return
            self._turn(order[index % 2], line, topic, cut)
        if topic.kind == "sequel" and topic.lines[-1].emotion == "happy":
            self.conversation.memory.relieve(self.clock)
        self.clock += float(self._rng.uniform(0.3, 1.2))

    def _turn(self, speaker: str, line: Line, topic: Topic, cut: bool) -> None:
        rng, memory = self._rng, self.conversation.memory
        spoken = self._speech.speak(line.text, self._voices[speaker])
        if cut:
            spoken = cut_off(spoken, spoken.seconds * rng.uniform(0.75, 0.9))
        lead, tail = silent_ends(spoken)
        start = max(self.clock + self._gap(line, topic), self._quiet_from[speaker] + 0.1)
        self._sound(speaker, spoken, start - lead, 1.0)
        phonemes = [phoneme.later(start - lead) for phoneme in spoken.phonemes]
        end = start - lead + spoken.seconds - (0.0 if cut else tail)
        turn = Turn(speaker, line.text, line.emotion, start, end, phonemes, cut)
        if line.interrupts and self.conversation.turns:
            self._interrupt(turn)
        self.conversation.turns.append(turn)
        self._quiet_from[speaker] = end
        news = {"bad": "bad_news", "good": "good_news"}.get(topic.kind) if line.news else None
        self._listen(turn, news)
        if news:
            memory.news(news, end, speaker)
        self.clock = end
        if line.punchline:
            self._laugh(turn)

    def _gap(self, line: Line, topic: Topic) -> float:
        """Seconds from the end of the last turn to the beginning of this one."""
        rng = self._rng
        if line.interrupts:
            return -float(rng.uniform(0.3, 0.6))
        if line.news and topic.kind == "bad":
            return float(rng.uniform(0.6, 1.2))
        if rng.random() < 0.18 and self.conversation.turns and not line.news:
            return -float(rng.uniform(0.08, 0.25))
        return float(np.clip(rng.gamma(2.0, 0.14), 0.05, 1.2))

    def _sound(self, person: str, speech: Speech, start: float, gain: float) -> None:
        """Mix a sound into a person's track; what lies outside of the conversation is lost."""
        track = self.conversation.voices[person]
        first = round(start * SAMPLE_RATE_HZ)
        samples = speech.samples[max(0, -first) :]
        first = max(first, 0)
        piece = track[first : first + len(samples)]
        piece += gain * samples[: len(piece)]

    def _utter(self, person: str, kind: str, text: str, speech: Speech, start: float) -> Utterance:
        lead, tail = silent_ends(speech)
        self._sound(person, speech, start - lead, 0.75 if kind == "laugh" else 0.6)
        phonemes = [phoneme.later(start - lead) for phoneme in speech.phonemes]
        utterance = Utterance(
            person, kind, text, start, start - lead + speech.seconds - tail, phonemes
        )
        self.conversation.utterances.append(utterance)
        self._quiet_from[person] = max(self._quiet_from[person], utterance.end)
        return utterance

    def _interrupt(self, turn: Turn) -> None:
        victim = PARTNER[turn.speaker]
        self.conversation.reactions.append(to_interruption(victim, turn.start, self._rng))
        self.conversation.memory.interruption(turn.start, victim)

    def _listen(self, turn: Turn, news: str | None) -> None:
        """The listener's face, nods and back-channels during a turn."""
        listener, memory, rng = PARTNER[turn.speaker], self.conversation.memory, self._rng
        reactions = self.conversation.reactions
        reactions += to_turn(listener, turn.emotion, news, turn.start, turn.end, memory, rng)
        for time in turn.phrase_ends:
            if nod := to_phrase_end(listener, time, memory, rng):
                reactions.append(nod)
            if time < turn.end - 0.8:
                self._maybe_backchannel(listener, turn.emotion, time)

    def _maybe_backchannel(self, listener: str, emotion: str, time: float) -> None:
        rng = self._rng
        start, chance = time + float(rng.uniform(0.05, 0.25)), rng.random()
        reaction = Reaction(listener, "backchannel", "phrase_end", time, start, start + 0.5, 1.0)
        reaction = sway(reaction, self.conversation.memory)
        if chance > 0.35 * reaction.strength or start < self._quiet_from[listener] + 1.0:
            return
        text = str(rng.choice(BACKCHANNELS[emotion]))
        voice = self._voices[listener]
        speech = (
            self._speech.speak_phonemes([HUMMED[text]], voice)
            if text in HUMMED
            else self._speech.speak(text, voice)
        )
        self._utter(listener, "backchannel", text, speech, start)
        self.conversation.reactions.append(reaction)

    def _laugh(self, turn: Turn) -> None:
        """The listener laughs at a punchline, and the teller may join in."""
        listener, memory = PARTNER[turn.speaker], self.conversation.memory
        reaction = to_punchline(listener, turn.end, memory, self._rng)
        heard = self._let_laugh(reaction)
        if not heard:
            return
        joined = to_laughter(turn.speaker, heard.start, heard.strength, memory, self._rng)
        if joined:
            self._let_laugh(joined)
        memory.laughter(heard.start, heard.strength)
        self.clock = max(self.clock, heard.end - 0.7)

    def _let_laugh(self, reaction: Reaction) -> Reaction | None:
        """Show a laugh or what is left of it; returns it, as long as it sounds, if audible."""
        if reaction.kind == "laugh":
            calls = int(np.clip(round(2 + 3.5 * reaction.strength + self._rng.normal()), 2, 7))
            voice = self._voices[reaction.person]
            speech = laughter(self._speech, voice, calls, self._rng)
            sound = self._utter(reaction.person, "laugh", "(laughs)", speech, reaction.start)
            reaction = replace(reaction, end=sound.end + 0.3)
        self.conversation.reactions.append(reaction)
        return reaction if reaction.kind == "laugh" else None


def perform(
    script: Sequence[Topic], seconds: float, voices: dict[str, Voice], speech: SpeechSynthesizer,
    rng: np.random.Generator,
) -> Conversation:  # fmt: skip
    """Speak a script until the time is used up."""
    stage = Stage(seconds, voices, speech, rng)
    teller: dict[str, str] = {}
    for topic in script:
        first = str(rng.choice(PEOPLE))
        if topic.kind == "sequel" and topic.name in teller:
            first = PARTNER[teller[topic.name]]  # who was told asks how it went on
        if topic.kind in ("bad", "good"):
            teller[topic.name] = (first, PARTNER[first])[topic.teller]
        stage.topic(topic, first)
        if stage.is_over:
            break
    return stage.conversation
