"""Shampoo, SOAP, PSGD with Kronecker factors, K-FAC (which finds no layer in the vectors that the table tries)."""

from dlkit import optim
from optimizer_rows.paths import LR, at

SHAMPOO = ["count", "statistics/w/0", "roots/w/0"]
SOAP = ["count", "mu/w", "nu/w"]
PSGD = ["count", "since", "key", "mu/w", "factors/w/0"]
KFAC = ["count", "seen"]

RECIPES = {
    # A large eps, as the inverse root of a matrix of few gradients amplifies rounding by the root of its condition.
    "shampoo": (optim.shampoo(0.3, eps=0.1), at(SHAMPOO, ["trace/w"], [], LR)),
    "shampoo_grafted": (
        optim.shampoo(
            0.03, 0.0, 0.9, 1e-3, block_size=2, precondition_every=2, weight_decay=1e-4, graft=optim.scale_by_rms(0.9)
        ),
        at([*SHAMPOO, "graft/nu/w"], [], LR),
    ),
    "soap": (optim.soap(0.1, weight_decay=1e-4), at(SOAP, [], LR)),
    "psgd_kron": (optim.psgd_kron(optim.linear_schedule(0.1, 0.0, 200)), at(PSGD, [], LR)),
    "kfac": (optim.kfac(0.03), at(KFAC, ["trace/w"], [], LR)),
}

BLOCKS = {
    "scale_by_soap_vectors": (
        optim.scale_by_soap(0.9, 0.99, precondition_every=2, precondition_1d=True, mu_dtype="bfloat16"),
        [*SOAP, "statistics/w/0", "bases/w/0"],
    ),
    "scale_by_kfac_schedule": (optim.scale_by_kfac(optim.linear_schedule(1.0, 1e-3, 100), kl_clip=None), KFAC),
}
