"""Mathematics on arrays: pure functions, with no parameter trees, no state and no names.

Arrays are batched and channels last. The layers of `dlkit.nn` own names and initialization, and call these.
"""

from dlkit.functional.activations import (
    celu,
    elu,
    gelu,
    identity,
    log_sigmoid,
    mish,
    selu,
    sigmoid,
    silu,
    softplus,
    softsign,
    squareplus,
    swish,
    tanh,
    tanh_shrink,
)
from dlkit.functional.conv import conv, conv_transpose
from dlkit.functional.dropout import dropout, keep_mask
from dlkit.functional.gates import crelu, geglu, glu, maxout, reglu, swiglu
from dlkit.functional.linear import embedding, linear, one_hot
from dlkit.functional.norms import (
    batch_norm_stats,
    group_norm,
    layer_norm,
    normalize,
    rms_norm,
    statistics_count,
)
from dlkit.functional.piecewise import (
    hard_shrink,
    hard_sigmoid,
    hard_swish,
    hard_tanh,
    leaky_relu,
    prelu,
    relu,
    relu6,
    soft_shrink,
    threshold,
)
from dlkit.functional.pooling import avg_pool, global_avg_pool, global_max_pool, max_pool
from dlkit.functional.precision import wide_dtype
from dlkit.functional.simplex import gumbel_softmax, log_softmax, logsumexp, softmax, softmin, sparsemax
from dlkit.functional.spatial import Padding, resolve_padding, same_padding, window_output_size

__all__ = [
    "Padding",
    "avg_pool",
    "batch_norm_stats",
    "celu",
    "conv",
    "conv_transpose",
    "crelu",
    "dropout",
    "elu",
    "embedding",
    "geglu",
    "gelu",
    "global_avg_pool",
    "global_max_pool",
    "glu",
    "group_norm",
    "gumbel_softmax",
    "hard_shrink",
    "hard_sigmoid",
    "hard_swish",
    "hard_tanh",
    "identity",
    "keep_mask",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "max_pool",
    "maxout",
    "mish",
    "normalize",
    "one_hot",
    "prelu",
    "reglu",
    "relu",
    "relu6",
    "resolve_padding",
    "rms_norm",
    "same_padding",
    "selu",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softmax",
    "softmin",
    "softplus",
    "softsign",
    "sparsemax",
    "squareplus",
    "statistics_count",
    "swiglu",
    "swish",
    "tanh",
    "tanh_shrink",
    "threshold",
    "wide_dtype",
    "window_output_size",
]
