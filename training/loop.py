"""This is where a training run keeps what it has: weights, their average, optimiser, step, log.

A run is a folder: `training.json` (its settings), `state.pt` (all that resuming needs), `log.jsonl`
(one line a report), `samples/` (pictures and films), and the same for TensorBoard
(`tensorboard --logdir RUNS`). A killed run goes on from its last save as if nothing had happened,
because every batch is drawn from its own seed.

`accelerate launch` runs any trainer on many devices, or on one GPU; without it one process runs
where Accelerate finds a device. Each process draws batches of its own. Gradients are averaged here
and not by DistributedDataParallel, whose hooks wait for one call of the whole network: a loss of
ours calls its parts. So P processes make the same step as one that accumulates P batches.
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar, cast

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from training.film import write_video
from training.whole import whole
from visavis.config import FRAME_RATE_HZ

ModelT = TypeVar("ModelT", bound=nn.Module)

GIF_EVERY = 5  # TensorBoard shows films as GIFs, which are large: five pictures a second do


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast: shared by all trainers."""

    steps: int = 5000
    accumulate: int = 1  # batches a process draws for one step
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
    """Drives one run: `for step in loop: loop.update(losses)`; see the trainers.

    Args:
        folder: where the run lives; made when missing, continued when not.
        model: what is trained, moved to this process's device; only parameters that require
            gradients are given to the optimiser. It must be the same in all processes.
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
        self.accelerator = Accelerator()
        self.folder, self.model, self.config = Path(folder), model.to(self.device), config
        (self.folder / "samples").mkdir(parents=True, exist_ok=True)
        rated: dict[float, list[nn.Parameter]] = {}  # few groups: each is a pass of the optimiser
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                rated.setdefault(rate_of(name), []).append(parameter)
        self.rates = list(rated)
        self.parameters = [parameter for group in rated.values() for parameter in group]
        self.optimizer = torch.optim.AdamW(
            [{"params": group} for group in rated.values()],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
            foreach=True,
        )
        # Buffers are copied: the mean of an index is another index.
        self.average = AveragedModel(model, use_buffers=False)
        self.step = 0
        self.started = time.perf_counter()
        self.recent: dict[str, float] = {}
        if self.state_path.exists():
            self._resume()

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.accelerator.device

    @property
    def averaged(self) -> ModelT:
        """The network with its averaged weights."""
        return cast(ModelT, self.average.module)

    @property
    def state_path(self) -> Path:
        """Where the resumable state is."""
        return self.folder / "state.pt"

    @cached_property
    def board(self) -> SummaryWriter:
        """TensorBoard's log; what it holds of later steps, from before a resumption, is hidden."""
        return SummaryWriter(str(self.folder), purge_step=self.step)

    def __iter__(self) -> Iterator[int]:
        """The steps to do; after each, what is due is logged and saved."""
        with tqdm(
            total=self.config.steps,
            initial=self.step,
            mininterval=5,
            unit="step",
            disable=not self.accelerator.is_main_process,
        ) as bar:
            while self.step < self.config.steps:
                yield self.step
                bar.update()
                if self.step % self.config.report_every == 0:
                    bar.set_postfix({k: f"{v:.4f}" for k, v in self.recent.items()}, refresh=False)
                    self.log(**self.recent)
                if self.step % self.config.save_every == 0:
                    self.save()
        self.save()

    def update(self, losses: Callable[[], Mapping[str, Tensor]]) -> None:
        """One optimiser step.

        `losses` draws a batch and gives its "loss", which is minimised, and parts of it, which are
        logged as running means. It is called once for every batch that is accumulated.
        """
        rate = learning_rate(self.config, self.step)
        for group, ratio in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * ratio
        self.optimizer.zero_grad(set_to_none=True)
        for batch in range(self.config.accumulate):
            torch.manual_seed(self._seed(batch))
            found = losses()
            self.accelerator.backward(found["loss"] / self.config.accumulate)
            self._remember(found)
        self._average_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(
                f"step {self.step}: got a gradient norm of {norm.item()}, expected a finite one; "
                "lower learning_rate or look at the batch of this step"
            )
        self.optimizer.step()
        self.average.multi_avg_fn = get_ema_multi_avg_fn(ema_decay(self.config, self.step))
        self.average.update_parameters(self.model)
        self.step += 1

    def due(self, every: int) -> bool:
        """Whether something that is done every so many steps is to be done now, by this process."""
        return self.accelerator.is_main_process and self.step % every == 0

    def log(self, **values: float) -> None:
        """Append one line to the run's log, and a point each to TensorBoard's curves."""
        if not self.accelerator.is_main_process:
            return
        line = {"step": self.step, "seconds": time.perf_counter() - self.started, **values}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in values.items():
            self.board.add_scalar(name, value, self.step)
        self.board.flush()

    def show(self, name: str, picture: np.ndarray) -> None:
        """Keep a picture (H, W, 3) uint8 among the samples."""
        if self.accelerator.is_main_process:
            cv2.imwrite(str(self._sample(name, "png")), picture[..., ::-1])
            self.board.add_image(name, picture, self.step, dataformats="HWC")

    def film(self, name: str, frames: np.ndarray, audio: np.ndarray | None = None) -> None:
        """Keep a film (T, H, W, 3) uint8 among the samples, with sound (samples,) float32."""
        if self.accelerator.is_main_process:
            write_video(self._sample(name, "mp4"), frames, audio)
            writer = self.board._get_file_writer()  # `add_video` would want moviepy for the GIF
            writer.add_summary(Summary(value=[_animation(name, frames)]), self.step)

    def save(self) -> None:
        """Write all that resuming needs, whole or not at all."""
        if self.accelerator.is_main_process:
            state = {
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "recent": self.recent,
            }
            with whole(self.state_path) as partial:
                torch.save(state, partial)
        self.accelerator.wait_for_everyone()

    def conclude(self, write: Callable[[], Path]) -> Path:
        """Let one process `write` what the run leaves, while the others wait; returns its path."""
        if self.accelerator.is_main_process:
            write()
        self.accelerator.wait_for_everyone()
        return self.folder / "checkpoint"

    def _resume(self) -> None:
        state = torch.load(self.state_path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.recent = state["step"], state["recent"]

    def _seed(self, batch: int) -> int:
        """No two batches of a run have the same, whichever process draws them."""
        nth = self.step * self.config.accumulate + batch
        processes, process = self.accelerator.num_processes, self.accelerator.process_index
        return self.config.seed * 1_000_003 + nth * processes + process

    def _average_gradients(self) -> None:
        if self.accelerator.num_processes == 1:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        mean = cast(Tensor, self.accelerator.reduce(flat, reduction="mean"))
        parts = mean.split([p.numel() for p in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def _remember(self, found: Mapping[str, Tensor]) -> None:
        for name, value in found.items():
            previous = self.recent.get(name, value.item())
            self.recent[name] = 0.98 * previous + 0.02 * value.item()

    def _sample(self, name: str, suffix: str) -> Path:
        return self.folder / "samples" / f"{name}_{self.step:06d}.{suffix}"


def _animation(name: str, frames: np.ndarray) -> Summary.Value:
    """A film (T, H, W, 3) uint8 as TensorBoard shows films."""
    pictures = [Image.fromarray(frame) for frame in frames[::GIF_EVERY]]
    encoded = io.BytesIO()
    pictures[0].save(
        encoded,
        "GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=1000 * GIF_EVERY // FRAME_RATE_HZ,
        loop=0,
    )
    height, width = frames.shape[1:3]
    picture = Summary.Image(
        height=height, width=width, colorspace=3, encoded_image_string=encoded.getvalue()
    )
    return Summary.Value(tag=name, image=picture)


def averaged_weights(folder: str | Path) -> tuple[dict[str, Tensor], int]:
    """The averaged weights of a run and the step they were saved at."""
    state = torch.load(Path(folder) / "state.pt", map_location="cpu", weights_only=True)
    prefix = "module."
    weights = {k[len(prefix) :]: v for k, v in state["average"].items() if k.startswith(prefix)}
    return weights, state["step"]
