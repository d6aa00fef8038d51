"""This is where it is said in which precision training computes."""

from __future__ import annotations

from functools import cache

import torch

# How `torch.cpu.get_capabilities` names instructions that multiply in bfloat16: x86's and Arm's.
CPU_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")


def half_precision(device: torch.device, enabled: bool = True) -> torch.autocast:
    """bfloat16 where it is safe and fast: mixed precision, weights and sums staying float32.

    A device that would have to emulate it computes in float32: on a processor with no more than
    AVX2 a product in bfloat16 takes 45 times as long.

    A pass with gradients and one without must not share one such context: casts of weights are
    kept, and those made without gradients would be used by both.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled and has_bfloat16(device.type))


@cache
def has_bfloat16(device_type: str) -> bool:
    """Whether devices of a type multiply in bfloat16 themselves."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type == "cpu":
        known = torch.cpu.get_capabilities()
        return any(known.get(name, False) for name in CPU_BFLOAT16)
    return True
