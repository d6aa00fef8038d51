"""A picture is compared where it fits best."""

import pytest
import torch

from training.shifts import shifted_to


def pictures() -> torch.Tensor:
    """Two pictures (2, 3, 64, 64) of broad random patches, black in a margin of 16."""
    torch.manual_seed(0)
    patches = torch.rand(2, 3, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return torch.nn.functional.pad(patches, (16, 16, 16, 16))


@pytest.mark.parametrize("there", [(0, 0), (4, -8), (-6, 2)])
def test_a_target_to_the_side_is_found(there):
    target, inner = pictures(), torch.ones(64, 64)
    output = target.roll(there, (2, 3))
    torch.testing.assert_close(shifted_to(target, output, 8, inner), output)


def test_each_is_moved_by_itself_and_no_farther_than_it_may():
    target = pictures()
    output = torch.stack([target[0].roll(4, 1), target[1].roll(12, 2)])
    moved = shifted_to(target, output, 8, torch.ones(64, 64))
    torch.testing.assert_close(moved[0], output[0])
    assert not torch.allclose(moved[1], output[1])


def test_errors_count_where_they_are_weighed():
    target = pictures()
    left, right = target.roll(-4, 3), target.roll(4, 3)
    half = torch.zeros(64, 64)
    half[:, :32] = 1.0
    output = torch.cat([left[..., :32], right[..., 32:]], dim=-1)
    torch.testing.assert_close(shifted_to(target, output, 8, half), left)
    torch.testing.assert_close(shifted_to(target, output, 8, 1 - half), right)
