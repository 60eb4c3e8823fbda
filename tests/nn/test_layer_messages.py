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
from rows import ROWS

from dlkit import nn, tree
from dlkit.nn.layer import child_state

FILE = Path(__file__).with_name("layer_messages.txt")
FIRST = {type(row.layer).__name__: row for row in reversed(ROWS)}
KEY = jax.eval_shape(jax.random.key, 0)
# What x may be: elementwise, any array; along an axis or over pixels, of any size; moved about, of any dtype.
ELEMENTWISE = {
    "AlphaDropout", "Celu", "Dropout", "Elu", "GaussianDropout", "GaussianNoise", "Gelu", "HardShrink", "HardSigmoid",
    "HardSwish", "HardTanh", "Identity", "LeakyRelu", "LogSigmoid", "Mish", "PRelu", "Relu", "Relu6", "Rescale", "Selu",
    "Sigmoid", "Silu", "Softplus", "SoftShrink", "Softsign", "Squareplus", "Swish", "Tanh", "TanhShrink", "Threshold",
    "Embedding",
}  # fmt: skip
ANY_SIZE = ELEMENTWISE | {
    "AdaptiveAvgPool", "AdaptiveMaxPool", "Alibi", "APPNP", "AvgPool", "Crelu", "Crop", "DropBlock", "DropPath",
    "FeatureAlphaDropout", "Flatten", "GlobalAvgPool", "GlobalMaxPool", "GraphPool", "LocalResponseNorm", "LogSoftmax",
    "MaxPool", "Pad", "Permute", "PixelUnshuffle", "RandomCrop", "RandomFlip", "RelativeBias", "Softmax", "Softmin",
    "Sparsemax", "SpatialDropout", "UnitNorm", "Upsample",
}  # fmt: skip
ANY_DTYPE = {
    "ChannelShuffle", "Crop", "Flatten", "Identity", "Pad", "Permute", "PixelShuffle", "PixelUnshuffle", "RandomCrop",
    "RandomFlip", "Rescale", "Reshape",
}  # fmt: skip
ACCEPTED = {"axes": ELEMENTWISE, "size": ANY_SIZE, "dtype": ANY_DTYPE, "nothing": {"Identity"}}
# An error of the input says what came in and, in its note, where: path, layer, shape.
INPUT = re.compile(
    r"\w+: \w+\(.*\) got (x|nodes|edges|memory|cond) of (?:shape|dtype|type) .*: expected .*\n"
    r"in layer body(/\w+)* = \w+\(.*\), input .+"
)


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


def changed(params, path, leaf):
    """The tree with another leaf at the path, or without it."""
    head, _, rest = path.partition("/")
    if hasattr(params, "_replace"):
        return params._replace(**{head: changed(getattr(params, head), rest, leaf) if rest else leaf})
    if isinstance(params, tuple):
        below = changed(params[int(head)], rest, leaf)
        return (*params[: int(head)], below, *params[int(head) + 1 :])
    kept = {name: below for name, below in params.items() if name != head}
    if rest:
        return kept | {head: changed(params[head], rest, leaf)}
    return kept if leaf is None else kept | {head: leaf}


class Said:
    """What the layer of a row says, with the note that says where; the empty string where it raises nothing."""

    def __init__(self, row):
        self.model, self.x = Holder(row.layer), jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), row.x)
        self.params, self.state = jax.eval_shape(self.model.init, KEY), jax.eval_shape(self.model.init_state)
        needed = {k: v for k, v in row.options.get("inputs", {}).items() if k not in ("lengths", "mask")}
        self.named = {k: jnp.asarray(v) for k, v in needed.items()}
        self.nodes = not hasattr(self.x, "shape")
        self.array = self.x.nodes if self.nodes else self.x

    def call(self, params, state, x, mode=nn.EVAL, **named):
        try:
            jax.eval_shape(lambda *args: self.model.apply(*args, **(self.named | named)), params, state, x, mode)
        except (ValueError, TypeError) as error:
            notes = [note for note in getattr(error, "__notes__", []) if note.startswith("in layer")]
            return "\n".join([f"{type(error).__name__}: {error}", *notes])
        return ""

    def given(self, shape, dtype):
        """What it says to such an array as x, or as the nodes of x, in training, where more is asked."""
        array = jax.ShapeDtypeStruct(shape, dtype)
        x = self.x._replace(nodes=array) if self.nodes else array
        return self.call(self.params, self.state, x, nn.training(KEY))

    def named_size(self, name):
        """To this keyword argument, one number longer."""
        *lead, d = self.named[name].shape
        longer = jnp.zeros((*lead, d + 1), self.named[name].dtype)
        return self.call(self.params, self.state, self.x, nn.training(KEY), **{name: longer})

    def axes(self):
        """To the most axes that it refuses, of those at the end of x."""
        texts = (self.given(self.array.shape[i:], self.array.dtype) for i in range(1, len(self.array.shape) + 1))
        return next(filter(None, texts), "")

    def leaf(self, path, leaf):
        """To another parameter at this path, or none."""
        return self.call(changed(self.params, path, leaf), self.state, self.x)


def messages(row):
    """Kind of fault -> what the layer says to it."""
    said = Said(row)
    shape, dtype = said.array.shape, said.array.dtype
    other = jnp.float32 if jnp.issubdtype(dtype, jnp.integer) else jnp.int32
    found = {
        "axes": said.axes(),
        "size": said.given((*shape[:-1], shape[-1] + 1), dtype),
        "dtype": said.given(shape, other),
        "nothing": said.call(said.params, said.state, None),
    }
    found |= {f"size of {name}": said.named_size(name) for name in said.named}
    for path, leaf in tree.flatten(said.state).items():
        longer = changed(said.state, path, jax.ShapeDtypeStruct((*leaf.shape, 2), leaf.dtype))
        found[f"state {path}"] = said.call(said.params, longer, said.x)
    for path, leaf in tree.flatten(said.params).items():
        faults = {
            f"missing {path}": None,
            f"of integers {path}": jax.ShapeDtypeStruct(leaf.shape, jnp.int32),
            f"longer {path}": jax.ShapeDtypeStruct((*leaf.shape, 2), leaf.dtype),
        }
        if leaf.shape != leaf.shape[::-1]:
            faults[f"transposed {path}"] = jax.ShapeDtypeStruct(leaf.shape[::-1], leaf.dtype)
        found |= {fault: said.leaf(path, given) for fault, given in faults.items()}
    return found


def section(name, found):
    """What the file holds: the rules of the test say the rest word for word."""
    lines, seen = [f"[{name}]"], {"nothing", "of integers", "longer", "state"}
    for fault, text in found.items():
        kind, _, path = fault.rpartition(" ")
        kind = kind if path.startswith("body/") else fault
        if kind not in seen:
            lines += [f"{fault}:", *(f"    {line}" for line in (text or "accepted").split("\n"))]
        seen.add(kind)
    return "\n".join(lines)


def written():
    return dict(re.findall(r"^(\[(?:\w+)\])\n(.*?)(?=^\[|\Z)", FILE.read_text(), re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("name", sorted(FIRST))
def test_messages(name, request):
    found = messages(FIRST[name])
    for fault, text in found.items():
        kind, _, path = fault.rpartition(" ")
        if name in ACCEPTED.get(fault, ()):
            assert not text, f"{fault}: {text}"
        elif fault in ("axes", "size", "dtype") or kind == "size of":
            assert INPUT.fullmatch(text), f"{fault}: {text or 'accepted'}"
            assert re.search(r": expected .* because ", text), text
            assert fault == "dtype" or re.search(r", got .*\n", text), text
        elif fault == "nothing":
            assert INPUT.fullmatch(text), f"{fault}: {text or 'accepted'}"
            assert " of type NoneType: expected a" in text
        else:
            head, line, note = text.split("\n")
            of = "a state that Holder.init_state" if kind == "state" else "parameters that Holder.init"
            assert head == f"ValueError: Holder got {of} does not make:", text
            want = (
                r"missing, expected .+ because body.* is .+" if kind == "missing" else r"expected .+ because .*, got .+"
            )
            assert re.fullmatch(rf"  {path}: {want}", line), text
            assert note.startswith("in layer Holder = Holder(), input "), text
    text = section(name, found)
    if request.config.getoption("--write-golden"):
        kept = {head: head + "\n" + body.strip() for head, body in (written() if FILE.exists() else {}).items()}
        kept[f"[{name}]"] = text
        FILE.write_text("\n\n".join(kept[head] for head in sorted(kept)) + "\n")
    else:
        assert text == f"[{name}]\n" + written()[f"[{name}]"].strip()


def test_nothing_else_is_written():
    assert sorted(written()) == sorted(f"[{name}]" for name in FIRST)
