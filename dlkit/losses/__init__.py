"""Losses, one value an example, and penalties on parameters.

A loss is a function `loss(outputs, targets, ...)` that returns one value an example, `[B]` (or a token, `[B, T]`),
never reduced: `weighted_mean(losses, weight)` is the number that is differentiated. Five take more than
that: `gaussian_nll(mean, targets, variance)`, `ctc(logits, labels, logit_lengths, label_lengths)`, `contrastive(a, b,
targets)`, `cosine_embedding(a, b, targets)` and `triplet(anchor, positive, negative)`; where `loss(outputs, targets)`
is called for you, give a function of your own that takes the outputs apart. Half precision is computed and returned in
float32. `docs/losses.md` has the formulas and the names in other libraries in one table.
"""

from dlkit.losses.auxiliary import AuxLoss
from dlkit.losses.binary import binary_cross_entropy, binary_focal, hinge, logistic, squared_hinge
from dlkit.losses.classification import cross_entropy, focal, kl_divergence, multiclass_hinge
from dlkit.losses.likelihood import gaussian_nll, poisson_nll
from dlkit.losses.masked import masked_cross_entropy
from dlkit.losses.penalties import WEIGHTS, Penalty, elastic_net, l1, l2
from dlkit.losses.regression import huber, l2_loss, log_cosh, mae, mse, smooth_l1
from dlkit.losses.sequence import ctc
from dlkit.losses.similarity import contrastive, cosine_distance, cosine_embedding, triplet
from dlkit.losses.variational import gaussian_kl, negative_elbo, simple_diffusion
from dlkit.losses.weighting import weighted_mean

__all__ = [
    "WEIGHTS",
    "AuxLoss",
    "Penalty",
    "binary_cross_entropy",
    "binary_focal",
    "contrastive",
    "cosine_distance",
    "cosine_embedding",
    "cross_entropy",
    "ctc",
    "elastic_net",
    "focal",
    "gaussian_kl",
    "gaussian_nll",
    "hinge",
    "huber",
    "kl_divergence",
    "l1",
    "l2",
    "l2_loss",
    "log_cosh",
    "logistic",
    "mae",
    "masked_cross_entropy",
    "mse",
    "multiclass_hinge",
    "negative_elbo",
    "poisson_nll",
    "simple_diffusion",
    "smooth_l1",
    "squared_hinge",
    "triplet",
    "weighted_mean",
]
