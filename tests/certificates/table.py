"""The table in docs/optimizers.md: written from the measured differences, and read back."""

from pathlib import Path

from certificates.case import LIBRARIES, Case

PAGE = Path(__file__).parents[2] / "docs" / "optimizers.md"
BEGIN, END = "<!-- certificates: written by tests/certificates/table.py -->", "<!-- end of certificates -->"
HEAD = "| | optax | torch | Keras |\n|---|---|---|---|\n"


def cell(case: Case, library: str, difference: float | None) -> str:
    if difference is None:
        return "–"
    if library in case.differs:
        return f"differs ({difference:.1e}): {case.differs[library]}"
    under = f" under `{case.flags[library]}`" if library in case.flags else ""
    return f"equal{under} ({difference:.0e})"


def row(case: Case, found: dict[str, float]) -> str:
    return f"| `{case.name}` | {' | '.join(cell(case, name, found.get(name)) for name in LIBRARIES)} |"


def write(rows: list[str]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n{HEAD}" + "\n".join(rows) + f"\n\n{END}{after}", encoding="utf-8")


def read() -> dict[str, str]:
    """The rows of the page, by the name of their case."""
    table = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    return {line.split("`")[1]: line for line in rows}
