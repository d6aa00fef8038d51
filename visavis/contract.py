"""This is where every served tensor has its one name, dtype and shape.

ONNX export, `config.pbtxt`, the Python models and the SDK read this file or are tested against it.
A tensor keeps its name from training to client. Shapes leave out the batch axis; -1 is any length.

Legend: F block frames, C h w latents of a frame, H W pixels, g token grid, A audio feature frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from visavis import motion as motions
from visavis.config import EchoConfig

CONTRACT_VERSION = 4

TRITON_TO_NUMPY: dict[str, type] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP32": np.float32,
    "BYTES": np.object_,
}


@dataclass(frozen=True)
class TensorSpec:
    """One tensor. `dtype` is Triton's name; `dims` has no batch axis."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    optional: bool = False

    @property
    def numpy_dtype(self) -> type:
        """The numpy type of the tensor."""
        return TRITON_TO_NUMPY[self.dtype]

    def mismatch(self, array: np.ndarray) -> str | None:
        """Why `array` (without batch axis) does not fit, or None when it does."""
        expected = f"{tuple(self.dims)} {self.dtype} (-1 is any length)"
        got = f"{array.shape} {array.dtype}"
        if len(array.shape) != len(self.dims) or any(
            e not in (-1, a) for a, e in zip(array.shape, self.dims, strict=True)
        ):
            return f"{self.name}: got {got}, expected {expected}; reshape it"
        if self.dtype != "BYTES" and array.dtype != self.numpy_dtype:
            return f"{self.name}: got {got}, expected {expected}; cast it"
        return None


@dataclass(frozen=True)
class ModelContract:
    """One served model: its kind is "onnx", "python", "ensemble" or "session"."""

    name: str
    kind: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def input(self, name: str) -> TensorSpec:
        """The input called `name`; KeyError when there is none."""
        return {spec.name: spec for spec in self.inputs}[name]

    def output(self, name: str) -> TensorSpec:
        """The output called `name`; KeyError when there is none."""
        return {spec.name: spec for spec in self.outputs}[name]


def scan_state_shape(config: EchoConfig) -> tuple[int, int, int]:
    """(heads, head width, state size) of one selective scan."""
    lcu = config.lcu
    return (lcu.heads, lcu.width // lcu.heads, lcu.scan_state)


def lcu_state(config: EchoConfig) -> tuple[TensorSpec, ...]:
    """What the LCU carries from block to block; each goes in and comes out as `next_<name>`."""
    lcu = config.lcu
    return (
        TensorSpec("audio_scan_state", "FP32", scan_state_shape(config)),
        TensorSpec("video_scan_state", "FP32", scan_state_shape(config)),
        TensorSpec("user_reference_latents", "FP32", config.latent_shape),
        TensorSpec("memory", "FP32", (lcu.memory_tokens, lcu.width)),
        TensorSpec("memory_summary", "FP32", (lcu.width,)),
    )


def contracts(config: EchoConfig) -> dict[str, ModelContract]:
    """Every model of the repository for one size, by name."""
    frames, size = config.block_frames, config.image_size
    latent, grid = config.latent_shape, config.token_grid
    audio, lcu, affect, denoiser = config.audio, config.lcu, config.affect, config.denoiser

    features = (audio.feature_frames, audio.feature_width)
    user_tokens = TensorSpec("user_tokens", "FP32", (frames, lcu.tokens_per_frame, lcu.width))
    affect_tokens = TensorSpec("affect_tokens", "FP32", (affect.tokens, affect.width))
    reference_latents = TensorSpec("reference_latents", "FP32", latent)
    reference_tokens = TensorSpec(
        "reference_tokens", "FP32", (denoiser.reference_tokens, denoiser.width)
    )
    region_masks = TensorSpec("region_masks", "FP32", (2, grid, grid))
    region_centers = TensorSpec("region_centers", "FP32", (2, 2))
    previous_latents = TensorSpec("previous_latents", "FP32", (denoiser.previous_frames, *latent))
    latents = TensorSpec("latents", "FP32", (frames, *latent))
    noise = TensorSpec("noise", "FP32", (frames, *latent))
    user_valid = TensorSpec("user_valid", "FP32", (2,))
    block_index = TensorSpec("block_index", "INT64", (1,))
    guidance_scale = TensorSpec("guidance_scale", "FP32", (2,))
    num_steps = TensorSpec("num_steps", "INT32", (1,))
    motion = TensorSpec("motion", "FP32", (frames, len(motions.NAMES)))
    previous_motion = TensorSpec("previous_motion", "FP32", motion.dims)
    motion_noise = TensorSpec("motion_noise", "FP32", (config.motion.noise_width,))
    avatar_audio_features = TensorSpec("avatar_audio_features", "FP32", features)
    state = lcu_state(config)
    next_state = tuple(TensorSpec(f"next_{s.name}", s.dtype, s.dims) for s in state)
    portrait = TensorSpec("portrait", "UINT8", (size, size, 3))

    conditions = (
        reference_latents,
        previous_latents,
        reference_tokens,
        affect_tokens,
        avatar_audio_features,
        user_tokens,
        region_masks,
        motion,
    )
    models = (
        ModelContract(
            "audio_encoder",
            "onnx",
            (
                TensorSpec("avatar_waveform", "FP32", (audio.window_samples,)),
                TensorSpec("user_waveform", "FP32", (audio.window_samples,)),
            ),
            (avatar_audio_features, TensorSpec("user_audio_features", "FP32", features)),
        ),
        ModelContract(
            "vae_encoder",
            "onnx",
            (TensorSpec("images", "UINT8", (-1, size, size, 3)),),
            (TensorSpec("image_latents", "FP32", (-1, *latent)),),
        ),
        ModelContract(
            "vae_decoder",
            "onnx",
            (TensorSpec("latents", "FP32", (-1, *latent)), reference_latents, portrait),
            (TensorSpec("frames", "UINT8", (-1, size, size, 3)),),
        ),
        ModelContract(
            "reference_encoder",
            "onnx",
            (TensorSpec("image_latents", "FP32", (1, *latent)), region_centers),
            (reference_latents, reference_tokens, region_masks),
        ),
        ModelContract(
            "affect_encoder",
            "onnx",
            (TensorSpec("word_ids", "INT64", (affect.max_words,)),),
            (affect_tokens,),
        ),
        ModelContract(
            "lcu_encoder",
            "onnx",
            (
                TensorSpec("user_audio_features", "FP32", features),
                TensorSpec("user_latents", "FP32", (frames, *latent)),
                user_valid,
                block_index,
                *state,
            ),
            (user_tokens, *next_state),
        ),
        ModelContract(
            "motion_prior",
            "onnx",
            (motion_noise, previous_motion, avatar_audio_features, user_tokens, affect_tokens),
            (motion,),
        ),
        ModelContract(
            "sdcm_denoiser",
            "onnx",
            (
                TensorSpec("x_t", "FP32", (frames, *latent)),
                TensorSpec("timestep", "FP32", (1,)),
                TensorSpec("condition_mask", "FP32", (2,)),
                *conditions,
            ),
            (TensorSpec("x_0", "FP32", (frames, *latent)),),
        ),
        ModelContract(
            "sdcm_sampler",
            "python",
            (noise, num_steps, guidance_scale, *conditions),
            (latents,),
        ),
        ModelContract(
            "enroll",
            "ensemble",
            (TensorSpec("portrait", "UINT8", (1, size, size, 3)), region_centers),
            (reference_latents, reference_tokens, region_masks),
        ),
        ModelContract(
            "echo",
            "ensemble",
            (
                TensorSpec("avatar_waveform", "FP32", (audio.window_samples,)),
                TensorSpec("user_waveform", "FP32", (audio.window_samples,)),
                TensorSpec("user_video", "UINT8", (frames, size, size, 3)),
                user_valid,
                block_index,
                noise,
                motion_noise,
                num_steps,
                guidance_scale,
                portrait,
                reference_latents,
                previous_latents,
                previous_motion,
                reference_tokens,
                affect_tokens,
                region_masks,
                *state,
            ),
            (TensorSpec("frames", "UINT8", (frames, size, size, 3)), latents, motion, *next_state),
        ),
        ModelContract(
            "echo_session",
            "session",
            (
                TensorSpec("options", "BYTES", (1,), optional=True),
                TensorSpec(portrait.name, portrait.dtype, portrait.dims, optional=True),
                TensorSpec("region_centers", "FP32", (2, 2), optional=True),
                TensorSpec("avatar_audio", "FP32", (-1,), optional=True),
                TensorSpec("user_audio", "FP32", (-1,), optional=True),
                TensorSpec("user_video", "UINT8", (-1, size, size, 3), optional=True),
                TensorSpec("user_images", "BYTES", (-1,), optional=True),
                TensorSpec("transcript", "BYTES", (1,), optional=True),
                TensorSpec("snapshot", "UINT8", (-1,), optional=True),
                TensorSpec("want_snapshot", "BOOL", (1,), optional=True),
                TensorSpec("discard", "BOOL", (1,), optional=True),
            ),
            (
                TensorSpec("images", "BYTES", (-1,)),
                TensorSpec("first_frame", "INT64", (1,)),
                TensorSpec("snapshot", "UINT8", (-1,)),
            ),
        ),
    )
    return {model.name: model for model in models}
