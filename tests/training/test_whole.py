"""What a run leaves when it is killed while it writes."""

from pathlib import Path

import pytest

from training.whole import whole


def test_a_file_has_its_name_only_when_all_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "figures.json"
    with whole(path) as partial:
        partial.write_text("all")
        assert not path.exists()
        assert partial.suffix == path.suffix  # writers go by it
    assert path.read_text() == "all"
    assert list(path.parent.iterdir()) == [path]


def test_what_was_there_stays_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text("before")
    with pytest.raises(RuntimeError), whole(path) as partial:
        partial.write_text("ha")
        raise RuntimeError
    assert path.read_text() == "before"


def test_a_folder_begins_without_what_a_killed_run_left_in_it(tmp_path: Path) -> None:
    path = tmp_path / "conversation"
    with pytest.raises(RuntimeError), whole(path) as partial:
        partial.mkdir()
        (partial / "junk").touch()
        raise RuntimeError
    with whole(path) as partial:
        partial.mkdir()
        (partial / "truth").touch()
    assert [found.name for found in path.iterdir()] == ["truth"]
