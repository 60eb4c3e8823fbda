"""Every optimizer's updates of parameters that are sharded over 8 devices: a process of its own, see test_table.py."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import compiling

if __name__ == "__main__":  # pytest imports each file to look for doctests, and must keep its own settings
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = compiling.devices(8)

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from optimizer_rows import RECIPES

from dlkit import optim, tree

PARTS = {"head": {"w": PartitionSpec("rows", "columns"), "b": PartitionSpec(("rows", "columns"))}}
_rng = np.random.default_rng(0)
SHAPES = {"head": {"w": (4, 4), "b": (8,)}}
PARAMS, GRADS = (jax.tree.map(_rng.standard_normal, SHAPES, is_leaf=lambda s: isinstance(s, tuple)) for _ in range(2))


@functools.partial(jax.jit, static_argnums=(0, 1))
def updates(transform, extra, params, grads):
    """Of three steps."""

    def step(carry, _):
        params, state = carry
        updates, state = transform.update(grads, state, params, **dict(extra))
        return (optim.apply_updates(params, updates), state), updates

    return jax.lax.scan(step, (params, transform.init(params)), None, length=3)


def plain(leaf):
    return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


def main(names):
    jax.config.update("jax_enable_x64", True)
    assert jax.device_count() == 8
    mesh = jax.make_mesh((4, 2), ("rows", "columns"), axis_types=(AxisType.Auto, AxisType.Auto))
    shardings = jax.tree.map(lambda p: NamedSharding(mesh, p), PARTS, is_leaf=lambda p: isinstance(p, PartitionSpec))
    for name in names:
        transform, extra = RECIPES[name][0], tuple(dict(*RECIPES[name][2:]).items())
        alone = updates(transform, extra, *jax.device_put((PARAMS, GRADS), jax.devices()[0]))
        sharded = updates(transform, extra, *(jax.device_put(of, shardings) for of in (PARAMS, GRADS)))
        one = tree.flatten(alone)
        for path, leaf in tree.flatten(sharded).items():
            # Sums are taken in another order; 1e-5, because what an optimizer keeps in float32 stays there.
            np.testing.assert_allclose(plain(leaf), plain(one[path]), rtol=1e-5, atol=1e-6, err_msg=f"{name} {path}")


if __name__ == "__main__":
    main(sys.argv[1:] or RECIPES)
    sys.stdout.write("as on one device\n")
