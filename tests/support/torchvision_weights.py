"""Weights that depend on torchvision's names alone, in our layout and in torch's."""

import zlib

import jax
import numpy as np

from dlkit import nn, tree
from dlkit.models.vision.names import parametric


def made(model, names):
    """`(params, state)` of numbers drawn from a generator that the name of torch's module seeds."""
    shapes = {"params": jax.eval_shape(model.init, jax.random.key(0)), "state": jax.eval_shape(model.init_state)}
    drawn = {}
    for path, leaf in tree.flatten(shapes).items():
        side, *parts, word = path.split("/")
        layer = next(p for p in ("/".join(parts[:n]) for n in range(len(parts), 0, -1)) if p in names)
        rng = np.random.default_rng(
            zlib.crc32(f"{names[layer]}:{side}/{path.removeprefix(f'{side}/{layer}')}".encode())
        )
        value = rng.standard_normal(leaf.shape)
        if word == "w":
            value = value * (2 / np.prod(leaf.shape[:-1])) ** 0.5  # variances that a deep network keeps
        elif word in ("scale", "var"):
            value = 1 + 0.3 * np.tanh(value)
        else:
            value = 0.1 * value
        drawn[path] = value.astype(np.float32)
    held = jax.tree.unflatten(jax.tree.structure(shapes), list(drawn.values()))
    return held["params"], held["state"]


def at(held, path):
    for part in path.split("/"):
        if held is None:
            return None
        held = held[int(part)] if isinstance(held, tuple) else held.get(part)
    return held


def torch_layout(model, names, params, state):
    """The same numbers as torch's `state_dict`."""
    found = {}
    for path, layer in parametric(model):
        name, own = names[path][1:], at(params, path)
        if isinstance(layer, nn.MultiHeadAttention):
            found[f"{name}.in_proj_weight"] = np.concatenate([own[k]["w"].T for k in "qkv"])
            found[f"{name}.in_proj_bias"] = np.concatenate([own[k]["b"] for k in "qkv"])
            found[f"{name}.out_proj.weight"] = own["out"]["w"].T
            found[f"{name}.out_proj.bias"] = own["out"]["b"]
            continue
        for word, value in {**own, **(at(state, path) or {})}.items():
            if isinstance(layer, nn.LayerScale):
                found[name] = value[:, None, None]
            elif word == "table":
                found[name] = value
            elif word == "w":
                order = (1, 0) if value.ndim == 2 else (value.ndim - 1, value.ndim - 2, *range(value.ndim - 2))
                found[f"{name}.weight"] = value.transpose(order)
            else:
                words = {"b": "bias", "scale": "weight", "shift": "bias", "mean": "running_mean", "var": "running_var"}
                found[f"{name}.{words[word]}"] = value
    return found


def load(torch, module, arrays):
    """Put them into a module, which must have the same names and no others."""
    module = module.double()
    found = {name: torch.tensor(np.ascontiguousarray(value), dtype=torch.float64) for name, value in arrays.items()}
    missing, unexpected = module.load_state_dict(found, strict=False)
    assert [n for n in missing if not n.endswith("num_batches_tracked")] == []
    assert unexpected == []
    return module.eval()
