"""Low-rank adaptation: a trained model is tuned by small matrices beside its frozen ones."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import functional, tree
from dlkit.functional.precision import wide_dtype
from dlkit.nn.checks import check_axis, check_float, describe
from dlkit.nn.initializers import Initializer, lecun_normal
from dlkit.nn.layer import Layer
from dlkit.nn.linear import Linear, init_affine
from dlkit.nn.mode import fold_name
from dlkit.nn.rewrite import map_layers

__all__ = ["LORA", "LoRALinear", "add_lora", "lora", "merge_lora", "unmerge_lora"]

LORA = "**/lora_*"
"""The glob of the parameters that low-rank adaptation adds."""

L = TypeVar("L", bound=Layer)


@dataclass(frozen=True)
class LoRALinear(Linear):
    """`y = x w + b + (alpha / rank) (x lora_down) lora_up`: an affine map and a change of rank `rank` beside it.

    x `[..., d_in]`, y `[..., d_out]`. The change is never formed: both products are narrow. `alpha=None` is `rank`, a
    factor of 1, as in Keras; peft's default is 8, flax has no factor.

    Parameters: those of `Linear`, and `lora_down` `[d_in, rank]`, drawn by `down_init` with variance `1 / d_in`, and
    `lora_up` `[rank, d_out]` from 0, so that at first nothing is changed. torch's peft calls them `lora_A` and
    `lora_B`, both transposed, flax `lora_a` and `lora_b`.

    >>> layer = LoRALinear(4, 2, rank=1)
    >>> params = layer.init(jax.random.key(0))
    >>> {path: leaf.shape for path, leaf in params.items()}
    {'w': (4, 2), 'b': (2,), 'lora_down': (4, 1), 'lora_up': (1, 2)}

    Raises:
      ValueError: a rank below 1, or the last axis of x is not `d_in`.
      TypeError: x is not floating point, or not of the weights' dtype.

    Reference: Hu et al., LoRA: low-rank adaptation of large language models, 2021, arXiv:2106.09685.
    """

    rank: int = 8
    alpha: float | None = None
    down_init: Initializer = lecun_normal()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"{describe(self)}: expected a rank of at least 1")

    @property
    def factor(self) -> float:
        """`alpha / rank`, or 1."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def init(self, key: Any) -> Any:
        params: Any = init_affine(key, self, (self.d_in, self.d_out), (self.d_in, self.d_out))
        down = self.down_init(fold_name(key, "lora_down"), (self.d_in, self.rank), fans=(self.d_in, self.rank))
        return {**params, "lora_down": down, "lora_up": jnp.zeros((self.rank, self.d_out), down.dtype)}

    def __call__(self, params: Any, x: Array) -> Float[Array, "*lead {self.d_out}"]:
        check_axis(self, x, -1, self.d_in, f"d_in={self.d_in}")
        check_float(self, x, params["w"])
        y = functional.linear(x, params["w"], params.get("b"))
        change = functional.linear(functional.linear(x, params["lora_down"]), params["lora_up"])
        return y + change * self.factor


def lora(model: L, patterns: str | Iterable[str], *, rank: int = 8, alpha: float | None = None) -> L:
    """The model with a `LoRALinear` in place of every `Linear` whose path one of the globs matches.

    Paths are those of the layers' parameters: `"blocks/attention/q"`, `"**/q"`, `"**"` for all. The parameters of the
    model keep their paths; `add_lora` puts trained ones beside fresh adapters. To train the adapters alone,
    differentiate with respect to them, so that no gradient of the others is computed:

    >>> from dlkit import nn, tree
    >>> base = nn.Chain(nn.Linear(4, 8), nn.Relu(), head=nn.Linear(8, 2))
    >>> trained = base.init(jax.random.key(0))
    >>> model = lora(base, "**/linear*", rank=2, alpha=4.0)
    >>> params = add_lora(model, trained, jax.random.key(1))
    >>> adapters = tree.select(params, nn.LORA)
    >>> def loss(adapters, x):
    ...     full = tree.map_with_path(lambda path, leaf: adapters.get(path, leaf), params)
    ...     return model(full, x).sum()
    >>> sorted(jax.grad(loss)(adapters, jnp.ones((3, 4))))
    ['linear1/lora_down', 'linear1/lora_up']
    >>> merge_lora(model, params)[0] == base
    True

    Raises:
      ValueError: a glob matches no `Linear`; the message lists the nearest paths.
    """
    found: dict[str, Any] = {}

    def note(path: str, layer: Layer) -> Layer:
        if type(layer) is Linear:
            found[path] = None
        return layer

    map_layers(note, model)
    try:
        chosen = tree.match(dict.fromkeys(found, 0), patterns)
    except ValueError as error:
        raise ValueError(f"lora adapts layers of class Linear, by the paths of their parameters: {error}") from None

    def adapt(path: str, layer: Layer) -> Layer:
        return LoRALinear(**_fields(layer), rank=rank, alpha=alpha) if chosen.get(path) else layer

    return map_layers(adapt, model)


def _fields(layer: Any) -> dict[str, Any]:
    return {field.name: getattr(layer, field.name) for field in dataclasses.fields(Linear)}


def add_lora(model: Layer, params: Any, key: Any) -> Any:
    """The parameters of `model`, made by `lora`: those of the model without adapters, beside fresh adapters.

    Raises:
      ValueError: `params` are not those of the model without adapters; the message lists what differs.
    """
    base, fresh = _without(model), model.init(key)
    if lines := tree.diff(jax.eval_shape(base.init, key), jax.tree.map(_alike, params)):
        raise ValueError(f"add_lora got parameters that the model without adapters does not have:\n{lines}")
    held = tree.flatten(params)
    return tree.map_with_path(lambda path, leaf: held.get(path, leaf).astype(_of(held, path, leaf)), fresh)


def _alike(leaf: Any) -> Any:
    # Parameters may be stored more narrowly than `init` makes them.
    return jax.ShapeDtypeStruct(leaf.shape, jnp.float32 if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype)


def _of(held: Mapping[str, Any], path: str, leaf: Any) -> Any:
    """The dtype of a leaf: adapters have that of the weight beside them."""
    return held[path if path in held else f"{path.rpartition('/')[0]}/w".lstrip("/")].dtype


def merge_lora(model: L, params: Any) -> tuple[L, Any]:
    """The model without adapters that computes the same, and its parameters: `w + (alpha / rank) lora_down lora_up`.

    The product is taken in float32 or wider. Nothing of the adapters is left: a merged model is as fast as before.

    Raises:
      ValueError: the model has no adapters.
    """
    return _without(model), _changed(params, _adapters(model), tree.flatten(params), 1)


def unmerge_lora(model: Layer, params: Any, adapters: Any) -> Any:
    """The parameters before `merge_lora(model, ...)` up to rounding: those merged, less the change of the adapters.

    Args:
      model: the one with adapters.
      params: what `merge_lora` returned.
      adapters: the adapters by path, `tree.select(..., nn.LORA)`, or the full tree of parameters that they are in.

    Returns:
      Parameters of `model`, adapters included.

    Raises:
      ValueError: the model has no adapters, or one is missing in `adapters`.
    """
    held, found = tree.flatten(adapters), _adapters(model)
    if missing := [p for path in found for p in _pair(path) if p not in held]:
        raise ValueError(f"unmerge_lora wants the adapters of the model, but {missing[0]!r} is not among them")
    return _changed(params, found, held, -1)


def _without(model: Any) -> Any:
    def plain(path: str, layer: Layer) -> Layer:
        return Linear(**_fields(layer)) if isinstance(layer, LoRALinear) else layer

    return map_layers(plain, model)


def _adapters(model: Layer) -> dict[str, LoRALinear]:
    found: dict[str, LoRALinear] = {}

    def note(path: str, layer: Layer) -> Layer:
        if isinstance(layer, LoRALinear):
            found[path] = layer
        return layer

    map_layers(note, model)
    if not found:
        raise ValueError(f"{describe(model)} has no LoRALinear inside: nn.lora makes a model with adapters")
    return found


def _pair(path: str) -> tuple[str, str]:
    return f"{path}/lora_down".lstrip("/"), f"{path}/lora_up".lstrip("/")


def _changed(params: Any, layers: Mapping[str, LoRALinear], held: Mapping[str, Any], sign: int, path: str = "") -> Any:
    """The tree with `w` moved by `sign` times the change; the adapters are taken out (+1) or put in (-1)."""
    if isinstance(params, Mapping) and path in layers:
        down, up = (held[p] for p in _pair(path))
        wide = wide_dtype(params["w"].dtype)
        change = jnp.matmul(down.astype(wide), up.astype(wide)) * (sign * layers[path].factor)
        w = (params["w"].astype(wide) + change).astype(params["w"].dtype)
        kept = {name: leaf for name, leaf in params.items() if name not in ("lora_down", "lora_up")}
        return {**kept, "w": w} | ({} if sign > 0 else {"lora_down": down, "lora_up": up})
    if isinstance(params, Mapping):
        return {k: _changed(v, layers, held, sign, f"{path}/{k}".lstrip("/")) for k, v in params.items()}
    if isinstance(params, tuple):
        inside = [_changed(v, layers, held, sign, f"{path}/{i}".lstrip("/")) for i, v in enumerate(params)]
        return type(params)(*inside) if hasattr(params, "_fields") else tuple(inside)
    return params
