"""This is where a trained avatar is judged, on people, voices and sentences never trained on.

    python -m training.evaluate --cache DIR --vae CKPT --echo CKPT --out DIR

Each held-out person is given only the first frame of their track as a portrait and talks through
their own conversation. The decoded pictures are then measured by networks that took no part in
training: MediaPipe's face detector and mesh for faces and mouths, dlib's embedding for identity.

- `face_found`: share of frames in which a face is found.
- `own_portrait_nearest`: share of frames nearer to their own portrait than to any other person's.
- `mouth_r`: Pearson's r of the measured mouth aperture with the corpus's true one, mean over
  tracks; `mouth_r_ceiling` is the same for the true video, which no avatar can beat by much.
- `mouth_at_rest`: share of silent frames whose aperture is one that the true video's silent frames
  have (up to their 99th percentile, plus 0.02 of the face's height).
- Swap tests, mean absolute difference a pixel: with another's voice, the change of the lower face
  over that of the upper (`voice_swap_lower_over_upper`); with another user, the change of the upper
  face over that of the mouth, while the avatar speaks (`user_swap_upper_over_mouth_speaking`) and
  while it listens (`…_listening`). Speaking lips are the voice's alone, so above 1 is the right way
  round; a listener's smile is meant to reach the mouth.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from tqdm import tqdm
from visavis_client.face import FaceFinder

from training.data import Track, tracks
from training.identity import distances
from training.latents import cache_latents
from training.probe import correlation
from training.rollout import RolloutConfig, rollout
from visavis.nn.echo import Echo, load_echo, load_vae
from visavis.nn.vae import VAE

UPPER_LIP, LOWER_LIP, FOREHEAD, CHIN = 13, 14, 10, 152  # points of MediaPipe's mesh
QUIET_FRAMES = 5  # around speech, in which the mouth may still be moving


@dataclass(frozen=True)
class Clip:
    """What one person's generated video is, beside the truth. Pictures are (T, H, W, 3) uint8."""

    track: Track
    own: np.ndarray
    other_voice: np.ndarray
    other_user: np.ndarray

    @property
    def true(self) -> np.ndarray:
        """The corpus's video, as long as the generated one."""
        return self.track.frames[: len(self.own)]


def decode(vae: VAE, latents: torch.Tensor) -> np.ndarray:
    """(T, C, h, w) latents -> (T, H, W, 3) uint8 pictures."""
    with torch.inference_mode():
        images = torch.cat([vae.decode(part).clamp(0, 1) for part in latents.split(25)])
    return (images.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)


def generate(echo: Echo, vae: VAE, people: Sequence[Track], settings: RolloutConfig) -> list[Clip]:
    """Everybody's own video, and those of the two swap tests."""
    others = [*people[2:], *people[:2]]  # of another conversation
    runs = [
        rollout(echo, people, settings),
        rollout(echo, people, settings, voices=others),
        rollout(echo, people, settings, users=[track.user for track in others]),
    ]
    return [
        Clip(track, *(decode(vae, latents[n]) for latents in runs))
        for n, track in enumerate(tqdm(people, desc="decoding", unit="track"))
    ]


def apertures(finder: FaceFinder, video: np.ndarray) -> np.ndarray:
    """(T,) inner-lip opening over face height; NaN where no face is found."""
    values = np.full(len(video), np.nan)
    for n, frame in enumerate(video):
        faces = finder.find(np.ascontiguousarray(frame))
        if faces:
            points = faces[0].landmarks
            height = np.linalg.norm(points[CHIN] - points[FOREHEAD])
            values[n] = np.linalg.norm(points[LOWER_LIP] - points[UPPER_LIP]) / height
    return values


def silent(track: Track, frames: int) -> np.ndarray:
    """(T,) bool: frames with no speech for a while before and after."""
    speaking = track.truth["speaking"][:frames].astype(np.uint8)[None]
    near = cv2.dilate(speaking, np.ones((1, 2 * QUIET_FRAMES + 1), np.uint8))
    return near[0] == 0


def swap_ratio(
    changed: np.ndarray, own: np.ndarray, inside: np.ndarray, outside: np.ndarray
) -> float:
    """Mean absolute change of (T, H, W, 3) within the map `inside` (H, W) over that `outside`."""
    change = np.abs(changed.astype(np.float32) - own).mean((0, 3))
    return float(change[inside].mean()) / max(float(change[outside].mean()), 1e-6)


def regions(size: int) -> dict[str, np.ndarray]:
    """(H, W) bool maps of an aligned crop: the lower face, the upper face, the mouth."""
    y, x = np.mgrid[0:size, 0:size] / size
    face = ((x - 0.5) / 0.24) ** 2 + ((y - 0.53) / 0.32) ** 2 < 1
    mouth = ((x - 0.5) / 0.12) ** 2 + ((y - 0.68) / 0.07) ** 2 < 1
    return {"lower": face & (y > 0.58), "upper": face & (y < 0.52), "mouth": mouth}


def measure(clips: Sequence[Clip]) -> dict[str, float]:
    """All figures, means over clips."""
    finder = FaceFinder()
    place = regions(clips[0].own.shape[1])
    found, r, ceiling, rest, voice_swap, speaking_swap, listening_swap = ([] for _ in range(7))
    for clip in tqdm(clips, desc="measuring", unit="track"):
        frames = len(clip.own)
        truth = clip.track.truth["aperture"][:frames]
        ours, theirs = apertures(finder, clip.own), apertures(finder, clip.true)
        found.append(np.isfinite(ours).mean())
        seen, true_seen = np.isfinite(ours), np.isfinite(theirs)
        r.append(correlation(ours[seen], truth[seen]))
        ceiling.append(correlation(theirs[true_seen], truth[true_seen]))
        quiet = silent(clip.track, frames)
        if quiet.any():
            limit = np.nanpercentile(theirs[quiet], 99) + 0.02
            rest.append(np.nanmean(ours[quiet] <= limit))
        voice_swap.append(swap_ratio(clip.other_voice, clip.own, place["lower"], place["upper"]))
        speaking = clip.track.truth["speaking"][:frames] > 0
        for when, ratios in ((speaking, speaking_swap), (~speaking, listening_swap)):
            pair = (clip.other_user[when], clip.own[when])
            ratios.append(swap_ratio(*pair, place["upper"], place["mouth"]))
    return {
        "tracks": len(clips),
        "seconds_a_track": len(clips[0].own) / 25,
        "face_found": float(np.mean(found)),
        "own_portrait_nearest": own_portrait_nearest(clips),
        "mouth_r": float(np.mean(r)),
        "mouth_r_worst": float(np.min(r)),
        "mouth_r_ceiling": float(np.mean(ceiling)),
        "mouth_at_rest": float(np.mean(rest)),
        "voice_swap_lower_over_upper": float(np.mean(voice_swap)),
        "user_swap_upper_over_mouth_speaking": float(np.mean(speaking_swap)),
        "user_swap_upper_over_mouth_listening": float(np.mean(listening_swap)),
    }


def own_portrait_nearest(clips: Sequence[Clip], every: int = 25) -> float:
    """Share of frames (one in `every`) whose nearest portrait is their own."""
    portraits = [np.array(clip.true[0]) for clip in clips]
    hits = [
        row.argmin() == n
        for n, clip in enumerate(clips)
        for row in distances(list(clip.own[::every]), portraits)
    ]
    return float(np.mean(hits))


def contact_sheet(clips: Sequence[Clip], columns: int = 12) -> np.ndarray:
    """Rows of true frames above generated ones, at evenly spaced moments: (H, W, 3) uint8."""
    rows = []
    for clip in clips:
        at = np.linspace(0, len(clip.own) - 1, columns).astype(int)
        rows += [np.hstack([video[n] for n in at]) for video in (clip.true, clip.own)]
    return np.vstack(rows)


def main(
    cache: Annotated[Path, typer.Option()],
    vae: Annotated[Path, typer.Option()],
    echo: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    seconds: float = 20.0,
    num_steps: int = 2,
    audio_guidance: float = 1.0,
    user_guidance: float = 1.0,
    threads: int = 2,
) -> None:
    """Measure a checkpoint on the held-out split; writes metrics.json and a contact sheet."""
    torch.set_num_threads(threads)
    cache_latents(cache, vae)
    people, network = tracks(cache, "test"), load_echo(echo)
    blocks = min(int(seconds * 25) // network.config.block_frames, *(t.blocks for t in people))
    settings = RolloutConfig(
        blocks=blocks,
        num_steps=num_steps,
        audio_guidance_scale=audio_guidance,
        user_guidance_scale=user_guidance,
    )
    decoder = load_vae(vae).to(memory_format=torch.channels_last)  # pyright: ignore
    clips = generate(network, decoder, people, settings)
    out.mkdir(parents=True, exist_ok=True)
    metrics = measure(clips)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    cv2.imwrite(str(out / "contact_sheet.jpg"), contact_sheet(clips[:4])[..., ::-1])
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    typer.run(main)
