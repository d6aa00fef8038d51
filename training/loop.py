"""This is where a training run keeps what it has: weights, their average, optimiser, step, log.

A run is a folder: `training.json` (its settings), `state.pt` (all that resuming needs), `log.jsonl`
(one line a report), `samples/` (pictures). A killed run goes on from its last save as if nothing
had happened, because every batch is drawn from the step's own seed.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

ModelT = TypeVar("ModelT", bound=nn.Module)


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast: shared by all trainers."""

    steps: int = 5000
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    final_learning_rate_ratio: float = 0.02
    weight_decay: float = 1e-4
    gradient_norm: float = 1.0
    ema_decay: float = 0.998
    save_every: int = 250
    report_every: int = 50
    seed: int = 0


def learning_rate(config: LoopConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to `final_learning_rate_ratio` of the peak."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    ratio = config.final_learning_rate_ratio
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))
    return config.learning_rate * warm * (ratio + (1 - ratio) * cosine)


def ema_decay(config: LoopConfig, step: int) -> float:
    """A short memory at first, the configured one later."""
    return min(config.ema_decay, (1 + step) / (10 + step))


class Loop(Generic[ModelT]):
    """Drives one run: `for step in loop:` … `loop.update(losses)`; see the trainers.

    Args:
        folder: where the run lives; made when missing, continued when not.
        model: what is trained; only parameters that require gradients are given to the optimiser.
        config: how long and how fast.
        rate_of: multiplies the learning rate of a parameter, by its name.
    """

    def __init__(
        self,
        folder: str | Path,
        model: ModelT,
        config: LoopConfig,
        rate_of: Callable[[str], float] = lambda name: 1.0,
    ):
        self.folder, self.model, self.config = Path(folder), model, config
        (self.folder / "samples").mkdir(parents=True, exist_ok=True)
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.rates = [rate_of(name) for name, _ in named]
        self.optimizer = torch.optim.AdamW(
            [{"params": [p]} for _, p in named],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
            foreach=True,
        )
        self.average = AveragedModel(model, use_buffers=True)
        self.step = 0
        self.started = time.perf_counter()
        self.recent: dict[str, float] = {}
        if self.state_path.exists():
            self._resume()

    @property
    def averaged(self) -> ModelT:
        """The network with its averaged weights."""
        return cast(ModelT, self.average.module)

    @property
    def state_path(self) -> Path:
        """Where the resumable state is."""
        return self.folder / "state.pt"

    def __iter__(self) -> Iterator[int]:
        with tqdm(total=self.config.steps, initial=self.step, mininterval=5, unit="step") as bar:
            while self.step < self.config.steps:
                torch.manual_seed(self.config.seed * 1_000_003 + self.step)
                yield self.step
                self.step += 1
                bar.update()
                if self.step % self.config.report_every == 0:
                    bar.set_postfix({k: f"{v:.4f}" for k, v in self.recent.items()}, refresh=False)
                    self.log(**self.recent)
                if self.step % self.config.save_every == 0:
                    self.save()
        self.save()

    def update(self, loss: Tensor, **parts: Tensor) -> None:
        """One optimiser step on `loss`; `parts` are logged as running means."""
        rate = learning_rate(self.config, self.step)
        for group, ratio in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * ratio
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.gradient_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(
                f"step {self.step}: got a gradient norm of {norm.item()}, expected a finite one; "
                "lower learning_rate or look at the batch of this step"
            )
        self.optimizer.step()
        self.average.multi_avg_fn = get_ema_multi_avg_fn(ema_decay(self.config, self.step))
        self.average.update_parameters(self.model)
        for name, value in {"loss": loss, **parts}.items():
            previous = self.recent.get(name, value.item())
            self.recent[name] = 0.98 * previous + 0.02 * value.item()

    def log(self, **values: float) -> None:
        """Append one line to the run's log."""
        line = {"step": self.step, "seconds": time.perf_counter() - self.started, **values}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def save(self) -> None:
        """Write all that resuming needs, whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "recent": self.recent,
        }
        partial = self.state_path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.state_path)

    def _resume(self) -> None:
        state = torch.load(self.state_path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.recent = state["step"], state["recent"]


def averaged_weights(folder: str | Path) -> tuple[dict[str, Tensor], int]:
    """The averaged weights of a run and the step they were saved at."""
    state = torch.load(Path(folder) / "state.pt", map_location="cpu", weights_only=True)
    prefix = "module."
    weights = {k[len(prefix) :]: v for k, v in state["average"].items() if k.startswith(prefix)}
    return weights, state["step"]
