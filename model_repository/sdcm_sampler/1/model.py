"""Triton's door to `visavis.serving.sdcm_sampler`, where the work is."""

from visavis.serving.sdcm_sampler import TritonPythonModel

__all__ = ["TritonPythonModel"]
