"""This is where conversations become shards: `python -m training.corpus.shards CORPUS/train URL`.

Shards are plain tar files in WebDataset's layout (github.com/webdataset/webdataset): the files of a
sample follow each other, and a sample's key is its file names up to the first dot:

    train-00002.tar
        conversation_0008.a.mp4  conversation_0008.a.wav  conversation_0008.b.mp4 ...
        conversation_0009.a.mp4 ...

so `webdataset` and the like read them too. URLs are fsspec's: a folder, `s3://...`, `gs://...`,
`memory://...`. Reading streams: a sample is there as soon as its bytes are. `train.json` beside the
shards says what is in each; packing again writes those only whose conversations have changed.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, cast

import fsspec
import typer
from tqdm import tqdm

FILES = ("a.mp4", "a.wav", "b.mp4", "b.wav", "truth.npz", "preview.jpg")
CONVERSATIONS_PER_SHARD = 8
Sample = dict[str, bytes]


def shard_name(prefix: str, index: int) -> str:
    """Such as `train-00002.tar`."""
    return f"{prefix}-{index:05d}.tar"


def _write(stream: io.IOBase, folders: Iterable[Path]) -> None:
    """A tar of conversation folders. Times and owners are left out: same content, same bytes."""
    with tarfile.open(fileobj=stream, mode="w|") as archive:
        for folder in folders:
            for name in FILES:
                content = (folder / name).read_bytes()
                member = tarfile.TarInfo(f"{folder.name}.{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def pack(split: Path, url: str, prefix: str, per_shard: int = CONVERSATIONS_PER_SHARD) -> list[str]:
    """Shards of all conversations of a split; returns the names of those written now.

    Conversation n goes into shard n // per_shard. A shard is listed when all of it is there.
    """
    by_shard: dict[str, list[Path]] = {}
    for folder in sorted(split.glob("conversation_*")):
        number = int(folder.name.removeprefix("conversation_"))
        by_shard.setdefault(shard_name(prefix, number // per_shard), []).append(folder)
    files, root = fsspec.core.url_to_fs(url)
    files.makedirs(root, exist_ok=True)
    listed = read_list(url, prefix)
    written = []
    for name, folders in tqdm(by_shard.items(), unit="shard", desc=f"packing {prefix}"):
        keys = [folder.name for folder in folders]
        if listed.get(name) == keys:
            continue
        with files.open(f"{root}/{name}", "wb") as stream:
            _write(stream, folders)
        listed[name] = keys
        files.pipe_file(f"{root}/{prefix}.json", json.dumps(listed, indent=1).encode())
        written.append(name)
    return written


def read_list(url: str, prefix: str) -> dict[str, list[str]]:
    """The conversations of every finished shard; empty where nothing was packed yet."""
    files, root = fsspec.core.url_to_fs(url)
    path = f"{root}/{prefix}.json"
    return json.loads(files.cat_file(path)) if files.exists(path) else {}


def shard_urls(url: str, prefix: str) -> list[str]:
    """All finished shards below a URL, in order."""
    return [f"{url.rstrip('/')}/{name}" for name in sorted(read_list(url, prefix))]


@contextmanager
def _opened(url: str) -> Iterator[tarfile.TarFile]:
    """A shard, read from its beginning to its end."""
    with (
        fsspec.open(url, "rb") as stream,
        tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as archive,
    ):
        yield archive


def samples(urls: Iterable[str]) -> Iterator[tuple[str, Sample]]:
    """Stream (key, {file name: bytes}) of all conversations in shards, nothing touching the disk.

    Raises ValueError for a sample that is not complete.
    """
    for url in urls:
        with _opened(url) as archive:
            key, sample = "", Sample()
            for member in archive:
                stem, _, name = Path(member.name).name.partition(".")
                if stem != key and sample:
                    yield key, _complete(key, sample, url)
                    sample = Sample()
                key = stem
                content = archive.extractfile(member)
                sample[name] = content.read() if content else b""
            if sample:
                yield key, _complete(key, sample, url)


def _complete(key: str, sample: Sample, url: str) -> Sample:
    missing = [name for name in FILES if name not in sample]
    if missing:
        raise ValueError(
            f"shard {url}: sample {key} has {sorted(sample)}, expected {missing} too; pack again"
        )
    return sample


def unpack(urls: Iterable[str], split: Path) -> None:
    """Conversation folders again, as training.data reads them; those that are there are kept."""
    for key, sample in tqdm(samples(urls), unit="conversation"):
        folder = split / key
        if folder.exists():
            continue
        temporary = split / f".{key}.partial"
        temporary.mkdir(parents=True, exist_ok=True)
        for name, content in sample.items():
            (temporary / name).write_bytes(content)
        temporary.rename(folder)


def main(
    split: Annotated[Path, typer.Argument(help="Folder of conversations, such as corpus/train.")],
    url: Annotated[str, typer.Argument(help="Where shards lie: a folder or an fsspec URL.")],
    from_shards: Annotated[bool, typer.Option("--unpack", help="The other way round.")] = False,
    per_shard: Annotated[int, typer.Option(help="Conversations a shard.")] = 8,
) -> None:
    """Pack conversations into shards, or unpack them."""
    if from_shards:
        unpack(shard_urls(url, split.name), split)
    else:
        typer.echo(f"{len(pack(split, url, split.name, per_shard))} shards written")


if __name__ == "__main__":
    typer.run(main)
