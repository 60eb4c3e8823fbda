"""The cases, a family a file: `CASES`."""

from dataclasses import replace

from certificates.rows import adam, adaptive, basic, dialects, modern, norms, rmsprop, second, wrappers

FAMILIES = {
    "basic": basic,
    "rmsprop": rmsprop,
    "adam": adam,
    "adaptive": adaptive,
    "dialects": dialects,
    "modern": modern,
    "norms": norms,
    "second": second,
    "wrappers": wrappers,
}
CASES = [replace(case, family=name) for name, family in FAMILIES.items() for case in family.CASES]
