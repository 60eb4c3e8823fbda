"""The rows of the table of optimizers: name -> (definition, the paths of its state for a parameter called `w`).

A third element holds the extra arguments of `update` (value=, obj_fn=, grad_fn=): `test_converges` gives those of its
own loss. `RECIPES` are optimizers, which have to lower a loss; `BLOCKS` are transforms and wrappers. One file a family.
"""

from optimizer_rows import basic, modern

FAMILIES = (basic, modern)
RECIPES = {name: row for family in FAMILIES for name, row in family.RECIPES.items()}
BLOCKS = {name: row for family in FAMILIES for name, row in family.BLOCKS.items()}
