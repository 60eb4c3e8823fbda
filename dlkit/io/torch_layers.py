"""torch's names and layouts for dlkit's layers: where each parameter of a layer lies in a `state_dict`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from dlkit import nn, tree
from dlkit.io.report import Report
from dlkit.io.sources import Layout, Source, export_tensors, import_tensors
from dlkit.io.tensors import open_tensors
from dlkit.nn.recurrence.recurrent import Recurrent

__all__ = ["Place", "from_torch", "to_torch", "torch_sources"]

IGNORE = ("*num_batches_tracked",)


@dataclass(frozen=True)
class Place:
    """The module that holds a layer, where it differs from torch's usual one.

    `part` = (i, n): the layer is the i-th of n side by side in its arrays; `layout` replaces "transpose" of a linear
    map ("same" for the `Conv1D` of GPT-2); `weight` and `bias` are the words for the arrays. A layer without a like in
    torch is read as it stands where it has a place: `b` and `shift` under `bias`, all else under `weight`.
    """

    module: str
    part: tuple[int, int] = (0, 1)
    layout: Layout | None = None
    weight: str = "weight"
    bias: str = "bias"


def torch_sources(layer: Any, modules: Mapping[str, str | Place] | None = None, root: str = "") -> dict[str, Source]:
    """A `Source` for each leaf of `{"params": ..., "state": ...}` of a layer or model.

    `modules` says by what name torch's module of a layer is called inside the module of its parent: by the layer's
    path, such as {"blocks/attention": "attn"}, a path within a `Stack` or a tuple being without a number (with it
    too, in a tuple whose layers have names without order). An empty name is that of the parent, one that begins with
    "/" starts at the root. A layer that is not named there is called as in its path. The blocks of a `Stack` are
    `NAME.0`, `NAME.1`, ... A single array of a layer that torch does not have has the name itself.
    """
    found: dict[str, Source] = {}
    _walk(layer, _At("", "", (root,)), modules or {}, found)
    return found


def from_torch(
    model: Any,
    tensors: str | Path | Mapping[str, Any],
    modules: Mapping[str, str | Place] | None = None,
    *,
    root: str = "",
    strict: bool = True,
) -> tuple[Any, Any, Report]:
    """`(params, state, report)` of a model, from torch's `state_dict`.

    Layers of torch's are read as they stand: `Linear`, `Conv`, `ConvTranspose` and `PatchEmbed` (1 to 3 dimensions, any
    groups), the norms with their running moments, `Embedding`, `RNN`, `LSTM` and `GRU` with both biases, in `DeepRNN`
    (several layers, both directions), `MultiHeadAttention` (packed and with separate matrices). A definition that
    computes the same is the caller's: padding in numbers, `eps`, `decay = 1 - momentum`.

    Args:
      model: a definition.
      tensors: a path as of `open_tensors`, or a mapping of names to arrays (`{k: v.numpy() for k, v in
        module.state_dict().items()}`).
      modules: names of torch's modules, see `torch_sources`.
      root: the prefix of all names.
      strict: raise unless every name is used and every parameter found.

    >>> import numpy as np
    >>> weights = {"0.weight": np.ones((2, 3), "float32"), "0.bias": np.zeros(2, "float32")}
    >>> params, state, report = from_torch(nn.Chain(nn.Linear(3, 2), nn.Relu()), weights, {"linear1": "0"})
    >>> params["linear1"]["w"].shape, report.used
    ((3, 2), ('0.bias', '0.weight'))

    Raises:
      WeightsError: names are missing, unexpected or of another shape; with the report.
      TypeError: a layer with parameters of which torch has no like.
    """
    given, where = tensors, "the state_dict"
    if not isinstance(given, Mapping):
        given, where = open_tensors(given), str(given)
    template = _template(model)
    sources = torch_sources(model, modules, root)
    found, report = import_tensors(template, given, sources, ignore=IGNORE, where=where, strict=strict)
    return found["params"], found["state"], report


def to_torch(model: Any, params: Any, state: Any = None, modules: Any = None, *, root: str = "") -> dict[str, Any]:
    """The arrays under torch's names and in its layout, the inverse of `from_torch`: for `write_tensors`."""
    held = {"params": params, "state": model.init_state() if state is None else state}
    return export_tensors(held, torch_sources(model, modules, root))


def _template(model: Any) -> Any:
    return {
        "params": jax.eval_shape(model.init, jax.random.key(0)),
        "state": jax.eval_shape(model.init_state),
    }


def _joined(names: tuple[str, ...], more: str) -> tuple[str, ...]:
    if more.startswith("/"):
        return (more[1:],) * len(names)
    return tuple(".".join(part for part in (name, more) if part) for name in names)


@dataclass(frozen=True)
class _At:
    """Where a walk stands: `path` is where the leaves lie, `where` the same without numbers, `names` torch's modules,
    one for each index of the stack around them."""

    path: str
    where: str
    names: tuple[str, ...]
    stacked: bool = False


def _walk(layer: Any, at: _At, modules: Mapping[str, str | Place], found: dict[str, Source]) -> None:
    if isinstance(layer, nn.Stack):
        if at.stacked:
            raise TypeError(f"a Stack inside a Stack, at {at.path}, has no names in torch")
        deep = _joined((at.names[0],), "")[0]
        names = tuple(f"{deep}.{i}" if deep else str(i) for i in range(layer.depth))
        return _walk(layer.block, _At(at.path, at.where, names, True), modules, found)
    given = modules.get(at.path, modules.get(at.where))
    place = given if isinstance(given, Place) else Place("")
    separate = isinstance(layer, nn.MultiHeadAttention) and _below(at.where, "q") in modules

    def add(leaf: str, word: str, layout: Layout = "same", part: tuple[int, int] | None = None) -> None:
        side, _, rest = leaf.partition("/")
        path = "/".join(p for p in (side, at.path, rest) if p)
        found[path] = Source(_joined(at.names, word), layout, part or place.part, at.stacked)

    for kind, rule in _KINDS.items():
        if isinstance(layer, kind) and not separate:
            return rule(layer, place, add)
    children = layer.children()
    leaves = [] if children else list(tree.flatten(_template(layer)))
    if leaves and isinstance(given, Place):  # a layer of the caller's own: its leaves by their words, as they stand
        for leaf in leaves:
            add(leaf, place.bias if leaf.rpartition("/")[2] in ("b", "shift") else place.weight)
        return None
    if len(leaves) == 1 and given is not None:  # an array without a module, such as torchvision's class token
        add(leaves[0], "", "channels" if isinstance(layer, nn.LayerScale) else "same")
        return None
    if leaves:
        raise TypeError(f"{type(layer).__name__} at {at.path or 'the root'} has parameters, and no like in torch")
    for name, child in children.items():
        number = name.rpartition("/")[2]
        below = _below(at.where, *(part for part in name.split("/") if not part.isdigit()))
        whole = _below(at.path, name)
        given = modules.get(whole, modules.get(below))
        word = given.module if isinstance(given, Place) else given
        if name == "":  # it stands for the one it builds
            word = ""
        elif word is None:
            word = name.replace("/", ".")
        elif number.isdigit() and whole not in modules:
            word = f"{word}.{number}"
        names = _joined(at.names, word)
        _walk(child, _At(whole, below, names, at.stacked), modules, found)
    return None


def _below(*parts: str) -> str:
    return "/".join(part for part in parts if part)


Add = Callable[..., None]


def _affine(layout: Layout) -> Callable[[Any, Place, Add], None]:
    def rule(layer: Any, place: Place, add: Add) -> None:
        add("params/w", place.weight, place.layout or layout)
        if getattr(layer, "bias", False):
            add("params/b", place.bias)

    return rule


def _norm(layer: Any, place: Place, add: Add) -> None:
    if layer.affine:
        add("params/scale", place.weight)
        if not isinstance(layer, nn.RMSNorm) and getattr(layer, "shift", True):
            add("params/shift", place.bias)
    if isinstance(layer, nn.BatchNorm):
        add("state/mean", "running_mean")
        add("state/var", "running_var")


def _table(layer: Any, place: Place, add: Add) -> None:
    add("params/table", place.weight)


def _recurrent(layer: Any, place: Place, add: Add) -> None:
    _cell(layer, "", "l0", add)


def _deep(layer: Any, place: Place, add: Add) -> None:
    for i, one in enumerate(layer.layers()):
        if isinstance(one, nn.Bidirectional):
            _cell(one.layer, f"layers/{i}/forward/", f"l{i}", add)
            _cell(one.layer, f"layers/{i}/backward/", f"l{i}_reverse", add)
        else:
            _cell(one, f"layers/{i}/", f"l{i}", add)


def _both(layer: Any, place: Place, add: Add) -> None:
    _cell(layer.layer, "forward/", "l0", add)
    _cell(layer.layer, "backward/", "l0_reverse", add)


def _cell(layer: Any, path: str, suffix: str, add: Add) -> None:
    while isinstance(layer, nn.VariationalDropout):  # it changes nothing in evaluation, and has the same parameters
        layer = layer.layer
    if (
        isinstance(layer, nn.Zoneout)
        or getattr(layer, "peephole", False)
        or not getattr(layer, "reset_after", True)
        or (layer.bias and not layer.hidden_bias)
    ):
        raise TypeError(
            f"torch has no {layer!r}: it has both biases, no peepholes, no zoneout, and resets after the product"
        )
    for part, word in (("input", "ih"), ("hidden", "hh")):
        add(f"params/{path}{part}/w", f"weight_{word}_{suffix}", "transpose")
        if layer.bias:
            add(f"params/{path}{part}/b", f"bias_{word}_{suffix}")
    if getattr(layer, "projection", None) is not None:
        add(f"params/{path}projection/w", f"weight_hr_{suffix}", "transpose")


def _attention(layer: Any, place: Place, add: Add) -> None:
    packed = layer.d_memory in (None, layer.d) and layer.kv_heads in (None, layer.heads)
    for i, name in enumerate("qkv"):
        if packed:
            add(f"params/{name}/w", "in_proj_weight", "transpose", (i, 3))
        else:
            add(f"params/{name}/w", f"{name}_proj_weight", "transpose")
        if layer.bias:
            add(f"params/{name}/b", "in_proj_bias", "same", (i, 3))
    add("params/out/w", "out_proj.weight", "transpose")
    if layer.bias:
        add("params/out/b", "out_proj.bias")


_KINDS: dict[type, Callable[[Any, Place, Add], None]] = {
    nn.Linear: _affine("transpose"),
    nn.Conv: _affine("conv"),
    nn.PatchEmbed: _affine("conv"),
    nn.ConvTranspose: _affine("conv_transpose"),
    nn.BatchNorm: _norm,
    nn.LayerNorm: _norm,
    nn.RMSNorm: _norm,
    nn.GroupNorm: _norm,
    nn.InstanceNorm: _norm,
    nn.Embedding: _table,
    nn.LearnedPositions: _table,
    nn.RelativeBias: _table,
    nn.MultiHeadAttention: _attention,
    nn.DeepRNN: _deep,
    nn.Bidirectional: _both,
    Recurrent: _recurrent,
    nn.PRelu: lambda layer, place, add: add("params/slope", place.weight),
}
