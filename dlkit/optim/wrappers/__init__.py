"""Transforms around other transforms: some of the leaves, some of the steps."""

from dlkit.optim.wrappers import cautious as _cautious
from dlkit.optim.wrappers import masks as _masks
from dlkit.optim.wrappers.cautious import *
from dlkit.optim.wrappers.masks import *

__all__: list[str] = []
__all__ += _cautious.__all__
__all__ += _masks.__all__
