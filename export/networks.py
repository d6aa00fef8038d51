"""This is where trained checkpoints become the networks that are served, one by one.

A served network is a torch module whose `forward` takes and returns exactly the tensors of its
contract, in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from visavis import checkpoint
from visavis.config import EchoConfig
from visavis.nn.audio_encoder import AudioEncoder
from visavis.nn.echo import Echo, load_echo, load_vae
from visavis.nn.vae import VAE, VAEDecoder, VAEEncoder


def served_networks(audio_encoder: AudioEncoder, vae: VAE, echo: Echo) -> dict[str, nn.Module]:
    """The eight served networks by the name of their model."""
    return {
        "audio_encoder": audio_encoder,
        "vae_encoder": VAEEncoder(vae),
        "vae_decoder": VAEDecoder(vae),
        "reference_encoder": echo.reference_encoder,
        "affect_encoder": echo.affect_encoder,
        "lcu_encoder": echo.lcu_encoder,
        "motion_prior": echo.motion_prior,
        "sdcm_denoiser": echo.sdcm_denoiser,
    }


def trained_networks(
    vae_folder: Path, echo_folder: Path
) -> tuple[EchoConfig, dict[str, nn.Module]]:
    """The served networks of two checkpoints; ValueError when they are of different sizes."""
    from training.whisper import load_encoder  # needs the package with Whisper's weights

    theirs = checkpoint.load(vae_folder, "vae").config
    echo = load_echo(echo_folder)
    config = echo.config
    if theirs.latent_shape != config.latent_shape:
        raise ValueError(
            f"{vae_folder}: got latents {theirs.latent_shape}, expected {config.latent_shape} as "
            f"in {echo_folder}; give checkpoints of one size"
        )
    vae = load_vae(vae_folder)
    return config, served_networks(load_encoder(config.audio), vae, echo)


def random_networks(config: EchoConfig, seed: int = 0) -> dict[str, nn.Module]:
    """Untrained networks of one size whose every output depends on every input, for tests."""
    torch.manual_seed(seed)
    echo = Echo(config)
    for parameter in echo.parameters():
        if not parameter.any():  # zero at the start of training: would hide half of the graph
            nn.init.normal_(parameter, std=0.02)
    for parameter in echo.motion_prior.parameters():  # of few draws, none shows a small change
        nn.init.normal_(parameter, std=0.2)
    return {
        name: module.eval()
        for name, module in served_networks(AudioEncoder(config.audio), VAE(config), echo).items()
    }


def total_parameters(networks: Mapping[str, nn.Module]) -> int:
    """How many parameters all networks have together, shared ones once."""
    unique = {id(p): p for module in networks.values() for p in module.parameters()}
    return sum(p.numel() for p in unique.values())
