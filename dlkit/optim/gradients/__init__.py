"""What is done to gradients before or after a rule: clipping, weight decay."""

from dlkit.optim.gradients import blocks as _blocks
from dlkit.optim.gradients import clipping as _clipping
from dlkit.optim.gradients import decay as _decay
from dlkit.optim.gradients import grokfast as _grokfast
from dlkit.optim.gradients import microbatch as _microbatch
from dlkit.optim.gradients import noise as _noise
from dlkit.optim.gradients import shaping as _shaping
from dlkit.optim.gradients.blocks import *
from dlkit.optim.gradients.clipping import *
from dlkit.optim.gradients.decay import *
from dlkit.optim.gradients.grokfast import *
from dlkit.optim.gradients.microbatch import *
from dlkit.optim.gradients.noise import *
from dlkit.optim.gradients.shaping import *

__all__: list[str] = []
__all__ += _blocks.__all__
__all__ += _clipping.__all__
__all__ += _decay.__all__
__all__ += _grokfast.__all__
__all__ += _microbatch.__all__
__all__ += _noise.__all__
__all__ += _shaping.__all__
