"""The cases, a family a file: `CASES`."""

from dataclasses import replace

from certificates.rows import basic

FAMILIES = {"basic": basic}
CASES = [replace(case, family=name) for name, family in FAMILIES.items() for case in family.CASES]
