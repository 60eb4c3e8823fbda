"""Recurrent layers and linear recurrences."""

import numpy as np

from dlkit import nn
from rows.row import Row, normal

SEQUENCE = normal(3, 4, 5)
LENGTHS = {"inputs": {"lengths": np.array([4, 4, 4], np.int32)}}


def weights(gates: int, d_in: int = 5, d: int = 6, hidden: int = 6) -> dict[str, tuple[int, ...]]:
    return {
        "input/w": (d_in, gates * d),
        "input/b": (gates * d,),
        "hidden/w": (hidden, gates * d),
        "hidden/b": (gates * d,),
    }


def under(prefix: str, held: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}/{path}": shape for path, shape in held.items()}


ROWS: list[Row] = [
    Row(nn.RNN(5, 6), SEQUENCE, weights(1), options=LENGTHS),
    Row(nn.GRU(5, 6), SEQUENCE, weights(3), options={**LENGTHS, "scale": (0.05, 10.0)}),
    Row(nn.GRU(5, 6, reset_after=False), SEQUENCE, weights(3), options={"scale": (0.05, 10.0)}),
    Row(nn.LSTM(5, 6), SEQUENCE, weights(4), options={**LENGTHS, "scale": (0.05, 10.0)}),
    Row(
        nn.LSTM(5, 6, peephole=True, projection=3),
        SEQUENCE,
        weights(4, hidden=3) | {"peephole/w": (3, 6), "projection/w": (6, 3)},
        options={"scale": (0.02, 10.0)},
    ),
    Row(
        nn.VariationalDropout(nn.GRU(5, 6), 0.3, 0.3),
        SEQUENCE,
        weights(3),
        options={**LENGTHS, "scale": (0.05, 10.0)},
        composed=True,
    ),
    Row(nn.Zoneout(nn.LSTM(5, 6), 0.1, 0.5), SEQUENCE, weights(4), options={**LENGTHS, "scale": (0.02, 10.0)}),
    Row(
        nn.ConvLSTM(2, 3, (3,)),
        normal(2, 3, 4, 2),
        {"input/w": (3, 2, 12), "input/b": (12,), "hidden/w": (3, 3, 12)},
        options={"scale": (0.02, 10.0)},
    ),
    Row(
        nn.LRU(5, 4),
        SEQUENCE,
        {"nu": (4,), "theta": (4,), "gamma": (4,), "input/w": (5, 8), "output/w": (8, 5), "skip": (5,)},
        options=LENGTHS,
    ),
    Row(
        nn.Bidirectional(nn.GRU(5, 6)),
        SEQUENCE,
        under("forward", weights(3)) | under("backward", weights(3)),
        options={"scale": (0.05, 10.0)},
    ),
    Row(
        nn.DeepRNN(nn.LSTM(5, 6), 2, rate=0.3),
        SEQUENCE,
        under("layers/0", weights(4)) | under("layers/1", weights(4, d_in=6)),
        options={"scale": (0.02, 10.0)},
    ),
]
