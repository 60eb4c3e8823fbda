"""The variational autoencoder (Kingma and Welling, "Auto-encoding variational Bayes", 2013, arXiv:1312.6114)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import nn
from dlkit.nn import EVAL, Mode, child_state
from dlkit.nn.checks import describe

__all__ = ["VAE", "VAEOutputs", "importance_bound"]


class VAEOutputs(NamedTuple):
    """What a `VAE` gives: the decoder's `logits`, shaped as x, and of q(z | x) the `mean` and `log_var` `[B, d]`."""

    logits: Array
    mean: Array
    log_var: Array


@dataclass(frozen=True)
class VAE(nn.Layer[Any, Any]):
    """An encoder to a Gaussian over codes, a draw from it, and a decoder: x to `VAEOutputs`.

        mean, log_var = encoder(x)                 q(z | x) = N(mean, diag(exp(log_var)))
        z = mean + exp(log_var / 2) noise          noise from N(0, I): the draw is a function of mean and log_var
        logits = decoder(z)                        p(x | z), a Bernoulli for each pixel; p(z) = N(0, I)

    `encoder` gives `[B, 2 latent]`, means first; `decoder` takes `[B, latent]`. The noise is drawn from
    `mode.rng("noise")` in training. In evaluation it comes from a key of its own, always the same: the loss of a data
    set is then an estimate of its bound with the same noise at every call. `encode` and `decode` are the two halves;
    `decode(encode(x)[0])` is a reconstruction without noise.

    Train it with `losses.negative_elbo`: `Task(model, losses.negative_elbo, inputs="x", targets="x")`.

    >>> model = VAE(nn.Linear(6, 4), nn.Linear(2, 6), 2)
    >>> params = model.init(jax.random.key(0))
    >>> y, _ = model.apply(params, None, jnp.ones((3, 6)), nn.training(jax.random.key(1)))
    >>> y.logits.shape, y.mean.shape, y.log_var.shape
    ((3, 6), (3, 2), (3, 2))

    Raises:
      ValueError: the encoder does not give `[B, 2 latent]`.
    """

    encoder: nn.Layer
    decoder: nn.Layer
    latent: int

    def apply(self, params: Any, state: Any, x: Any, mode: Mode) -> tuple[VAEOutputs, Any]:
        mean, log_var, held = self._encode(params, state, x, mode)
        key = mode.rng("noise") if mode.train else jax.random.key(0)
        noise = jax.random.normal(key, mean.shape, mean.dtype)  # pyright: ignore[reportArgumentType]
        z = mean + jnp.exp(0.5 * log_var) * noise
        logits, after = self.decoder.apply(params["decoder"], child_state(state, "decoder"), z, mode.at("decoder"))
        remembered = {name: s for name, s in (("encoder", held), ("decoder", after)) if s is not None}
        return VAEOutputs(logits, mean, log_var), remembered or None

    def _encode(self, params: Any, state: Any, x: Any, mode: Mode) -> tuple[Array, Array, Any]:
        y, held = self.encoder.apply(params["encoder"], child_state(state, "encoder"), x, mode.at("encoder"))
        if y.ndim != 2 or y.shape[-1] != 2 * self.latent:
            raise ValueError(
                f"{describe(self)}: the encoder gave {y.shape}, expected [B, {2 * self.latent}]: means, log variances"
            )
        return y[:, : self.latent], y[:, self.latent :], held

    def encode(
        self, params: Any, state: Any, x: Any, mode: Mode = EVAL
    ) -> tuple[Float[Array, "B {self.latent}"], Float[Array, "B {self.latent}"]]:
        """`(mean, log_var)` of q(z | x), each `[B, latent]`."""
        return self._encode(params, state, x, mode)[:2]

    def decode(self, params: Any, state: Any, z: Array, mode: Mode = EVAL) -> Array:
        """The logits of p(x | z) for codes `[B, latent]`; `jax.nn.sigmoid` of them are the pixels' means."""
        return self.decoder.apply(params["decoder"], child_state(state, "decoder"), z, mode.at("decoder"))[0]


def importance_bound(model: VAE, params: Any, state: Any, x: Array, key: Any, samples: int = 50) -> Float[Array, "B"]:
    r"""A lower bound of log p(x) in nats from `samples` draws of z, tighter the more there are: `[B]`.

    .. math:: \log \frac1K \sum_k \frac{p(x \mid z_k)\, p(z_k)}{q(z_k \mid x)}, \qquad z_k \sim q(z \mid x)

    With one draw its expectation is the ELBO. x is floating point in [0, 1], pixels of a Bernoulli. The draws are made
    one after another, so memory does not grow with their number.

    >>> model = VAE(nn.Linear(6, 4), nn.Linear(2, 6), 2)
    >>> params = model.init(jax.random.key(0))
    >>> importance_bound(model, params, None, jnp.ones((3, 6)), jax.random.key(1), 5).shape
    (3,)

    Raises:
      ValueError: fewer than one sample.

    Reference: Burda, Grosse and Salakhutdinov, Importance weighted autoencoders, 2015, arXiv:1509.00519.
    """
    if samples < 1:
        raise ValueError(f"importance_bound wants at least one sample, got {samples}")
    mean, log_var = model.encode(params, state, x)

    def one(total: Array, key: Array) -> tuple[Array, None]:
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        z = mean + jnp.exp(0.5 * log_var) * noise
        logits = model.decode(params, state, z)
        pixels = x * jax.nn.log_sigmoid(logits) + (1 - x) * jax.nn.log_sigmoid(-logits)
        log_p = pixels.reshape(len(x), -1).sum(-1) - 0.5 * jnp.square(z).sum(-1)
        log_q = -0.5 * (jnp.square(noise) + log_var).sum(-1)  # both without d / 2 log(2 pi)
        return jnp.logaddexp(total, log_p - log_q), None

    start = jnp.full(mean.shape[0], -jnp.inf, mean.dtype)
    total, _ = jax.lax.scan(one, start, jax.random.split(key, samples))
    return total - jnp.log(jnp.asarray(samples, mean.dtype))
