"""This is where conversations become shards: `python -m training.corpus.shards CORPUS/train URL`.

Shards are plain tar files in WebDataset's layout (github.com/webdataset/webdataset): the files of a
sample follow each other, and a sample's key is its file names up to the first dot:

    train-00002.tar
        conversation_0008.a.mp4  conversation_0008.a.wav  conversation_0008.b.mp4 ...
        conversation_0009.a.mp4 ...

and that library reads them here. URLs are fsspec's: a folder, `s3://...`, `gs://...`,
`memory://...`. Reading streams: a sample is there as soon as its bytes are. `train.json` beside the
shards says what is in each; packing again writes those only whose conversations have changed.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import fsspec
import typer
from tqdm import tqdm

from training.whole import whole

FILES = ("a.mp4", "a.wav", "b.mp4", "b.wav", "truth.npz", "preview.jpg")
CONVERSATIONS_PER_SHARD = 8
Sample = dict[str, bytes]


def shard_name(prefix: str, index: int) -> str:
    """Such as `train-00002.tar`."""
    return f"{prefix}-{index:05d}.tar"


def member_name(file: str) -> str:
    """What a file of a sample's folder is called in a shard: `a/latents.npy` is `a.latents.npy`."""
    return file.replace("/", ".")


def _write(stream: io.IOBase, folders: Iterable[Path], files: Sequence[str]) -> None:
    """A tar of conversation folders. Times and owners are left out: same content, same bytes."""
    with tarfile.open(fileobj=stream, mode="w|") as archive:
        for folder in folders:
            for file in files:
                content = (folder / file).read_bytes()
                member = tarfile.TarInfo(f"{folder.name}.{member_name(file)}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def pack(
    split: Path,
    url: str,
    prefix: str,
    per_shard: int = CONVERSATIONS_PER_SHARD,
    contents: Sequence[str] = FILES,
) -> list[str]:
    """Shards of all conversations of a split; returns the names of those written now.

    Conversation n goes into shard n // per_shard, with the `contents` of its folder. A shard is
    listed when all of it is there.
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
        if listed.get(name) == keys and files.exists(f"{root}/{name}"):
            continue
        with files.open(f"{root}/{name}", "wb") as stream:
            _write(stream, folders, contents)
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


def samples(urls: Iterable[str], contents: Sequence[str] = FILES) -> Iterator[tuple[str, Sample]]:
    """Stream (key, {member name: bytes}) of all conversations in shards, nothing touching the disk.

    Raises ValueError for a shard that breaks off, or a sample without all of `contents`.
    """
    # Not above: it brings torch along, which rendering does without.
    from webdataset.tariterators import group_by_keys, tar_file_expander

    names = [member_name(file) for file in contents]
    for url in urls:
        try:
            for sample in group_by_keys(tar_file_expander(_opened(url))):
                yield sample["__key__"], _complete(sample, names)
        except tarfile.TarError as error:
            raise ValueError(
                f"shard {url}: got an archive that is damaged or breaks off, expected a whole one; "
                "delete it and pack again"
            ) from error


def _opened(url: str) -> Iterator[dict[str, Any]]:
    """A shard as `webdataset` takes it; opened by fsspec, which knows more kinds of URL."""
    with fsspec.open(url, "rb") as stream:
        yield {"url": url, "stream": stream}


def _complete(sample: dict[str, Any], names: Sequence[str]) -> Sample:
    found = {name: content for name, content in sample.items() if not name.startswith("__")}
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(
            f"shard {sample['__url__']}: sample {sample['__key__']} has {sorted(found)}, "
            f"expected {missing} too; delete it and pack again"
        )
    return found


def unpack(urls: Iterable[str], split: Path) -> None:
    """Conversation folders again, as training.data reads them; those that are there are kept."""
    for key, sample in tqdm(samples(urls), unit="conversation"):
        folder = split / key
        if folder.exists():
            continue
        with whole(folder) as partial:
            partial.mkdir()
            for name, content in sample.items():
                (partial / name).write_bytes(content)


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
