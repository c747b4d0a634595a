"""Fit erf(z) = z P(z^2) / Q(z^2) on [0, 3.92]: the coefficients of GELU in runtime/src/cpu_ops/row_ops.h.

`python tools/fit_erf.py` prints both polynomials and the largest relative error. Linearised least squares on Chebyshev
nodes, weights raised where the error is large until it is level (Lawson's iteration).
"""

from __future__ import annotations

import math

import numpy as np

LIMIT = 3.92  # 1 - erf(3.92) is below half a unit in the last place of float32
DEGREE = 5
NODES = 4000


def fit() -> tuple[float, list[float], list[float]]:
    """Largest relative error, and the coefficients of P and Q from the constant up, in z^2."""
    nodes = (np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES) + 1) / 2
    z = np.maximum(LIMIT * nodes, 1e-4)
    u = (z / LIMIT) ** 2
    wanted = np.array([math.erf(value) for value in z]) / z
    powers = np.vander(u, DEGREE + 1, increasing=True)
    weights, below = np.ones(NODES), np.ones(NODES)
    best: tuple[float, list[float], list[float]] = (math.inf, [], [])
    unscale = LIMIT ** (-2.0 * np.arange(DEGREE + 1))
    for _ in range(200):
        scale = weights / (wanted * below)
        system = np.hstack([powers, -wanted[:, None] * powers[:, 1:]]) * scale[:, None]
        solution = np.linalg.lstsq(system, wanted * scale, rcond=None)[0]
        p, q = solution[: DEGREE + 1], np.concatenate([[1.0], solution[DEGREE + 1 :]])
        error = np.abs(powers @ p / (powers @ q) / wanted - 1)
        if error.max() < best[0]:
            best = (float(error.max()), list(p * unscale), list(q * unscale))
        weights = np.maximum(weights * (0.3 + error / error.max()) ** 0.5, 1e-6)
        weights /= weights.max()
        below = np.abs(powers @ q)
    return best


def main() -> None:
    """Print the fit."""
    error, p, q = fit()
    print(f"relative error {error:.2e}")
    for name, values in (("P", p), ("Q", q)):
        print(name, " ".join(f"{value:.9e}f" for value in values))


if __name__ == "__main__":
    main()
