"""This is where two sets of vectors are compared as sets: Fréchet and kernel distance.

Legend: N and M vectors of the two sets, D width.
"""

from __future__ import annotations

import numpy as np


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½) of two sets (N, D) and (M, D), N and M ≥ 2.

    Dowson & Landau (1982); as a measure of generated data Heusel et al. (2017, arXiv 1706.08500).
    Covariances are unbiased, as `numpy.cov` has them. The trace of (Σ_a Σ_b)^½ is the sum of the
    square roots of the eigenvalues of Σ_a^½ Σ_b Σ_a^½. Published code takes the square root of a
    product that need not be symmetric, and has to patch it where a set does not move.
    """
    a, b = _vectors(a), _vectors(b)
    shift = a.mean(0) - b.mean(0)
    covariance_a, covariance_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    root = _square_root(covariance_a)
    crossed = np.linalg.eigvalsh(root @ covariance_b @ root)
    trace_of_root = np.sqrt(np.maximum(crossed, 0)).sum()
    traces = np.trace(covariance_a) + np.trace(covariance_b)
    return float(shift @ shift + traces - 2 * trace_of_root)


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy of two sets (N, D) and (M, D), N and M ≥ 2.

    The kernel is (x·y / D + 1)³ (Bińkowski et al., 2018, arXiv 1801.01401). All pairs are taken, no
    means over subsets. About 0 for two samples of one distribution; it may be slightly negative.
    """
    a, b = _vectors(a), _vectors(b)
    within = [
        (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (_kernel(a, a), _kernel(b, b))
    ]
    return float(sum(within) - 2 * _kernel(a, b).mean())


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _square_root(symmetric: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(symmetric)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _vectors(x: np.ndarray) -> np.ndarray:
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(
            f"distance of sets: got an array of shape {x.shape}, expected (N, D) with N ≥ 2; "
            "give more frames"
        )
    return x.astype(np.float64)
