"""A recurrent language model: a guess of the next token at every time."""

from typing import Literal

import jax  # noqa: F401  (the doctest)

from dlkit import nn

__all__ = ["rnn_lm"]

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def rnn_lm(
    vocab: int, d: int, depth: int, *, cell: Literal["lstm", "gru", "rnn"] = "lstm", rate: float = 0.0
) -> nn.Chain:
    """Tokens, `depth` recurrent layers of `d` units, and the scores of the next token: ids `[B, T]`, logits
    `[B, T, vocab]`.

    Args:
      vocab: the number of tokens.
      cell: "lstm", "gru" or "rnn" (tanh).
      rate: dropout of what each layer gives.

    With `init_cache` it is called piece by piece, so `models.generate` works with it. On one-hot characters char-rnn
    has no table of tokens: its first weights are that table times ours.

    >>> from dlkit import tree
    >>> tree.count(jax.eval_shape(rnn_lm(65, 256, 2).init, jax.random.key(0)))
    1086017

    Raises:
      ValueError: another cell, or no layer.

    Reference: Karpathy, Johnson and Fei-Fei, Visualizing and understanding recurrent networks, 2015, arXiv:1506.02078.
    """
    if cell not in CELLS:
        raise ValueError(f"rnn_lm got cell={cell!r}: expected {', '.join(map(repr, CELLS))}")
    if depth < 1:
        raise ValueError(f"rnn_lm got depth={depth}: expected at least one layer")
    layers: dict[str, nn.Layer] = {}
    for i in range(1, depth + 1):
        layers[f"{cell}{i}"] = CELLS[cell](d, d)
        if rate > 0:
            layers[f"dropout{i}"] = nn.Dropout(rate)
    return nn.Chain(tokens=nn.Embedding(vocab, d), **layers, head=nn.Linear(d, vocab))
