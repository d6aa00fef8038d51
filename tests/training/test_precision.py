"""Mixed precision is used where the hardware has it, and nowhere else."""

import pytest
import torch

from training import precision

CPU = torch.device("cpu")


@pytest.fixture
def processor(monkeypatch):
    """A processor of which is said what it can."""

    def can(**capabilities):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
        precision.has_bfloat16.cache_clear()

    yield can
    precision.has_bfloat16.cache_clear()


def product(enabled=True):
    with precision.half_precision(CPU, enabled):
        return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


@pytest.mark.parametrize("name", ["amx_bf16", "avx512_bf16", "bf16"])
def test_a_processor_with_bfloat16_uses_it_where_asked(processor, name):
    processor(avx2=True, **{name: True})
    assert product() == torch.bfloat16 and product(enabled=False) == torch.float32


def test_a_processor_without_bfloat16_computes_in_float32(processor):
    processor(avx2=True, avx512_bf16=False, architecture="x86_64")
    assert product() == torch.float32
