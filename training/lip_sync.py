"""This is where the lip scorer is trained: which mouth goes with which voice, and when.

    python -m training.lip_sync CACHE RUN CONFIG

It takes minutes on a CPU. On held-out people its report says whether it can be trusted: how often
it finds the offset of voices that were shifted by known frames, and what confidence is left when
the voice is another's.

Legend: B clips, T frames, S side of a mouth, D audio width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import typer
from torch import Tensor
from tqdm import tqdm

from training.command import run_trainer
from training.data import Track, tracks
from training.loop import Loop, LoopConfig, averaged_weights
from training.measures.lip_sync import (
    LipSync,
    LipSyncConfig,
    LipSyncScore,
    embed,
    frame_features,
    matching_loss,
    mouth_crops,
    normalised,
    save,
    score,
)
from visavis import config as configs
from visavis.config import SIZES, EchoConfig

SHIFTS = (-6, -3, 0, 3, 6)  # frames, by which held-out voices are delayed to test the scorer


@dataclass(frozen=True)
class LipSyncTraining:
    """Settings of one run."""

    size: str = "nano"  # of the cache
    batch: int = 16  # clips
    clip_frames: int = 40
    speaking_share: float = 0.5  # of a clip's frames, at least
    report_every: int = 300
    network: LipSyncConfig = field(default_factory=LipSyncConfig)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=1500, weight_decay=0.01, ema_decay=0.99)
    )


@dataclass(frozen=True)
class Talk:
    """One person's mouth and voice. mouths: (T, S, S) uint8. features: (T, D). speaking: (T,)."""

    mouths: np.ndarray
    features: np.ndarray
    speaking: np.ndarray

    def clips(self, frames: int, share: float) -> np.ndarray:
        """First frames of all clips of that length in which the person speaks enough."""
        spoken = np.convolve(self.speaking, np.ones(frames), mode="valid")
        return np.flatnonzero(spoken >= share * frames)

    def score(
        self, model: LipSync, *, voice: Talk | None = None, delay: int = 0
    ) -> LipSyncScore | None:
        """The score with one's own voice or another's, delayed by some frames."""
        features = np.roll((voice or self).features, delay, axis=0)
        frames = min(len(self.mouths), len(features))
        lips, voices = embed(model, self.mouths[:frames], features[:frames])
        return score(lips, voices, self.speaking[:frames])


def talk_of(track: Track, config: EchoConfig, mouth_size: int) -> Talk:
    """What the scorer sees of a cached track."""
    features = frame_features(track, config)
    speaking = track.truth["speaking"][: len(features)].astype(bool)
    return Talk(mouth_crops(track.frames[: len(features)], mouth_size), features, speaking)


def draw(talks: Sequence[Talk], settings: LipSyncTraining) -> tuple[Tensor, Tensor]:
    """Mouths (B, T, S, S) and features (B, T, D) of random clips with speech, both float32."""
    frames, clips = settings.clip_frames, []
    while len(clips) < settings.batch:
        talk = talks[int(torch.randint(len(talks), ()))]
        starts = talk.clips(frames, settings.speaking_share)
        start = int(starts[int(torch.randint(len(starts), ()))])
        clip = slice(start, start + frames)
        clips.append((normalised(talk.mouths)[clip], talk.features[clip].astype(np.float32)))
    mouths, features = (torch.from_numpy(np.stack(side)) for side in zip(*clips, strict=True))
    return mouths, features


def trust(model: LipSync, held_out: Sequence[Talk]) -> dict[str, float]:
    """Whether the scorer finds known shifts of held-out voices, and tells another's voice."""
    model.eval()
    right, offsets, own, others = [], [], [], []
    for talk, other in zip(held_out, [*held_out[1:], *held_out[:1]], strict=True):
        shifted = {delay: talk.score(model, delay=delay) for delay in SHIFTS}
        mismatched = talk.score(model, voice=other)
        if (matched := shifted[0]) is None or mismatched is None:
            continue
        offsets.append(abs(matched.offset_frames))
        right += [
            found.offset_frames == matched.offset_frames - delay
            for delay, found in shifted.items()
            if delay and found is not None
        ]
        own.append(matched.confidence)
        others.append(mismatched.confidence)
    if not own:
        return {}
    return {
        "offset_within_1": float(np.mean(np.array(offsets) <= 1)),
        "shift_found": float(np.mean(right)),
        "confidence": float(np.mean(own)),
        "confidence_other_voice": float(np.mean(others)),
    }


def train(cache: Path, run: Path, settings: LipSyncTraining) -> Path:
    """Train, or go on training, and write the checkpoint folder `run/checkpoint`."""
    config, size = SIZES[settings.size](), settings.network.mouth_size
    pool, held_out = (
        [
            talk_of(track, config, size)
            for track in tqdm(tracks(cache, split), desc=f"{split} mouths")
        ]
        for split in ("train", "test")
    )
    pool = _long_enough(pool, settings)
    torch.manual_seed(settings.loop.seed)
    network = replace(settings.network, audio_width=pool[0].features.shape[-1])
    model = LipSync(network)
    loop = Loop(run, model, settings.loop)
    (run / "training.json").write_text(configs.to_json(settings))

    def losses() -> dict[str, Tensor]:
        model.train()
        lips, voices = model(*(side.to(loop.device) for side in draw(pool, settings)))
        return {"loss": matching_loss(lips, voices, model.sharpness)}

    for _ in loop:
        loop.update(losses)
        if loop.due(settings.report_every):
            loop.log(**trust(loop.averaged, held_out))

    def write() -> Path:
        model.load_state_dict(averaged_weights(run)[0])
        rounded = {name: round(value, 4) for name, value in trust(model, held_out).items()}
        return save(run / "checkpoint", model, step=loop.step, metrics=rounded)

    return loop.conclude(write)


def _long_enough(pool: Sequence[Talk], settings: LipSyncTraining) -> list[Talk]:
    frames, share = settings.clip_frames, settings.speaking_share
    usable = [talk for talk in pool if len(talk.clips(frames, share))]
    if not usable:
        raise ValueError(
            f"lip scorer: got {len(pool)} training tracks, none with {frames} frames of which "
            f"{share:.0%} are speech; lower clip_frames or speaking_share, or cache more"
        )
    return usable


def main(cache: Path, run: Path, config: Path, threads: int = 2) -> None:
    """Train from a settings file, such as training/configs/lip_sync.json."""
    run_trainer(LipSyncTraining, config, threads, lambda settings: train(cache, run, settings))


if __name__ == "__main__":
    typer.run(main)
