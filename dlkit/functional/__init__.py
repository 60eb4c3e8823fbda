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
from dlkit.functional.adaptive import adaptive_avg_pool, adaptive_max_pool, adaptive_windows
from dlkit.functional.attention import AttentionKind, attention, attention_weights
from dlkit.functional.conv import conv, conv_transpose
from dlkit.functional.dropout import dropout, keep_mask
from dlkit.functional.gates import crelu, geglu, glu, maxout, reglu, swiglu
from dlkit.functional.graph import Graph, batch_graphs, pad_graph, size_bucket, unbatch_graphs
from dlkit.functional.graph_edges import add_self_loops, to_undirected
from dlkit.functional.linear import embedding, linear, one_hot
from dlkit.functional.masks import causal_mask, combine_masks, padding_mask, segment_mask, sliding_window_mask
from dlkit.functional.norms import (
    batch_norm_stats,
    group_norm,
    layer_norm,
    normalize,
    rms_norm,
    statistics_count,
)
from dlkit.functional.norms_local import instance_norm, local_response_norm, unit_norm
from dlkit.functional.padding import PadMode, crop, pad
from dlkit.functional.patches import fold, patchify, unfold, unpatchify
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
from dlkit.functional.positions import (
    alibi_bias,
    alibi_slopes,
    relative_buckets,
    rope,
    rope_frequencies,
    sinusoidal,
)
from dlkit.functional.precision import wide_dtype
from dlkit.functional.propagate import Aggregate, aggregate, gcn_propagate
from dlkit.functional.resize import Resizing, resize
from dlkit.functional.segments import (
    degree,
    segment_max,
    segment_mean,
    segment_min,
    segment_softmax,
    segment_sum,
    take_rows,
)
from dlkit.functional.shuffle import channel_shuffle, pixel_shuffle, pixel_unshuffle
from dlkit.functional.simplex import gumbel_softmax, log_softmax, logsumexp, softmax, softmin, sparsemax
from dlkit.functional.spatial import Padding, resolve_padding, same_padding, window_output_size

__all__ = [
    "Aggregate",
    "AttentionKind",
    "Graph",
    "PadMode",
    "Padding",
    "Resizing",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "adaptive_windows",
    "add_self_loops",
    "aggregate",
    "alibi_bias",
    "alibi_slopes",
    "attention",
    "attention_weights",
    "avg_pool",
    "batch_graphs",
    "batch_norm_stats",
    "causal_mask",
    "celu",
    "channel_shuffle",
    "combine_masks",
    "conv",
    "conv_transpose",
    "crelu",
    "crop",
    "degree",
    "dropout",
    "elu",
    "embedding",
    "fold",
    "gcn_propagate",
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
    "instance_norm",
    "keep_mask",
    "layer_norm",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "max_pool",
    "maxout",
    "mish",
    "normalize",
    "one_hot",
    "pad",
    "pad_graph",
    "padding_mask",
    "patchify",
    "pixel_shuffle",
    "pixel_unshuffle",
    "prelu",
    "reglu",
    "relative_buckets",
    "relu",
    "relu6",
    "resize",
    "resolve_padding",
    "rms_norm",
    "rope",
    "rope_frequencies",
    "same_padding",
    "segment_mask",
    "segment_max",
    "segment_mean",
    "segment_min",
    "segment_softmax",
    "segment_sum",
    "selu",
    "sigmoid",
    "silu",
    "sinusoidal",
    "size_bucket",
    "sliding_window_mask",
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
    "take_rows",
    "tanh",
    "tanh_shrink",
    "threshold",
    "to_undirected",
    "unbatch_graphs",
    "unfold",
    "unit_norm",
    "unpatchify",
    "wide_dtype",
    "window_output_size",
]
