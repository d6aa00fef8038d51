"""This is where one person's films become tracks of a cache, as conversations do in training.data.

Such a track has no partner: it can teach how a face moves with its voice, not how it listens.

Legend: T frames, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm
from visavis_client import media
from visavis_client.face import FaceFinder, FaceTrack

from training.corpus.prepare.mesh import head_pose
from training.corpus.prepare.speech import active_frames, voice_activity
from training.data import audio_windows, block_features
from training.measures.motion import apertures, landmarks, lids
from training.whisper import load_encoder
from visavis.config import SAMPLES_PER_FRAME, EchoConfig
from visavis.nn.audio_encoder import AudioEncoder

SPLITS = ("train", "test")
LEAST_FRAMES = 250  # ten seconds, of which one is held out


def cache_person(films: Sequence[Path], cache: Path, config: EchoConfig, share: float) -> None:
    """One track for each film's beginning (train) and end (test): a person without a partner.

    Raises ValueError for films that are too short, NoFaceError without a face.
    """
    encoder, finder = load_encoder(config.audio), FaceFinder()
    for film in tqdm(films, desc="films", unit="film"):
        folders = {split: cache / split / f"conversation_{film.stem}" for split in SPLITS}
        if all((folder / "done").exists() for folder in folders.values()):
            continue
        frames, voice = faces_and_voice(film, config.image_size)
        blocks = len(frames) // config.block_frames
        border = round((1 - share) * blocks) * config.block_frames
        parts = {"train": slice(0, border), "test": slice(border, blocks * config.block_frames)}
        for split, part in parts.items():
            sound = voice[part.start * SAMPLES_PER_FRAME : part.stop * SAMPLES_PER_FRAME]
            save_track(folders[split] / "a", frames[part], sound, config, encoder, finder)
            (folders[split] / "done").touch()


def faces_and_voice(film: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Aligned faces (T, S, S, 3) uint8 at 25 a second and the voice (T·640,) float32; silence for
    a silent film."""
    track = FaceTrack(size)
    track.fit(media.read_video(film))
    frames = np.stack([track.crop(frame) for frame in media.read_video(film)])
    if len(frames) < LEAST_FRAMES:
        raise ValueError(
            f"{film}: got {len(frames)} frames, expected at least {LEAST_FRAMES} (10 s); minutes "
            "are better: give longer films"
        )
    voice = np.zeros(len(frames) * SAMPLES_PER_FRAME, np.float32)
    if media.has_audio(film):
        heard = media.read_audio(film)[: len(voice)]
        voice[: len(heard)] = heard
    return frames, voice


def save_track(
    folder: Path,
    frames: np.ndarray,
    voice: np.ndarray,
    config: EchoConfig,
    encoder: AudioEncoder,
    finder: FaceFinder,
) -> None:
    """A track of the cache (see training/data.py), but for its partner."""
    folder.mkdir(parents=True, exist_ok=True)
    blocks = len(frames) // config.block_frames
    windows = audio_windows(voice, config, blocks, lookahead_frames=config.lookahead_frames)
    points = landmarks(finder, frames)
    opening = apertures(points)
    known = np.isfinite(opening)
    points = np.where(known[:, None, None], points, points[known].mean(0))
    np.save(folder / "frames.npy", frames)
    np.save(folder / "avatar_features.npy", block_features(encoder, windows))
    np.savez(
        folder / "truth.npz",
        aperture=np.where(known, opening, opening[known].mean()).astype(np.float32),
        speaking=active_frames(voice_activity(voice), len(frames)),
        pose=head_pose(points / frames.shape[1]),
        eyes=np.stack(
            [lids(points), *np.zeros((2, len(frames)))], axis=1
        ),  # no gaze without irises
        emotion=np.full(len(frames), "neutral"),
    )
