"""Every row of the certificates is what is measured, and what docs/optimizers.md says."""

import re

import pytest
from certificates import rows, table
from certificates.measure import differences

ROWS = []


@pytest.fixture(scope="module", autouse=True)
def written(request):
    """With --write-golden, the page's table is what this run has measured."""
    yield
    if request.config.getoption("--write-golden") and len(ROWS) == len(rows.CASES):
        table.write(ROWS)


def marks(case, before):
    """`torch`: compared with torch or Keras; `thorough`: an optimizer that stands before, with other options."""
    again = case.name.split("(")[0] in {other.name.split("(")[0] for other in before}
    return [pytest.mark.torch] * bool(case.torch or case.keras) + [pytest.mark.thorough] * again


CASES = [pytest.param(case, id=case.name, marks=marks(case, rows.CASES[:i])) for i, case in enumerate(rows.CASES)]


@pytest.mark.parametrize("case", CASES)
def test_certificate(case, x64, request):
    found = differences(case)
    ROWS.append(table.row(case, found))
    for library, difference in found.items():
        if library == "float32":
            assert difference <= case.tolerance32
        elif library in case.differs:
            assert difference > 1e-6, f"it equals {library}'s: the row says that it differs"
        else:
            assert difference <= case.tolerance, f"{library} takes other steps"
    if not request.config.getoption("--write-golden"):
        assert (shown := table.read().get(case.name)), "docs/optimizers.md has no such row: --write-golden"
        assert words(shown) == words(ROWS[-1])
        assert far(ROWS[-1]) == pytest.approx(far(shown), rel=0.1)  # the page shows two digits


def words(row: str) -> str:
    """The row without its numbers: of equal trajectories, rounding decides the distance."""
    return re.sub(r"\(\d[^)]*e[-+]\d+\)", "", row)


def far(row: str) -> list[float]:
    """How far apart those are that differ."""
    return [float(number) for number in re.findall(r"differs \(([^)]*)\)", row)]


def test_names_are_unique_and_the_page_has_no_other_rows(request):
    names = [case.name for case in rows.CASES]
    assert len(names) == len(set(names))
    if not request.config.getoption("--write-golden"):
        assert sorted(table.read()) == sorted(names)


def test_a_changed_optimizer_is_seen(x64):
    """The measurement tells a wrong eps and a wrong momentum from the right one."""
    case = next(case for case in rows.CASES if case.name.startswith("adam("))
    wrong = type(case)(**{**case.__dict__, "ours": next(c for c in rows.CASES if c.name.startswith("adamw(")).ours})
    assert differences(wrong)["optax"] > 1e-6
