"""This is where a stand-in for a model comes from: a hash of everything that goes in, so that one
changed bit anywhere changes every frame and all that is carried on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from visavis.affect import LexiconAffect, Turn, word_ids
from visavis.config import EchoConfig
from visavis.contract import ModelContract, contracts


def hashing(model: ModelContract) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """A function with the tensors of `model`, without batch axis, that checks what it is given."""

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert sorted(inputs) == sorted(spec.name for spec in model.inputs)
        digest = hashlib.blake2b(digest_size=8)
        for spec in model.inputs:
            assert spec.mismatch(inputs[spec.name]) is None
            digest.update(np.ascontiguousarray(inputs[spec.name]).tobytes())
        rng = np.random.default_rng(int.from_bytes(digest.digest(), "little"))
        return {
            spec.name: rng.integers(0, 256, spec.dims, np.uint8)
            if spec.dtype == "UINT8"
            else rng.standard_normal(spec.dims, np.float32)
            for spec in model.outputs
        }

    return run


def affect(config: EchoConfig) -> Callable[[Sequence[Turn]], np.ndarray]:
    """Affect tokens of the built-in Psi's sentence, by a hash."""
    encoder = hashing(contracts(config)["affect_encoder"])

    def tokens(history: Sequence[Turn]) -> np.ndarray:
        ids = word_ids(LexiconAffect().describe(history), config.affect)
        return encoder({"word_ids": ids})["affect_tokens"]

    return tokens
