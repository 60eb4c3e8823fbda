"""Collectives of programs whose communication is known: data parallel, tensor parallel, a ring; and what GPUs print."""

import json
import os
import subprocess
import sys
from pathlib import Path

from support import compiling

from dlkit.inspect.collectives import Collective, _count

MESH = """
import json
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from dlkit import inspect

mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
on = lambda shape, *spec, dtype=jnp.float32: jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, P(*spec)))
x, w = on((64, 16), "d"), on((16, 10))
loss = lambda w, x: jnp.mean((x @ w) ** 2)
mlp = lambda x, a, b: jax.nn.relu(x @ a) @ b
whole = jax.jit(lambda a: a * 2, out_shardings=NamedSharding(mesh, P()))
here = jax.jit(mlp, out_shardings=NamedSharding(mesh, P()))
ring = jax.shard_map(lambda v: jax.lax.ppermute(v, "d", [(i, (i + 1) % 8) for i in range(8)]), mesh=mesh,
                     in_specs=P("d"), out_specs=P("d"))
plain = lambda found: {kind: (c.count, c.bytes) for kind, c in found.items()}
print(json.dumps({
    "data": plain(inspect.collectives(jax.value_and_grad(loss), w, x)),
    "tensor": plain(inspect.collectives(here, on((4, 16)), on((16, 64), None, "d"), on((64, 16), "d", None))),
    "gather": plain(inspect.collectives(whole, on((64, 3), "d"))),
    "ring": plain(inspect.collectives(ring, on((64, 3), "d", dtype=jnp.int32))),
    "none": plain(inspect.collectives(lambda x: x * 2, x)),
}))
"""


def test_known_programs_on_eight_devices():
    root = Path(__file__).parent.parent
    env = os.environ | {"PYTHONPATH": str(root.parent), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": compiling.devices(8)}
    run = subprocess.run(
        [sys.executable, "-c", MESH], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout)
    assert sum(size for _, size in found["data"].values()) == 4 * (16 * 10 + 1)  # the gradient, and the loss
    assert list(found["data"]) == ["all-reduce"]
    assert found["tensor"] == {"all-reduce": [1, 4 * 4 * 16]}  # columns, then rows: one sum of [4, 16]
    assert found["gather"] == {"all-gather": [1, 4 * 64 * 3]}
    assert found["ring"] == {"collective-permute": [1, 4 * 8 * 3]}
    assert found["none"] == {}


def test_what_is_started_and_done_counts_once():
    """On GPU and TPU a collective is two instructions, and the first holds operands, results and counters."""
    program = """
  %a = (bf16[8,3]{1,0}, bf16[64,3]{1,0}) all-gather-start(%p), channel_id=1
  %b = bf16[64,3]{1,0} all-gather-done(%a)
  %c = f32[10]{0} all-reduce-start(%q), channel_id=2
  ROOT %d = (s8[4]{0}, s8[4]{0}, u32[], u32[]) collective-permute-start(%r), channel_id=3
  %e = (f32[2]{0}, pred[3]{0}) all-reduce(%s, %t), to_apply=%all-reduce.sum
  %f = f8e4m3fn[6]{0} get-tuple-element(%all-to-all.1), index=0
  %g = (f8e4m3fn[6]{0}, f8e4m3fn[6]{0}) all-to-all(%u, %v)
"""
    assert _count(program) == {
        "all-gather": Collective(1, 64 * 3 * 2),
        "all-reduce": Collective(2, 40 + 11),
        "all-to-all": Collective(1, 12),
        "collective-permute": Collective(1, 4),
    }
