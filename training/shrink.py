"""This is where a smaller size begins with what a larger one knows.

    python -m training.shrink LARGER_ECHO_CHECKPOINT SIZE OUT

A smaller size whose latents are the larger one's (`training.vae_smaller`) need not learn to talk
anew. What has the same shape in both is taken over. Of the denoiser's blocks as many are kept as
the smaller one has, evenly, the first and the last among them (as students are begun in Sanh et
al., 2019, DistilBERT, arXiv 1910.01108, §3). Where a token covers more places than before, it
begins as the mean of the tokens that it replaces, and what it says goes to all of their places.
That is where `training.distill --student` begins.

Legend: D width, S stem width, p places a side of a token, N tokens a frame.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
import typer
from torch import Tensor

from visavis import checkpoint
from visavis.config import SIZES, EchoConfig
from visavis.nn.echo import Echo, arrays, load_echo

BLOCK = re.compile(r"(sdcm_denoiser\.blocks\.)(\d+)\.")
TO_TOKENS = ("sdcm_denoiser.to_tokens.weight", "reference_encoder.embed.weight")  # (D, S, p, p)
FROM_TOKENS = ("sdcm_denoiser.from_tokens.weight", "sdcm_denoiser.from_tokens.bias")  # (S·p², …)
# Of every token, and the axis they stand on.
OF_TOKENS = {
    "sdcm_denoiser.position": 0,
    "reference_encoder.position": 0,
    "sdcm_denoiser.motion.token": 1,
    "sdcm_denoiser.articulation_maps.token": 1,
}


def shrunk(larger: Echo, config: EchoConfig) -> Echo:
    """Echo of the size `config` with weights of the larger; in evaluation mode.

    Raises:
        ValueError: a weight has neither the same shape nor a known way to be made smaller.
    """
    small, theirs = Echo(config), larger.state_dict()
    kept = kept_blocks(larger.config.denoiser.depth, config.denoiser.depth)
    ratio = config.denoiser.patch // larger.config.denoiser.patch
    weights = {}
    for name, ours in small.state_dict().items():
        source = BLOCK.sub(lambda found: f"{found[1]}{kept[int(found[2])]}.", name)
        weight = fitted(name, theirs[source], larger.config, ratio)
        if weight.shape != ours.shape:
            raise ValueError(
                f"{name}: got {tuple(weight.shape)} of {larger.config.name}, expected "
                f"{tuple(ours.shape)} as in {config.name}; sizes may differ in the denoiser's "
                "depth and patch and in the VAE"
            )
        weights[name] = weight
    small.load_state_dict(weights)
    return small.eval()


def kept_blocks(depth: int, smaller_depth: int) -> list[int]:
    """Which of `depth` blocks remain."""
    return [round(n) for n in torch.linspace(0, depth - 1, smaller_depth).tolist()]


def fitted(name: str, weight: Tensor, larger: EchoConfig, ratio: int) -> Tensor:
    """A weight of the larger size for tokens that have `ratio` times as many places a side."""
    if ratio == 1:
        return weight
    if name in TO_TOKENS:
        return weight.repeat(1, 1, ratio, ratio) / ratio**2
    if name in FROM_TOKENS:
        patch = larger.denoiser.patch
        places = weight.unflatten(0, (-1, patch, patch))
        return places.repeat(1, ratio, ratio, *[1] * (weight.dim() - 1)).flatten(0, 2)
    if name in OF_TOKENS:
        return averaged(weight, OF_TOKENS[name], larger.token_grid, ratio)
    return weight


def averaged(weight: Tensor, axis: int, grid: int, ratio: int) -> Tensor:
    """Means over squares of `ratio` tokens a side, of N = `grid`² tokens on `axis`."""
    squares = weight.unflatten(axis, (grid // ratio, ratio, grid // ratio, ratio))
    return squares.mean(dim=(axis + 1, axis + 3)).flatten(axis, axis + 1)


def main(larger: Path, size: str, out: Path) -> None:
    """Write a checkpoint of ECHO of SIZE to OUT."""
    config = SIZES[size]()
    small = shrunk(load_echo(larger), config)
    origin = checkpoint.load(larger, "echo").manifest["sha256"]
    checkpoint.save(out, "echo", config, arrays(small), shrunk_from=origin)


if __name__ == "__main__":
    typer.run(main)
