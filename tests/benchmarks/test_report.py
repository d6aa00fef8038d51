"""The page of results follows from their files."""

import json

from benchmarks.capacity import plot
from benchmarks.report import RESULTS, page
from tests.benchmarks.test_capacity import level
from visavis import record


def test_every_result_has_its_section_and_plots(tmp_path):
    levels = [level(1, 1), level(2, 1)]
    record.write(
        tmp_path / "capacity_tiny.json",
        "capacity",
        settings={"size": "tiny"},
        summary={"capacity": 1, "levels": [one.summary() for one in levels]},
        raw=[],
    )
    plot(levels, "tiny", tmp_path / "capacity_tiny.png")
    (tmp_path / "another.json").write_text("[]")
    found = page(tmp_path)
    assert "## capacity_tiny" in found and "1 live sessions" in found and "another" not in found
    assert "| 2 | 100 |" in found and "capacity_tiny.png" in found
    assert record.environment()["processor"] in found


def test_the_kept_results_are_records():
    kept = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
    assert {"latency_nano", "fidelity_nano", "drift_nano"} <= set(kept)
    for name, result in kept.items():
        assert set(result) == {"benchmark", "environment", "settings", "summary", "raw"}, name
