"""The variational bound beside torch's distributions, and the importance-weighted one beside an integral."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from support.beside import beside_torch

from dlkit import losses, models, nn

RNG = np.random.default_rng(0)


def test_negative_elbo_is_that_of_torchs_distributions(x64):
    arrays = {
        "logits": RNG.standard_normal((3, 2, 4)), "mean": RNG.standard_normal((3, 5)),
        "log_var": RNG.standard_normal((3, 5)),
    }  # fmt: skip
    x = RNG.random((3, 2, 4))

    def ours(logits, mean, log_var):
        return losses.negative_elbo(models.VAEOutputs(logits, mean, log_var), jnp.asarray(x), beta=1.5)

    def theirs(torch, logits, mean, log_var):
        d = torch.distributions
        pixels = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(x), reduction="none")
        prior = d.Normal(torch.zeros_like(mean), torch.ones_like(mean))
        return pixels.sum((1, 2)) + 1.5 * d.kl_divergence(d.Normal(mean, torch.exp(log_var / 2)), prior).sum(1)

    beside_torch("vae/negative_elbo", ours, arrays, theirs, np.float64)


def test_gaussian_kl_does_not_cancel_near_the_prior(unchecked):
    tiny = jnp.full((1, 1), 1e-4)
    assert float(losses.gaussian_kl(jnp.zeros((1, 1)), tiny)[0]) == pytest.approx(2.5e-9, rel=1e-2)
    assert float(losses.gaussian_kl(jnp.zeros((1, 4)), jnp.zeros((1, 4)))[0]) == 0
    with pytest.raises(ValueError, match="differ in shape"):
        losses.gaussian_kl(jnp.zeros((1, 4)), jnp.zeros((1, 3)))


def test_bounds_lie_below_the_integral_and_the_importance_weighted_one_reaches_it(x64):
    """One latent number, three pixels: log p(x) by quadrature."""
    model = models.VAE(nn.Linear(3, 2), nn.Linear(1, 3), 1)
    params = {
        "encoder": {"w": jnp.array([[0.3, 0.1], [-0.2, 0.4], [0.5, -0.3]]), "b": jnp.array([0.1, -0.4])},
        "decoder": {"w": jnp.array([[1.0, -2.0, 0.7]]), "b": jnp.array([0.2, 0.3, -0.5])},
    }
    x = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    w, b = (np.asarray(params["decoder"][k]).ravel() for k in "wb")

    def exact(row):
        def density(z):
            p = scipy.special.expit(z * w + b)
            return np.prod(np.where(row == 1, p, 1 - p)) * scipy.stats.norm.pdf(z)

        return np.log(scipy.integrate.quad(density, -10, 10)[0])

    @functools.partial(jax.jit, static_argnums=1)
    def bound(key, samples):
        return models.importance_bound(model, params, None, jnp.asarray(x), key, samples)

    want = np.array([exact(row) for row in x])
    many = bound(jax.random.key(0), 20_000)
    np.testing.assert_allclose(many, want, atol=0.02)  # the deviation of a mean of 20,000 weights near 1
    mean, log_var = (np.asarray(a)[:, 0] for a in model.encode(params, None, jnp.asarray(x)))

    def elbo(row, mean, log_var):
        q = scipy.stats.norm(mean, np.exp(log_var / 2))

        def term(z):
            likelihood = np.sum(row * (z * w + b) - np.logaddexp(0, z * w + b))
            return q.pdf(z) * (likelihood + scipy.stats.norm.logpdf(z) - q.logpdf(z))

        return scipy.integrate.quad(term, -10, 10)[0]

    lower = np.array([elbo(*each) for each in zip(x, mean, log_var, strict=True)])
    assert (lower < want).all()
    one = jax.vmap(lambda key: bound(key, 1))(jax.random.split(jax.random.key(1), 4000))
    error = np.asarray(one).std(0) / 4000**0.5
    assert (np.abs(one.mean(0) - lower) < 4 * error).all()
    # The training loss: of many copies of each x, so that its fixed noise averages out.
    copies = jnp.repeat(jnp.asarray(x), 4000, axis=0)
    outputs = model.apply(params, None, copies, nn.EVAL)[0]
    losses_ = np.asarray(losses.negative_elbo(outputs, copies)).reshape(2, 4000)
    assert (np.abs(-losses_.mean(1) - lower) < 4 * losses_.std(1) / 4000**0.5).all()
    with pytest.raises(ValueError, match="at least one sample"):
        bound(jax.random.key(0), 0)


def test_noise_is_the_steps_in_training_and_always_the_same_in_evaluation():
    model = models.vae((4, 4, 1), (8,), 2)
    params, x = model.init(jax.random.key(0)), jnp.ones((3, 4, 4, 1))
    run = jax.jit(model.apply)
    first, again = (run(params, None, x, nn.training(jax.random.key(i)))[0] for i in (1, 2))
    assert (first.mean == again.mean).all()
    assert (first.logits != again.logits).any()
    calm, same = run(params, None, x, nn.EVAL)[0], run(params, None, x, nn.EVAL)[0]
    assert (calm.logits == same.logits).all()
    assert len(np.unique(np.asarray(calm.logits).reshape(3, -1)[:, 0])) == 3  # a draw for each example
    with pytest.raises(ValueError, match=r"the encoder gave \(3, 8\), expected \[B, 4\]"):
        models.VAE(nn.Chain(nn.Flatten(), nn.Linear(16, 8)), nn.Linear(2, 16), 2).apply(
            {"encoder": {"flatten1": {}, "linear1": {"w": jnp.ones((16, 8)), "b": jnp.ones(8)}},
             "decoder": {"w": jnp.ones((2, 16)), "b": jnp.ones(16)}}, None, x, nn.EVAL,
        )  # fmt: skip
