"""The cases, a family a file: `CASES`."""

from dataclasses import replace

from certificates.rows import basic, modern

FAMILIES = {"basic": basic, "modern": modern}
CASES = [replace(case, family=name) for name, family in FAMILIES.items() for case in family.CASES]
