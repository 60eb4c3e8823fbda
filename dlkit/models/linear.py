"""One affine map: the model of logistic regression, of the linear support vector machine, of least squares."""

from dlkit import nn
from dlkit.nn import initializers

__all__ = ["linear"]


def linear(d_in: int, classes: int) -> nn.Chain:
    """s = x W + b: logistic regression under `losses.cross_entropy`, a linear SVM under `losses.multiclass_hinge`.

    It starts at zero: the losses are convex, so there is no symmetry to break, and the first loss is log(classes).

    Args:
      d_in: features of an example, `[B, d_in]`.
      classes: outputs, `[B, classes]`.

    Parameters: `d_in * classes + classes`.

    >>> model = linear(64, 10)
    >>> model
    Chain(head=Linear(d_in=64, d_out=10, w_init=Zeros()))
    """
    return nn.Chain(head=nn.Linear(d_in, classes, w_init=initializers.Zeros()))
