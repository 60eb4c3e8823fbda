"""Ask 21: twenty training steps of LayerNorm, GroupNorm, RMSNorm and InstanceNorm beside torch, then an evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from functional.cases import fingerprint
from support.reference import reference

from dlkit.nn import EVAL, GroupNorm, InstanceNorm, LayerNorm, RMSNorm, training

STEPS, RATE = 20, 0.3
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}

# name: our layer, torch's module with the arguments that mean the same, the shape of a batch, channels last
NORMS = {
    "layer": (LayerNorm(6), "LayerNorm", (6,), {}, (4, 5, 6)),
    "layer_no_shift": (LayerNorm(6, shift=False, eps=1e-6), "LayerNorm", (6,), {"bias": False, "eps": 1e-6}, (4, 6)),
    "rms": (RMSNorm(6), "RMSNorm", (6,), {"eps": 1e-5}, (4, 5, 6)),
    "group": (GroupNorm(2, 6), "GroupNorm", (2, 6), {}, (3, 4, 5, 6)),
    "group_of_vectors": (GroupNorm(2, 6, dims=0), "GroupNorm", (2, 6), {}, (4, 6)),
    "instance1d": (InstanceNorm(6, affine=True, dims=1), "InstanceNorm1d", (6,), {"affine": True}, (3, 5, 6)),
    "instance2d": (InstanceNorm(6, affine=True), "InstanceNorm2d", (6,), {"affine": True}, (2, 4, 5, 6)),
    "instance3d": (InstanceNorm(6, affine=True, dims=3), "InstanceNorm3d", (6,), {"affine": True}, (2, 3, 2, 4, 6)),
}  # fmt: skip


def data(shape, dtype):
    rng = np.random.default_rng(5)
    scales = np.exp(rng.uniform(-1, 1, shape[-1]))  # unequal channels, a mean that is not 0
    xs = 2 + 3 * scales * rng.standard_normal((STEPS, *shape))
    return xs.astype(dtype), rng.standard_normal(shape).astype(dtype)


def train(xs, c, layer):
    """Gradient descent on sum(c (y + y^2)) / n: the outputs and the gradients of the input in every step."""

    def step(params, x):
        def loss(params, x):
            y, none = layer.apply(params, None, x, training(None))
            assert none is None
            return jnp.sum(c * (y + jnp.square(y))) / x.size, y

        (grads, dx), y = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)
        return jax.tree.map(lambda p, g: p - RATE * g, params, grads), (y, x.size * dx)

    start = jax.tree.map(lambda a: a.astype(xs.dtype), layer.init(jax.random.key(0)))
    params, (ys, dxs) = jax.lax.scan(step, start, xs)
    return {"ys": ys, "dxs": dxs, "eval": layer.apply(params, None, xs[0], EVAL)[0], **params}


def torchs(xs, c, module, arguments, keywords):
    import torch

    first = module.startswith(("Group", "Instance"))  # these have the channels on axis 1

    def to(x):
        return torch.tensor(np.moveaxis(x, -1, 1).copy() if first else x, requires_grad=True)

    def back(y):
        y = y.detach().numpy()
        return np.moveaxis(y, 1, -1) if first else y

    norm = getattr(torch.nn, module)(*arguments, **keywords).to(torch.tensor(xs).dtype)
    optimizer = torch.optim.SGD(norm.parameters(), lr=RATE)
    ys, dxs = [], []
    for x in xs:
        optimizer.zero_grad()
        given = to(x)
        y = norm(given)
        ((to(c) * (y + y**2)).sum() / x.size).backward()
        optimizer.step()
        ys.append(back(y))
        dxs.append(x.size * back(given.grad))
    norm.eval()
    found = {"ys": np.stack(ys), "dxs": np.stack(dxs), "eval": back(norm(to(xs[0]))), "scale": norm.weight}
    if getattr(norm, "bias", None) is not None:
        found["shift"] = norm.bias
    return projected({k: v if isinstance(v, np.ndarray) else v.detach().numpy() for k, v in found.items()})


def projected(found):
    """The large arrays by eight projections of each step, so that the golden file is small."""
    each = {name: np.stack([fingerprint(one) for one in found[name]]) for name in ("ys", "dxs")}
    return found | each | {"eval": fingerprint(found["eval"])}


def beside_torch(name, dtype):
    layer, module, arguments, keywords, shape = NORMS[name]
    xs, c = data(shape, dtype)
    want = reference(f"nn/norms_trained/{name}_{dtype}", lambda: torchs(xs, c, module, arguments, keywords))
    got = projected(jax.jit(train, static_argnums=2)(jnp.asarray(xs), jnp.asarray(c), layer))
    assert got.keys() == want.keys()
    for leaf, value in want.items():
        bound = TOLERANCE[dtype] * max(1.0, np.abs(value).max())
        np.testing.assert_allclose(got[leaf], value, rtol=0, atol=bound, err_msg=leaf)
    for leaf in {"scale", "shift"} & want.keys():  # it has learned something
        assert np.abs(want[leaf] - (leaf == "scale")).max() > 0.05, leaf


@pytest.mark.parametrize("name", NORMS)
def test_twenty_steps_beside_torch(name):
    beside_torch(name, "float32")


@pytest.mark.parametrize("name", ["layer", "group", "rms", "instance2d"])
def test_twenty_steps_beside_torch_in_float64(name, x64):
    beside_torch(name, "float64")
