"""Twenty sigmoid layers: the first gets next to no gradient. ReLU with He's variance: it gets as much as the last."""

import jax
import jax.numpy as jnp
import numpy as np

from dlkit import nn
from dlkit.nn import initializers

X = jax.random.normal(jax.random.key(0), (32, 64))


def norms(init, activation):
    """The norm of the gradient of each of 20 layers' weights, for the sum of squares of what comes out, `[20]`."""
    block = nn.Chain(linear=nn.Linear(64, 64, w_init=init), act=activation)
    model = nn.Stack(block, 20)
    params = model.init(jax.random.key(1))
    grads = jax.jit(jax.grad(lambda p: jnp.mean(model.apply(p, None, X, nn.EVAL)[0] ** 2)))(params)
    return np.sqrt(np.sum(np.asarray(grads["linear"]["w"], np.float64) ** 2, axis=(1, 2)))


def test_gradients_vanish_behind_sigmoids_and_not_behind_he():
    """A sigmoid's slope is at most 1/4, so 19 of them scale a gradient by at most 4^-19 where |W| keeps lengths."""
    vanishing = norms(initializers.glorot_normal(), nn.Sigmoid())
    assert vanishing[0] < 1e-6 * vanishing[-1]
    factors = vanishing[1:] / vanishing[:-1]
    assert 3 < np.exp(np.log(factors[2:]).mean()) < 6  # per layer, near the 4 of the slope
    kept = norms(initializers.he_normal(), nn.Relu())
    assert 0.1 < kept[0] / kept[-1] < 10
