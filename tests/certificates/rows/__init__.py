"""The cases, a family a file: `CASES`."""

from dataclasses import replace

from certificates.rows import adaptive, basic, dialects, modern, norms, second, wrappers

FAMILIES = {
    "adaptive": adaptive,
    "basic": basic,
    "dialects": dialects,
    "modern": modern,
    "norms": norms,
    "second": second,
    "wrappers": wrappers,
}
CASES = [replace(case, family=name) for name, family in FAMILIES.items() for case in family.CASES]
