"""Greedy layer-wise pretraining: each hidden layer first learns to keep what the layers before it give."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dlkit import losses, nn
from dlkit.data import Arrays
from dlkit.train.evaluate import predict
from dlkit.train.fit import fit
from dlkit.train.inputs import check_arrays
from dlkit.train.state import create_state
from dlkit.train.task import Task

__all__ = ["pretrain"]


def pretrain(
    model: nn.Chain,
    params: Any,
    dataset: Arrays,
    optimizer: Any,
    *,
    epochs: int,
    batch_size: int,
    mask: float = 0.0,
    loss: Callable[..., Any] = losses.mse,
    seed: int = 0,
    on_layer: Callable[[str, dict[str, Any], Any], None] | None = None,
) -> dict[str, Any]:
    """Parameters of `model` whose hidden layers were trained one after another as autoencoders, without labels.

    For the hidden `Linear` layers in order, each with what stands behind it (activation, dropout): its input h is what
    the layers before it give for the whole dataset, computed once; an affine map back from its output learns to rebuild
    h, and is then thrown away. Layers before and behind are not touched, to the bit; nor is the last `Linear`, the
    head, which is trained with the whole model afterwards.

    Args:
      model: a `Chain` such as `models.mlp` makes, with at least two `Linear` layers, without layers that remember.
      params: its parameters, the start of the training.
      dataset: examples with the field `x`; no labels are read.
      optimizer: for each layer anew.
      epochs, batch_size: of each layer.
      mask: the probability that an input of a layer is set to 0 in its training: a stack of denoising autoencoders.
      loss: `loss(rebuilt, h)`, one value an example.
      seed: of the maps back, the order and the masks.
      on_layer: called with the layer's name, the parameters so far and the rows of its training.

    >>> from dlkit import models, optim
    >>> model = models.mlp((4, 3, 2))
    >>> x = np.random.default_rng(0).random((8, 4), np.float32)
    >>> params = model.init(jax.random.key(0))
    >>> new = pretrain(model, params, Arrays(x=x), optim.adam(1e-2), epochs=2, batch_size=4)
    >>> bool((new["linear1"]["w"] != params["linear1"]["w"]).any()), new["linear2"] is params["linear2"]
    (True, True)

    Raises:
      TypeError: the model is no `Chain`, or the dataset no `Arrays`.
      ValueError: fewer than two `Linear` layers, or a layer that remembers.

    References: Bengio, Lamblin, Popovici and Larochelle, Greedy layer-wise training of deep networks, 2006; Vincent et
    al., Extracting and composing robust features with denoising autoencoders, 2008.
    """
    check_arrays("dataset", dataset)
    if not isinstance(model, nn.Chain):
        raise TypeError(f"pretrain wants a Chain, such as models.mlp makes, got {type(model).__name__}")
    if model.init_state() is not None:
        raise ValueError("pretrain wants a model whose layers do not remember: take layer normalization for batch norm")
    names = model.names
    starts = [i for i, layer in enumerate(model.layers) if isinstance(layer, nn.Linear)]
    if len(starts) < 2:
        raise ValueError(f"pretrain wants a hidden Linear layer and a head, got the layers {', '.join(names)}")
    new, h = dict(params), dataset["x"]
    if front := names[: starts[0]]:
        h = _outputs(model, new, front, h, batch_size)
    for n, (start, end) in enumerate(itertools.pairwise(starts)):
        linear: Any = model.layers[start]
        group = names[start:end]
        encoder = nn.Chain(**{name: model[name] for name in group})
        hidden = {"mask": nn.Dropout(mask)} if mask else {}
        whole = nn.Chain(**hidden, encoder=encoder, decoder=nn.Linear(linear.d_out, linear.d_in))
        key = nn.fold_name(jax.random.key(seed), names[start])
        task = Task(whole, loss, inputs="x", targets="x")
        start_params = {**whole.init(key), "encoder": {name: new[name] for name in group}}
        result = fit(
            task, optimizer, Arrays(x=h), epochs=epochs, batch_size=batch_size, seed=seed + n,
            state=_state(task, optimizer, start_params, key),
        )  # fmt: skip
        new = {**new, **result.state.params["encoder"]}
        if on_layer is not None:
            on_layer(names[start], new, result.history)
        h = _outputs(model, new, group, h, batch_size)
    return new


def _outputs(model: nn.Chain, params: Any, names: tuple[str, ...], x: Any, batch_size: int) -> np.ndarray:
    part = nn.Chain(**{name: model[name] for name in names})
    return np.asarray(predict(part, {name: params[name] for name in names}, None, x, batch_size=batch_size))


def _state(task: Task, optimizer: Any, params: Any, key: Any) -> Any:
    state = create_state(task.model, optimizer, key)
    return state._replace(params=params, opt_state=optimizer.init(params))
