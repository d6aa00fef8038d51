"""This is where heads turn and eyes blink: how a block moves, drawn before it is painted.

When a head turns and an eye blinks nothing around it says, so a network that paints a block in one
step paints the mean of all it might do: a head that keeps still and eyes that never close. Here the
uncertain part is six numbers a frame (`visavis.motion`), drawn first; the denoiser then has only to
paint what it is told.

A block's motion is one of a few hundred that were seen, as in Learning to Listen (Ng et al., 2022,
arXiv 2204.08451, §3.2, where a VQ-VAE finds the codes that k-means finds here): heads and gaze go
on from where they are, lids have no past. A network says how likely each code is, and the draw is
a race: code k wins with the probability p_k when every time E_k / p_k has an exponential E_k of its
own (Gumbel-max; Maddison et al., 2014, arXiv 1411.0030). Rare things so happen as often as they
should: a network that turned noise into motion itself, by the energy score, never learned to blink.

A few conversations are soon known by heart; so voice, user and feeling pass a bottleneck of a few
numbers each.

Legend: B batch, F block frames, M numbers of motion, m those of a group, K codes of one, N of all,
A audio feature frames, U user tokens a frame, E affect tokens, D widths, G numbers of the gist.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visavis.config import EchoConfig
from visavis.motion import GROUPS, NAMES, SCALES, STEP_SCALES

LEAST_NOISE = 1e-6
GREATEST_INPUT = 5.0  # in standard deviations: a head that was led far off finds back


class MotionPrior(nn.Module):
    """A block's motion, drawn.

    Args of `forward`, all float32:
        motion_noise: (B, N), standard exponential. previous_motion: (B, F, M), of the block before;
        zeros, the portrait's, at first. avatar_audio_features: (B, A, D_audio).
        user_tokens: (B, F, U, D_lcu). affect_tokens: (B, E, D_affect).
    Returns motion (B, F, M), in the units of `visavis.motion`.
    """

    scales: Tensor
    step_scales: Tensor

    def __init__(self, config: EchoConfig):
        super().__init__()
        settings, frames = config.motion, config.block_frames
        self.noise_width = settings.noise_width
        self.register_buffer("scales", torch.tensor(SCALES), persistent=False)
        self.register_buffer("step_scales", torch.tensor(STEP_SCALES), persistent=False)
        # Not learned by gradients; without codes an avatar keeps still.
        self.codes = nn.ParameterDict(
            {
                name: nn.Parameter(torch.zeros(count, frames, width_of(name)), requires_grad=False)
                for name, count in settings.codes.items()
            }
        )
        self.voice = nn.Linear(config.audio.feature_width, settings.voice_width)
        self.user = nn.Linear(config.lcu.width, settings.user_width)
        self.feeling = nn.Linear(config.affect.width, settings.feeling_width)
        self.gist_width = (
            config.audio.feature_frames * settings.voice_width
            + frames * settings.user_width
            + settings.feeling_width
        )
        known = frames * len(NAMES) + self.gist_width
        self.log_likelihood = nn.Sequential(
            nn.Linear(known, settings.width),
            nn.SiLU(),
            nn.Linear(settings.width, settings.width),
            nn.SiLU(),
            nn.Linear(settings.width, sum(settings.codes.values())),
        )

    def forward(
        self,
        motion_noise: Tensor,
        previous_motion: Tensor,
        avatar_audio_features: Tensor,
        user_tokens: Tensor,
        affect_tokens: Tensor,
    ) -> Tensor:
        gist = self.gist(avatar_audio_features, user_tokens, affect_tokens)
        return self.draw(motion_noise, previous_motion, gist)

    def gist(
        self, avatar_audio_features: Tensor, user_tokens: Tensor, affect_tokens: Tensor
    ) -> Tensor:
        """(B, G): the few numbers that pass of all that is heard, seen and felt."""
        narrow = (
            self.voice(avatar_audio_features),
            self.user(user_tokens.mean(2)),
            self.feeling(affect_tokens.mean(1)),
        )
        return torch.cat([some.flatten(1) for some in narrow], dim=1)

    def draw(self, motion_noise: Tensor, previous_motion: Tensor, gist: Tensor) -> Tensor:
        """(B, F, M) of noise (B, N), the block before (B, F, M) and a gist (B, G)."""
        early = motion_noise.clamp(min=LEAST_NOISE).log()
        race = self._each_group(self.logits(previous_motion, gist) - early)
        won = [
            origin(name, previous_motion) + self.codes[name][lead.argmax(dim=1)]
            for name, lead in race
        ]
        return torch.cat(won, dim=2)

    def logits(self, previous_motion: Tensor, gist: Tensor) -> Tensor:
        """(B, N): how likely each code of each group is, after (B, F, M) and with a gist (B, G)."""
        steps = (previous_motion[:, 1:] - previous_motion[:, :-1]) / (2 * self.step_scales)
        before = torch.cat([previous_motion[:, -1:] / self.scales, steps], dim=1)
        before = before.clamp(-GREATEST_INPUT, GREATEST_INPUT)
        return self.log_likelihood(torch.cat([before.flatten(1), torch.tanh(gist)], dim=1))

    def likelihoods(self, previous_motion: Tensor, gist: Tensor) -> dict[str, Tensor]:
        """`logits` (B, K) by group."""
        return dict(self._each_group(self.logits(previous_motion, gist)))

    def _each_group(self, values: Tensor) -> list[tuple[str, Tensor]]:
        sizes = [len(self.codes[name]) for name in GROUPS]
        return list(zip(GROUPS, values.split(sizes, dim=1), strict=True))


def width_of(group: str) -> int:
    """How many numbers a group has."""
    return GROUPS[group].stop - GROUPS[group].start


def origin(group: str, previous_motion: Tensor) -> Tensor:
    """(B, 1, m): what a group's codes are counted from, after the block (B, F, M) before."""
    last = previous_motion[:, -1:, GROUPS[group]]
    return torch.zeros_like(last) if group == "lids" else last
