"""This is where latents are asked, cheaply, which expression a face shows.

An expression moves few of the latents, and little: in a plain squared error it is lost beside the
head's motion, and a network learns last what a viewer sees first. So a ridge regression reads from
the latents, less the track's mean, which emotion is due and which reaction goes on; in the loss, as
much error counts in what is read as in all the rest. The idea is that of the emotion consistency
loss of expression capture (Danecek et al., 2022, EMOCA, arXiv 2204.11312, §3.3), with a linear
reading of latents in the place of a network for pictures.

Legend: T frames, B batch, F block frames, C h w latents, D all values of a frame, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.batches import Place, batch_of
from training.data import Track
from training.denoising import Conditions, denoise_at_once
from training.hearing import hear
from visavis.nn.echo import Echo

EVERY = 5  # of a track's frames one is fitted
REPORTED_EVERY = 12  # of a track's blocks one is reported
LABELS = ("emotion", "cause")  # truth that says what is shown; a corpus may lack the latter


@dataclass(frozen=True)
class ExpressionProbe:
    """A linear reading: weight (D, K) of labels that have unit variance on the tracks it was fitted
    on; what hardly shows in a face is read as hardly varying. K is 0 without two labels."""

    weight: Tensor

    def __call__(self, latents: Tensor) -> Tensor:
        """(…, C, h, w) latents -> (…, K) readings, up to an offset a person."""
        return latents.flatten(-3) @ self.weight

    def loss(self, prediction: Tensor, x_0: Tensor) -> Tensor:
        """Squared error of the readings of a block, (B, F, C, h, w) both; 0 without labels."""
        if not self.weight.shape[1]:
            return prediction.new_zeros(())
        return self((prediction - x_0).mean(1)).square().mean()


@dataclass(frozen=True)
class Labels:
    """What may be due, as numbers of mean 0 and unit variance over the tracks it was found in.

    names: such as `emotion:sad`. mean, spread: (K,) float32.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def among(cls, tracks: Sequence[Track]) -> Labels:
        """All that vary in some tracks."""
        names = labels_of(tracks)
        values = np.concatenate([shown(track, names, every_few(track)) for track in tracks])
        varies = values.std(0) > 0
        kept = tuple(name for name, does in zip(names, varies, strict=True) if does)
        return cls(kept, values.mean(0)[varies], values.std(0)[varies])

    @property
    def scale(self) -> float:
        """The root mean square of all spreads."""
        return float(np.sqrt(np.mean(self.spread**2)))

    def of(self, track: Track, frames: Sequence[int]) -> np.ndarray:
        """(n, K) float32 of some frames of a track."""
        return (shown(track, self.names, frames) - self.mean) / self.spread


def every_few(track: Track) -> range:
    """The frames of a track that are fitted."""
    return range(0, len(track.truth["pose"]), EVERY)


def shown(track: Track, names: Sequence[str], frames: Sequence[int]) -> np.ndarray:
    """(n, K) float32: 1 where a label holds in a frame, names such as `emotion:sad`; or what the
    truth itself says, of names such as `sobered`."""
    found = np.zeros((len(frames), len(names)), np.float32)
    for column, name in enumerate(names):
        kind, _, label = name.partition(":")
        if kind in track.truth:
            values = track.truth[kind][list(frames)]
            found[:, column] = values == label if label else values
    return found


def labels_of(tracks: Sequence[Track]) -> list[str]:
    """All labels that some track has, without those of nothing: `emotion:sad`, `cause:joke`."""
    found = {
        f"{kind}:{label}"
        for track in tracks
        for kind in LABELS
        if kind in track.truth
        for label in np.unique(track.truth[kind])
        if label
    }
    return sorted(found)


def fit_expression(
    tracks: Sequence[Track], device: torch.device, ridge: float = 3000.0
) -> ExpressionProbe:
    """The probe that fits the true latents of training tracks best."""
    labels = Labels.among(tracks)
    values = [_centred(_flat(track.latents[::EVERY])) for track in tracks]
    gram = sum(v.T @ v for v in values) + ridge * np.eye(values[0].shape[1], dtype=np.float32)
    due = [_centred(labels.of(track, every_few(track))) for track in tracks]
    within = np.concatenate(due).std(0)  # a track's, whatever the others are like
    targets = np.sum([v.T @ y for v, y in zip(values, due, strict=True)], axis=0)
    varies = within > 0
    weight = np.linalg.solve(gram, targets[:, varies] / within[varies])
    return ExpressionProbe(torch.from_numpy(weight).to(device))


def _centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean(0)


def _flat(latents: np.ndarray) -> np.ndarray:
    return latents.reshape(len(latents), -1).astype(np.float32)


@torch.inference_mode()
def expression_report(
    echo: Echo, probe: ExpressionProbe, held_out: Sequence[Track]
) -> dict[str, float]:
    """`expression_r`: how well blocks of held-out people show what is due when the face before
    them is the portrait and tells nothing; the mean correlation of readings with the true ones'.

    Args: probe, on the CPU.
    """
    blocks = range(0, min(track.blocks for track in held_out), REPORTED_EVERY)
    users = [track.user for track in held_out]
    heard = hear(echo, users, range(blocks[-1] + 1), blocks[-1] + 1)
    present = torch.ones(len(held_out), 2, device=echo.device)
    readings: list[Tensor] = []
    for block in blocks:
        batch = batch_of([Place(track, block, 0) for track in held_out], echo.config, echo.device)
        conditions = Conditions(heard[:, block], echo.affect_encoder(batch.word_ids), present)
        noise, portrait = torch.randn_like(batch.x_0), batch.reference_latents[:, None]
        previous = portrait.expand_as(batch.previous_latents)
        both = denoise_at_once(echo, noise, batch, previous, conditions), batch.x_0
        readings.append(torch.stack([probe(x.cpu()).mean(1) for x in both]))
    ours, true = (x - x.mean(0) for x in torch.stack(readings, dim=1).double())  # (n, B, K)
    scale = (ours.square().sum((0, 1)) * true.square().sum((0, 1))).sqrt().clamp(min=1e-9)
    return {"expression_r": float(((ours * true).sum((0, 1)) / scale).mean())}
