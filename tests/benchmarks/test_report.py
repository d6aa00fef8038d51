"""The page of results follows from their files."""

import json

from benchmarks.capacity import plot
from benchmarks.report import RESULTS, main, page
from tests.benchmarks.test_capacity import level
from visavis import record


def test_every_result_has_its_section_and_plots(tmp_path):
    folder = tmp_path / "machine"
    folder.mkdir()
    levels = [level(1, 1), level(2, 1)]
    record.write(
        folder / "capacity_tiny.json",
        "capacity",
        settings={"size": "tiny"},
        summary={"capacity": 1, "levels": [one.summary() for one in levels]},
        raw=[],
    )
    plot(levels, "tiny", folder / "capacity_tiny.png")
    (folder / "another.json").write_text("[]")
    found = page(folder)
    assert "## capacity_tiny" in found and "1 live sessions" in found and "another" not in found
    assert "| 2 | 100 |" in found and "capacity_tiny.png" in found
    assert record.environment()["processor"] in found
    main(tmp_path)
    assert "[machine](machine/README.md)" in (tmp_path / "README.md").read_text()
    assert (folder / "README.md").read_text() == found


def test_the_kept_results_are_records():
    kept = {path: json.loads(path.read_text()) for path in RESULTS.rglob("*.json")}
    assert {"latency_nano", "fidelity_nano", "drift_nano"} <= {path.stem for path in kept}
    for name, result in kept.items():
        assert set(result) == {"benchmark", "environment", "settings", "summary", "raw"}, name
