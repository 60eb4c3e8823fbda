"""The cases, a family a file: `CASES`."""

from dataclasses import replace

from certificates.rows import basic, second

FAMILIES = {"basic": basic, "second": second}
CASES = [replace(case, family=name) for name, family in FAMILIES.items() for case in family.CASES]
