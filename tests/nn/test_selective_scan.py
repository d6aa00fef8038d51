"""The selective scan is the recurrence it stands for, and a sequence may be cut anywhere."""

import pytest
import torch

from visavis.nn.selective_scan import CHUNK_STEPS, SelectiveScan, selective_scan

B, T, H, P, N = 2, 9, 3, 4, 5


@pytest.mark.parametrize(
    "steps", [7, CHUNK_STEPS // 2, 3 * CHUNK_STEPS], ids=["chunks of one", "one chunk", "chunks"]
)
def test_equals_the_recurrence(steps):
    torch.manual_seed(0)
    x, log_decay = torch.randn(B, steps, H, P), -torch.rand(B, steps, H)
    input_gate, output_gate = torch.randn(2, B, steps, N)
    state = torch.randn(B, H, P, N)
    y, last = selective_scan(x, log_decay, input_gate, output_gate, state)
    expected = []
    for t in range(steps):
        state = state * log_decay[:, t].exp()[..., None, None]
        state = state + x[:, t, ..., None] * input_gate[:, t, None, None]
        expected.append((state * output_gate[:, t, None, None]).sum(-1))
    torch.testing.assert_close(y, torch.stack(expected, 1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(last, state, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cut", [1, 4, 8])
def test_a_cut_sequence_equals_the_whole(cut):
    torch.manual_seed(1)
    scan = SelectiveScan(H * P, H, N)
    x, state = torch.randn(B, T, H * P), torch.zeros(B, H, P, N)
    whole, end = scan(x, state)
    first, middle = scan(x[:, :cut], state)
    second, last = scan(x[:, cut:], middle)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(last, end, atol=1e-5, rtol=1e-5)


def test_a_long_silence_stays_finite():
    torch.manual_seed(2)
    scan = SelectiveScan(H * P, H, N)
    state = torch.zeros(1, H, P, N)
    for _ in range(200):
        y, state = scan(torch.ones(1, 40, H * P) * 3, state)
    assert torch.isfinite(y).all() and torch.isfinite(state).all()
    assert state.abs().max() < 1e4
