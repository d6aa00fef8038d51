"""This is where a corpus, rendered or prepared, becomes arrays that training can draw from.

`python -m training.data CORPUS CACHE --size nano` decodes each track once: frames at
the size's resolution and the audio features of every block, exactly as the server would compute
them.

    cache/{train,test}/conversation_0007/a/frames.npy            (T, H, W, 3) uint8
                                           avatar_features.npy   (blocks, A, D) float16
                                           user_features.npy     (blocks, A, D) float16
                                           truth.npz             see `truth_of`
                                           latents.npy           (T, C, h, w) float16, after the VAE
    cache/train/stills/person_000007.npy                         (N, H, W, 3) uint8, for the VAE
    cache/train/recorded/person_franck.npy                       the same
    cache/{train,test}/spoken/conversation_0007/                 the same, less frames and latents

Truth that a prepared corpus (training/corpus/prepare) cannot have is not made up: without
a transcript, or where it names no emotion, neutral is due. Its conversations without video are left
out.

Legend: T frames, N pictures, F block frames, A audio feature frames, C h w latents.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import soundfile
import torch
import typer
from torch import Tensor
from tqdm import tqdm

from training.film import read_frames
from training.whisper import load_encoder
from training.whole import whole
from visavis.affect import Turn
from visavis.config import FRAME_RATE_HZ, SAMPLES_PER_FRAME, SIZES, EchoConfig
from visavis.motion import NAMES
from visavis.nn.audio_encoder import AudioEncoder

PEOPLE = ("a", "b")
PICTURES = ("stills", "recorded")  # rendered people, and faces from films
SPOKEN = "spoken"  # conversations that are only heard
NAMED = ("emotion", "phoneme", "cause")  # what a rendered corpus tells by index,
WEIGHED = ("sobered", "lifted")  # and by weight


@dataclass(frozen=True)
class Track:
    """One person of one conversation in the cache, and the folder of their partner."""

    folder: Path
    partner: Path

    @cached_property
    def user(self) -> Track:
        """The partner's track."""
        return Track(self.partner, self.folder)

    @property
    def name(self) -> str:
        """Such as `conversation_0007/a`."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @cached_property
    def seen(self) -> bool:
        """Whether there are frames and latents; else this person is only heard."""
        return self.folder.parent.parent.name != SPOKEN

    @cached_property
    def frames(self) -> np.ndarray:
        """(T, H, W, 3) uint8, memory-mapped."""
        return np.load(self.folder / "frames.npy", mmap_mode="r")

    @cached_property
    def latents(self) -> np.ndarray:
        """(T, C, h, w) float16."""
        return np.load(self.folder / "latents.npy")

    @cached_property
    def avatar_features(self) -> np.ndarray:
        """(blocks, A, D) float16 of this person's voice, with look-ahead."""
        return np.load(self.folder / "avatar_features.npy", mmap_mode="r")

    @cached_property
    def user_features(self) -> np.ndarray:
        """(blocks, A, D) float16 of this person's voice as a user's, ending where blocks begin."""
        return np.load(self.folder / "user_features.npy", mmap_mode="r")

    @cached_property
    def truth(self) -> dict[str, np.ndarray]:
        """The corpus's truth for this person."""
        return dict(np.load(self.folder / "truth.npz", allow_pickle=False))

    @cached_property
    def motion(self) -> np.ndarray:
        """(T, M) float32, see `visavis.motion`; what is not known of the eyes is 0."""
        pose = self.truth["pose"]
        eyes = self.truth.get("eyes", np.zeros((len(pose), len(NAMES) - pose.shape[1])))
        return np.concatenate([pose, eyes], axis=1).astype(np.float32)

    @cached_property
    def turns(self) -> tuple[Turn, ...]:
        """Who said what from when on, as a server is told whose avatar this person is.

        None without a transcript.
        """
        return tuple(Turn(**turn) for turn in json.loads(str(self.truth.get("transcript", "[]"))))

    def speaking_blocks(self, block_frames: int) -> np.ndarray:
        """Indices of the blocks in which this person speaks."""
        frames = self.truth["speaking"][: self.blocks * block_frames]
        return np.flatnonzero(frames.reshape(self.blocks, block_frames).any(axis=1))

    @property
    def blocks(self) -> int:
        """How many whole blocks there are."""
        return len(self.avatar_features)


def tracks(cache: str | Path, split: str, *, spoken: bool = False) -> list[Track]:
    """All tracks of a split, in a stable order; or those of people who are only heard."""
    place = Path(cache) / split / SPOKEN if spoken else Path(cache) / split
    folders = sorted(place.glob("conversation_*"))
    return [
        Track(folder / person, folder / partner)
        for folder in folders
        for person, partner in (PEOPLE, PEOPLE[::-1])
        if (folder / "done").exists() and (folder / person).exists()
    ]


def pictures(cache: str | Path, split: str) -> dict[str, list[np.ndarray]]:
    """All pictures of a split by where they come from, (N, H, W, 3) uint8 and memory-mapped.

    `tracks` of conversations, `stills` of rendered people, and faces from `recorded` films.
    """
    found = {"tracks": [track.frames for track in tracks(cache, split)]}
    for kind in PICTURES:
        paths = sorted((Path(cache) / split / kind).glob("person_*.npy"))
        found[kind] = [np.load(path, mmap_mode="r") for path in paths]
    return found


def images_of(frames: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in [0, 1], as networks take them."""
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float().div(255)
    return images.contiguous(memory_format=torch.channels_last)


def video_frames(path: Path, size: int) -> np.ndarray:
    """All frames of a square video, scaled: (T, size, size, 3) uint8."""
    return np.stack([_scale(frame, size) for frame in read_frames(path)])


def audio_windows(
    audio: np.ndarray, config: EchoConfig, blocks: int, *, lookahead_frames: int
) -> Iterator[np.ndarray]:
    """For every block the waveform window that ends `lookahead_frames` after the block's start + F.

    With `lookahead_frames = -F` it ends where the block begins, as the user's does.
    """
    samples = config.audio.window_samples
    for block in range(blocks):
        end = ((block + 1) * config.block_frames + lookahead_frames) * SAMPLES_PER_FRAME
        window = np.zeros(samples, np.float32)
        piece = audio[max(0, end - samples) : max(0, end)]
        first = samples - (end - max(0, end - samples))
        window[first : first + len(piece)] = piece
        yield window


@torch.inference_mode()
def block_features(encoder: AudioEncoder, windows: Iterator[np.ndarray]) -> np.ndarray:
    """(blocks, A, D) float16 features of waveform windows."""
    batch = torch.from_numpy(np.stack(list(windows)))
    features = torch.cat([encoder.features(part) for part in batch.split(32)])
    return features.numpy().astype(np.float16)


def cache_conversation(
    source: Path, target: Path, config: EchoConfig, encoder: AudioEncoder
) -> None:
    """Decode one conversation into the cache; nothing is there until all of it is."""
    truth = np.load(source / "truth.npz", allow_pickle=False)
    for person in PEOPLE:
        folder = target / person
        folder.mkdir(parents=True, exist_ok=True)
        if source.parent.name != SPOKEN:
            frames = video_frames(source / f"{person}.mp4", config.image_size)
            np.save(folder / "frames.npy", frames)
        audio, _ = soundfile.read(source / f"{person}.wav", dtype="float32")
        blocks = len(audio) // SAMPLES_PER_FRAME // config.block_frames
        own = audio_windows(audio, config, blocks, lookahead_frames=config.lookahead_frames)
        heard = audio_windows(audio, config, blocks, lookahead_frames=-config.block_frames)
        np.save(folder / "avatar_features.npy", block_features(encoder, own))
        np.save(folder / "user_features.npy", block_features(encoder, heard))
        np.savez(folder / "truth.npz", **truth_of(truth, person))
    (target / "done").touch()


def truth_of(truth: Mapping[str, np.ndarray], person: str) -> dict[str, np.ndarray]:
    """What is known of one person, a frame each, and the transcript of both.

    `aperture` (T,), `speaking` (T,) and `pose` (T, 3); `emotion` (T,) str, what is due to them;
    `transcript` () str, see `transcript`; of a rendered corpus also `eyes` (T, 3), see `eyes`,
    `phoneme` (T,) str, empty in silence, `cause` (T,) str of their reaction, empty without one, and
    `sobered` and `lifted` (T,) in [0, 1], how much bad and good news are on their mind.
    """
    known = {name: truth[f"{person}_{name}"] for name in ("aperture", "speaking", "pose")}
    if "curve_names" in truth:
        known["eyes"] = eyes(truth[f"{person}_curves"], truth["curve_names"])
    turns = json.loads(str(truth["transcript"])) if "transcript" in truth else []
    frames = len(known["aperture"])
    roles = {other: "avatar" if other == person else "user" for other in PEOPLE}
    known["transcript"] = np.array(json.dumps(transcript(turns, frames, roles)))
    if f"{person}_emotion" in truth:
        known |= {name: truth[f"{person}_{name}"] for name in WEIGHED}
        return known | {name: named(truth, person, name) for name in NAMED}
    return known | {"emotion": due_emotions(turns, person, frames)}


def eyes(curves: np.ndarray, names: np.ndarray) -> np.ndarray:
    """(T, 3) float32 of ARKit's curves (T, 52): lids, and gaze to the left and up."""
    column: dict[str, np.ndarray] = {str(name): curves[:, n] for n, name in enumerate(names)}
    lids = (column["eyeBlinkLeft"] + column["eyeBlinkRight"]) / 2
    left, right = (
        (column[f"eyeLook{a}Left"] + column[f"eyeLook{b}Right"]) / 2
        for a, b in (("Out", "In"), ("In", "Out"))
    )
    up, down = (
        (column[f"eyeLook{way}Left"] + column[f"eyeLook{way}Right"]) / 2 for way in ("Up", "Down")
    )
    return np.stack([lids, left - right, up - down], axis=1).astype(np.float32)


def transcript(
    turns: Sequence[Mapping[str, Any]], frames: int, roles: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The turns that begin within `frames` as clients send them, with `roles` for letters."""
    return [
        {
            "role": roles[turn["speaker"]],
            "text": turn["text"],
            "start_s": round(turn["start_frame"] / FRAME_RATE_HZ, 2),
        }
        for turn in turns
        if turn["start_frame"] < frames
    ]


def named(truth: Mapping[str, np.ndarray], person: str, name: str) -> np.ndarray:
    """(T,) str of an array of indices; empty where the index is -1 or stands for "none"."""
    names = np.where(truth[f"{name}_names"] == "none", "", truth[f"{name}_names"])
    return np.append(names, "")[truth[f"{person}_{name}"]]


def due_emotions(turns: Sequence[Mapping], person: str, frames: int) -> np.ndarray:
    """(T,) str: the emotion that is due to a person, as they speak or listen.

    A turn's emotion lasts until the next turn; who listens to bad news is concerned. A turn whose
    emotion nobody knows is neutral.
    """
    due = np.full(frames, "neutral", dtype="<U16")
    for turn in turns:
        emotion = turn.get("emotion", "neutral")
        listens_to_bad_news = turn["speaker"] != person and emotion == "sad"
        due[turn["start_frame"] :] = "concerned" if listens_to_bad_news else emotion
    return due


def _scale(frame: np.ndarray, size: int) -> np.ndarray:
    if frame.shape[0] == size:
        return frame
    return cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)


def cache_stills(source: Path, target: Path, size: int) -> None:
    """Decode one person's pictures into the cache."""
    with whole(target) as partial:
        np.save(partial, video_frames(source, size))


def main(corpus: Path, cache: Path, size: str = "nano", threads: int = 2) -> None:
    """Decode what is not yet in the cache."""
    torch.set_num_threads(threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    config = SIZES[size]()
    people = [path for kind in PICTURES for path in corpus.glob(f"*/{kind}/person_*.mp4")]
    for source in tqdm(sorted(people), unit="person"):
        target = (cache / source.relative_to(corpus)).with_suffix(".npy")
        if not target.exists():
            cache_stills(source, target, config.image_size)
    sources = sorted(corpus.glob("*/conversation_*/truth.npz"))
    todo = [path.parent for path in sources if (path.parent / "a.mp4").exists()]
    if len(todo) < len(sources):
        typer.echo(f"{len(sources) - len(todo)} conversations without video are left out")
    todo += [path.parent for path in sorted(corpus.glob(f"*/{SPOKEN}/conversation_*/truth.npz"))]
    encoder = load_encoder(config.audio)
    for source in tqdm(todo, unit="conversation"):
        target = cache / source.relative_to(corpus)
        if not (target / "done").exists():
            cache_conversation(source, target, config, encoder)


if __name__ == "__main__":
    typer.run(main)
