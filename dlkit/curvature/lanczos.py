"""Lanczos' method with full reorthogonalization: eigenvalues of a matrix known by its products, with error bounds."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dlkit.curvature.dense import as_operator

__all__ = ["Eigenpairs", "Spectrum", "condition_number", "lanczos", "max_stable_lr", "spectrum", "top_eigenpairs"]


class Krylov:
    """m Lanczos processes side by side, which share the passes over the data; the bases stay on the host."""

    def __init__(self, operator: Any, starts: np.ndarray, rng: np.random.Generator) -> None:
        self.operator, self.rng = operator, rng
        m, n = starts.shape
        # The products of a large model are float32: more digits would only double the memory.
        self.dtype = np.float64 if n <= 10**6 else np.float32
        self._held = np.zeros((m, min(16, n), n), self.dtype)
        self.next = (starts / np.linalg.norm(starts, axis=1, keepdims=True)).astype(self.dtype)
        self.alpha: list[np.ndarray] = []
        self.beta: list[np.ndarray] = []
        self.scale = np.zeros(m)  # the largest product so far: what rounding is measured by

    @property
    def steps(self) -> int:
        return len(self.alpha)

    @property
    def basis(self) -> np.ndarray:
        return self._held[:, : self.steps]

    def step(self) -> None:
        """One product with every process's newest vector."""
        q = self.next
        if self.steps == self._held.shape[1]:  # doubled, so that few copies are made
            self._held = np.concatenate([self._held, np.zeros_like(self._held)], axis=1)
        self._held[:, self.steps] = q
        w = self.operator.apply(q).astype(self.dtype)
        if not np.isfinite(w).all():
            raise ValueError("a product with the matrix is not finite: nor are the loss's derivatives here")
        self.scale = np.maximum(self.scale, np.linalg.norm(w, axis=1))
        self.alpha.append(np.einsum("mn,mn->m", q, w))
        beta, following = [], []
        for basis, rest, scale in zip(self.basis, w, self.scale, strict=True):
            for _ in range(2):  # twice is enough (Parlett 1980, section 6.9)
                rest = rest - (basis @ rest) @ basis
            norm = np.linalg.norm(rest)
            if not norm > 10 * self.operator.rounding * max(scale, np.finfo(self.dtype).tiny):
                norm, rest = 0.0, self._fresh(basis)  # the subspace is invariant: go on beside it
            beta.append(norm)
            following.append(rest / max(np.linalg.norm(rest), np.finfo(self.dtype).tiny))
        self.beta.append(np.asarray(beta))
        self.next = np.stack(following).astype(self.dtype)

    def _fresh(self, basis: np.ndarray) -> np.ndarray:
        rest = self.rng.standard_normal(basis.shape[1]).astype(self.dtype)
        for _ in range(2):
            rest = rest - (basis @ rest) @ basis
        return rest

    def ritz(self, process: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ritz values (ascending), the eigenvectors of the tridiagonal matrix as columns, and residual norms."""
        alpha = np.array([a[process] for a in self.alpha])
        beta = np.array([b[process] for b in self.beta])
        values, inner = np.linalg.eigh(np.diag(alpha) + np.diag(beta[:-1], 1) + np.diag(beta[:-1], -1))
        last = 0.0 if self.steps == self.operator.size else beta[-1]
        residuals = np.abs(last * inner[-1]) + self.operator.rounding * np.abs(values).max(initial=0.0)
        return values, inner, residuals


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Some eigenvalues of a symmetric matrix and their vectors.

    Attributes:
      values: `[k]`. An eigenvalue of the matrix lies within `residuals[i]` of `values[i]`.
      residuals: `[k]`, |A x - value x| for the unit vector x, with the rounding of the products.
      vectors: `[k, n]`, of length 1.
      converged: whether every residual is within the tolerance.
      products: with how many products.
    """

    values: np.ndarray
    residuals: np.ndarray
    vectors: np.ndarray
    converged: bool
    products: int
    operator: Any

    def tree(self, index: int = 0) -> Any:
        """The eigenvector as a tree like the parameters."""
        return self.operator.tree(self.vectors[index])

    def __str__(self) -> str:
        pairs = ", ".join(f"{v:.6g} +/- {r:.2g}" for v, r in zip(self.values, self.residuals, strict=True))
        return f"{pairs} ({self.products} products{'' if self.converged else ', not converged'})"


def lanczos(operator: Any, *, steps: int = 30, seed: int = 0) -> Eigenpairs:
    """All Ritz pairs of `steps` steps of Lanczos' method, ascending: the ends of the spectrum are found first.

    Every new vector is made orthogonal to all before it, so that no eigenvalue appears twice by rounding. Where the
    vectors span an invariant subspace, a new random one goes on beside it: multiple eigenvalues are found, too.

    Args:
      operator: an `Operator`, or a symmetric matrix `[n, n]`.
      steps: products, and vectors of n numbers kept on the host; at most n.
      seed: of the first vector.

    >>> np.round(lanczos(np.diag([1.0, 2.0, 5.0])).values, 6).tolist()
    [1.0, 2.0, 5.0]

    Raises:
      ValueError: `steps` below 1; an array that is no symmetric matrix.

    References: Lanczos 1950; Golub and Van Loan, "Matrix Computations", chapter 10.
    """
    operator, process = _begin(operator, steps, seed)
    for _ in range(min(steps, operator.size)):
        process.step()
    values, inner, residuals = process.ritz()
    vectors = inner.T @ process.basis[0]
    good = bool((residuals <= 1e-3 * np.abs(values).max()).all())
    return Eigenpairs(values, residuals, vectors, good, process.steps, operator)


def _begin(operator: Any, steps: int, seed: int) -> tuple[Any, Krylov]:
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    operator, rng = as_operator(operator), np.random.default_rng(seed)
    return operator, Krylov(operator, rng.standard_normal((1, operator.size)), rng)


Which = Literal["largest", "smallest", "magnitude"]


def top_eigenpairs(
    operator: Any, k: int = 1, *, which: Which = "largest", tol: float = 1e-3, max_steps: int = 200, seed: int = 0
) -> Eigenpairs:
    """The k extreme eigenvalues with their vectors and error bounds, in the order asked for.

    Args:
      operator: an `Operator`, or a symmetric matrix.
      k: how many.
      which: "largest", "smallest" (the most negative first), or of the largest "magnitude".
      tol: Lanczos goes on until every residual is below `tol` times the largest |eigenvalue| wanted.
      max_steps: at most so many products; then `converged` is False, and the residuals still hold.
      seed: of the first vector.

    >>> print(top_eigenpairs(np.diag(np.arange(1.0, 6.0)), 2).values.round(6))
    [5. 4.]

    Raises:
      ValueError: k is not in 1 .. n, or `which` is unknown.
    """
    operator, process = _begin(operator, max_steps, seed)
    n = operator.size
    if not 1 <= k <= n:
        raise ValueError(f"k must be in 1 .. {n}, the rows of the matrix, got {k}")
    if which not in ("largest", "smallest", "magnitude"):
        raise ValueError(f"which must be 'largest', 'smallest' or 'magnitude', got {which!r}")
    while True:
        process.step()
        done = process.steps >= min(max_steps, n)
        if not done and (process.steps < k or process.steps % 2):  # the small problem is solved every other step
            continue
        values, inner, residuals = process.ritz()
        order = np.argsort({"largest": -values, "smallest": values, "magnitude": -np.abs(values)}[which])[:k]
        good = residuals[order] <= max(tol, 2 * operator.rounding) * np.abs(values[order]).max(initial=0.0)
        good |= residuals[order] <= 4 * operator.rounding * np.abs(values).max()  # of an eigenvalue that is zero
        if done or (len(order) == k and good.all()):
            break
    vectors = inner[:, order].T @ process.basis[0]
    return Eigenpairs(
        values[order], residuals[order], vectors, len(order) == k and bool(good.all()), process.steps, operator
    )


def max_stable_lr(operator: Any, *, momentum: float = 0.0, tol: float = 1e-3, seed: int = 0) -> float:
    """The learning rate above which gradient descent diverges on the local quadratic: 2 / lambda_max.

    With heavy-ball momentum m it is 2 (1 + m) / lambda_max. Methods that precondition, such as Adam, have a limit of
    their own. Infinite where no eigenvalue is positive.

    >>> round(max_stable_lr(np.diag([1.0, 4.0])), 6)
    0.5

    Raises:
      ValueError: momentum outside [0, 1).

    Reference: LeCun, Simard and Pearlmutter, "Automatic learning rate maximization", 1992; Polyak 1964 for momentum.
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")
    top = float(top_eigenpairs(operator, tol=tol, seed=seed).values[0])
    return 2 * (1 + momentum) / top if top > 0 else float("inf")


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues, ascending: all of them where `exact`; else the Ritz values, with their residual norms."""

    values: np.ndarray
    residuals: np.ndarray
    exact: bool


def spectrum(operator: Any, *, dense: int = 2000, steps: int = 100, seed: int = 0) -> Spectrum:
    """The eigenvalues: from the dense matrix up to `dense` rows, else those of Lanczos, right at both ends.

    >>> spectrum(np.array([[0.0, 1.0], [1.0, 0.0]])).values.tolist()
    [-1.0, 1.0]
    """
    operator = as_operator(operator)
    if operator.size <= dense:
        values = np.linalg.eigvalsh(operator.matrix(limit=dense))
        return Spectrum(values, np.full_like(values, operator.rounding * np.abs(values).max(initial=0.0)), True)
    found = lanczos(operator, steps=steps, seed=seed)
    return Spectrum(found.values, found.residuals, False)


def condition_number(
    operator: Any, *, dense: int = 2000, tol: float = 1e-3, max_steps: int = 300, seed: int = 0
) -> float:
    """max |lambda| / min |lambda|: how slow gradient descent is, about that many steps to a fixed accuracy.

    Up to `dense` rows it comes from the whole spectrum. Above, Lanczos must find the smallest eigenvalue, which is slow
    where small ones crowd: a value with `max_steps` exceeded is a lower bound. Infinite where the smallest
    eigenvalue is zero to the rounding of the products.

    >>> condition_number(np.diag([1.0, 10.0]))
    10.0

    Raises:
      ValueError: a matrix above `dense` rows with eigenvalues of both signs, whose smallest are inside the spectrum.
    """
    operator = as_operator(operator)
    if operator.size <= dense:
        sizes = np.abs(np.linalg.eigvalsh(operator.matrix(limit=dense)))
        floor = operator.size * operator.rounding * sizes.max()
        return float(sizes.max() / sizes.min()) if sizes.min() > floor else float("inf")
    options = {"tol": tol, "max_steps": max_steps, "seed": seed}
    top, low = (top_eigenpairs(operator, which=which, **options) for which in ("magnitude", "smallest"))
    high, least = float(top.values[0]), float(low.values[0])
    if high < 0 or least < -float(low.residuals[0]):
        raise ValueError(
            f"the matrix has eigenvalues of both signs ({least:.3g} and {high:.3g}), and its smallest ones are inside "
            "the spectrum: take gauss_newton_product, or a block of at most `dense` rows"
        )
    return high / least if least > 2 * operator.rounding * high else float("inf")
