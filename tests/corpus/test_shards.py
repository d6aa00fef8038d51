"""Shards: WebDataset's layout, streaming, packing again."""

import io
import tarfile
from pathlib import Path

import fsspec
import pytest

pytest.importorskip("typer", reason="the corpus extra is not installed")
pytest.importorskip("tqdm", reason="the corpus extra is not installed")

from training.corpus.shards import FILES, pack, samples, shard_urls, unpack

URL = "memory://shards"


def conversations(split: Path, numbers: range) -> None:
    """Folders whose files hold their own names."""
    for number in numbers:
        folder = split / f"conversation_{number:04d}"
        folder.mkdir(parents=True)
        for name in FILES:
            (folder / name).write_bytes(f"{folder.name}/{name}".encode() * 1000)


@pytest.fixture
def split(tmp_path: Path) -> Path:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    conversations(tmp_path / "train", range(5))
    return tmp_path / "train"


def test_names_are_key_dot_file(split: Path) -> None:
    assert pack(split, URL, "train", per_shard=2) == [f"train-0000{i}.tar" for i in range(3)]
    content = fsspec.filesystem("memory").cat_file("/shards/train-00001.tar")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        names = archive.getnames()
    assert names == [f"conversation_000{n}.{name}" for n in (2, 3) for name in FILES]


def test_streaming_and_unpacking_give_the_same_bytes(split: Path, tmp_path: Path) -> None:
    pack(split, URL, "train", per_shard=2)
    streamed = dict(samples(shard_urls(URL, "train")))
    assert list(streamed) == [f"conversation_000{n}" for n in range(5)]
    unpack(shard_urls(URL, "train"), tmp_path / "again")
    for folder in split.iterdir():
        for name in FILES:
            content = (folder / name).read_bytes()
            assert streamed[folder.name][name] == content
            assert (tmp_path / "again" / folder.name / name).read_bytes() == content


def test_packing_again_writes_only_what_has_changed(split: Path) -> None:
    pack(split, URL, "train", per_shard=2)
    assert pack(split, URL, "train", per_shard=2) == []
    conversations(split, range(5, 7))
    assert pack(split, URL, "train", per_shard=2) == ["train-00002.tar", "train-00003.tar"]
    assert len(dict(samples(shard_urls(URL, "train")))) == 7


def test_an_incomplete_sample_is_named(split: Path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("conversation_0000.a.mp4"), io.BytesIO())
    memory = fsspec.filesystem("memory")
    memory.makedirs("/shards", exist_ok=True)
    memory.pipe_file("/shards/train-00000.tar", content.getvalue())
    with pytest.raises(ValueError, match=r"sample conversation_0000 .* pack again"):
        list(samples(["memory://shards/train-00000.tar"]))
