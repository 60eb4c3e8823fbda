"""keras.optimizers' optimizers under Keras's argument names, defaults and numbers.

    tx = optim.keras.adam(1e-3, weight_decay=4e-3, global_clipnorm=1.0)

Every recipe returns a chain like any other. `weight_decay` is Keras's: p loses learning_rate weight_decay p *before*
the step is computed. Of `clipnorm` (each array), `global_clipnorm` (all of them) and `clipvalue` (each element) one may
be given; clipping comes first. Two things are added: the rate may be a schedule of the update's number, and `mask` says
which parameters decay (Keras: `exclude_from_weight_decay`). Left out are `use_ema`, `loss_scale_factor` and
`gradient_accumulation_steps`, which are wrappers here. Keras is not imported.
"""

from dlkit.optim.keras import adaptive as _adaptive
from dlkit.optim.keras import base as _base
from dlkit.optim.keras import ftrl as _ftrl
from dlkit.optim.keras import layerwise as _layerwise
from dlkit.optim.keras import orthogonal as _orthogonal
from dlkit.optim.keras import plain as _plain
from dlkit.optim.keras import schedule_free as _schedule_free
from dlkit.optim.keras.adaptive import *
from dlkit.optim.keras.base import *
from dlkit.optim.keras.ftrl import *
from dlkit.optim.keras.layerwise import *
from dlkit.optim.keras.orthogonal import *
from dlkit.optim.keras.plain import *
from dlkit.optim.keras.schedule_free import *

__all__: list[str] = []
__all__ += _adaptive.__all__
__all__ += _base.__all__
__all__ += _ftrl.__all__
__all__ += _layerwise.__all__
__all__ += _orthogonal.__all__
__all__ += _plain.__all__
__all__ += _schedule_free.__all__
