"""Hard surfaces of two parameters, on which optimizers are looked at."""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["SURFACES", "Surface", "quadratic"]


@dataclass(frozen=True)
class _Bowl:
    kappa: float

    def __call__(self, p: Array) -> Array:
        return (p[0] ** 2 + self.kappa * p[1] ** 2) / 2


def _rosenbrock(p: Array) -> Array:
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


def _beale(p: Array) -> Array:
    x, y = p[0], p[1]
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def _himmelblau(p: Array) -> Array:
    return (p[0] ** 2 + p[1] - 11) ** 2 + (p[0] + p[1] ** 2 - 7) ** 2


def _saddle(p: Array) -> Array:
    return p[0] ** 2 / 2 - p[1] ** 2 / 2 + p[1] ** 4 / 4


def _double_well(p: Array) -> Array:
    return (p[0] ** 2 - 1) ** 2 / 4 - 0.2 * p[0] + p[1] ** 2 / 2


@dataclass(frozen=True)
class Surface:
    """A function of two parameters, called with an array `[2]`; `SURFACES` has six of them by name.

    `start` is where descents usually begin, `minima` are the points of lowest value, `box` is what a picture shows:
    ((left, right), (bottom, top)).

    >>> surface = SURFACES["rosenbrock"]
    >>> float(surface(jnp.array([1.0, 1.0]))), surface.start
    (0.0, (-1.2, 1.0))
    """

    name: str
    fn: Callable[[Array], Array] = field(repr=False)
    start: tuple[float, float]
    minima: tuple[tuple[float, float], ...]
    box: tuple[tuple[float, float], tuple[float, float]]

    def __call__(self, p: Float[Array, "2"]) -> Float[Array, ""]:
        return self.fn(p)

    def grid(self, points: int = 121) -> tuple[Float[Array, "n"], Float[Array, "n"], Float[Array, "n n"]]:
        """Both axes and the values over the box, rows from bottom to top: what `contour` takes.

        >>> x, y, z = SURFACES["saddle"].grid(5)
        >>> z.shape
        (5, 5)
        """
        x, y = (jnp.linspace(low, high, points) for low, high in self.box)
        return x, y, jax.vmap(lambda b: jax.vmap(lambda a: self(jnp.stack([a, b])))(x))(y)


def quadratic(kappa: float = 100.0, start: tuple[float, float] = (2.0, 0.2)) -> Surface:
    """The bowl (x^2 + kappa y^2) / 2, whose Hessian has the eigenvalues 1 and kappa.

    >>> float(quadratic(10.0)(jnp.array([1.0, 1.0])))
    5.5

    Raises:
      ValueError: kappa is not above 0.
    """
    if not kappa > 0:
        raise ValueError(f"quadratic wants kappa above 0, got {kappa}")
    return Surface("quadratic", _Bowl(kappa), start, ((0.0, 0.0),), ((-2.4, 2.4), (-1.0, 1.0)))


_HIMMELBLAU = ((3.0, 2.0), (-2.805118, 3.131312), (-3.77931, -3.283186), (3.584428, -1.848126))

# Where they come from: Rosenbrock, "An automatic method for finding the greatest or least value of a function", 1960;
# Beale, "On an iterative method for finding a local minimum of a function of more than one variable", 1958;
# Himmelblau, "Applied nonlinear programming", 1972. `saddle` has its saddle point at 0 and minima at (0, +-1);
# `double_well` a shallow minimum near x = -0.9 beside the deep one near 1.1 (the real roots of x^3 - x = 0.2).
SURFACES: dict[str, Surface] = {
    surface.name: surface
    for surface in (
        quadratic(),
        Surface("rosenbrock", _rosenbrock, (-1.2, 1.0), ((1.0, 1.0),), ((-1.8, 1.8), (-0.8, 2.4))),
        Surface("beale", _beale, (1.0, 1.5), ((3.0, 0.5),), ((-0.5, 4.2), (-1.2, 2.0))),
        Surface("himmelblau", _himmelblau, (0.0, 0.0), _HIMMELBLAU, ((-5.0, 5.0), (-5.0, 5.0))),
        Surface("saddle", _saddle, (1.5, 1e-3), ((0.0, 1.0), (0.0, -1.0)), ((-1.8, 1.8), (-1.5, 1.5))),
        Surface("double_well", _double_well, (-1.6, 0.8), ((1.0880339, 0.0),), ((-1.9, 1.9), (-1.2, 1.2))),
    )
}
