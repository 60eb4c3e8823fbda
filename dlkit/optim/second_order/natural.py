"""The natural gradient: steepest descent where lengths are measured by how far the model's distributions move."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_count, settle
from dlkit.optim.leaves import check_like
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.second_order import products, vectors
from dlkit.optim.second_order.arguments import bind, needs
from dlkit.optim.second_order.conjugate import cg
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, EmptyState, Transform, chain, identity

__all__ = ["ScaleByNaturalGradient", "fisher_vp", "natural_gradient", "scale_by_natural_gradient"]

Likelihood = Literal["categorical", "bernoulli", "gaussian"]
LIKELIHOODS = ("categorical", "bernoulli", "gaussian")


def output_fisher(likelihood: str, outputs: Any, v: Any, variance: Any) -> Any:
    """The Fisher matrix of each example's distribution in its own outputs, times v."""
    if likelihood == "categorical":
        p = jax.nn.softmax(outputs, axis=-1)
        return p * (v - jnp.sum(p * v, axis=-1, keepdims=True))
    if likelihood == "bernoulli":
        p = jax.nn.sigmoid(outputs)
        return p * (1 - p) * v
    return v / jnp.asarray(variance, v.dtype)


def fisher_at(output_fn: Any, params: Any, likelihood: str, variance: Any) -> Any:
    """v -> F v for many v: what does not depend on v is computed once."""
    outputs, forward = jax.linearize(output_fn, params)
    if jnp.ndim(outputs) == 0:
        raise ValueError("fisher_vp: output_fn gives a scalar, wanted an array whose first axis counts examples")
    backward = jax.linear_transpose(forward, params)

    def product(v: Any) -> Any:
        curved = output_fisher(likelihood, outputs, forward(vectors.cast_like(v, params)), variance)
        return backward((curved / outputs.shape[0]).astype(outputs.dtype))[0]

    return product


def fisher_vp(output_fn: Any, params: Any, v: Any, likelihood: Likelihood, variance: Scalar = 1.0) -> Any:
    """F v, where F is the exact Fisher matrix of a model: E[s s'] for the score s = grad log q(y | outputs), averaged.

        F = 1/N sum_n J_n' F_n J_n            J_n: the Jacobian of example n's outputs
        categorical   outputs are logits      F_n = diag(q) - q q',   q = softmax
        bernoulli     outputs are logits      F_n = diag(q (1 - q)),  q = sigmoid
        gaussian      outputs are means       F_n = I / variance

    The expectation over y is taken under the model, in closed form: no labels, no samples. Here F is also the
    generalized Gauss-Newton matrix (`ggn_vp`) of the mean negative log-likelihood.

    Args:
      output_fn: from the parameters to the outputs; the first axis counts examples.
      params, v: trees.
      likelihood, variance: see above.

    >>> x = jnp.array([[1.0], [2.0]])
    >>> fisher_vp(lambda p: x * p, jnp.float32(1), jnp.float32(1), "gaussian")  # the mean of x^2
    Array(2.5, dtype=float32)
    """
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"fisher_vp: likelihood is {likelihood!r}, wanted one of {', '.join(LIKELIHOODS)}")
    return fisher_at(output_fn, params, likelihood, variance)(v)


@dataclass(frozen=True)
class ScaleByNaturalGradient(Transform[EmptyState]):
    """u = (F + damping I)^-1 g, where F is the model's exact Fisher matrix: see `natural_gradient`.

    >>> x = jnp.array([[1.0, 0.0], [0.0, 2.0]])
    >>> p, tx = jnp.array([1.0, 1.0]), scale_by_natural_gradient("gaussian", damping=0.0)
    >>> outputs = lambda p: x @ p
    >>> tx.update(jnp.array([0.5, 2.0]), tx.init(p), p, output_fn=outputs)[0]
    Array([1., 1.], dtype=float32)

    Raises:
      ValueError: an argument out of its range; from `update`, when `params` or `output_fn` is missing.
    """

    likelihood: Likelihood
    damping: Scalar = 1e-4
    variance: Scalar = 1.0
    solver: Literal["dense", "cg"] = "dense"
    max_cg_steps: int = 100
    cg_tol: Scalar = 1e-6

    def __post_init__(self) -> None:
        owner = "scale_by_natural_gradient"
        object.__setattr__(self, "max_cg_steps", as_count(owner, "max_cg_steps", self.max_cg_steps, 1))
        settle(owner, self, nonnegative=("damping", "variance", "cg_tol"))
        for name, known in (("likelihood", LIKELIHOODS), ("solver", ("dense", "cg"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{owner}: {name} is {getattr(self, name)!r}, wanted one of {', '.join(known)}")

    def init(self, params: Any) -> EmptyState:
        vectors.real_only("scale_by_natural_gradient", params)
        return EmptyState()

    def update(
        self, grads: Any, state: EmptyState, params: Any = None, *, output_fn: Any = None, **extra: Any
    ) -> tuple[Any, EmptyState]:
        owner = "scale_by_natural_gradient"
        needs(owner, params=params, output_fn=output_fn)
        check_like(owner, "the gradients do not match the parameters", params, grads)
        if not jax.tree.leaves(grads):
            return grads, state
        outputs = bind(owner, "output_fn", output_fn, extra)
        fisher = fisher_at(outputs, params, self.likelihood, as_dtype(self.variance, vectors.scalar_dtype(params)))
        g = vectors.wide(grads)
        damping = as_dtype(self.damping, vectors.scalar_dtype(g))
        if self.solver == "cg":

            def damped(v: Any) -> Any:
                return vectors.add(vectors.cast_like(fisher(v), v), v, damping)

            return cg(damped, g, tol=self.cg_tol, max_steps=self.max_cg_steps)[0], state
        vector, back = vectors.flat(g)
        rows = jax.vmap(lambda e: vectors.flat(vectors.cast_like(fisher(back(e)), g))[0])(
            jnp.eye(vector.size, dtype=vector.dtype)
        )
        return back(products.solve_symmetric((rows + rows.T) / 2, vector, damping)), state


scale_by_natural_gradient = ScaleByNaturalGradient


def natural_gradient(
    learning_rate: ScalarOrSchedule,
    likelihood: Likelihood,
    damping: Scalar = 1e-4,
    variance: Scalar = 1.0,
    solver: Literal["dense", "cg"] = "dense",
    max_cg_steps: int = 100,
    cg_tol: Scalar = 1e-6,
    *,
    linesearch: Any = None,
) -> Chain:
    """The natural gradient with the exact Fisher matrix, for models with a known output distribution.

        p = p - eta (F + damping I)^-1 g              F: see `fisher_vp`; g: of the *mean* negative log-likelihood

    Without damping the steps in function space do not depend on how the model is parametrized, to first order, and not
    at all on a linear change of parameters. For these likelihoods it equals the (generalized) Gauss-Newton method.
    "dense" forms F and its eigenvalues: for small models; "cg" takes products alone. `update` needs `output_fn=`.

    Args:
      learning_rate: eta.
      likelihood: "categorical" or "bernoulli" (the outputs are logits), or "gaussian" (they are means).
      damping: added to F.
      variance: of the gaussian.
      solver: "dense", which takes the shortest solution where F is singular, or "cg".
      max_cg_steps, cg_tol: of "cg".
      linesearch: a link that scales the step; with it, `update` needs `value=`, `grad=` and `value_fn=` too.

    Differences. None of optax, torch and Keras has it.

    References: Amari, "Natural gradient works efficiently in learning", 1998. Martens, "New insights and perspectives
    on the natural gradient method", 2020.

    >>> from dlkit import optim
    >>> x, y = jnp.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]]), jnp.array([0.0, 1.0, 0.0])
    >>> logits = lambda p: x @ p
    >>> loss = lambda p: jnp.mean(jnp.logaddexp(0, logits(p)) - y * logits(p))
    >>> params, result = optim.minimize(loss, jnp.zeros(2), natural_gradient(1.0, "bernoulli"), output_fn=logits)
    >>> bool(result.converged), int(result.steps) < 10
    (True, True)

    Raises:
      ValueError: an argument out of its range; from `update`, when `params` or `output_fn` is missing.
    """
    return chain(
        scale_by_natural_gradient(likelihood, damping, variance, solver, max_cg_steps, cg_tol),
        scale_by_learning_rate(learning_rate),
        identity() if linesearch is None else linesearch,
    )
