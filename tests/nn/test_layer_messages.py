"""What each layer of the table says to bad input and bad parameters, literally: `layer_messages.txt` beside this file.

Each layer stands as `body` in a model, and nothing is compiled. `pytest --write-golden -n 0
tests/nn/test_layer_messages.py` writes the file anew; read what changed in it.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxtyping
import pytest
from rows import attention, basics, convolution, graphs, normalization, recurrent, transformer

from dlkit import nn, tree
from dlkit.nn.layer import child_state

FILE = Path(__file__).with_name("layer_messages.txt")
FAMILIES = (basics, convolution, normalization, recurrent, attention, transformer, graphs)
ROWS = {type(row.layer).__name__: row for family in reversed(FAMILIES) for row in reversed(family.ROWS)}
KEY = jax.eval_shape(jax.random.key, 0)
WHERE = r"\nin layer body(/\w+)* = \w+\(.*\), input .+"  # the note: path, layer, and what came in
# What an input of another size, another rank or another dtype may be: elementwise, along an axis, over pixels.
ANY_SIZE = {
    "AdaptiveAvgPool", "AdaptiveMaxPool", "Alibi", "AlphaDropout", "APPNP", "AvgPool", "Celu", "Crelu", "Crop",
    "Dropout", "DropBlock", "DropPath", "Elu", "Embedding", "FeatureAlphaDropout", "Flatten", "GaussianDropout",
    "GaussianNoise", "Gelu", "GlobalAvgPool", "GlobalMaxPool", "GraphPool", "HardShrink", "HardSigmoid",
    "HardSwish", "HardTanh", "Identity", "LeakyRelu", "LocalResponseNorm", "LogSigmoid", "LogSoftmax", "MaxPool",
    "Mish", "Pad", "Permute", "PixelUnshuffle", "PRelu", "RandomCrop", "RandomFlip", "RelativeBias", "Relu",
    "Relu6", "Rescale", "Selu", "Sigmoid", "Silu", "Softmax", "Softmin", "Softplus", "SoftShrink", "Softsign",
    "Sparsemax", "SpatialDropout", "Squareplus", "Swish", "Tanh", "TanhShrink", "Threshold", "UnitNorm", "Upsample",
}  # fmt: skip
ANY_DTYPE = {
    "Alibi", "ChannelShuffle", "Crop", "Flatten", "Identity", "Pad", "Permute", "PixelShuffle", "PixelUnshuffle",
    "RandomCrop", "RandomFlip", "Rescale", "Reshape",
}  # fmt: skip


@dataclass(frozen=True)
class Holder(nn.Layer):
    body: nn.Layer

    def apply(self, params, state, x, mode, **named):
        y, after = self.body.apply(params["body"], child_state(state, "body"), x, mode.at("body"), **named)
        return y, None if after is None else {"body": after}


@pytest.fixture(scope="module", autouse=True)
def unchecked():
    """Without the types of signatures enforced, so that dlkit's own message is what is raised, as for a user."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def said(call, *args):
    """What it raises, with the note that says where; the empty string where it raises nothing."""
    try:
        jax.eval_shape(call, *args)
    except (ValueError, TypeError) as error:
        notes = [note for note in getattr(error, "__notes__", []) if note.startswith("in layer")]
        return "\n".join([f"{type(error).__name__}: {error}", *notes])
    return ""


def changed(params, path, leaf):
    """The tree with another leaf at the path, or without it."""
    head, _, rest = path.partition("/")
    if isinstance(params, tuple):
        below = changed(params[int(head)], rest, leaf)
        return (*params[: int(head)], below, *params[int(head) + 1 :])
    kept = {name: below for name, below in params.items() if name != head}
    if rest:
        return kept | {head: changed(params[head], rest, leaf)}
    return kept if leaf is None else kept | {head: leaf}


def messages(row):
    """Kind of fault -> what the layer says to it."""
    x, model = jax.tree.map(jnp.asarray, row.x), Holder(row.layer)
    params, state, named = jax.eval_shape(model.init, KEY), model.init_state(), row.options.get("inputs", {})
    array = x if hasattr(x, "shape") else x.nodes

    def call(params, x):
        return said(lambda params, x: model.apply(params, state, x, nn.EVAL, **named)[0], params, x)

    def like(shape, dtype):
        given = jax.ShapeDtypeStruct(shape, dtype)
        return given if hasattr(x, "shape") else x._replace(nodes=given)

    other = jnp.float32 if jnp.issubdtype(array.dtype, jnp.integer) else jnp.int32
    found = {
        "size": call(params, like((*array.shape[:-1], array.shape[-1] + 1), array.dtype)),
        "dtype": call(params, like(array.shape, other)),
    }
    leaves = tree.flatten(params)
    if leaves:
        path, leaf = next(iter(leaves.items()))
        found["missing"] = call(changed(params, path, None), x)
        found["integers"] = call(changed(params, path, jax.ShapeDtypeStruct(leaf.shape, jnp.int32)), x)
    turned = [(path, leaf) for path, leaf in leaves.items() if leaf.shape != leaf.shape[::-1]]
    if turned:
        path, leaf = turned[0]
        found["transposed"] = call(changed(params, path, jax.ShapeDtypeStruct(leaf.shape[::-1], leaf.dtype)), x)
    return found


def section(name, found):
    lines = [f"[{name}]"]
    for kind, text in found.items():
        lines += [f"{kind}:", *(f"    {line}" for line in (text or "accepted").split("\n"))]
    return "\n".join(lines)


def written():
    return dict(re.findall(r"^(\[(?:\w+)\])\n(.*?)(?=^\[|\Z)", FILE.read_text(), re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("name", sorted(ROWS))
def test_messages(name, request):
    found = messages(ROWS[name])
    for kind, text in found.items():
        if (kind == "size" and name in ANY_SIZE) or (kind == "dtype" and name in ANY_DTYPE):
            assert not text, f"{kind}: {text}"
            continue
        assert re.search(r"expected .* because ", text), f"{kind}: {text or 'accepted'}"
        if kind in ("size", "dtype"):
            assert re.search(r" got \w+ of (shape|dtype) ", text), text
            assert re.search(WHERE, text), text
        else:
            assert re.search(r"\n  body/[\w/]+: ", text), text
    text = section(name, found)
    if request.config.getoption("--write-golden"):
        kept = {head: head + "\n" + body.strip() for head, body in (written() if FILE.exists() else {}).items()}
        kept[f"[{name}]"] = text
        FILE.write_text("\n\n".join(kept[head] for head in sorted(kept)) + "\n")
    else:
        assert text == f"[{name}]\n" + written()[f"[{name}]"].strip()


def test_nothing_else_is_written():
    assert sorted(written()) == sorted(f"[{name}]" for name in ROWS)
