"""The cases, a family a file: `CASES`."""

from dataclasses import replace

from certificates.rows import basic, norms

FAMILIES = {"basic": basic, "norms": norms}
CASES = [replace(case, family=name) for name, family in FAMILIES.items() for case in family.CASES]
