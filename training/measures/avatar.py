"""This is where trained networks become rows of the table: with their user, and without.

Legend: B people, T frames, C h w latents, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from training.data import Track
from training.latents import decode
from training.measures.baselines import others
from training.measures.swap import swap_figures
from training.measures.system import System, portraits
from training.rollout import RolloutConfig, rollout
from visavis.nn.echo import Echo
from visavis.nn.vae import VAE


@dataclass(frozen=True)
class Generated:
    """Latents (B, T, C, h, w) of all held-out people, under each condition."""

    own: Tensor
    own_as_due: Tensor
    other_voice: Tensor
    other_user: Tensor
    without_user: Tensor


def generate(echo: Echo, people: Sequence[Track], settings: RolloutConfig) -> Generated:
    """Everybody's own conversation, with the sentences of a server and with those that are due, the
    two swap tests, and the network without its user."""
    strangers = others(people)
    return Generated(
        own=rollout(echo, people, settings),
        own_as_due=rollout(echo, people, replace(settings, told=False)),
        other_voice=rollout(echo, people, settings, voices=strangers),
        other_user=rollout(echo, people, settings, users=[track.user for track in strangers]),
        without_user=rollout(echo, people, replace(settings, with_user=False)),
    )


def echo_systems(vae: VAE, found: Generated, people: Sequence[Track]) -> list[System]:
    """The rows `reconstruction`, `audio_only`, `echo_due`, whose sentences name what is due, and
    `echo`, with a server's sentences; the last has the swap tests' figures."""

    portrait = portraits(people)

    def picture(latents: Tensor, n: int) -> np.ndarray:
        return decode(vae, latents[n], portrait(n))

    def swaps(n: int, own: np.ndarray) -> Mapping[str, float]:
        voice, user = (picture(x, n) for x in (found.other_voice, found.other_user))
        return swap_figures(own, voice, user, people[n].truth["speaking"][: len(own)] > 0)

    def reconstruction(n: int) -> np.ndarray:
        true = people[n].latents[: found.own.shape[1]]
        return decode(vae, torch.from_numpy(true.astype(np.float32)), portrait(n))

    return [
        System("reconstruction", reconstruction, portrait, "baseline"),
        System("audio_only", lambda n: picture(found.without_user, n), portrait, "baseline"),
        System("echo_due", lambda n: picture(found.own_as_due, n), portrait, "baseline"),
        System("echo", lambda n: picture(found.own, n), portrait, "generated", swaps),
    ]
