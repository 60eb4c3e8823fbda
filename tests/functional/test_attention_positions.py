"""Positions against independent loops over the published formulas, and the property that each is made for."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import functional as F


def rotated(x, positions, frequencies, interleaved):
    """Complex numbers, one pair at a time: (a + i b) e^(i p f)."""
    y = x.astype(np.float64).copy()
    n = len(frequencies)
    for i, f in enumerate(frequencies):
        a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + n)
        turned = (y[..., a] + 1j * y[..., b]) * np.exp(1j * positions[..., None] * f)
        y[..., a], y[..., b] = turned.real, turned.imag
    return y


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_rope_is_a_rotation_of_pairs(interleaved, fraction, x64):
    x = np.random.default_rng(0).standard_normal((2, 5, 3, 8))
    positions = np.array([[0, 1, 2, 3, 4], [7, 9, 100, 3, 0]])
    d = int(8 * fraction)
    frequencies = [10000.0 ** (-2 * i / d) for i in range(d // 2)]
    got = F.rope(
        jnp.asarray(x), jnp.asarray(positions), interleaved=interleaved, frequencies=F.rope_frequencies(d, 10000.0)
    )
    np.testing.assert_allclose(got, rotated(x, positions, frequencies, interleaved), atol=1e-12)


@pytest.mark.parametrize("interleaved", [False, True])
def test_scores_see_differences_of_positions_alone(interleaved, x64):
    """q_i . k_j is the same when both move by any number; and it is not the same when one of them moves."""
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.standard_normal((1, 6, 2, 8))) for _ in "qk")
    at = jnp.asarray([0, 1, 4, 9, 11, 30])
    turn = lambda x, p: F.rope(x, p, interleaved=interleaved)  # noqa: E731
    scores = lambda p, r: jnp.einsum("bthd,bshd->bhts", turn(q, p), turn(k, r))  # noqa: E731
    np.testing.assert_allclose(scores(at + 1000, at + 1000), scores(at, at), atol=1e-10)
    assert float(jnp.abs(scores(at + 1, at) - scores(at, at)).max()) > 0.1


def test_the_conventions_differ_by_a_permutation():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 5, 1, 8)), jnp.float32)
    order = np.array([0, 2, 4, 6, 1, 3, 5, 7])
    np.testing.assert_allclose(F.rope(x[..., order]), F.rope(x, interleaved=True)[..., order], atol=1e-6)


def test_rope_of_half_precision_turns_in_float32():
    x = jnp.ones((1, 3, 1, 64), jnp.bfloat16)
    positions = jnp.asarray([4093, 4094, 4095])
    want = F.rope(x.astype(jnp.float32), positions)
    got = F.rope(x, positions)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(jnp.float32), want, atol=0.01)


def llama3(frequency, factor, low, high, length):
    """As Meta published it: by wavelength."""
    wavelength = 2 * math.pi / frequency
    if wavelength < length / high:
        return frequency
    if wavelength > length / low:
        return frequency / factor
    smooth = (length / wavelength - low) / (high - low)
    return (1 - smooth) * frequency / factor + smooth * frequency


def test_scalings_of_rope():
    plain = [500000.0 ** (-2 * i / 128) for i in range(64)]
    np.testing.assert_allclose(F.rope_frequencies(128, 500000.0), plain, rtol=1e-14)
    got = F.rope_frequencies(128, 500000.0, scaling="llama3", factor=8.0, length=8192)
    np.testing.assert_allclose(got, [llama3(f, 8.0, 1.0, 4.0, 8192) for f in plain], rtol=1e-12)
    kept, mixed = int((got == plain).sum()), int(((got != plain) & (got * 8 > np.array(plain) * 1.001)).sum())
    assert 0 < kept < 64
    assert mixed > 0
    linear = F.rope_frequencies(128, 500000.0, scaling="linear", factor=4.0)
    np.testing.assert_allclose(linear, np.array(plain) / 4, rtol=1e-14)
    ntk = F.rope_frequencies(128, 500000.0, scaling="ntk", factor=4.0)
    np.testing.assert_allclose([ntk[0], ntk[-1]], [1.0, plain[-1] / 4], rtol=1e-12)


def test_alibi_slopes_are_those_of_the_paper():
    np.testing.assert_allclose(F.alibi_slopes(8), [2.0**-i for i in range(1, 9)])
    np.testing.assert_allclose(F.alibi_slopes(16), [2.0 ** (-i / 2) for i in range(1, 17)])
    twelve = [2.0**-i for i in range(1, 9)] + [2.0 ** (-i / 2) for i in (1, 3, 5, 7)]
    np.testing.assert_allclose(F.alibi_slopes(12), twelve)
    np.testing.assert_allclose(F.alibi_slopes(1), [2.0**-8])


def test_alibi_bias():
    bias = F.alibi_bias(2, jnp.asarray([[3, 5], [0, 0]]), jnp.asarray([[0, 1, 5], [2, 0, 1]]))
    want = -np.array([1 / 16, 1 / 256])[None, :, None, None] * np.array(
        [[[3, 2, 2], [5, 4, 0]], [[2, 0, 1], [2, 0, 1]]]
    ).reshape(2, 1, 2, 3)
    np.testing.assert_allclose(bias, want, rtol=1e-6)


def t5_bucket(distance, bidirectional, buckets, max_distance):
    """The published definition, one distance at a time; the logarithm by comparison of powers, so that it is exact."""
    first = 0
    if bidirectional:
        buckets //= 2
        first = buckets if distance > 0 else 0
        n = abs(distance)
    else:
        n = max(-distance, 0)
    exact = buckets // 2
    if n < exact:
        return first + n
    # floor(log(n / exact) / log(max / exact) * (buckets - exact)) = the largest m with (n/exact)^b >= (max/exact)^m
    b, m = buckets - exact, 0
    while m + 1 <= b - 1 and n**b * exact ** (m + 1) >= max_distance ** (m + 1) * exact**b:
        m += 1
    return first + exact + m


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (8, 20), (10, 64)])
def test_t5_buckets(bidirectional, buckets, max_distance):
    distances = np.arange(-300, 301)
    want = [t5_bucket(int(d), bidirectional, buckets, max_distance) for d in distances]
    got = F.relative_buckets(jnp.asarray(distances), buckets, max_distance, bidirectional=bidirectional)
    np.testing.assert_array_equal(got, want)
    assert set(want) >= set(range(buckets // 2))


def test_t5_buckets_golden():
    """Distances and buckets of T5's defaults, worked out by hand: 32 buckets, 16 a direction, 8 of them exact."""
    cases = {0: 0, -5: 5, -8: 8, -11: 8, -12: 9, -16: 10, -23: 11, -32: 12, -64: 14, -91: 15, -127: 15, -1000: 15}
    cases |= {1: 17, 7: 23, 8: 24, 200: 31}
    got = F.relative_buckets(jnp.asarray(list(cases)))
    assert dict(zip(cases, got.tolist(), strict=True)) == cases


def test_sinusoidal():
    want = [[f(p / 10000 ** (2 * (i // 2) / 6)) for i, f in enumerate([math.sin, math.cos] * 3)] for p in range(50)]
    np.testing.assert_allclose(F.sinusoidal(50, 6), want, atol=1e-5)
    at = jnp.asarray([[3, 49], [0, 7]])
    np.testing.assert_allclose(F.sinusoidal(at, 6), np.array(want)[np.asarray(at)], atol=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: F.rope_frequencies(5),
        lambda: F.rope_frequencies(4, scaling="yarn"),
        lambda: F.rope(jnp.ones((2, 3, 1, 4)), jnp.arange(4)),
        lambda: F.rope(jnp.ones((2, 3, 1, 4)), frequencies=np.ones(3)),
        lambda: F.alibi_slopes(0),
        lambda: F.relative_buckets(jnp.arange(3), 2),
        lambda: F.relative_buckets(jnp.arange(3), 32, 8),
        lambda: F.sinusoidal(3, 5),
        lambda: F.sliding_window_mask(3, window=0),
    ],
)
def test_errors(call, unchecked):
    with pytest.raises(ValueError, match="want"):
        call()


def test_masks():
    np.testing.assert_array_equal(F.causal_mask(3), np.tril(np.ones((3, 3), bool)))
    np.testing.assert_array_equal(F.causal_mask(2, 4, offset=jnp.int32(1)), np.tri(2, 4, 1, dtype=bool))
    near = abs(np.arange(5)[:, None] - np.arange(5)) < 2
    np.testing.assert_array_equal(F.sliding_window_mask(5, window=2, causal=False), near)
    np.testing.assert_array_equal(F.sliding_window_mask(5, window=2), near & np.tri(5, dtype=bool))
    assert F.combine_masks(None, None) is None
    both = F.combine_masks(F.causal_mask(3), F.padding_mask(jnp.asarray([2, 3]), 3))
    assert both.shape == (2, 1, 3, 3)
    np.testing.assert_array_equal(both[0, 0], np.tri(3, dtype=bool) & (np.arange(3) < 2))
    cross = F.segment_mask(jnp.asarray([[1, 2]]), jnp.asarray([[2, 2, 1]]))
    np.testing.assert_array_equal(cross[0, 0], [[False, False, True], [True, True, False]])


def test_alibi_is_relative():
    """As for rope: moving queries and keys together changes no bias."""
    at = jnp.asarray([0, 3, 4])
    np.testing.assert_array_equal(F.alibi_bias(4, at, at), F.alibi_bias(4, at + 77, at + 77))


def test_gradient_of_rope_is_the_inverse_rotation(x64):
    rng = np.random.default_rng(0)
    x, c = (jnp.asarray(rng.standard_normal((1, 4, 2, 8))) for _ in "xc")
    at = jnp.arange(4)
    _, pull = jax.vjp(lambda x: F.rope(x, at), x)
    np.testing.assert_allclose(pull(c)[0], F.rope(c, -at), atol=1e-12)
