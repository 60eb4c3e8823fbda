"""The rows of the table of optimizers: name -> (definition, the paths of its state for a parameter called `w`).

`RECIPES` are optimizers, which have to lower a loss; `BLOCKS` are transforms and wrappers. One file a family.
"""

from optimizer_rows import adaptive, basic, dialects, modern, norms, preconditioners, second, wrappers, zeroth

FAMILIES = (
    adaptive,
    basic,
    dialects,
    modern,
    norms,
    preconditioners,
    second,
    wrappers,
    zeroth,
)
RECIPES = {name: row for family in FAMILIES for name, row in family.RECIPES.items()}
BLOCKS = {name: row for family in FAMILIES for name, row in family.BLOCKS.items()}
