"""Critical points, sharpness, landscapes, paths and noise: beside closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import curvature, data, losses, nn, optim, train

D = jnp.array([1.0, 4.0, 0.5])


def bowl(p):
    return jnp.sum(D * p**2) / 2


POINTS = {
    "saddle": (lambda p: p[0] * p[1], [0.0, 0.0], (-1, 1), 1),  # z = xy
    "minimum": (lambda p: p[0] ** 2 + 3 * p[1] ** 2, [0.0, 0.0], (2, 6), 0),
    "maximum": (lambda p: -(p[0] ** 2) - jnp.cosh(p[1]), [0.0, 0.0], (-2, -1), 2),
    "degenerate": (lambda p: p[0] ** 2 + p[1] ** 4, [0.0, 0.0], (0, 2), 0),
    "not critical": (lambda p: p[0] ** 2 + p[1] ** 2, [1.0, 0.0], (2, 2), 0),
}


@pytest.mark.parametrize("kind", list(POINTS))
def test_critical_points(kind):
    fn, at, ends, negative = POINTS[kind]
    found = curvature.classify_critical_point(fn, jnp.array(at))
    assert (found.kind, found.negative) == (kind, negative)
    np.testing.assert_allclose((found.smallest, found.largest), ends, atol=1e-6)
    if kind in ("saddle", "degenerate"):
        assert curvature.classify_critical_point(fn, jnp.array(at), dense=0).kind == kind  # by Lanczos alone


def test_sharpness_of_a_quadratic():
    """At the minimum: lambda_max, trace; in the box of eps: eps^2 sum(d) / 2; elsewhere the gap from Taylor."""
    found = curvature.sharpness(bowl, jnp.zeros(3), eps=0.1)
    assert found.lambda_max == pytest.approx(4, rel=1e-6)
    assert found.trace.value == pytest.approx(5.5, rel=1e-6)
    assert found.keskar == pytest.approx(100 * 0.01 * 5.5 / 2, rel=1e-5)
    assert found.sam_gap == 0
    x, rho = np.array([1.0, -1.0, 2.0]), 0.1
    g = np.asarray(D) * x
    step = rho * g / np.linalg.norm(g)
    expected = rho * np.linalg.norm(g) + np.sum(np.asarray(D) * step**2) / 2
    assert curvature.sam_gap(bowl, jnp.asarray(x, jnp.float32), rho=rho) == pytest.approx(expected, rel=1e-4)
    linear = jnp.array([2.0, -3.0])
    found = curvature.keskar_sharpness(lambda p: 10 + jnp.vdot(linear, p), jnp.array([1.0, 3.0]), eps=0.01)
    assert found == pytest.approx(100 * 0.01 * (2 * 2 + 3 * 4) / (1 + 10 - 7), rel=1e-4)


def test_filters_and_directions():
    """Each filter as long as the model's, in a convolution and in each block of a stack; biases do not move."""
    model = nn.Chain(conv=nn.Conv(2, 3, 3), blocks=nn.Stack(nn.Linear(4, 4), 2))
    params = model.init(jax.random.key(0))
    stacked = curvature.stacked_axes(model, params)
    direction = curvature.random_direction(jax.random.key(1), params, stacked=stacked)

    def lengths(w, axes):
        return np.sqrt(np.sum(np.asarray(w) ** 2, axis=axes))

    np.testing.assert_allclose(
        lengths(direction["conv"]["w"], (0, 1, 2)), lengths(params["conv"]["w"], (0, 1, 2)), rtol=1e-5
    )
    np.testing.assert_allclose(lengths(direction["blocks"]["w"], 1), lengths(params["blocks"]["w"], 1), rtol=1e-5)
    assert not np.any(direction["blocks"]["b"])
    layer = curvature.filter_normalize(direction, params, normalize="layer")
    np.testing.assert_allclose(lengths(layer["conv"]["w"], None), lengths(params["conv"]["w"], None), rtol=1e-5)


def test_landscapes_are_the_loss():
    """Streamed over ragged batches and in chunks, against the loss point by point."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((11, 3)).astype(np.float32), rng.standard_normal((11, 2)).astype(np.float32)
    objective = curvature.Objective(train.Task(nn.Linear(3, 2), losses.mse), data.Arrays(x=x, y=y), batch_size=4)
    params = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}
    u, v = ({"w": rng.standard_normal((3, 2)).astype(np.float32), "b": np.ones(2, np.float32)} for _ in range(2))

    def loss(a, b):
        w, bias = 1 + a * u["w"] + b * v["w"], a * u["b"] + b * v["b"]
        return np.mean((x @ w + bias - y) ** 2)

    line = curvature.landscape_1d(objective, params, u, points=7, chunk=4)
    np.testing.assert_allclose(line.values, [loss(a, 0) for a in line.x], rtol=1e-5)
    plane = curvature.landscape_2d(objective, params, (u, v), span=((-1, 2), (0, 1)), points=3, chunk=4)
    np.testing.assert_allclose(plane.values, [[loss(a, b) for a in plane.x] for b in plane.y], rtol=1e-5)
    assert (plane.x[-1], plane.y[0]) == (2, 0)


def test_the_plane_of_a_path():
    """A spiral in a plane of 9 dimensions is found whole, and its coordinates lead back to its points."""
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((9, 2)))[0].T
    t = np.linspace(0, 6, 20)
    spiral = np.stack([np.exp(-t / 3) * np.cos(t), np.exp(-t / 3) * np.sin(t)], axis=1) @ basis
    plane = curvature.path_plane([{"w": jnp.asarray(p.reshape(3, 3), jnp.float32)} for p in spiral])
    assert sum(plane.explained) == pytest.approx(1, abs=1e-6)
    axes = np.stack([np.asarray(d["w"]).ravel() for d in plane.directions])
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-6)
    back = np.asarray(plane.origin["w"]).ravel() + plane.coordinates @ axes
    np.testing.assert_allclose(back, spiral, atol=1e-6)
    singular = np.linalg.svd(spiral[:-1] - spiral[-1], compute_uv=False)[:2] ** 2
    np.testing.assert_allclose(plane.explained, singular / singular.sum(), rtol=1e-4)
    straight = curvature.path_plane([jnp.array([float(i), 0.0, 0.0]) for i in range(4)])
    assert straight.explained[1] == pytest.approx(0, abs=1e-9)


SLOWING = optim.adam(optim.cosine_decay_schedule(0.05, 600))


def ring(p):
    """Minima on the unit circle: (-1, 0) and (1, 0) are joined by it, and the straight line leads over a hill."""
    return (jnp.sum(p**2) - 1) ** 2


def test_barriers_and_a_curve_around_the_hill():
    a, b = jnp.array([-1.0, 0.0]), jnp.array([1.0, 0.0])
    straight = curvature.barrier(ring, a, b)
    assert (straight.height, straight.highest) == (pytest.approx(1), 0.5)
    slope = curvature.barrier(lambda p: p[0] + 0 * p[1], a, b)
    assert slope.height == pytest.approx(0, abs=1e-6)  # above the line between unequal ends
    curve = curvature.connect_modes(ring, a, b, steps=600, bend=jnp.array([0.0, 0.1]), optimizer=SLOWING)
    np.testing.assert_allclose(curve(0.5), 0.25 * a + 0.5 * curve.bend + 0.25 * b, rtol=1e-6)
    around = curve.barrier(ring)
    # The best parabola through both points: the least mean of (|p|^2 - 1)^2 over t, by a search over its bend.
    t = np.linspace(0, 1, 401)
    heights = np.linspace(0.5, 3, 251)[:, None]
    mean = np.mean(((2 * t - 1) ** 2 + (2 * t * (1 - t) * heights) ** 2 - 1) ** 2, axis=1)
    assert abs(curve.bend[1]) == pytest.approx(heights[np.argmin(mean), 0], abs=0.1)
    assert around.height < 0.2


def test_noise_scale_of_linear_regression():
    """g = x (x w - y) with x, noise normal: C and G are known; the interval of 95 % holds the truth."""
    rng, n, d = np.random.default_rng(0), 8000, 3
    w, sigma = np.array([0.5, -0.3, 0.2], np.float32), 0.5
    x = rng.standard_normal((n, d)).astype(np.float32)
    y = (sigma * rng.standard_normal(n)).astype(np.float32)
    task = train.Task(nn.Chain(nn.Linear(d, 1, bias=False), nn.Reshape((), dims=1)), losses.mse)
    objective = curvature.Objective(task, data.Arrays(x=x, y=y), batch_size=20)
    found = curvature.gradient_noise_scale(objective, {"linear1": {"w": jnp.asarray(w[:, None])}, "reshape1": {}})
    # g = 2 x (x'w - e): E g = 2 w, E |g|^2 = 4 (d + 2) |w|^2 + 4 d sigma^2.
    square = 4 * np.sum(w**2)
    covariance = 4 * ((d + 2) * np.sum(w**2) + d * sigma**2) - square
    assert found.batches == 400
    assert found.low <= covariance / square <= found.high
    assert found.high < 1.3 * found.low
    assert found.covariance_trace == pytest.approx(covariance, rel=0.05)
    assert found.square_norm == pytest.approx(square, rel=0.1)


def test_errors_say_what_to_do(unchecked):
    with pytest.raises(ValueError, match="'layers'"):
        curvature.filter_normalize(jnp.ones(2), jnp.ones(2), normalize="layers")
    with pytest.raises(ValueError, match="tree like the parameters"):
        curvature.landscape_1d(bowl, jnp.ones(3), {"w": jnp.ones(3)})
    with pytest.raises(ValueError, match="at least 3 points, got 2"):
        curvature.path_plane([jnp.ones(2), jnp.zeros(2)])
    with pytest.raises(ValueError, match="nothing moved"):
        curvature.path_plane([jnp.ones(2)] * 3)
    with pytest.raises(ValueError, match="4 full batches, got 1"):
        curvature.gradient_noise_scale(bowl, jnp.ones(3))
    with pytest.raises(ValueError, match="one form"):
        curvature.connect_modes(bowl, jnp.ones(3), {"w": jnp.ones(3)})
    with pytest.raises(ValueError, match="rho"):
        curvature.sam_gap(bowl, jnp.ones(3), rho=0.0)
