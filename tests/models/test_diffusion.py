"""Diffusion beside closed forms: Gaussian conditioning, a data set whose best denoiser is known, diffusers' numbers."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import data, losses, models, nn, optim, train

SCHEDULES = {"linear": models.NoiseSchedule("linear", 40, 1e-3, 0.2), "cosine": models.NoiseSchedule("cosine", 40)}
MEAN, SPREAD = 0.3, 0.4  # of the Gaussian data set, as the network sees it: twice the pixel less 1


@dataclass(frozen=True)
class Best(nn.Pure[Any]):
    """The expectation of the noise given x_t where x_0 is N(MEAN, SPREAD^2)."""

    schedule: models.NoiseSchedule

    def init(self, key):
        return {}

    def __call__(self, params, x, *, time=None):
        a = jnp.asarray(self.schedule.signal(), x.dtype)[time].reshape(-1, *(1,) * (x.ndim - 1))
        return jnp.sqrt(1 - a) * (x - jnp.sqrt(a) * MEAN) / (a * SPREAD**2 + 1 - a)


@dataclass(frozen=True)
class Waves(nn.Pure[Any]):
    """Any function of x and the time."""

    def init(self, key):
        return {}

    def __call__(self, params, x, *, time=None):
        return jnp.sin(3 * x + time.astype(x.dtype).reshape(-1, 1) / 7)


def test_noise_added_at_once_is_that_of_all_steps_and_the_posterior_that_of_bayes(x64):
    rng = np.random.default_rng(0)
    x, noisy, noise = (rng.standard_normal((40, 2)) for _ in range(3))
    time = np.arange(40, dtype=np.int32)
    for schedule in SCHEDULES.values():
        factor, variance, want, before = 1.0, 0.0, [], []
        for beta in schedule.betas():
            before.append((factor, variance))
            factor, variance = factor * np.sqrt(1 - beta), (1 - beta) * variance + beta
            want.append((factor, variance))
        f, v = np.array(want).T[:, :, None]
        got = schedule.add_noise(jnp.asarray(x), jnp.asarray(noise), jnp.asarray(time))
        np.testing.assert_allclose(got, f * x + np.sqrt(v) * noise, rtol=1e-11)
        # x_{t-1} from two Gaussians: the one that x_0 gives, and what x_t says of it; precisions add up.
        f, v = np.array(before).T[:, 1:, None]
        beta = schedule.betas()[1:, None]
        precision = 1 / v + (1 - beta) / beta
        mean = (f * x[1:] / v + np.sqrt(1 - beta) * noisy[1:] / beta) / precision
        got, spread = schedule.posterior(jnp.asarray(x), jnp.asarray(noisy), jnp.asarray(time))
        np.testing.assert_allclose(got[1:], mean, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(spread[1:], 1 / precision, rtol=1e-9)
        np.testing.assert_allclose(got[0], x[0], rtol=1e-11)
        assert float(spread[0, 0]) == 0


def test_schedules_and_ddim_are_those_of_diffusers(x64):
    def theirs():
        import torch
        from diffusers import DDIMScheduler, DDPMScheduler

        options = {
            "linear": {"beta_schedule": "linear", "beta_start": 1e-3, "beta_end": 0.2},
            "cosine": {"beta_schedule": "squaredcos_cap_v2"},
        }
        found = {}
        for name, own in options.items():
            scheduler = DDIMScheduler(40, **own, clip_sample=True, set_alpha_to_one=True)
            scheduler.set_timesteps(40)
            x = torch.linspace(-2, 2, 6, dtype=torch.float64).reshape(3, 2)
            for t in scheduler.timesteps:
                noise = torch.sin(3 * x + t / 7)
                x = scheduler.step(noise, t, x, eta=0.0, use_clipped_model_output=True).prev_sample
            ancestral = DDPMScheduler(40, **own, variance_type="fixed_small")
            variance = [ancestral._get_variance(t).item() for t in range(1, 40)]
            found |= {f"{name}_signal": scheduler.alphas_cumprod.numpy(), f"{name}_x": x.numpy(),
                      f"{name}_variance": np.array(variance)}  # fmt: skip
        return found

    want = reference("diffusion/ddim", theirs, needs="diffusers")
    for name, schedule in SCHEDULES.items():
        # Theirs are float32 tables: the last alpha_bar of the cosine schedule, 1e-6, is a product of 40 of them.
        np.testing.assert_allclose(schedule.signal(), want[f"{name}_signal"], rtol=2e-4, atol=1e-7)
        time = jnp.arange(1, 40, dtype=jnp.int32)
        _, variance = schedule.posterior(jnp.ones((39, 1)), jnp.ones((39, 1)), time)
        np.testing.assert_allclose(variance[:, 0], want[f"{name}_variance"], rtol=2e-4)
        model = models.Diffusion(Waves(), (2,), schedule)
        start = jnp.linspace(-2, 2, 6).reshape(3, 2)
        got = model.denoise({"net": {}}, None, start, jax.random.key(0), eta=0.0)
        np.testing.assert_allclose(2 * got - 1, want[f"{name}_x"], atol=2e-3)


@pytest.mark.parametrize(("steps", "eta"), [(None, 1.0), (60, 0.0)], ids=["ancestral", "ddim"])
def test_with_the_best_denoiser_samples_are_drawn_from_the_data(steps, eta):
    schedule = models.NoiseSchedule("cosine", 400)
    model = models.Diffusion(Best(schedule), (4,), schedule)
    sample = jax.jit(lambda key: model.sample({"net": {}}, None, key, 4000, steps=steps, eta=eta, clip=False))
    x = np.asarray(2 * sample(jax.random.key(0)) - 1, np.float64).ravel()
    # 16,000 draws: deviations 0.003 and 0.002; steps of finite length shrink the spread by up to 2 %.
    assert x.mean() == pytest.approx(MEAN, abs=0.015)
    assert x.std() == pytest.approx(SPREAD, abs=0.012)
    third, fourth = (((x - x.mean()) / x.std()) ** k for k in (3, 4))
    assert abs(third.mean()) < 0.1
    assert fourth.mean() == pytest.approx(3, abs=0.2)


def test_the_loss_of_the_best_denoiser_is_what_noise_leaves_unknown():
    """E (noise - E[noise | x_t])^2 = a s^2 / (a s^2 + 1 - a), averaged over times."""
    schedule = SCHEDULES["linear"]
    model = models.Diffusion(Best(schedule), (8,), schedule)
    task = train.Task(model, losses.simple_diffusion, inputs="x", targets="x")
    x = (MEAN + SPREAD * jax.random.normal(jax.random.key(1), (20_000, 8)) + 1) / 2
    run = jax.jit(lambda mode: task.loss_fn({"net": {}, "front": {}}, None, {"x": x}, mode)[0])
    a = schedule.signal()
    want = np.mean(a * SPREAD**2 / (a * SPREAD**2 + 1 - a))
    for mode in (nn.training(jax.random.key(2)), nn.EVAL):
        assert float(run(mode)) == pytest.approx(want, rel=0.02)  # 160,000 errors, 20,000 times: deviation 0.5 %
    assert float(run(nn.EVAL)) == float(run(nn.EVAL))
    assert float(run(nn.training(jax.random.key(3)))) != float(run(nn.training(jax.random.key(2))))


@pytest.mark.thorough
def test_the_network_is_trained_everywhere_and_told_the_time():
    model = models.ddpm((4, 4, 1), (4, 8), groups=2, steps=20)  # two levels, small to compile fast
    rng = np.random.default_rng(0)
    digits = data.Arrays(x=np.repeat(rng.random((4, 4, 4, 1), np.float32).round(), 16, 0))
    task = train.Task(model, losses.simple_diffusion, inputs="x", targets="x")
    before = model.init(nn.fold_name(jax.random.key(0), "init"))
    result = train.fit(task, optim.adam(1e-2), digits, epochs=60, batch_size=32)
    assert result.history[0]["train/loss"] == pytest.approx(1, abs=0.3)
    assert result.last["train/loss"] < 0.6  # four pictures alone: knowing none, it is 1
    still = jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), result.state.params, before)
    assert not any(jax.tree.leaves(still))
    net, x = model.net, jnp.ones((2, 4, 4, 1))
    y = net.apply(result.state.params["net"], None, x, nn.EVAL, time=jnp.array([0, 19]))[0]
    assert float(jnp.abs(y[0] - y[1]).max()) > 1e-2
    drawn = jax.jit(lambda key: model.sample(result.state.params, None, key, 3, steps=4, eta=0.5))(jax.random.key(0))
    assert drawn.shape == (3, 4, 4, 1)
    assert bool(((drawn >= 0) & (drawn <= 1)).all())


def test_patches_are_the_same_pictures_in_fewer_pixels():
    net = models.time_unet(1, (4,), groups=2, heads=0, patch=2)
    params = net.init(jax.random.key(0))
    assert params["stem"]["w"].shape == (3, 3, 4, 4)
    params["head"]["conv"]["w"] = jnp.ones_like(params["head"]["conv"]["w"])
    assert net(params, jnp.ones((2, 4, 4, 1)), time=jnp.array([0, 1])).shape == (2, 4, 4, 1)


def test_what_does_not_fit_is_said(unchecked):
    with pytest.raises(ValueError, match="expected 'linear' or 'cosine'"):
        models.NoiseSchedule("sqrt")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="at least one step"):
        models.NoiseSchedule("linear", 0)
    with pytest.raises(ValueError, match="multiples of 4, got 6 x 8"):
        models.ddpm((6, 8, 1), (8, 8), patch=2)
    model = models.Diffusion(Waves(), (2,))
    with pytest.raises(ValueError, match=r"expected \[B, 2\]"):
        model.apply({"net": {}, "front": {}}, None, jnp.ones((3, 4)), nn.EVAL)
    with pytest.raises(ValueError, match="steps=2000"):
        model.sample({"net": {}}, None, jax.random.key(0), 1, steps=2000)
    net = models.time_unet(1, (4,), groups=2)
    with pytest.raises(ValueError, match="no `time`"):
        net.apply(net.init(jax.random.key(0)), None, jnp.ones((1, 4, 4, 1)), nn.EVAL)
