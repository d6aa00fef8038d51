"""This is where blocks of several conversations are sampled together.

The rows of all waiting requests that want the same number of steps and the same guidance go through
one loop in lock-step; the guidance conditions are further rows of the same batch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from visavis.config import EchoConfig
from visavis.guidance import ConditionMask, guided
from visavis.messages import SessionError
from visavis.sampler import sample, settled, settling_weights
from visavis.schedule import timesteps

Arrays = Mapping[str, np.ndarray]
Denoiser = Callable[[dict[str, np.ndarray]], np.ndarray]

LOOP_INPUTS = ("noise", "num_steps", "guidance_scale")  # the others are the denoiser's conditions
MAX_STEPS = 64


def sample_all(
    requests: Sequence[Arrays], denoiser: Denoiser, max_batch: int, config: EchoConfig
) -> list[Arrays | Exception]:
    """`latents` (b, F, C, h, w) of each request of `sdcm_sampler`'s inputs, or its exception.

    `denoiser` maps the inputs of `sdcm_denoiser`, at most `max_batch` rows, to x_0.
    """
    outcomes: list[Any] = [None] * len(requests)
    rows: dict[Any, list[tuple[int, int]]] = defaultdict(list)
    for place, request in enumerate(requests):
        try:
            keys = _keys(request)
        except SessionError as error:
            outcomes[place] = error
            continue
        outcomes[place] = {"latents": np.empty_like(request["noise"])}
        for row, key in enumerate(keys):
            rows[key].append((place, row))
    for (steps, audio_scale, user_scale), members in rows.items():
        stacked = {
            name: np.stack([requests[place][name][row] for place, row in members])
            for name in requests[members[0][0]]
        }
        try:
            latents = _sample(stacked, steps, audio_scale, user_scale, denoiser, max_batch)
            latents = _settled(latents, stacked, config)
        except Exception as error:  # becomes the answer of those who took part
            for place, _ in members:
                outcomes[place] = error
            continue
        for (place, row), result in zip(members, latents, strict=True):
            if not isinstance(outcomes[place], Exception):
                outcomes[place]["latents"][row] = result
    return outcomes


def _keys(request: Arrays) -> list[tuple[int, float, float]]:
    """(steps, audio scale, user scale) of every row."""
    keys = [
        (int(steps), float(scales[0]), float(scales[1]))
        for (steps,), scales in zip(request["num_steps"], request["guidance_scale"], strict=True)
    ]
    for steps, *scales in keys:
        if not 1 <= steps <= MAX_STEPS:
            raise SessionError(
                f"num_steps: got {steps}, expected 1 to {MAX_STEPS}; choose one in range"
            )
        if not all(math.isfinite(scale) for scale in scales):
            raise SessionError(
                f"guidance_scale: got {scales}, expected finite values; 1 is no guidance"
            )
    return keys


def _sample(
    inputs: Arrays,
    steps: int,
    audio_scale: float,
    user_scale: float,
    denoiser: Denoiser,
    max_batch: int,
) -> np.ndarray:
    conditions = {name: array for name, array in inputs.items() if name not in LOOP_INPUTS}

    def predict(x_t: np.ndarray, t: float, masks: Sequence[ConditionMask]) -> list[np.ndarray]:
        rows, repeats = len(x_t), len(masks)
        batch = {
            "x_t": _repeated(x_t, repeats),
            "timestep": np.full((rows * repeats, 1), t, np.float32),
            "condition_mask": np.repeat(np.array(masks, np.float32), rows, axis=0),
            **{name: _repeated(array, repeats) for name, array in conditions.items()},
        }
        parts = [
            denoiser({name: array[first : first + max_batch] for name, array in batch.items()})
            for first in range(0, rows * repeats, max_batch)
        ]
        return np.split(np.concatenate(parts), repeats)

    return sample(guided(predict, audio_scale, user_scale), inputs["noise"], timesteps(steps))


def _settled(latents: np.ndarray, inputs: Arrays, config: EchoConfig) -> np.ndarray:
    weights = settling_weights(config.settling, config.block_frames)
    return settled(
        latents,
        inputs["previous_latents"],
        inputs["reference_latents"][:, None],
        config.context_keep,
        np.array(weights, np.float32)[:, None, None, None],
    )


def _repeated(array: np.ndarray, times: int) -> np.ndarray:
    return array if times == 1 else np.concatenate([array] * times)
