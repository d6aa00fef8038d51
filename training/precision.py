"""This is where it is said in which precision training computes."""

from __future__ import annotations

import torch


def half_precision(device: torch.device, enabled: bool = True) -> torch.autocast:
    """bfloat16 where it is safe: mixed precision, weights and sums staying float32.

    A pass with gradients and one without must not share one such context: casts of weights are
    kept, and those made without gradients would be used by both.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled)
