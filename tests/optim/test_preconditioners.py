"""Shampoo, SOAP and PSGD: the papers' equations in numpy and scipy, and other implementations (golden numbers)."""

import itertools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from support.reference import reference

from dlkit import optim
from dlkit.optim.preconditioners.blocks import cut_in_blocks

RNG = np.random.default_rng(5)


def gradients(*shape, steps=4):
    return RNG.standard_normal((steps, *shape))


def run(tx, grads):
    """The updates for a sequence of gradients of one parameter called `w`, in one scan."""
    state = tx.init({"w": jnp.asarray(grads[0])})
    after, updates = jax.lax.scan(lambda s, g: tx.update({"w": g}, s)[::-1], state, jnp.asarray(grads))
    return np.asarray(updates["w"]), after


def unfolded(g, axis):
    return np.moveaxis(g, axis, 0).reshape(g.shape[axis], -1)


def mode_product(matrix, g, axis):
    return np.moveaxis(np.tensordot(matrix, g, axes=([1], [axis])), 0, axis)


def shampoo_by_scipy(grads, eps, b2=1.0, power=None, every=1):
    """Algorithm 2 of the paper: H_i = eps I + sum of G_i G_i^T, u = G x_1 H_1^(-1/2k) ... x_k H_k^(-1/2k)."""
    shape = grads[0].shape
    sums, seen = [np.zeros((d, d)) for d in shape], []
    for t, g in enumerate(grads):
        new = [unfolded(g, i) @ unfolded(g, i).T for i in range(g.ndim)]
        sums = [s + n if b2 == 1 else b2 * s + (1 - b2) * n for s, n in zip(sums, new, strict=True)]
        whole = 1.0 if b2 == 1 else 1 - b2 ** (t + 1)
        if t % every == 0:
            p = -(power or 1 / (2 * g.ndim))
            roots = [scipy.linalg.fractional_matrix_power(s / whole + eps * np.eye(len(s)), p).real for s in sums]
        u = g
        for i, root in enumerate(roots):
            u = mode_product(root, u, i)
        seen.append(u)
    return np.stack(seen)


class TestShampoo:
    # scipy's fractional power is a Schur method: 1e-9 covers its error at these conditions (below 1e6).

    @pytest.mark.parametrize("shape", [(3, 2), (2, 3, 2), (4,)])
    def test_equals_the_paper(self, shape, x64):
        grads = gradients(*shape)
        np.testing.assert_allclose(
            run(optim.scale_by_shampoo(eps=1e-3), grads)[0], shampoo_by_scipy(grads, 1e-3), rtol=1e-9, atol=1e-9
        )

    def test_first_update_is_the_orthogonal_factor(self, x64):
        """(G G^T)^(-1/4) G (G^T G)^(-1/4) = U V^T, where G is U S V^T: the link to Muon. With gaps in rank too."""
        for g in (gradients(3, 3)[0], gradients(4, 2)[0]):
            left, _, right = np.linalg.svd(g, full_matrices=False)
            np.testing.assert_allclose(run(optim.scale_by_shampoo(eps=0.0), g[None])[0][0], left @ right, atol=1e-10)

    def test_options(self, x64):
        grads = gradients(3, 2, steps=5)
        tx = optim.scale_by_shampoo(0.9, 1e-3, precondition_every=2, exponent=0.5)
        wanted = shampoo_by_scipy(grads, 1e-3, 0.9, 0.5, 2)
        np.testing.assert_allclose(run(tx, grads)[0], wanted, rtol=1e-8, atol=1e-8)

    def test_blocks_are_preconditioned_on_their_own(self, x64):
        grads = gradients(5, 3)
        got = run(optim.scale_by_shampoo(eps=1e-2, block_size=2), grads)[0]
        for rows, cols in itertools.product([slice(0, 2), slice(2, 4), slice(4, 5)], [slice(0, 2), slice(2, 3)]):
            part = grads[:, rows, cols]
            np.testing.assert_allclose(got[:, rows, cols], shampoo_by_scipy(part, 1e-2), rtol=1e-9, atol=1e-9)

    def test_blocks_are_equal_and_come_together_again(self):
        cut = cut_in_blocks((10, 3, 7), 4)
        assert cut.sizes == (4, 3, 4)
        assert cut.counts == (3, 1, 2)
        x = jnp.arange(210.0).reshape(10, 3, 7)
        np.testing.assert_array_equal(cut.join(cut.split(x)), x)

    def test_merged_axes(self, x64):
        grads = gradients(2, 2, 5)
        merged = run(optim.scale_by_shampoo(eps=1e-2, block_size=6, merge_dims=True), grads)[0]
        flat = run(optim.scale_by_shampoo(eps=1e-2), grads.reshape(-1, 4, 5))[0]
        np.testing.assert_allclose(merged.reshape(flat.shape), flat, rtol=1e-12)

    def test_graft_gives_the_length(self, x64):
        grads = gradients(3, 2)
        plain, grafted = (run(optim.scale_by_shampoo(graft=graft), grads)[0] for graft in (None, optim.scale_by_rms()))
        lengths = np.linalg.norm(run(optim.scale_by_rms(), grads)[0].reshape(4, -1), axis=1)
        direction = plain / np.linalg.norm(plain.reshape(4, -1), axis=1)[:, None, None]
        np.testing.assert_allclose(grafted, direction * lengths[:, None, None], rtol=1e-12)

    def test_equals_pytorch_optimizer(self, x64):
        grads = np.random.default_rng(1).standard_normal((6, 3, 3))

        def compute():
            import torch
            from pytorch_optimizer import Shampoo

            p = torch.nn.Parameter(torch.zeros(3, 3, dtype=torch.float64))
            tx, seen = Shampoo([p], lr=0.1, matrix_eps=1e-4), []
            for g in grads:
                p.grad = torch.tensor(g)
                tx.step()
                seen.append(p.detach().numpy().copy())
            return {"p": np.stack(seen)}

        wanted = reference("preconditioners/shampoo", compute, needs="pytorch_optimizer")["p"]
        got = np.cumsum(-0.1 * run(optim.scale_by_shampoo(eps=1e-4), grads)[0], axis=0)
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)


def soap_by_numpy(grads, b1, b2, eps, every, rotated=(True, True)):
    """Algorithm 3 of the paper, with the authors' first step, which only sets the bases."""
    m, v = np.zeros(grads[0].shape), np.zeros(grads[0].shape)
    left, right, seen = np.zeros((m.shape[0],) * 2), np.zeros((m.shape[1],) * 2), []
    for t, g in enumerate(grads):
        u = np.zeros_like(g)
        if t > 0:
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * (ql.T @ g @ qr) ** 2
            u = ql @ ((ql.T @ m @ qr) / (np.sqrt(v) + eps)) @ qr.T * np.sqrt(1 - b2**t) / (1 - b1**t)
        left, right = b2 * left + (1 - b2) * g @ g.T, b2 * right + (1 - b2) * g.T @ g
        if t == 0:
            ql, qr = (
                np.linalg.eigh(s)[1][:, ::-1] if on else np.eye(len(s))
                for s, on in zip((left, right), rotated, strict=True)
            )
        elif t % every == 0:
            if rotated[0]:
                order = np.argsort(-np.diag(ql.T @ left @ ql), kind="stable")
                v, ql = v[order], np.linalg.qr(left @ ql[:, order])[0]
            if rotated[1]:
                order = np.argsort(-np.diag(qr.T @ right @ qr), kind="stable")
                v, qr = v[:, order], np.linalg.qr(right @ qr[:, order])[0]
        seen.append(u)
    return np.stack(seen)


class TestSoap:
    def test_equals_the_paper(self, x64):
        grads = gradients(3, 3, steps=12) * np.array([3.0, 1.0, 0.2])
        got = run(optim.scale_by_soap(0.9, 0.95, precondition_every=3), grads)[0]
        np.testing.assert_allclose(got, soap_by_numpy(grads, 0.9, 0.95, 1e-8, 3), rtol=1e-8, atol=1e-10)

    def test_a_long_axis_is_not_rotated(self, x64):
        grads = gradients(5, 3, steps=8)
        tx = optim.scale_by_soap(0.9, 0.95, precondition_every=2, max_precond_dim=4)
        got, state = run(tx, grads)
        np.testing.assert_allclose(got, soap_by_numpy(grads, 0.9, 0.95, 1e-8, 2, (False, True)), rtol=1e-8, atol=1e-10)
        assert state.bases["w"][0] is None

    def test_vectors_get_adam(self, x64):
        """Adam with its eps beside the uncorrected root, one update later."""
        grads = gradients(5, steps=6)
        got = run(optim.scale_by_soap(0.9, 0.95), grads)[0]
        adam = run(optim.scale_by_adam(0.9, 0.95, tf_style=True), grads[1:])[0]
        np.testing.assert_allclose(got[1:], adam, rtol=1e-12)
        np.testing.assert_array_equal(got[0], 0)

    def test_turns_with_the_coordinates(self, x64):
        """Adam does not: of gradients U g V^T the updates are U u V^T."""
        grads = gradients(4, 3, steps=7)
        turn_left, turn_right = np.linalg.qr(gradients(4, 4)[0])[0], np.linalg.qr(gradients(3, 3)[0])[0]
        tx = optim.scale_by_soap(precondition_every=2)
        turned = run(tx, np.einsum("ij,tjk,lk->til", turn_left, grads, turn_right))[0]
        wanted = np.einsum("ij,tjk,lk->til", turn_left, run(tx, grads)[0], turn_right)
        np.testing.assert_allclose(
            turned[1:], wanted[1:], rtol=1e-6, atol=1e-7
        )  # its first statistics have rank 3 of 4

    def test_merged_axes(self, x64):
        grads = gradients(2, 2, 5)
        merged = run(optim.scale_by_soap(max_precond_dim=6, merge_dims=True), grads)[0]
        flat = run(optim.scale_by_soap(), grads.reshape(-1, 4, 5))[0]
        np.testing.assert_allclose(merged.reshape(flat.shape), flat, rtol=1e-12)

    def test_equals_pytorch_optimizer(self, x64):
        grads = np.random.default_rng(2).standard_normal((9, 3, 3)) * np.array([2.0, 1.0, 0.5])

        def compute():
            import torch
            from pytorch_optimizer import SOAP

            p = torch.nn.Parameter(torch.zeros(3, 3, dtype=torch.float64))
            tx, seen = SOAP([p], lr=0.1, weight_decay=0.0, precondition_frequency=4), []
            for g in grads:
                p.grad = torch.tensor(g)
                tx.step()
                seen.append(p.detach().numpy().copy())
            return {"p": np.stack(seen)}

        wanted = reference("preconditioners/soap", compute, needs="pytorch_optimizer")["p"]
        got = np.cumsum(-0.1 * run(optim.scale_by_soap(precondition_every=4), grads)[0], axis=0)
        np.testing.assert_allclose(got[:5], wanted[:5], rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(got, wanted, atol=1e-6)  # its QR is in float32


def psgd_by_numpy(grads, noise, b1, rate, max_rms):
    """Q_i <- Q_i - rate triu(A A^T - B B^T) / |A A^T + B B^T| Q_i, of a matrix; the norm by eigenvalues."""
    q1, q2, mu, seen = np.eye(grads[0].shape[0]), np.eye(grads[0].shape[1]), 0, []
    for t, (g, v) in enumerate(zip(grads, noise, strict=True)):
        mu = b1 * mu + (1 - b1) * g
        h = mu / (1 - b1 ** (t + 1))
        noisy = h + np.sqrt(np.finfo(np.float32).eps) * np.mean(np.abs(h)) * v
        a, b = q1 @ noisy @ q2.T, np.linalg.inv(q1).T @ v @ np.linalg.inv(q2)
        steps = []
        for x, y in ((a @ a.T, b @ b.T), (a.T @ a, b.T @ b)):
            steps.append(rate * np.triu(x - y) / lower_bound(x + y))
        q1, q2 = q1 - steps[0] @ q1, q2 - steps[1] @ q2
        u = q1.T @ q1 @ h @ q2.T @ q2
        seen.append(u * min(1, max_rms / np.sqrt(np.mean(u**2))))
    return np.stack(seen)


def lower_bound(matrix):
    """|M^2 m / |M m||, m being the longest column: at most the largest eigenvalue."""
    m = matrix[:, np.argmax(np.linalg.norm(matrix, axis=0))]
    m = matrix @ m
    bound = np.linalg.norm(matrix @ (m / np.linalg.norm(m)))
    assert 0.5 < bound / np.linalg.norm(matrix, 2) <= 1 + 1e-12
    return bound


def psgd_noise(shape, steps, dtype=jnp.float64):
    """What the transform draws for a parameter called `w`, seed 0."""
    keys = [jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), t) for t in range(steps)]
    return np.stack(
        [jax.random.normal(jax.random.fold_in(key, np.uint32(zlib.crc32(b"w"))), shape, dtype) for key in keys]
    )


class TestPsgd:
    def test_equals_the_paper(self, x64):
        grads = gradients(3, 2, steps=20)
        got, _ = run(optim.scale_by_psgd_kron(0.8, damping=0.0), grads)
        wanted = psgd_by_numpy(grads, psgd_noise((3, 2), 20), 0.8, 0.1, 1.1)
        np.testing.assert_allclose(got, wanted, rtol=1e-9)

    def test_equals_kron_torch(self, x64):
        """Given the same draws: a matrix, a convolution's kernel (merged), and a vector (diagonal)."""
        shapes, steps = {"matrix": (3, 2), "kernel": (2, 2, 2, 4), "vector": (4,)}, 8
        rng = np.random.default_rng(3)
        grads = {name: rng.standard_normal((steps, *shape)) for name, shape in shapes.items()}

        def compute():
            import warnings

            import torch

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return kron_torch(torch)

        def kron_torch(torch):
            from kron_torch import Kron, kron

            found = {}
            torch._dynamo.config.disable = True
            learn = kron._calc_A_and_conjB  # adds its noise in place, so to the gradient that is preconditioned too
            kron._calc_A_and_conjB = lambda exprs, g, q: learn(exprs, g.clone(), q)
            for name, shape in shapes.items():
                merged = (8, 4) if name == "kernel" else shape
                draws = iter(psgd_noise(merged, steps))
                normal, torch.randn_like = torch.randn_like, lambda _, draws=draws: torch.tensor(next(draws))
                p = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
                tx, seen = Kron([p], lr=0.1, precond_dtype=torch.float64), []
                kron._solve_triangular_right = lambda x, a: torch.linalg.solve_triangular(a, x, upper=True, left=False)
                for g in grads[name]:
                    p.grad = torch.tensor(g)
                    tx.step()
                    seen.append(p.detach().numpy().copy())
                torch.randn_like = normal
                found[name] = np.stack(seen)
            return found

        wanted = reference("preconditioners/kron", compute, needs="kron_torch")
        for name in shapes:
            got = np.cumsum(-0.1 * run(optim.scale_by_psgd_kron(damping=0.0), grads[name])[0], axis=0)
            # It adds 1e-12 to the root mean square.
            np.testing.assert_allclose(got, wanted[name], rtol=1e-9, atol=1e-9)

    def test_whitens(self):
        """Gradients L z R of condition 100 on either side: P g has about the covariance of noise."""
        left, right = np.diag([10.0, 1.0, 0.1]), np.array([[1.0, 0.0], [3.0, 0.1]])
        z = np.random.default_rng(0).standard_normal((3000, 3, 2))
        grads = jnp.asarray(left @ z @ right, jnp.float32)
        tx = optim.scale_by_psgd_kron(0.0, 0.05, 1.0, max_rms=None)
        _, state = run(tx, grads)
        q1, q2 = state.factors["w"]
        white = np.einsum("ij,tjk,lk->til", q1.T @ q1, grads, q2.T @ q2)
        for axes in ("tik,tjk->ij", "tik,til->kl"):
            spread = np.linalg.eigvalsh(np.einsum(axes, white, white) / 3000)
            assert spread[-1] / spread[0] < 2  # of the gradients: 1e4 and more

    def test_learns_as_often_as_told(self):
        tx = optim.scale_by_psgd_kron(update_probability=0.4)
        params = {"w": jnp.ones((2, 2))}
        state = tx.init(params)

        def step(state, g):
            after = tx.update({"w": g}, state)[1]
            return after, jnp.any(after.factors["w"][0] != state.factors["w"][0])

        _, changed = jax.lax.scan(step, state, jnp.asarray(gradients(2, 2, steps=9), jnp.float32))
        np.testing.assert_array_equal(changed, [False, False, True] * 3)

    def test_draws_depend_on_seed_and_path(self):
        g = jnp.asarray(gradients(3, 3)[0], jnp.float32)

        def factors(tx, name):
            return tx.update({name: g, "z": g}, tx.init({name: g, "z": g}))[1].factors

        one, other = optim.scale_by_psgd_kron(), optim.scale_by_psgd_kron(seed=1)
        a, b, c = factors(one, "w"), factors(one, "v"), factors(other, "w")
        np.testing.assert_array_equal(a["z"][0], b["z"][0])
        assert not np.allclose(a["w"][0], b["v"][0])
        assert not np.allclose(a["w"][0], c["w"][0])

    def test_vanishing_gradients_leave_it_finite(self):
        tx = optim.scale_by_psgd_kron()
        _, state = run(tx, jnp.zeros((1500, 2, 2)))
        assert np.all(np.isfinite(state.factors["w"][0]))
        updates, _ = tx.update({"w": jnp.ones((2, 2))}, state)
        assert np.all(np.isfinite(updates["w"]))


ALL = {"shampoo": optim.scale_by_shampoo, "soap": optim.scale_by_soap, "psgd": optim.scale_by_psgd_kron}


@pytest.mark.parametrize("name", ALL)
def test_bfloat16_is_decomposed_in_float32(name):
    """In bfloat16 parameters and gradients the matrices are float32, the update that of the gradients rounded."""
    tx, grads = ALL[name](), jnp.asarray(gradients(3, 3, steps=3), jnp.bfloat16)
    got, state = run(tx, grads)
    matrices = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim > 1 and leaf.shape[-1] == leaf.shape[-2]]
    assert any(leaf.dtype == jnp.float32 for leaf in matrices)
    wanted = run(tx, grads.astype(jnp.float32))[0]
    np.testing.assert_allclose(got[-1], wanted[-1], atol=0.02 * np.max(np.abs(wanted[-1])))  # mu is in bfloat16


@pytest.mark.parametrize("name", ALL)
def test_other_parameters(name):
    tx = ALL[name]()
    with pytest.raises(TypeError, match=r"real floating-point parameters; 'w' is complex64. Leave it out"):
        tx.init({"w": jnp.ones((2, 2), jnp.complex64)})
    state = tx.init({"w": jnp.ones((2, 2))})
    with pytest.raises(ValueError, match="the gradients do not match the state"):
        tx.update({"w": jnp.ones((2, 3))}, state)
    with pytest.raises(ValueError, match="the gradients do not match the state"):
        tx.update({"v": jnp.ones((2, 2))}, state)
    for shape in ((), (0, 3), (1, 1, 1)):
        assert tx.update({"w": jnp.ones(shape)}, tx.init({"w": jnp.ones(shape)}))[0]["w"].shape == shape
    assert tx.update({}, tx.init({}))[0] == {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.shampoo(0.1, b2=1.5), "^scale_by_shampoo: b2 is 1.5, wanted 0 <= b2 <= 1"),
        (lambda: optim.shampoo(0.1, block_size=0), "^scale_by_shampoo: block_size is 0, wanted 1 or more"),
        (lambda: optim.soap(0.1, b2=1.0), "^scale_by_soap: b2 is 1.0, wanted 0 <= b2 < 1"),
        (lambda: optim.soap(0.1, precondition_every=0), "^scale_by_soap: precondition_every is 0, wanted 1 or more"),
        (lambda: optim.psgd_kron(0.1, b1=-1), "^scale_by_psgd_kron: b1 is -1.0, wanted 0 <= b1 < 1"),
        (lambda: optim.psgd_kron(0.1, init_scale=0), "^scale_by_psgd_kron: init_scale is 0, wanted more"),
        (lambda: optim.kfac(0.1, damping=0), "^scale_by_kfac: damping is 0.0, wanted more than 0"),
        (lambda: optim.kfac(0.1, kl_clip=-1.0), "^scale_by_kfac: kl_clip is -1.0, wanted 0 or more"),
    ],
)
def test_hyperparameters_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_hyperparameters_may_be_traced():
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}

    def trained(make, rate):
        tx = make(rate)

        def step(carry, _):
            p, state = carry
            updates, state = tx.update(jax.tree.map(lambda x: 2 * x - 1, p), state, p)
            return (optim.apply_updates(p, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), None, length=3)[0][0]["w"]

    for make in (
        lambda r: optim.shampoo(r, r, 1 - r, r, weight_decay=r),
        lambda r: optim.soap(r, r, 1 - r, r, r),
        lambda r: optim.psgd_kron(r, r, r, 1.0, precond_lr=r, damping=r),
        lambda r: optim.kfac(r, r, r, r, kl_clip=r),
    ):
        many = jax.jit(jax.vmap(lambda r, make=make: trained(make, r)))(jnp.array([0.1, 0.3]))
        np.testing.assert_allclose(many[1], jax.jit(lambda make=make: trained(make, 0.3))(), rtol=1e-4)
