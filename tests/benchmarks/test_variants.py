"""A variant's figures follow from its samples and frames."""

import numpy as np
import pytest

from benchmarks.report import page
from benchmarks.variants import (
    DEFAULT,
    OTHER_SEED,
    PARTED_DB,
    Fidelity,
    a_line_each,
    bare_rows,
    fidelity,
    missing,
    plot,
    rows,
    sheet,
)
from tests.benchmarks.test_latency import result
from visavis import record


@pytest.fixture
def measured():
    """The usual way, and one that takes half as long for every network."""
    fast = result()
    fast.bare_s = {name: [s / 2 for s in samples] for name, samples in fast.bare_s.items()}
    results = {DEFAULT: result(), "int8": fast}
    found = {
        "int8": Fidelity([60.0, 50.0, 20.0, 60.0], [1.0, 0.9, 0.1, 0.1], 0.99),
        OTHER_SEED: Fidelity([20.0] * 4, [0.5] * 4, 0.9),
    }
    return results, found


def test_frames_count_until_heads_part():
    same = Fidelity([60.0, 50.0], [1.0, 0.9], 0.99)
    assert same.parted == 2
    parted = Fidelity([60.0, 50.0, 20.0, 60.0], [1.0, 0.9, 0.1, 0.1], 0.99)
    assert parted.summary() == {
        "parted_s": 2 / 25,
        "psnr_db": pytest.approx(55),
        "ssim": pytest.approx(0.95),
        "mouth_r": 0.99,
    }
    assert Fidelity([20.0], [0.5], 0.9).summary()["psnr_db"] is None


def test_rounding_does_not_part_heads_and_another_picture_does():
    rng = np.random.default_rng(0)
    usual = rng.integers(0, 250, (3, 32, 32, 3), np.uint8)
    near, far = usual + rng.integers(0, 2, usual.shape, np.uint8), usual[::-1]
    mouth = np.array([0.1, 0.3, 0.2])
    found = fidelity(near, usual, mouth + 0.01, mouth)
    assert min(found.psnr_db) > PARTED_DB and min(found.ssim) > 0.99
    assert found.mouth_r == pytest.approx(1)
    assert fidelity(far, usual, mouth, mouth).parted == 0
    assert fidelity(usual, usual, mouth, mouth).psnr_db == [100.0] * 3
    without_face = np.array([0.1, np.nan, 0.2])
    assert fidelity(usual, usual, without_face, mouth).mouth_r == pytest.approx(1)


def test_rows_have_equal_keys_and_ratios_to_the_default(measured):
    usual, int8, other = rows(*measured)
    assert usual.keys() == int8.keys() == other.keys()
    assert (usual["bare_faster"], int8["bare_faster"]) == (1, pytest.approx(2))
    assert usual["psnr_db"] is None and other["bare_block_ms"] is None
    by_network = {row["bare, ms a block"]: row for row in bare_rows(measured[0])}
    assert by_network["audio_encoder"][DEFAULT] == pytest.approx(20)
    assert sum(row["int8"] for row in by_network.values()) == pytest.approx(int8["bare_block_ms"])


def test_a_variant_that_cannot_be_served_says_why(tmp_path):
    assert "model repository" in missing(tmp_path, "int8")


def test_the_sheet_has_a_row_a_take():
    takes = {name: np.full((9, 4, 4, 3), n, np.uint8) for n, name in enumerate("abc")}
    picture = sheet(takes)
    assert picture.shape == (12, 24, 3)
    assert list(picture[::4, 0, 0]) == [0, 1, 2]


def test_the_page_shows_them(measured, tmp_path):
    results, found = measured
    lines = rows(results, found)
    record.write(
        tmp_path / "variants_tiny.json",
        "variants",
        settings={},
        summary={
            "variants": lines,
            "bare": bare_rows(results),
            "providers": {"int8": {"a": "model.int8.onnx by X", "b": "model.onnx by X"}},
            "left_out": {"openvino": "no package"},
        },
        raw={},
    )
    plot(results, found, "tiny", tmp_path / "variants_tiny.png")
    assert (tmp_path / "variants_tiny.png").stat().st_size > 1000
    shown = page(tmp_path)
    assert "int8: a: model.int8.onnx by X; b: model.onnx by X" in shown
    assert "openvino was left out: no package" in shown
    assert f"From above: {DEFAULT}, int8, {OTHER_SEED}." in shown
    assert [line["variant"] for line in a_line_each(lines)] == list(lines[0])[1:]
    assert a_line_each(lines)[0]["int8"] == lines[1][list(lines[0])[1]]
