"""Listening figures equal the published definitions, written out here on their own."""

import math

import numpy as np
import pytest
from scipy import linalg

from training.measures import listening
from training.measures.frechet import frechet_distance, kernel_distance

T = 120


@pytest.fixture
def clips():
    """Prediction, truth and partner (T, 3): correlated channels, different means and scales."""
    generator = np.random.default_rng(0)
    mix = generator.normal(size=(3, 3))
    wave = np.sin(np.arange(T)[:, None] / 7 + np.arange(3))
    return [
        (wave * scale + generator.normal(size=(T, 3)) @ mix + mean)
        for scale, mean in ((1.0, 0.0), (2.0, 0.3), (0.5, -1.0))
    ]


def frechet_by_hand(a, b):
    """As the published code has it: the matrix square root of the product."""
    shift = a.mean(0) - b.mean(0)
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    return (shift**2).sum() + np.trace(cov_a + cov_b - 2 * linalg.sqrtm(cov_a @ cov_b)).real


def test_fd_by_hand_in_one_dimension():
    # means 1 and 4, unbiased variances 1 and 9: (4 − 1)² + (3 − 1)² = 13
    a, b = np.array([[0.0], [1.0], [2.0]]), np.array([[1.0], [4.0], [7.0]])
    assert frechet_distance(a, b) == pytest.approx(13, abs=1e-9)


def test_fd_p_fd_and_velocity_fd_equal_the_published_definition(clips):
    prediction, truth, partner = clips
    assert frechet_distance(prediction, truth) == pytest.approx(
        frechet_by_hand(prediction, truth), abs=1e-6
    )
    paired = [np.concatenate([partner, x], axis=1) for x in (prediction, truth)]
    assert listening.paired_frechet_distance(prediction, truth, partner) == pytest.approx(
        frechet_by_hand(*paired), abs=1e-6
    )
    steps = [x[1:] - x[:-1] for x in (prediction, truth)]
    assert listening.velocity_frechet_distance(prediction, truth) == pytest.approx(
        frechet_by_hand(*steps), abs=1e-6
    )


def test_fd_of_a_face_that_does_not_move_is_its_offset_and_the_truths_variance(clips):
    _, truth, _ = clips
    still = np.broadcast_to(truth.mean(0) + 2, truth.shape)
    expected = 3 * 2**2 + truth.var(0, ddof=1).sum()
    assert frechet_distance(still, truth) == pytest.approx(expected, abs=1e-6)


def test_fd_ignores_time_and_velocity_fd_does_not(clips):
    truth = clips[1]
    shuffled = np.random.default_rng(1).permutation(truth)
    assert frechet_distance(shuffled, truth) == pytest.approx(0, abs=1e-6)
    assert listening.velocity_frechet_distance(shuffled, truth) > 1


def test_mse_variance_and_sts_by_hand():
    prediction = np.array([[0.0, 1.0], [1.0, 1.0], [3.0, 1.0]])
    truth = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 4.0]])
    # squared errors 0 1 | 1 1 | 1 9
    assert listening.mean_squared_error(prediction, truth) == pytest.approx(13 / 6, abs=1e-6)
    # channel 1: values 0 1 3, mean 4/3, squares 16/9 + 1/9 + 25/9 = 42/9, over 3; channel 2: 0
    assert listening.variance(prediction) == pytest.approx(42 / 9 / 3 / 2, abs=1e-6)
    # steps 1,0 | 2,0 against 2,0 | 0,4: differences −1,0 | 2,−4, squares 1 + 4 + 16 = 21
    assert listening.spatio_temporal_similarity(prediction, truth) == pytest.approx(
        math.sqrt(21 / 0.1), abs=1e-6
    )


def test_rpcc_by_hand():
    partner = np.array([[1.0], [2.0], [3.0]])
    truth = np.array([[2.0], [4.0], [6.0]])  # PCC 1
    prediction = np.array([[3.0], [1.0], [2.0]])  # covariance −1, variances 2 and 2: PCC −1/2
    assert listening.residual_pearson_correlation(prediction, truth, partner) == pytest.approx(
        1.5, abs=1e-6
    )
    still = np.ones((3, 1))
    assert listening.residual_pearson_correlation(still, truth, partner) == pytest.approx(1)


def test_sid_by_hand_in_both_directions():
    """Two poses in the truth, one in the prediction: which is clustered makes the difference."""
    truth = np.repeat([[0.0], [10.0]], [30, 10], axis=0)
    prediction = np.repeat([[0.0], [0.1]], [20, 20], axis=0)
    of_prediction = listening.shannon_index_of_diversity(truth, prediction, 2)
    of_truth = listening.shannon_index_of_diversity(prediction, truth, 2)
    assert of_prediction == pytest.approx(-math.log2(1 + 1e-6), abs=1e-6)
    expected = -(0.75 * math.log2(0.75 + 1e-6) + 0.25 * math.log2(0.25 + 1e-6))
    assert of_truth == pytest.approx(expected, abs=1e-6)


def test_sid_equals_the_published_loop(clips):
    from sklearn.cluster import KMeans

    prediction, truth, _ = clips
    labels = KMeans(n_clusters=10, random_state=0, n_init="auto").fit(truth).predict(prediction)
    entropy = 0.0
    for cluster in range(10):
        share = sum(label == cluster for label in labels) / len(labels)
        entropy -= share * math.log2(share + 1e-6)
    ours = listening.shannon_index_of_diversity(truth, prediction, 10)
    assert ours == pytest.approx(entropy, abs=1e-6)


def test_sid_of_too_short_a_clip_says_what_to_do():
    with pytest.raises(ValueError, match="got 3 frames, expected at least as many as the 40"):
        listening.shannon_index_of_diversity(np.zeros((3, 1)), np.zeros((3, 1)), 40)


def test_seams_are_jumps_between_blocks():
    # steps of 1 within blocks of 5, of 3 into the next
    motion = np.cumsum([0, *([1, 1, 1, 1, 3] * 4)])[:, None]
    assert listening.seam_jump(motion, 5) == pytest.approx(3)
    assert listening.seam_jump(np.arange(20.0)[:, None], 5) == pytest.approx(1)
    assert math.isnan(listening.seam_jump(np.zeros((20, 1)), 5))


def test_means_over_clips_and_the_pooled_index(clips):
    streams = [{name: clip for name in listening.CLUSTERS} for clip in clips]
    prediction, truth, partner = streams
    one = listening.clip_figures(prediction["exp"], truth["exp"], partner["exp"], 40)
    other = listening.clip_figures(truth["exp"], truth["exp"], partner["exp"], 40)
    figures = listening.listening_figures([prediction, truth], [truth] * 2, [partner] * 2)
    for name in one:
        assert figures[f"{name}_exp"] == pytest.approx((one[name] + other[name]) / 2)
    truths = np.concatenate([truth["jaw"], truth["jaw"]])
    predictions = np.concatenate([prediction["jaw"], truth["jaw"]])
    expected = listening.shannon_index_of_diversity(truths, predictions, 10)
    assert figures["sid_pooled_jaw"] == pytest.approx(expected)


def test_the_truth_itself_is_perfect(clips):
    _, truth, partner = clips
    figures = listening.clip_figures(truth, truth, partner, 10)
    for name in ("fd", "p_fd", "velocity_fd", "mse", "rpcc", "sts"):
        assert figures[name] == pytest.approx(0, abs=1e-6), name
    assert figures["sid_truth_clusters"] == figures["sid_prediction_clusters"] > 3


def test_kernel_distance_by_hand():
    # k(x, y) = (xy + 1)³ in one dimension
    a, b = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    within_a = (0 * 1 + 1) ** 3
    within_b = (1 * 2 + 1) ** 3
    across = np.mean([1, 1, (1 + 1) ** 3, (2 + 1) ** 3])
    assert kernel_distance(a, b) == pytest.approx(within_a + within_b - 2 * across)
