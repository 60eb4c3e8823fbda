"""What is done to gradients before or after a rule: clipping, weight decay; and computing them piece by piece."""

from dlkit.optim.gradients import clipping as _clipping
from dlkit.optim.gradients import decay as _decay
from dlkit.optim.gradients import microbatch as _microbatch
from dlkit.optim.gradients.clipping import *
from dlkit.optim.gradients.decay import *
from dlkit.optim.gradients.microbatch import *

__all__: list[str] = []
__all__ += _clipping.__all__
__all__ += _decay.__all__
__all__ += _microbatch.__all__
