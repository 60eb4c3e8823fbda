"""Denoising diffusion: pictures from noise, by a network that tells noise from picture, step after step."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from dlkit import nn
from dlkit.nn import EVAL, Mode, child_state
from dlkit.nn.checks import describe

__all__ = ["Diffusion", "DiffusionOutputs", "NoiseSchedule"]


@dataclass(frozen=True)
class NoiseSchedule:
    r"""How much noise there is at each of `steps` times: x_0 is a picture, x_T almost noise alone.

    .. math:: q(x_t \mid x_{t-1}) = N(\sqrt{1 - \beta_t}\, x_{t-1}, \beta_t I), \qquad
        q(x_t \mid x_0) = N(\sqrt{\bar\alpha_t}\, x_0, (1 - \bar\alpha_t) I), \quad
        \bar\alpha_t = \prod_{s \le t} (1 - \beta_s)

    Times are counted from 0 as in the code of most: time t here is t + 1 in the paper, and even time 0 has some noise.

    Args:
      kind: "linear", betas in equal steps from `start` to `end` (Ho et al.); or "cosine", in which
        alpha_bar_t = f(t + 1) / f(0), f(t) = cos^2((t / T + s) / (1 + s) pi / 2), s = 0.008, betas at most 0.999
        (Nichol and Dhariwal), which keeps more of small pictures. It has no use for `start` and `end`.
      steps: T. With fewer than 1000, a linear schedule wants a larger `end`, or x_T is not noise.
      start, end: the first and the last beta of a linear schedule.

    >>> NoiseSchedule("linear", 3, 0.1, 0.3).betas().round(2).tolist()
    [0.1, 0.2, 0.3]
    >>> NoiseSchedule("linear", 3, 0.1, 0.3).signal().round(3).tolist()
    [0.9, 0.72, 0.504]

    Raises:
      ValueError: an unknown kind, no step, or betas that are not in (0, 1) or fall.

    References: Ho, Jain and Abbeel, Denoising diffusion probabilistic models, 2020, arXiv:2006.11239; Nichol and
    Dhariwal, Improved denoising diffusion probabilistic models, 2021, arXiv:2102.09672.
    """

    kind: Literal["linear", "cosine"] = "linear"
    steps: int = 1000
    start: float = 1e-4
    end: float = 0.02

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "cosine"):
            raise ValueError(f"NoiseSchedule: got kind {self.kind!r}, expected 'linear' or 'cosine'")
        if self.steps < 1 or not 0 < self.start <= self.end < 1:
            raise ValueError(f"{self}: expected at least one step, and 0 < start <= end < 1")

    def betas(self) -> np.ndarray:
        """The variances that each step adds, float64 `[steps]`."""
        if self.kind == "linear":
            return np.linspace(self.start, self.end, self.steps)
        share = (np.arange(self.steps + 1) / self.steps + 0.008) / 1.008
        f = np.cos(share * np.pi / 2) ** 2
        return np.minimum(1 - f[1:] / f[:-1], 0.999)

    def signal(self) -> np.ndarray:
        """alpha_bar, the share of the variance that is still picture, float64 `[steps]`."""
        return np.cumprod(1 - self.betas())

    def add_noise(self, x: Array, noise: Array, time: Integer[Array, "B"]) -> Array:
        """x_t for pictures x `[B, ...]` and noise from N(0, I), a time each: a draw from q(x_t | x_0)."""
        a = _at(self.signal(), time, x)
        return jnp.sqrt(a) * x + jnp.sqrt(1 - a) * noise

    def posterior(self, x: Array, noisy: Array, time: Integer[Array, "B"]) -> tuple[Array, Array]:
        r"""Mean `[B, ...]` and variance `[B, 1, ...]` of q(x_{t-1} | x_t, x_0), x_0 = `x` and x_t = `noisy`.

        .. math:: \frac{\sqrt{\bar\alpha_{t-1}}\, \beta_t}{1 - \bar\alpha_t} x_0
            + \frac{\sqrt{1 - \beta_t}\, (1 - \bar\alpha_{t-1})}{1 - \bar\alpha_t} x_t, \qquad
            \frac{1 - \bar\alpha_{t-1}}{1 - \bar\alpha_t} \beta_t

        At time 0 it is x_0 itself.
        """
        betas, a = self.betas(), self.signal()
        before = np.append(1.0, a[:-1])
        of_x = _at(np.sqrt(before) * betas / (1 - a), time, x)
        of_noisy = _at(np.sqrt(1 - betas) * (1 - before) / (1 - a), time, x)
        return of_x * x + of_noisy * noisy, _at((1 - before) / (1 - a) * betas, time, x)


def _at(table: np.ndarray, time: Array, like: Array) -> Array:
    """The entries of a table at times `[B]`, shaped to multiply `[B, ...]`."""
    return jnp.asarray(table, like.dtype)[time].reshape(-1, *(1,) * (like.ndim - 1))


class DiffusionOutputs(NamedTuple):
    """What a `Diffusion` gives: the noise it `predicted` and the `noise` there was `[B, ...]`, and the `time` `[B]`."""

    predicted: Array
    noise: Array
    time: Array


@dataclass(frozen=True)
class Diffusion(nn.Layer[Any, Any]):
    """A denoising diffusion model: pictures x `[B, *shape]` in [0, 1], to `DiffusionOutputs`.

        t uniform over the schedule's times, noise from N(0, I), one of both for each picture
        x_t = sqrt(alpha_bar_t) (2 x - 1) + sqrt(1 - alpha_bar_t) noise
        predicted = net(x_t, t)

    `net.apply(params, state, x_t, mode, time=t)` gives an array shaped as x_t: `models.TimeUNet`, say. Train it with
    `losses.simple_diffusion`: `Task(model, losses.simple_diffusion, inputs="x", targets="x")`. Times and noise are
    drawn from `mode.rng`; in evaluation from a key of their own, always the same, so that losses can be compared.
    `sample` draws pictures. `front` is what pictures go through first, such as a `Rescale` of bytes.

    Parameters and state: those of `net` and of `front`.

    Raises:
      ValueError: x is not `[B, *shape]`.

    Reference: Ho, Jain and Abbeel, Denoising diffusion probabilistic models, 2020, arXiv:2006.11239, algorithm 1.
    """

    net: nn.Layer
    shape: tuple[int, ...]
    schedule: NoiseSchedule = NoiseSchedule()
    front: nn.Layer = nn.Identity()

    def apply(self, params: Any, state: Any, x: Any, mode: Mode) -> tuple[DiffusionOutputs, Any]:
        held = child_state(state, "front")
        x, kept = self.front.apply(params["front"], held, x, mode.at("front"))
        if x.shape[1:] != self.shape:
            raise ValueError(
                f"{describe(self)} got x of shape {x.shape}: expected [B, {', '.join(map(str, self.shape))}]"
            )
        keys = jax.random.split(jax.random.key(0)) if not mode.train else (mode.rng("time"), mode.rng("noise"))
        time = jax.random.randint(keys[0], x.shape[:1], 0, self.schedule.steps, jnp.int32)
        noise = jax.random.normal(keys[1], x.shape, x.dtype)
        noisy = self.schedule.add_noise(2 * x - 1, noise, time)
        net: Any = self.net  # it takes the keyword `time`
        predicted, after = net.apply(params["net"], child_state(state, "net"), noisy, mode.at("net"), time=time)
        remembered = {name: s for name, s in (("net", after), ("front", kept)) if s is not None}
        return DiffusionOutputs(predicted, noise, time), remembered or None

    def sample(
        self, params: Any, state: Any, key: Any, n: int, *, steps: int | None = None, eta: float = 1.0,
        clip: bool = True, dtype: Any = jnp.float32,
    ) -> Float[Array, "n *shape"]:  # fmt: skip
        r"""`n` pictures in [0, 1] from noise, in one compiled loop.

        .. math:: \hat x_0 = \frac{x_t - \sqrt{1 - \bar\alpha_t}\, \text{net}(x_t, t)}{\sqrt{\bar\alpha_t}}, \qquad
            x_s = \sqrt{\bar\alpha_s}\, \hat x_0 + \sqrt{1 - \bar\alpha_s - \sigma^2}\, \hat\varepsilon + \sigma z,
            \quad \sigma^2 = \eta^2 \frac{1 - \bar\alpha_s}{1 - \bar\alpha_t}
            \Big(1 - \frac{\bar\alpha_t}{\bar\alpha_s}\Big)

        With eta = 1 and all steps it is the ancestral sampling of DDPM (its smaller variance, that of `posterior`);
        with eta = 0 the noise at the start decides all (DDIM), which is good with far fewer steps.

        Args:
          key: of all draws. n: how many pictures.
          steps: times that are visited, in equal steps from the last to the first; None for all.
          eta: from 0 to 1, how much of the noise is drawn anew.
          clip: cut the picture that is guessed to [-1, 1] in each step, and derive the noise from it again; the first
            guesses, from almost noise alone, are far outside.
          dtype: that of the pictures and of the parameters.

        Raises:
          ValueError: `steps` or `eta` out of range.

        Reference: Song, Meng and Ermon, Denoising diffusion implicit models, 2020, arXiv:2010.02502, equations 12, 16.
        """
        first, rest = jax.random.split(key)
        noise = jax.random.normal(first, (n, *self.shape), dtype)
        return self.denoise(params, state, noise, rest, steps=steps, eta=eta, clip=clip)

    def denoise(
        self, params: Any, state: Any, noise: Array, key: Any, *, steps: int | None = None, eta: float = 1.0,
        clip: bool = True,
    ) -> Float[Array, "n *shape"]:  # fmt: skip
        """As `sample`, from a noise of your own `[n, *shape]`: with eta = 0 it is a code of the picture."""
        n, dtype = noise.shape[0], noise.dtype
        total = self.schedule.steps
        steps = total if steps is None else steps
        if not 1 <= steps <= total or not 0 <= eta <= 1:
            raise ValueError(f"sample: got steps={steps}, eta={eta}: expected 1 .. {total} steps, and eta in [0, 1]")
        time = (
            np.linspace(total - 1, 0, steps).round().astype(np.int32) if steps > 1 else np.array([total - 1], np.int32)
        )
        a = self.schedule.signal()[time]
        after = np.append(a[1:], 1.0)  # the last step goes to the picture itself
        sigma = eta * np.sqrt((1 - after) / (1 - a) * (1 - a / after))
        of_noise = np.sqrt(np.maximum(1 - after - sigma**2, 0))
        each = (np.sqrt(a), np.sqrt(1 - a), np.sqrt(after), of_noise, sigma)
        tables = tuple(jnp.asarray(table, dtype) for table in each)
        held = child_state(state, "net")

        net: Any = self.net  # it takes the keyword `time`

        def step(x: Array, each: Any) -> tuple[Array, None]:
            t, key, (root, spread, root_after, spread_after, sigma) = each
            noise, _ = net.apply(params["net"], held, x, EVAL, time=jnp.full(n, t, jnp.int32))
            guess = (x - spread * noise) / root
            if clip:
                guess = jnp.clip(guess, -1, 1)
                noise = (x - root * guess) / spread
            fresh = jax.random.normal(key, x.shape, x.dtype) if eta else jnp.zeros_like(x)
            return root_after * guess + spread_after * noise + sigma * fresh, None

        x, _ = jax.lax.scan(step, noise, (jnp.asarray(time), jax.random.split(key, steps), tables))
        return (jnp.clip(x, -1, 1) if clip else x) / 2 + 0.5
