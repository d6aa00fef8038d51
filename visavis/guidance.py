"""This is where predictions under fewer and more conditions combine into one.

    x_0 = x_none + s_audio (x_audio - x_none) + s_user (x_full - x_audio)

Each scale strengthens what its condition adds: 1 is the plain conditional prediction. A prediction
whose weight is 0 is never computed, so both scales at 1 cost one evaluation, not three.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

ConditionMask = tuple[float, float]  # (avatar audio, user), 1 keeps the condition

NONE: ConditionMask = (0.0, 0.0)
AUDIO: ConditionMask = (1.0, 0.0)
FULL: ConditionMask = (1.0, 1.0)

Predict = Callable[[Any, float, Sequence[ConditionMask]], Sequence[Any]]
Denoise = Callable[[Any, float], Any]


def weights(audio_scale: float, user_scale: float) -> dict[ConditionMask, float]:
    """How much each condition set counts; they sum to 1 and those of weight 0 are left out."""
    each = {NONE: 1.0 - audio_scale, AUDIO: audio_scale - user_scale, FULL: user_scale}
    return {mask: weight for mask, weight in each.items() if weight != 0.0}


def guided(predict: Predict, audio_scale: float, user_scale: float) -> Denoise:
    """A denoiser that asks `predict(x_t, t, masks)` for one x_0 per mask and combines them.

    How the masks are evaluated (stacked on the batch axis, or in turn) is up to `predict`.
    """
    weight_of = weights(audio_scale, user_scale)
    masks = tuple(weight_of)

    def denoise(x_t: Any, t: float) -> Any:
        predictions = predict(x_t, t, masks)
        first, *rest = (
            weight * x_0 for weight, x_0 in zip(weight_of.values(), predictions, strict=True)
        )
        return sum(rest, first)

    return denoise
