"""A matrix that is there, where an operator is asked for."""

from typing import Any

import numpy as np

from dlkit.curvature.products import Operator

__all__: list[str] = []


class Dense:
    """A matrix that is there, under the interface of an operator."""

    rounding = float(np.finfo(np.float64).eps)

    def __init__(self, matrix: Any) -> None:
        self.held = np.asarray(matrix, np.float64)
        if self.held.ndim != 2 or self.held.shape[0] != self.held.shape[1]:
            raise ValueError(f"expected an Operator or a symmetric matrix [n, n], got shape {list(self.held.shape)}")
        if not np.allclose(self.held, self.held.T, rtol=1e-5, atol=1e-6 * np.abs(self.held).max(initial=0.0)):
            raise ValueError("the matrix is not symmetric: take (A + A.T) / 2")
        self.size = len(self.held)

    def apply(self, rows: Any) -> np.ndarray:
        return np.asarray(rows, np.float64) @ self.held

    def matrix(self, *, limit: int = 5000) -> np.ndarray:
        return self.held

    def tree(self, vector: Any) -> Any:
        return np.asarray(vector)


def as_operator(matrix: Any) -> Any:
    """The operator itself, or one for a symmetric matrix.

    Raises:
      ValueError: an array that is no symmetric matrix.
    """
    return matrix if isinstance(matrix, Operator | Dense) else Dense(matrix)
