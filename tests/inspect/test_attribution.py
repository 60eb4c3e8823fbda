"""Where answers come from, against closed forms: linear models, quadratics, class activation maps, a smoothed step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dlkit import inspect, models, nn, optim

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((3, 6, 6, 2)).astype(np.float32))
# Maps, their mean over places, a linear head: what a class activation map is defined for. A norm and a stack beside.
GAP = nn.Chain(nn.Conv(2, 4, 3), nn.Relu(), nn.GlobalAvgPool(2), head=nn.Linear(4, 5))
P = GAP.init(jax.random.key(0))
LINEAR = nn.Chain(nn.Flatten(3), nn.Linear(72, 5))
PL = LINEAR.init(jax.random.key(1))
SMOOTH = nn.Chain(nn.Flatten(3), nn.Linear(72, 8), nn.Tanh(), nn.Linear(8, 5))
PS = SMOOTH.init(jax.random.key(2))


def test_saliency_of_each_target_is_the_gradient():
    w = np.asarray(PL["linear2"]["w"] if "linear2" in PL else PL["linear1"]["w"]).T.reshape(5, 6, 6, 2)
    largest = np.asarray(LINEAR(PL, X).argmax(-1))
    classes = np.array([4, 0, 2])
    for target, want in (
        (3, w[[3, 3, 3]]),
        (classes, w[classes]),
        (None, w[largest]),
        (lambda y: y[:, 1] - 2 * y[:, 2], (w[1] - 2 * w[2])[None].repeat(3, 0)),
    ):
        np.testing.assert_allclose(inspect.saliency(LINEAR, PL, None, X, target), want, rtol=1e-6)
    # And of a model that is not linear, what jax.grad of each example gives alone.
    one = jax.vmap(jax.grad(lambda x: SMOOTH(PS, x[None])[0, 3]))
    np.testing.assert_allclose(inspect.saliency(SMOOTH, PS, None, X, 3), one(X), rtol=1e-5, atol=1e-6)


def test_integrated_gradients_are_complete(x64):
    """They add up to the difference of scores; of a quadratic they are known, and two points of the rule are exact."""
    params = jax.tree.map(lambda a: a.astype(jnp.float64), PS)
    x, baseline = X.astype(jnp.float64), 0.3
    found = inspect.integrated_gradients(SMOOTH, params, None, x, baseline=baseline, steps=24)
    best = np.asarray(SMOOTH(params, x).argmax(-1))
    gap = SMOOTH(params, x)[np.arange(3), best] - SMOOTH(params, jnp.full_like(x, baseline))[np.arange(3), best]
    np.testing.assert_allclose(found.sum((1, 2, 3)), gap, rtol=1e-9)

    square = nn.Linear(2, 2)
    eye = {"w": jnp.eye(2), "b": jnp.zeros(2)}
    z = jnp.array([[2.0, 3.0]])
    given = inspect.integrated_gradients(square, eye, None, z, lambda y: y[:, 0] ** 2 + y[:, 0] * y[:, 1], steps=1)
    np.testing.assert_allclose(
        given, [[2 * 2 + 3.0, 3.0]], rtol=1e-12
    )  # x_i times the gradient half way: 2 a x0 + a x1


def test_smooth_grad_is_the_gradient_of_the_smoothed_score():
    """Of relu(x), smoothed by a Gaussian, the derivative is Phi(x / noise)."""
    x = jnp.linspace(-1, 1, 7)[:, None]
    relu = nn.Chain(nn.Linear(1, 1), nn.Relu())
    params = {"linear1": {"w": jnp.ones((1, 1)), "b": jnp.zeros(1)}, "relu1": relu.init(jax.random.key(0))["relu1"]}
    n = 4000
    found = inspect.smooth_grad(relu, params, None, x, 0, key=jax.random.key(3), noise=0.5, samples=n)
    want = stats.norm.cdf(np.asarray(x) / 0.5)
    assert np.abs(found - want).max() < 4 * 0.5 / n**0.5  # four standard errors of a mean of zeros and ones
    assert np.abs(inspect.saliency(relu, params, None, x, 0) - want).max() > 0.4  # at 0 the plain one is 0, not 1/2


def test_occlusion_of_a_linear_model_is_what_the_square_gave():
    w = np.asarray(jax.tree.leaves(PL)[1]).T.reshape(5, 6, 6, 2)[2]
    found = inspect.occlusion(LINEAR, PL, None, X, 2, size=3, stride=2, fill=0.5)
    assert found.shape == (3, 2, 2)
    part = ((np.asarray(X) - 0.5) * w).sum(-1)
    want = [[[p[i : i + 3, j : j + 3].sum() for j in (0, 2)] for i in (0, 2)] for p in part]
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


def test_grad_cam_is_the_class_activation_map():
    """Zhou et al. 2016: sum_k w_kc A_k, here divided by the 36 places of the mean; without the maximum with 0 it adds
    up to the score without its bias."""
    maps = np.asarray(models.features(GAP, P, None, X, "relu1")["relu1"])
    want = maps @ np.asarray(P["head"]["w"])[:, 3] / 36
    signed = inspect.grad_cam(GAP, P, None, X, 3, "relu1", positive=False)
    np.testing.assert_allclose(signed, want, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(signed.sum((1, 2)), GAP(P, X)[:, 3] - P["head"]["b"][3], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(inspect.grad_cam(GAP, P, None, X, 3, "rel*"), np.maximum(want, 0), rtol=1e-5, atol=1e-7)
    assert (want < 0).any()


def test_gradients_inside_a_stack_with_norms_are_those_of_the_rest():
    """Through blocks that are scanned, layers that remember, and a jit: against the chain rule by hand."""
    block = nn.Residual(nn.Chain(nn.Linear(3, 3), nn.Tanh()))
    model = nn.Chain(norm=nn.BatchNorm(3), stack=nn.Stack(block, 3, remat="full"), head=nn.Linear(3, 2))
    params, state = model.init(jax.random.key(0)), model.init_state()
    x = jnp.asarray(RNG.standard_normal((4, 3)).astype(np.float32))

    @jax.jit
    def found(params, x):
        return inspect.layer_gradients(model, params, state, x, 1, "norm")

    y, gradient = found(params, x)
    after = jax.grad(
        lambda h: model["head"](params["head"], model["stack"].apply(params["stack"], None, h, nn.EVAL)[0])[:, 1].sum()
    )
    np.testing.assert_allclose(y, model["norm"].apply(params["norm"], state["norm"], x, nn.EVAL)[0], rtol=1e-6)
    np.testing.assert_allclose(gradient, after(y), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="'stack' is run 3 times"):
        inspect.layer_gradients(model, params, state, x, 1, "stack")


def test_what_does_not_fit_is_named():
    with pytest.raises(TypeError, match="saliency differentiates by x, but x is uint8"):
        inspect.saliency(LINEAR, PL, None, np.zeros((1, 6, 6, 2), np.uint8))
    with pytest.raises(ValueError, match=r"target is int32 of shape \(2,\).*3 classes"):
        inspect.saliency(LINEAR, PL, None, X, np.array([1, 2]))
    with pytest.raises(ValueError, match=r"target gave shape \(3, 5\), want one number an example"):
        inspect.saliency(LINEAR, PL, None, X, lambda y: y)
    with pytest.raises(ValueError, match="for other outputs give a function"):
        inspect.saliency(nn.Conv(2, 2, 3), nn.Conv(2, 2, 3).init(jax.random.key(0)), None, X, 1)
    with pytest.raises(ValueError, match=r"at one layer, but '\*1' matches conv1, global_avg_pool1, relu1"):
        inspect.grad_cam(GAP, P, None, X, 3, "*1")
    with pytest.raises(ValueError, match=r"'head' gives \(3, 5\), want maps"):
        inspect.grad_cam(GAP, P, None, X, 3, "head")
    with pytest.raises(ValueError, match=r"wants x \[B, H, W, C\], size in 1"):
        inspect.occlusion(LINEAR, PL, None, X, 2, size=7)
    with pytest.raises(ValueError, match="at least one step, got 0"):
        inspect.integrated_gradients(LINEAR, PL, None, X, steps=0)
    with pytest.raises(ValueError, match="samples >= 1"):
        inspect.smooth_grad(LINEAR, PL, None, X, key=jax.random.key(0), samples=0)


def test_a_linear_unit_answers_most_to_its_weights():
    """Erhan et al. 2009: of all x of one length, the one along the weights."""
    start = jnp.asarray(RNG.standard_normal((5, 6, 6, 2)).astype(np.float32))
    found = inspect.maximize_activation(LINEAR, PL, None, start, jnp.arange(5), radius=2.0, steps=150)
    w = np.asarray(jax.tree.leaves(PL)[1]).T.reshape(5, 6, 6, 2)
    want = 2 * w / np.sqrt((w**2).sum((1, 2, 3), keepdims=True))
    np.testing.assert_allclose(found.x, want, atol=1e-3)  # every step shrinks what is off by a constant factor
    assert found.values.shape == (151, 5)
    np.testing.assert_allclose(found.values[-1], (want * w).sum((1, 2, 3)) + PL[[*PL][-1]]["b"], rtol=1e-4)
    # In a box it is a corner: the sign of each weight.
    boxed = inspect.maximize_activation(
        LINEAR, PL, None, start, jnp.arange(5), box=(-1, 1), steps=300, optimizer=optim.sgd(100.0)
    )
    np.testing.assert_array_equal(boxed.x, np.sign(w))


def test_units_inside_and_smooth_pictures():
    """A channel's mean rises; rows do not know of each other; the penalty makes what is found smoother."""
    start = 0.1 * X
    given = {"at": "conv1", "box": (-1, 1), "steps": 30}
    found = inspect.maximize_activation(GAP, P, None, start, jnp.array([0, 1, 2]), **given)
    assert np.all(found.values[-1] > found.values[0])
    alone = inspect.maximize_activation(GAP, P, None, start[1:2], 1, **given)
    np.testing.assert_allclose(found.x[1:2], alone.x, atol=1e-5)
    smooth = inspect.maximize_activation(
        GAP, P, None, start, 0, total_variation=0.3, jitter=1, key=jax.random.key(0), **given
    )
    rough = [float(jnp.square(jnp.diff(a.x, axis=1)).sum()) for a in (found, smooth)]
    assert rough[1] < 0.5 * rough[0]
    with pytest.raises(ValueError, match="draws jitter=1 from a key"):
        inspect.maximize_activation(GAP, P, None, start, 0, jitter=1)
    with pytest.raises(ValueError, match="a radius above 0, got -1"):
        inspect.maximize_activation(GAP, P, None, start, 0, radius=-1)
    with pytest.raises(ValueError, match=r"want pictures \[B, H, W, C\]"):
        inspect.maximize_activation(nn.Linear(2, 2), {}, None, jnp.ones((1, 2)), 0, total_variation=1.0)


def test_pictures_hold_the_numbers(tmp_path):
    w = RNG.standard_normal((3, 3, 2, 4))
    figure = inspect.filters_plot(w, path=tmp_path / "w.png")
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes[:-1]]
    assert len(shown) == 8
    np.testing.assert_array_equal(shown[6], w[:, :, 1, 2])  # a row an input channel
    top = np.abs(w).max()
    assert all(axes.images[0].get_clim() == (-top, top) for axes in figure.axes[:-1])  # one scale
    maps = RNG.random((4, 5, 3))
    figure = inspect.maps_plot(maps, names="abc", path=tmp_path / "m.png")
    np.testing.assert_array_equal(figure.axes[2].images[0].get_array(), maps[..., 2])
    assert figure.axes[0].images[0].get_clim() == (0, maps.max())
    images = RNG.random((2, 4, 4, 1))
    heat = np.zeros((2, 2, 2))
    heat[0, 1, 0] = 3.0
    tiles = [a.images[0].get_array() for a in inspect.heat_plot(images, heat, path=tmp_path / "h.png").axes]
    grey = np.ptp(np.asarray(tiles), axis=-1) < 1e-12
    assert grey[1].all()  # where nothing is hot the picture stays
    np.testing.assert_array_equal(~grey[0], np.kron([[0, 0], [1, 0]], np.ones((2, 2))).astype(bool))
    assert all((tmp_path / f"{name}.png").stat().st_size > 1_000 for name in "wmh")
    for wrong, match in (
        (lambda: inspect.filters_plot(np.ones((3, 3))), r"\[kh, kw, c_in, c_out\], got shape \(3, 3\)"),
        (lambda: inspect.maps_plot(np.ones((3, 3))), r"\[h, w, K\], got shape \(3, 3\)"),
        (lambda: inspect.maps_plot(maps, names="a"), "1 names for 3 pictures"),
        (lambda: inspect.heat_plot(images, heat[:1]), r"got \(2, 4, 4\) and \(1, 2, 2\)"),
    ):
        with pytest.raises(ValueError, match=match):
            wrong()
