"""Triton's door to `visavis.serving.echo_session`, where the work is."""

from visavis.serving.echo_session import TritonPythonModel

__all__ = ["TritonPythonModel"]
