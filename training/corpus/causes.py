"""This is where reactions get their causes: who reacts to what, how strongly, and what sways them.

A reaction has a *cause*, mostly the partner's doing a moment ago, and sometimes a *context*, an
event 10 s to minutes back that makes it stronger or weaker. Both are kept as truth, so that a model
of long conversations can be asked whether it noticed.

Rules (all delays, chances and strengths are drawn from a seeded generator):

| reaction | cause | delay s | chance |
|---|---|---|---|
| nod | the partner's phrase ends | 0.1-0.3 | 0.75 |
| back-channel ("mm-hm") | the partner's phrase ends within a turn | 0.05-0.25 | 0.35 |
| smile | the partner speaks happily | 0.4-0.8 | 0.95 |
| concern | the partner speaks sadly, is concerned or angry; bad news | 0.3-0.7 | 1 |
| surprise | the partner is surprised; good news | 0.15-0.4 | 0.9 |
| laugh | the partner's punchline | 0.1-0.35 | 1, as a smile if weak |
| laugh | the partner's laughter (the teller joins in) | 0.2-0.5 | 0.6 |
| startle | the partner interrupts | 0.05-0.15 | 1 |

Contexts fade exponentially, `weight = strength * exp(-age / time constant)`, and multiply a
reaction's strength by `1 + sway * weight`:

- bad news (50 s) takes laughter and smiles away, the teller's more than the listener's; a turn
  for the better, told later, lifts most of that weight again;
- good news (40 s) makes smiles broader;
- laughter (20 s) makes the next laugh easier;
- being interrupted (12 s) makes one nod and smile less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

REACTIONS = ("none", "nod", "backchannel", "smile", "concern", "surprise", "startle", "laugh")
CAUSES = (
    "none", "phrase_end", "happy_turn", "sad_turn", "concerned_turn", "angry_turn",
    "surprised_turn", "bad_news", "good_news", "joke", "laughter", "interruption",
)  # fmt: skip
CONTEXTS = ("none", "bad_news", "good_news", "laughter", "interruption")

TIME_CONSTANT_S = {"bad_news": 50.0, "good_news": 40.0, "laughter": 20.0, "interruption": 12.0}
SWAY: Mapping[str, Mapping[str, float]] = {
    "laugh": {"bad_news": -0.85, "good_news": 0.15, "laughter": 0.3, "interruption": -0.3},
    "smile": {"bad_news": -0.7, "good_news": 0.3, "laughter": 0.2, "interruption": -0.4},
    "concern": {"bad_news": 0.25},
    "nod": {"interruption": -0.5},
    "backchannel": {"interruption": -0.5},
}
NOTICEABLE = 0.12  # the least change of strength for which a context is named
TURN_REACTIONS = {
    "happy": "smile",
    "sad": "concern",
    "concerned": "concern",
    "angry": "concern",
    "surprised": "surprise",
}
SHARE_OF_LISTENER = 0.8  # how much of the teller's burden or joy a listener takes
AUDIBLE_LAUGH = 0.42
RELIEF = 0.4  # what remains of bad news after a turn for the better


@dataclass(frozen=True)
class Event:
    """Something that will be remembered: a context's kind, when, and its strength for a and b."""

    kind: str
    time: float
    strengths: dict[str, float]
    relieved_at: float = np.inf

    def weight(self, person: str, time: float) -> float:
        """What is left of it for a person at a later time."""
        age = time - self.time
        faded = np.exp(-age / TIME_CONSTANT_S[self.kind]) if age >= 0 else 0.0
        relief = RELIEF if time >= self.relieved_at else 1.0
        return float(self.strengths.get(person, 0.0) * faded * relief)


@dataclass(frozen=True)
class Reaction:
    """What a person does because of something; all times in s, `strength` about 1."""

    person: str
    kind: str
    cause: str
    cause_time: float
    start: float
    end: float
    strength: float
    context: str = "none"
    context_time: float | None = None


@dataclass
class Memory:
    """What has happened so far, as both remember it."""

    events: list[Event] = field(default_factory=list)

    def weight(self, kind: str, person: str, time: float) -> float:
        """How much all events of a kind weigh on a person: in [0, 1]."""
        mine = [e.weight(person, time) for e in self.events if e.kind == kind]
        return min(1.0, sum(mine))

    def strongest(self, kind: str, person: str, time: float) -> Event:
        """The event of a kind that weighs most; there must be one."""
        return max((e for e in self.events if e.kind == kind), key=lambda e: e.weight(person, time))

    def news(self, kind: str, time: float, teller: str) -> None:
        """Good or bad news, told by one of the two."""
        strengths = {p: 1.0 if p == teller else SHARE_OF_LISTENER for p in ("a", "b")}
        self.events.append(Event(kind, time, strengths))

    def laughter(self, time: float, strength: float) -> None:
        """Somebody laughed; both heard it."""
        self.events.append(Event("laughter", time, {"a": strength, "b": strength}))

    def interruption(self, time: float, victim: str) -> None:
        """Somebody was cut off."""
        self.events.append(Event("interruption", time, {victim: 1.0}))

    def relieve(self, time: float) -> None:
        """Bad news turned out better: from now on they weigh less."""
        self.events = [
            replace(event, relieved_at=min(time, event.relieved_at))
            if event.kind == "bad_news"
            else event
            for event in self.events
        ]


def sway(reaction: Reaction, memory: Memory) -> Reaction:
    """The reaction as its contexts leave it; the one that changes it most is named."""
    strength, largest = reaction.strength, NOTICEABLE
    for kind, gain in SWAY.get(reaction.kind, {}).items():
        change = gain * memory.weight(kind, reaction.person, reaction.start)
        strength *= 1 + change
        if abs(change) > largest:
            largest = abs(change)
            event = memory.strongest(kind, reaction.person, reaction.start)
            reaction = replace(reaction, context=kind, context_time=event.time)
    return replace(reaction, strength=max(strength, 0.0))


def to_phrase_end(
    person: str, time: float, memory: Memory, rng: np.random.Generator
) -> Reaction | None:
    """A nod or none. Whether there is one is part of the swayed strength."""
    start = time + rng.uniform(0.1, 0.3)
    strength, chance = rng.uniform(0.8, 1.2), rng.random()
    nod = sway(Reaction(person, "nod", "phrase_end", time, start, start + 0.9, strength), memory)
    return nod if chance < 0.75 * min(nod.strength / strength, 1) else None


def to_turn(
    person: str, emotion: str, news: str | None, start: float, end: float, memory: Memory,
    rng: np.random.Generator,
) -> list[Reaction]:  # fmt: skip
    """What shows on a listener's face while the partner speaks with an emotion or brings news."""
    delays = {"smile": (0.4, 0.8), "concern": (0.3, 0.7), "surprise": (0.15, 0.4)}
    chances = {"smile": 0.95, "concern": 1.0, "surprise": 0.9}
    wanted: list[tuple[str, str]] = []
    if news == "good_news":
        wanted.append(("surprise", news))
    if kind := TURN_REACTIONS.get(emotion):
        wanted.append((kind, news or f"{emotion}_turn"))
    reactions = []
    for kind, cause in wanted:
        delay, strength = rng.uniform(*delays[kind]), rng.uniform(0.8, 1.15)
        if rng.random() > chances[kind]:
            continue
        # A surprise passes quickly; what is mirrored stays a little longer than its cause.
        until = start + delay + rng.uniform(0.9, 1.5) if kind == "surprise" else end + delay + 0.3
        reaction = Reaction(person, kind, cause, start, start + delay, until, strength)
        reactions.append(sway(reaction, memory))
    return reactions


def to_punchline(person: str, time: float, memory: Memory, rng: np.random.Generator) -> Reaction:
    """A laugh, which becomes a smile where the mood has no room for more."""
    start = time + rng.uniform(0.1, 0.35)
    strength = rng.uniform(0.75, 1.05)
    laugh = Reaction(person, "laugh", "joke", time, start, start + 1.6, strength)
    return as_smile_if_weak(sway(laugh, memory))


def to_laughter(
    person: str, time: float, heard: float, memory: Memory, rng: np.random.Generator
) -> Reaction | None:
    """The teller joins a laugh of strength `heard` that began at `time`, or does not."""
    start = time + rng.uniform(0.2, 0.5)
    strength, chance = heard * rng.uniform(0.6, 0.9), rng.random()
    laugh = Reaction(person, "laugh", "laughter", time, start, start + 1.3, strength)
    return as_smile_if_weak(sway(laugh, memory)) if chance < 0.6 else None


def as_smile_if_weak(laugh: Reaction) -> Reaction:
    """A laugh below the audible strength is a smile."""
    return laugh if laugh.strength >= AUDIBLE_LAUGH else replace(laugh, kind="smile")


def to_interruption(person: str, time: float, rng: np.random.Generator) -> Reaction:
    """The one who is cut off."""
    start = time + rng.uniform(0.05, 0.15)
    return Reaction(person, "startle", "interruption", time, start, start + 0.8, 1.0)
