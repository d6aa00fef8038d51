"""This is where training takes the sentence on an avatar's due emotion from.

The corpus knows what is due. A server does not: its language model reads the transcript, and what
it makes of it may be wrong, or nothing. An avatar that has only ever been told the truth believes
every sentence and never looks at its user. So training tells a part of the blocks what is due, and
the others what the server's built-in model would tell them; measured is what is served.

`Repeated` tracks and those without a transcript are read alike: by the turns that they have.
"""

from __future__ import annotations

from training.data import Track
from visavis.affect import ReaderAffect, Turn, sentence
from visavis.config import FRAME_RATE_HZ
from visavis.session import HISTORY_TURNS


def due(track: Track, frame: int) -> str:
    """The sentence that names the emotion due in a frame."""
    return sentence([str(track.truth["emotion"][frame])])


def told(track: Track, frame: int, window_frames: int | None = None) -> str:
    """The sentence that a server's built-in model makes of what has been said by a frame.

    `window_frames`: how far back it hears, see `turns_heard`.
    """
    return ReaderAffect().describe(turns_heard(track, frame, window_frames))


def turns_heard(track: Track, frame: int, window_frames: int | None = None) -> tuple[Turn, ...]:
    """The turns that have begun by a frame, as `visavis.session.hear` keeps them.

    Within a window that is the newest, which may still go on, and what began in the window.
    """
    now_s = frame / FRAME_RATE_HZ
    begun = tuple(turn for turn in track.turns if turn.start_s <= now_s)[-HISTORY_TURNS:]
    if window_frames is None:
        return begun
    since_s = (frame - window_frames) / FRAME_RATE_HZ
    return tuple(turn for turn in begun if turn.start_s > since_s or turn is begun[-1])
