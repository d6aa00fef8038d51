"""This is where ECHO's trained parts stand together: one module to train, save and take apart.

The VAE and the audio encoder are trained before and stay fixed; they are not in here.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from visavis import checkpoint
from visavis.config import EchoConfig
from visavis.nn.affect import AffectEncoder
from visavis.nn.denoiser import SDCMDenoiser
from visavis.nn.lcu import LCUEncoder
from visavis.nn.motion_prior import MotionPrior
from visavis.nn.reference import ReferenceEncoder
from visavis.nn.vae import VAE


class Echo(nn.Module):
    """The reference encoder, the LCU with its affective branch, what draws motion, and the SDCM
    denoiser."""

    def __init__(self, config: EchoConfig):
        super().__init__()
        self.config = config
        self.reference_encoder = ReferenceEncoder(config)
        self.lcu_encoder = LCUEncoder(config)
        self.affect_encoder = AffectEncoder(config.affect)
        self.motion_prior = MotionPrior(config)
        self.sdcm_denoiser = SDCMDenoiser(config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.sdcm_denoiser.position.device


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    """The weights of a module as numpy arrays, for `visavis.checkpoint.save`."""
    return {
        name: tensor.detach().float().cpu().numpy() for name, tensor in module.state_dict().items()
    }


def tensors(found: checkpoint.Checkpoint[EchoConfig]) -> dict[str, Tensor]:
    """The weights of a checkpoint as float32 tensors."""
    return {name: torch.from_numpy(np.asarray(w, np.float32)) for name, w in found.weights.items()}


def load_echo(folder: str | Path, without: tuple[str, ...] | None = None) -> Echo:
    """Echo from a checkpoint folder, in evaluation mode; `without` other parts than it was."""
    found = checkpoint.load(folder, "echo")
    model = Echo(found.config if without is None else replace(found.config, without=without))
    model.load_state_dict(tensors(found))
    return model.eval()


def load_vae(folder: str | Path) -> VAE:
    """The VAE from a checkpoint folder, in evaluation mode."""
    found = checkpoint.load(folder, "vae")
    model = VAE(found.config)
    model.load_state_dict(tensors(found))
    return model.eval()


def load_repository(repository: str | Path) -> tuple[VAE, Echo]:
    """The VAE and Echo that a model repository serves, in evaluation mode; its folders are
    checkpoints of the parts."""
    config = checkpoint.load(_version(repository, "sdcm_denoiser")).config
    vae, echo = VAE(config), Echo(config)
    for name, part in echo.named_children():
        part.load_state_dict(tensors(checkpoint.load(_version(repository, name))))
    halves = {}
    for name in ("vae_encoder", "vae_decoder"):
        halves |= tensors(checkpoint.load(_version(repository, name)))
    vae.load_state_dict(halves)
    return vae.eval(), echo.eval()


def _version(repository: str | Path, name: str) -> Path:
    return Path(repository) / name / "1"
