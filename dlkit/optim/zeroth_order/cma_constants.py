"""The strategy parameters of CMA-ES."""

import math
from typing import NamedTuple

import numpy as np

__all__ = ["Constants", "constants"]


class Constants(NamedTuple):
    """Table 1 of the tutorial."""

    population: int
    weights: tuple[float, ...]
    mu_eff: float
    c_s: float
    d_s: float
    c_c: float
    c_1: float
    c_mu: float
    expected: float  # E|N(0, I)|
    every: int  # generations between two decompositions


def constants(n: int, population: int | None = None) -> Constants:
    """The strategy parameters for `n` parameters: equations 49 to 58 of the tutorial."""
    lam = population or 4 + math.floor(3 * math.log(n))
    raw = np.log((lam + 1) / 2) - np.log(np.arange(1, lam + 1))
    mu = lam // 2
    mu_eff = raw[:mu].sum() ** 2 / np.square(raw[:mu]).sum()
    mu_eff_minus = raw[mu:].sum() ** 2 / np.square(raw[mu:]).sum()
    c_1 = 2 / ((n + 1.3) ** 2 + mu_eff)
    c_mu = min(1 - c_1, 2 * (0.25 + mu_eff + 1 / mu_eff - 2) / ((n + 2) ** 2 + mu_eff))
    least = min(1 + c_1 / c_mu, 1 + 2 * mu_eff_minus / (mu_eff + 2), (1 - c_1 - c_mu) / (n * c_mu))
    positive, negative = raw[raw > 0].sum(), -raw[raw < 0].sum()
    weights = np.where(raw >= 0, raw / positive, raw * least / negative)
    c_s = (mu_eff + 2) / (n + mu_eff + 5)
    d_s = 1 + 2 * max(0.0, math.sqrt((mu_eff - 1) / (n + 1)) - 1) + c_s
    c_c = (4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n)
    expected = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))
    every = max(1, math.floor(1 / ((c_1 + c_mu) * n * 10)))
    weights = tuple(map(float, weights))
    return Constants(
        lam, weights, float(mu_eff), float(c_s), float(d_s), float(c_c), float(c_1), float(c_mu), expected, every
    )
