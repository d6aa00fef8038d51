"""This is where a listener's motion is measured as DualTalk measures it, and a little further.

Definitions follow `metric/metric.py` of DualTalk (Peng et al., CVPR 2025, arXiv 2505.18096), read
at Ruthless338/DualTalk@5ed7187, and their restatement in TIMAR (arXiv 2512.15340),
`util/metrics.py` of CoderChen01/towards-seamless-interaction@b58f9b9. There, each is computed per
clip and stream, then averaged over clips. The streams are FLAME's exp (50 coefficients), jaw (3,
rad) and pose (the neck's rotation, 3, rad); published tables multiply FD and P-FD by 1 / 10³ / 10²
(exp / jaw / pose), MSE by 10 / 10³ / 10², rPCC by 10² / 10 / 10 and SID by 1. Functions here return
unscaled values in the units of the motion they are given; figures of other motion than FLAME's
(ours: `measures.motion`) share the definitions with those tables, not the numbers.

What to know of the published code:

- SID is called with its arguments swapped: `calcuate_sid(pre, gt, k)` where the function takes
  `(gt, pred, k)`. So the clusters are the prediction's and the entropy is the truth's. TIMAR has
  both directions; here each carries its direction in its name.
- All but rPCC and STS ignore the order of frames: shuffled motion has FD 0. Hence `velocity_fd`.
- A face that does not move scores well in MSE and not badly in FD; only SID and variance tell.
- rPCC of a prediction that does not vary is NaN there; here its correlation counts as 0.

Legend: T frames, D channels of one stream.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from training.measures.frechet import frechet_distance

CLUSTERS = {"exp": 40, "jaw": 10, "pose": 10}  # k of SID, a stream
STS_TIMESTEP = 0.1  # a constant of the published code, not of its 25 frames a second


def paired_frechet_distance(
    prediction: np.ndarray, truth: np.ndarray, partner: np.ndarray
) -> float:
    """P-FD: FD of (T, 2D) [partner | prediction] to [partner | truth]."""
    return frechet_distance(np.hstack([partner, prediction]), np.hstack([partner, truth]))


def velocity_frechet_distance(prediction: np.ndarray, truth: np.ndarray) -> float:
    """FD of the differences of successive frames; unlike FD it sees jitter and frozen faces."""
    return frechet_distance(np.diff(prediction, axis=0), np.diff(truth, axis=0))


def mean_squared_error(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Mean over frames and channels."""
    return float(np.mean((_float(prediction) - _float(truth)) ** 2))


def shannon_index_of_diversity(clustered: np.ndarray, counted: np.ndarray, clusters: int) -> float:
    """SID: −Σ h log2(h + 1e-6), h the shares of `counted` frames in clusters of `clustered` ones.

    (T, D) each; k-means of scikit-learn with random_state 0, as published. As meant (Ng et al.,
    2022, Learning to Listen): `clustered` the truth, `counted` the prediction. As DualTalk's table
    has it: the other way round.
    """
    if len(clustered) < clusters:
        raise ValueError(
            f"SID: got {len(clustered)} frames, expected at least as many as the {clusters} "
            "clusters; measure longer clips"
        )
    with warnings.catch_warnings():
        # A face that rests has fewer distinct poses than there are clusters: that is the finding.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(n_clusters=clusters, random_state=0, n_init="auto").fit(_float(clustered))
    shares = np.bincount(found.predict(_float(counted)), minlength=clusters) / len(counted)
    return float(-(shares * np.log2(shares + 1e-6)).sum())


def residual_pearson_correlation(
    prediction: np.ndarray, truth: np.ndarray, partner: np.ndarray
) -> float:
    """rPCC: |PCC(truth, partner) − PCC(prediction, partner)| of flattened (T, D) motion."""
    return abs(_pearson(truth, partner) - _pearson(prediction, partner))


def variance(motion: np.ndarray) -> float:
    """The variance over frames, mean over channels."""
    return float(np.mean(np.var(_float(motion), axis=0)))


def spatio_temporal_similarity(prediction: np.ndarray, truth: np.ndarray) -> float:
    """STS: √ Σ (Δprediction − Δtruth)² / 0.1 over frames and channels; it grows with both."""
    difference = np.diff(_float(prediction), axis=0) - np.diff(_float(truth), axis=0)
    return float(np.sqrt((difference**2).sum() / STS_TIMESTEP))


def seam_jump(motion: np.ndarray, block_frames: int) -> float:
    """Mean step |x_t − x_{t−1}| into a block over the mean step elsewhere; 1 without seams.

    `motion` begins at a block's first frame. NaN when nothing moves within blocks.
    """
    steps = np.linalg.norm(np.diff(_float(motion), axis=0), axis=1)
    into_block = np.arange(1, len(motion)) % block_frames == 0
    elsewhere = steps[~into_block].mean()
    return float(steps[into_block].mean() / elsewhere) if elsewhere > 0 else float("nan")


def clip_figures(
    prediction: np.ndarray, truth: np.ndarray, partner: np.ndarray, clusters: int
) -> dict[str, float]:
    """All of one stream of one clip, by name; arrays (T, D), cut to the shortest."""
    frames = min(len(prediction), len(truth), len(partner))
    prediction, truth, partner = prediction[:frames], truth[:frames], partner[:frames]
    return {
        "fd": frechet_distance(prediction, truth),
        "p_fd": paired_frechet_distance(prediction, truth, partner),
        "velocity_fd": velocity_frechet_distance(prediction, truth),
        "mse": mean_squared_error(prediction, truth),
        "sid_truth_clusters": shannon_index_of_diversity(truth, prediction, clusters),
        "sid_prediction_clusters": shannon_index_of_diversity(prediction, truth, clusters),
        "rpcc": residual_pearson_correlation(prediction, truth, partner),
        "variance": variance(prediction),
        "sts": spatio_temporal_similarity(prediction, truth),
    }


def listening_figures(
    predictions: Sequence[Mapping[str, np.ndarray]],
    truths: Sequence[Mapping[str, np.ndarray]],
    partners: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, float]:
    """Means over clips, `fd_exp` to `sts_pose`, and `sid_pooled_*`; clips map streams to (T, D).

    The pooled SID is of all clips at once, clusters of the truth (as DIM has it, Tran et al., 2024,
    arXiv 2403.09069).
    """
    figures: dict[str, float] = {}
    for stream, clusters in CLUSTERS.items():
        triples = zip(predictions, truths, partners, strict=True)
        clips = [clip_figures(p[stream], t[stream], u[stream], clusters) for p, t, u in triples]
        for name in clips[0]:
            figures[f"{name}_{stream}"] = float(np.mean([clip[name] for clip in clips]))
        true, predicted = (
            np.concatenate([clip[stream] for clip in side]) for side in (truths, predictions)
        )
        figures[f"sid_pooled_{stream}"] = shannon_index_of_diversity(true, predicted, clusters)
    return figures


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = _float(a).ravel(), _float(b).ravel()
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _float(motion: np.ndarray) -> np.ndarray:
    return np.asarray(motion, np.float64)
