"""`sdcm_sampler`: the sampling loop over `sdcm_denoiser`; the work is in `visavis.serving`.

Calls are synchronous: while one batch is in the loop the next gathers in Triton's queue, so blocks
of different sessions share a batch.
"""

import json
from functools import partial
from pathlib import Path

from visavis import config as configs
from visavis.config import EchoConfig
from visavis.serving import bls, sampling, tensors, tracing


class TritonPythonModel:
    """Noise and conditions -> latents."""

    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        max_batch = int(parameters["denoiser_max_batch_size"]["string_value"])
        config = configs.load(EchoConfig, Path(args["model_repository"]).parent / "config.json")
        self.run = partial(
            sampling.sample_all, denoiser=denoise, max_batch=max_batch, config=config
        )
        tracing.start()

    def execute(self, requests):
        return tensors.respond("sdcm_sampler", requests, self.run)

    def finalize(self):
        tracing.stop()


def denoise(inputs):
    """x_0 of one call of `sdcm_denoiser`."""
    return bls.call("sdcm_denoiser", inputs, ["x_0"])["x_0"]
