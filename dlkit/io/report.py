"""What an import found: which names were used, and which stand in only one of the two."""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Report", "WeightsError"]

_LIMIT = 12  # names of a message


class WeightsError(ValueError):
    """Weights and model do not belong together. `report` says which names."""

    def __init__(self, message: str, report: "Report") -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class Report:
    """The names of an import, each list in order; it is `complete` when all but the first and the last two are empty.

    - `used`: names of the file whose numbers went into the model;
    - `missing`: names that the model wants and the file lacks;
    - `unexpected`: names of the file that the model has no place for;
    - `mismatched`: of another shape, as "name: expected [2, 3], got [3, 3]";
    - `skipped`: names left out because the caller said so;
    - `kept`: paths of the model that stayed as they were.
    """

    used: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)

    def check(self, where: str) -> "Report":
        """Itself, if complete.

        Raises:
          WeightsError: it is not; the message has the names.
        """
        if self.complete:
            return self
        raise WeightsError(f"{where} does not fit the model:\n{self}", self)

    def __str__(self) -> str:
        lines = [f"used: {len(self.used)} names"]
        for kind in ("missing", "unexpected", "mismatched", "skipped", "kept"):
            lines += _lines(kind, getattr(self, kind))
        return "\n".join(lines)


def _lines(kind: str, names: Iterable[str]) -> list[str]:
    names = list(names)
    shown = [f"  {name}" for name in names[:_LIMIT]]
    more = [f"  ... and {len(names) - _LIMIT} more"] if len(names) > _LIMIT else []
    return [f"{kind}: {len(names)}", *shown, *more] if names else []
