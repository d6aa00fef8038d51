"""This is where Triton's `sdcm_sampler` begins: the loop of `visavis.serving.sampling` over
`sdcm_denoiser`.

Calls are synchronous: while one batch is in the loop the next gathers in Triton's queue, so blocks
of different sessions share a batch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from visavis.serving import bls, sampling, tensors, tracing
from visavis.serving.model_args import parameters, size


class TritonPythonModel:
    """Noise and conditions -> latents."""

    def initialize(self, args: dict[str, str]) -> None:
        """The loop, for this repository's size."""
        values = parameters(json.loads(args["model_config"]))
        max_batch = int(values["denoiser_max_batch_size"])
        self.run = partial(
            sampling.sample_all, denoiser=denoise, max_batch=max_batch, config=size(args)
        )
        tracing.start()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response a request."""
        return tensors.respond("sdcm_sampler", requests, self.run)

    def finalize(self) -> None:
        """What was traced is sent."""
        tracing.stop()


def denoise(inputs: dict[str, np.ndarray]) -> np.ndarray:
    """x_0 of one call of `sdcm_denoiser`."""
    return bls.call("sdcm_denoiser", inputs, ["x_0"])["x_0"]
