"""This is where training draws from more conversations than a machine holds: they are streamed.

    python -m training.streaming CACHE/train URL --vae VAE_CHECKPOINT

packs what the denoiser learns from, all of a cache but the pictures, into shards
(training/corpus/shards.py). Other weights, other latents: names begin with the VAE's digest.

    train-1a2b3c4d.json
    train-1a2b3c4d-00002.tar
        conversation_0016.a.latents.npy  conversation_0016.a.avatar_features.npy ...

A trainer's `--stream URL` then takes the place of the cache's train split; held-out conversations
stay in the cache. URLs are fsspec's; `s3://` needs the package `s3fs`, `gs://` `gcsfs`.

A trainer has `held` conversations in memory. Every `exchange_every` steps the one that was there
longest goes and another comes, in a seeded order of shards that repeats for ever. So what is held
follows from the step alone, and a resumed run draws what an uninterrupted one does. Beginning, at
any step, costs reading `held` conversations, and before them the part of one shard that is over.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any, overload

import numpy as np
import typer
from tqdm import tqdm

from training.corpus.shards import (
    CONVERSATIONS_PER_SHARD,
    Sample,
    member_name,
    pack,
    read_list,
    samples,
)
from training.data import PEOPLE, Track, tracks
from training.latents import DIGEST_FILE, cache_latents, encoder_digest
from training.loop import Loop

CONTENTS = tuple(
    f"{person}/{file}"
    for person in PEOPLE
    for file in ("latents.npy", "avatar_features.npy", "user_features.npy", "truth.npz")
)


@dataclass(frozen=True)
class StreamConfig:
    """How many conversations are in memory, and for how long."""

    held: int = 64  # 2 GB in each process: one of 40 s takes 30 MB
    exchange_every: int = 10  # steps; 40 s of two people are 400 blocks, a batch draws 20 or more


@dataclass(frozen=True)
class Shard:
    """A tar file, and the names of the conversations that should be in it, in order."""

    url: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class StreamedTrack(Track):
    """One person of a conversation that is in memory; its folders are names only.

    `contents` are both people's: arrays, or dicts of them, by their names in a shard.
    """

    contents: Mapping[str, Any] = field(repr=False, compare=False)

    @cached_property
    def user(self) -> Track:
        """The partner's track."""
        return StreamedTrack(self.partner, self.folder, self.contents)

    @cached_property
    def frames(self) -> np.ndarray:
        """Raises ValueError: there are none."""
        raise ValueError(
            f"{self.name}: got a streamed track, expected one of the local cache, for its frames; "
            "only what the denoiser learns from is streamed"
        )

    @cached_property
    def latents(self) -> np.ndarray:
        """(T, C, h, w) float16."""
        return self._content("latents.npy")

    @cached_property
    def avatar_features(self) -> np.ndarray:
        """(blocks, A, D) float16 of this person's voice, with look-ahead."""
        return self._content("avatar_features.npy")

    @cached_property
    def user_features(self) -> np.ndarray:
        """(blocks, A, D) float16 of this person's voice as a user's, ending where blocks begin."""
        return self._content("user_features.npy")

    @cached_property
    def truth(self) -> dict[str, np.ndarray]:
        """The corpus's truth for this person."""
        return self._content("truth.npz")

    def _content(self, file: str) -> Any:
        return self.contents[member_name(f"{self.folder.name}/{file}")]


class StreamedTracks(Sequence[Track]):
    """The tracks, two of each conversation, that are in memory at the present step.

    Where all conversations fit, all stay. Otherwise the one that comes next is read in the
    background meanwhile, so that one more than `held` may be in memory. A slice is a list, of the
    present step. Indexing raises ValueError when a shard that was to be read is not whole.

    Args:
        shards: in the order in which they are read, again and again.
        config: how many conversations are held, and for how long.
        step: tells the present step, which never goes back.
    """

    def __init__(self, shards: Sequence[Shard], config: StreamConfig, step: Callable[[], int]):
        conversations = sum(len(shard.names) for shard in shards)
        self.config, self.step = config, step
        self.all_fit = conversations <= config.held
        self._exchanges = self._due()
        self._stream = stream(shards, self._exchanges)
        first = tqdm(range(min(config.held, conversations)), "reading", unit="conversation")
        self._tracks = [track for _ in first for track in next(self._stream)]
        self._reader = ThreadPoolExecutor(1)
        self._next = None if self.all_fit else self._read()

    def __len__(self) -> int:
        return len(self._tracks)

    @overload
    def __getitem__(self, index: int) -> Track: ...
    @overload
    def __getitem__(self, index: slice) -> list[Track]: ...
    def __getitem__(self, index: int | slice) -> Track | list[Track]:
        while self._next and self._exchanges < self._due():
            self._tracks = [*self._tracks[len(PEOPLE) :], *self._next.result()]
            self._next = self._read()
            self._exchanges += 1
        return self._tracks[index]

    def _due(self) -> int:
        """How many exchanges there should have been by now."""
        return 0 if self.all_fit else self.step() // self.config.exchange_every

    def _read(self) -> Future[list[Track]]:
        return self._reader.submit(next, self._stream)


def training_pool(
    cache: Path,
    vae: Path,
    loop: Loop,
    stream_url: str = "",
    config: StreamConfig = StreamConfig(),
) -> Sequence[Track]:
    """What a run trains on: the cache's train split or, given a URL, what is streamed from there.

    Raises ValueError when no shards of this VAE's latents are at the URL.
    """
    if not stream_url:
        return tracks(cache, "train")
    shards = shards_at(stream_url, prefix("train", encoder_digest(vae)))
    process, processes = loop.accelerator.process_index, loop.accelerator.num_processes
    own = own_shards(shards, process, processes, loop.config.seed)
    return StreamedTracks(own, config, lambda: loop.step)


def prefix(split: str, digest: str) -> str:
    """What names of shards begin with, such as `train-1a2b3c4d`."""
    return f"{split}-{digest[:8]}"


def shards_at(url: str, prefix: str) -> list[Shard]:
    """All finished shards below a URL, in order; ValueError when there are none."""
    listed = read_list(url, prefix)
    if not listed:
        raise ValueError(
            f"{url}: got no {prefix}.json, expected the shards of a cache whose latents are this "
            "VAE's; pack it: python -m training.streaming CACHE/train URL --vae VAE_CHECKPOINT"
        )
    root = url.rstrip("/")
    return [Shard(f"{root}/{name}", tuple(keys)) for name, keys in sorted(listed.items())]


def own_shards(shards: Sequence[Shard], process: int, processes: int, seed: int) -> list[Shard]:
    """The shards that one of several processes reads, in its order.

    No two processes read the same; if there are too few, those who would get none read all.
    """
    order = random.Random(seed).sample(shards, len(shards))
    return order[process::processes] or order


def stream(shards: Sequence[Shard], first: int) -> Iterator[list[Track]]:
    """Both tracks of each conversation from the `first`-th on, shard after shard, for ever.

    Only the shards from that one on are opened.
    """
    left_out = first % sum(len(shard.names) for shard in shards)
    for shard in cycle(shards):
        if left_out < len(shard.names):
            for name, sample in islice(whole(shard), left_out, None):
                yield tracks_of(name, sample)
        left_out = max(0, left_out - len(shard.names))


def whole(shard: Shard) -> Iterator[tuple[str, Sample]]:
    """What `samples` gives of a shard; ValueError unless it is all that should be there."""
    found = []
    for name, sample in samples([shard.url], CONTENTS):
        found.append(name)
        yield name, sample
    if found != list(shard.names):
        raise ValueError(
            f"shard {shard.url}: got {found}, expected {list(shard.names)}, as its list says; "
            "delete it and pack again"
        )


def tracks_of(name: str, sample: Sample) -> list[Track]:
    """The tracks of both people of a conversation."""
    contents = {member: _decoded(content) for member, content in sample.items()}
    return [
        StreamedTrack(Path(name, person), Path(name, partner), contents)
        for person, partner in (PEOPLE, PEOPLE[::-1])
    ]


def _decoded(content: bytes) -> Any:
    """The array of an .npy, or a dict of those of an .npz."""
    loaded = np.load(io.BytesIO(content), allow_pickle=False)
    return loaded if isinstance(loaded, np.ndarray) else dict(loaded)


def latents_digest(split: Path) -> str:
    """The digest of the VAE that a split's latents are of.

    Raises ValueError unless all conversations have latents, all of the same VAE.
    """
    folders = sorted(split.glob("conversation_*"))
    paths = [folder / person / DIGEST_FILE for folder in folders for person in PEOPLE]
    digests = {path.read_text() if path.exists() else "none" for path in paths}
    if len(digests) != 1 or "none" in digests:
        raise ValueError(
            f"{split}: got {len(folders)} conversations, their latents of the VAEs "
            f"{sorted(digest[:8] for digest in digests)}, expected some, all of one VAE; finish "
            "the cache with `python -m training.data`, then name the VAE with --vae"
        )
    return digests.pop()


def main(
    split: Annotated[Path, typer.Argument(help="The cache's split, such as cache/train.")],
    url: Annotated[str, typer.Argument(help="Where shards lie: a folder or an fsspec URL.")],
    vae: Annotated[Path | None, typer.Option(help="Encodes what has no latents of it yet.")] = None,
    per_shard: Annotated[int, typer.Option(help="Conversations.")] = CONVERSATIONS_PER_SHARD,
) -> None:
    """Pack what is not yet in shards."""
    if vae is not None:
        cache_latents(split.parent, vae)
    name = prefix(split.name, latents_digest(split))
    typer.echo(f"{len(pack(split, url, name, per_shard, CONTENTS))} shards written")


if __name__ == "__main__":
    typer.run(main)
