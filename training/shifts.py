"""This is where a picture is compared with one that may lie a little to the side.

Where a head will be cannot be foretold, how far its mouth is open can. Compared place by place, the
best guess of a mouth that may be anywhere is a blur; compared where it fits best, it is a mouth.

Legend: B batch, H W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

STEP = 2  # pixels between two shifts that are tried


def shifted_to(target: Tensor, output: Tensor, reach: int, weight: Tensor) -> Tensor:
    """Every target, moved to where it is most like the output.

    What is moved out at one side comes in at the other: `weight` is to be 0 in a margin of `reach`.

    Args:
        target and output: (B, 3, H, W).
        reach: the farthest shift, right or down or back, in pixels.
        weight: (H, W), of errors.
    """
    with torch.no_grad():
        small, ours, where = (
            F.avg_pool2d(images, STEP) for images in (target, output, weight.expand(1, 1, -1, -1))
        )
        most = reach // STEP
        shifts = [(y, x) for y in range(-most, most + 1) for x in range(-most, most + 1)]
        errors = [
            (where * (small.roll(shift, (2, 3)) - ours).abs()).mean((1, 2, 3)) for shift in shifts
        ]
        best = torch.stack(errors).argmin(0).tolist()
        moved = [
            picture.roll((STEP * shifts[n][0], STEP * shifts[n][1]), (1, 2))
            for picture, n in zip(target, best, strict=True)
        ]
    return torch.stack(moved)
