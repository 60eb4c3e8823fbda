"""The cases, a family a file: `CASES`."""

from dataclasses import replace

from certificates.rows import adaptive, basic, dialects

FAMILIES = {"basic": basic, "adaptive": adaptive, "dialects": dialects}
CASES = [replace(case, family=name) for name, family in FAMILIES.items() for case in family.CASES]
