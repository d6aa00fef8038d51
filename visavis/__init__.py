"""visavis: interactive head generation on Triton Inference Server."""

__version__ = "0.1.0"
