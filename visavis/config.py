"""This is where a model size is described: frozen dataclasses, to and from JSON.

A size (`pico`, `nano`, …) is a value of `EchoConfig`, never a fork of the code. The value is saved
as `config.json` beside every weight, so that loading needs nothing but the folder.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

FRAME_RATE_HZ = 25
SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FRAME_RATE_HZ  # 640

ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True)
class AudioEncoderConfig:
    """Whisper's encoder over a short window (Radford et al., 2022, arXiv 2212.04356).

    `window_frames` ends `lookahead_frames` after the block for the avatar's own audio, and at the
    newest sample for the user's. The features of the last `feature_frames` frames are returned.
    """

    width: int = 384
    layers: int = 4
    heads: int = 6
    mel_bins: int = 80
    window_frames: int = 32
    feature_frames: int = 10
    tapped_layers: tuple[int, ...] = (2, 4)  # 4 is the output, after the final norm

    @property
    def window_samples(self) -> int:
        """Length of the waveform window, in samples."""
        return self.window_frames * SAMPLES_PER_FRAME

    @property
    def feature_width(self) -> int:
        """Width of one 25 Hz feature: two 50 Hz positions of every tapped layer."""
        return 2 * self.width * len(self.tapped_layers)


@dataclass(frozen=True)
class VAEConfig:
    """A tapered convolutional VAE; its head is a pixel shuffle (see `visavis.nn.vae`)."""

    encoder_widths: tuple[int, ...] = (64, 128)
    encoder_depths: tuple[int, ...] = (1, 2)
    decoder_widths: tuple[int, ...] = (128, 64, 32)
    decoder_depths: tuple[int, ...] = (2, 2, 1)
    unshuffle: int = 4  # pixels to channels before the first encoder convolution
    shuffle: int = 2  # channels to pixels after the last decoder convolution
    shortcuts: bool = False  # averages beside what halves and doubles (see `visavis.nn.vae`)


@dataclass(frozen=True)
class LCUConfig:
    """Long-range Contextual Understanding (ECHO, Fig. 2)."""

    width: int = 128
    heads: int = 4
    scan_state: int = 16  # N, the state size of the selective scans
    video_grid: int = 4  # user video tokens a side, after pooling
    tokens_per_frame: int = 5  # one for audio, the rest for the face's quadrants
    memory_tokens: int = 64
    memory_stride_blocks: int = 10  # one memory token every 2 s: 64 of them hold about two minutes
    understanding_layers: int = 2
    understanding_outputs: int = 3  # the hidden states that become S_usr (ECHO, Fig. 2)
    think_tokens: int = 4  # the learned prompt P_think


@dataclass(frozen=True)
class AffectConfig:
    """The text encoder E_txt of the affective branch, over hashed words."""

    width: int = 128
    heads: int = 4
    layers: int = 2
    vocabulary: int = 4096
    max_words: int = 32
    tokens: int = 4


@dataclass(frozen=True)
class DenoiserConfig:
    """The SDCM denoiser (ECHO, Fig. 2)."""

    width: int = 256
    depth: int = 6
    heads: int = 4
    mlp_ratio: int = 3
    patch: int = 4
    stem_width: int = 64
    previous_frames: int = 2
    reference_tokens: int = 16
    gate_groups: int = 16
    audio_lookback_frames: int = 2
    articulation_width: int = 128  # of what reads in the voice how far the mouth opens,
    articulation_gain: float = 1.0  # and how many times that the face is told


@dataclass(frozen=True)
class MotionConfig:
    """What draws a head's motion (see `visavis.nn.motion_prior`)."""

    width: int = 128
    pose_codes: int = 256
    lids_codes: int = 16
    gaze_codes: int = 64
    voice_width: int = 2  # numbers a frame that pass of the avatar's voice,
    user_width: int = 4  # of the user,
    feeling_width: int = 4  # and of c_emo, a block

    @property
    def codes(self) -> dict[str, int]:
        """How many motions of a block are known, of each group of `visavis.motion`."""
        return {"pose": self.pose_codes, "lids": self.lids_codes, "gaze": self.gaze_codes}

    @property
    def noise_width(self) -> int:
        """Numbers of noise a block."""
        return sum(self.codes.values())


# What can be left out, to see what it is good for. Of ECHO, the rows of its ablation table:
# Low-level Perception Encoding, High-level Behaviour-grounded Context Understanding, and
# Linguistic-driven Affective Understanding of the LCU, and the decoupling of SDCM. And what ECHO
# does not have: the motion that is drawn and told to the denoiser, and what reads the avatar's
# voice for it.
PARTS = ("perception", "understanding", "affect", "decoupling", "motion", "articulation")


@dataclass(frozen=True)
class SamplingConfig:
    """Defaults of the sampling loop; a session may override them."""

    num_steps: int = 2
    audio_guidance_scale: float = 1.0
    user_guidance_scale: float = 1.0


@dataclass(frozen=True)
class EchoConfig:
    """One size of ECHO. F = block_frames, (C, h, w) the shape of one frame's latents."""

    name: str = "pico"
    image_size: int = 128
    latent_channels: int = 8
    latent_size: int = 16
    block_frames: int = 5
    lookahead_frames: int = 3
    # How much of its last frames' change from the portrait the next block is told. A model that is
    # fed its own frames whole adds up its errors: at 1, faces fell apart within 20 s.
    context_keep: float = 0.9
    # How much of a jump from block to block the first frame takes back (`visavis.sampler.settled`).
    # Heads jumped 1.4 times as far from block to block as within one, and 1.1 times with it.
    settling: float = 0.4
    without: tuple[str, ...] = ()  # some of PARTS
    audio: AudioEncoderConfig = field(default_factory=AudioEncoderConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    lcu: LCUConfig = field(default_factory=LCUConfig)
    affect: AffectConfig = field(default_factory=AffectConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    motion: MotionConfig = field(default_factory=MotionConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.without) - set(PARTS)):
            raise ValueError(
                f"without: got {unknown}, expected some of {PARTS}; leave out one of those"
            )
        if self.latent_size % self.denoiser.patch:
            raise ValueError(
                f"patch: got {self.denoiser.patch}, expected a divisor of latent_size "
                f"{self.latent_size}; change one of them"
            )
        needed = self.denoiser.audio_lookback_frames + self.block_frames + self.lookahead_frames
        if self.audio.feature_frames < needed:
            raise ValueError(
                f"feature_frames: got {self.audio.feature_frames}, expected at least {needed} "
                "(audio_lookback_frames + block_frames + lookahead_frames); raise it"
            )
        if self.audio.window_frames < self.audio.feature_frames:
            raise ValueError(
                f"window_frames: got {self.audio.window_frames}, expected at least feature_frames "
                f"{self.audio.feature_frames}; raise it"
            )
        if self.latent_size % self.lcu.video_grid or self.lcu.video_grid % 2:
            raise ValueError(
                f"video_grid: got {self.lcu.video_grid}, expected an even divisor of latent_size "
                f"{self.latent_size}; change one of them"
            )

    @property
    def token_grid(self) -> int:
        """Tokens a side of one frame."""
        return self.latent_size // self.denoiser.patch

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one frame."""
        return (self.latent_channels, self.latent_size, self.latent_size)


def pico() -> EchoConfig:
    """128×128, 16 tokens a frame: many sessions on a small machine. Its latents are nano's."""
    return EchoConfig(
        vae=VAEConfig(
            encoder_widths=(32, 64),
            encoder_depths=(1, 1),
            unshuffle=4,
            decoder_widths=(64, 48),
            decoder_depths=(2, 2),
            shuffle=4,
            shortcuts=True,
        ),
        denoiser=DenoiserConfig(depth=4),
        sampling=SamplingConfig(num_steps=1),
    )


def nano() -> EchoConfig:
    """256×256, 64 tokens a frame: the CPU default."""
    return EchoConfig(
        name="nano",
        image_size=256,
        vae=VAEConfig(
            encoder_widths=(64, 128),
            encoder_depths=(1, 1),
            unshuffle=8,
            decoder_widths=(128, 96, 48),
            decoder_depths=(2, 2, 1),
            shuffle=4,
            shortcuts=True,
        ),
        denoiser=DenoiserConfig(patch=2),
        sampling=SamplingConfig(num_steps=1),  # two would not leave two cores 25 frames a second
    )


def femto() -> EchoConfig:
    """256×256 through nano's VAE, 16 tokens a frame and few of everything: for experiments."""
    return replace(
        nano(), name="femto", denoiser=DenoiserConfig(width=128, depth=4, patch=4, heads=4)
    )


SIZES = {"pico": pico, "nano": nano, "femto": femto}


def to_json(config: Any) -> str:
    """A config as indented JSON."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(cls: type[ConfigT], text: str) -> ConfigT:
    """A config of class `cls` from JSON; unknown keys are an error that names them."""
    return from_dict(cls, json.loads(text))


def load(cls: type[ConfigT], path: str | Path) -> ConfigT:
    """A config of class `cls` from the JSON file `path`."""
    return from_json(cls, Path(path).read_text())


def from_dict(cls: type[ConfigT], values: dict[str, Any]) -> ConfigT:
    """A dataclass of class `cls` from plain values, nested dataclasses and tuples included."""
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(
            f"{cls.__name__}: got unknown keys {unknown}, expected some of {sorted(hints)}; "
            "remove them or use the version that wrote this file"
        )
    return cls(**{key: _convert(hints[key], value) for key, value in values.items()})


def _convert(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value)
    if typing.get_origin(hint) is tuple:
        return tuple(value)
    if typing.get_origin(hint) is types.UnionType and value is not None:
        return _convert(typing.get_args(hint)[0], value)
    return value
