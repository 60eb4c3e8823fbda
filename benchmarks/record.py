"""What the benchmarks write down: the machine, and sections of RESULTS.md."""

import datetime
import importlib.metadata
import os
import platform
import re
from pathlib import Path

RESULTS = Path(__file__).parent / "RESULTS.md"


def machine(*packages: str) -> str:
    """`2026-11-21, 2 cores of ..., Python 3.11.9, jax 0.10.2, ...`."""
    found = re.search(r"^model name\s*: (.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    processor = found[1] if found else platform.processor() or platform.machine()
    memory = re.search(r"^MemTotal:\s*(\d+)", _read("/proc/meminfo"), re.MULTILINE)
    size = f", {int(memory[1]) / 2**20:.0f} GiB" if memory else ""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    today = datetime.date.today().isoformat()
    return f"{today}, {cores} cores of {processor}{size}, Python {platform.python_version()}, {versions}."


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def write(name: str, title: str, lines: list[str]) -> None:
    """The section `name` of RESULTS.md anew, in its place or at the end; the text around it stays."""
    begin, end = f"<!-- {name}: written by benchmarks/{name}.py -->", f"<!-- end of {name} -->"
    section = "\n".join([begin, "", f"## {title}", "", *lines, "", end])
    text = RESULTS.read_text() if RESULTS.exists() else "# Results\n"
    place = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    text = place.sub(lambda _: section, text) if place.search(text) else f"{text.rstrip()}\n\n{section}\n"
    RESULTS.write_text(text)


def renew(name: str, blocks: dict[str, list[str]]) -> None:
    """In the section `name`, the blocks `### title` given here anew; the others stay as they were."""
    begin, end = f"<!-- {name}: written by benchmarks/{name}.py -->", f"<!-- end of {name} -->"
    before, rest = RESULTS.read_text().split(begin)
    section, after = rest.split(end)
    head, *old = re.split(r"^(?=### )", section, flags=re.MULTILINE)
    titled = {block.partition("\n")[0].removeprefix("### "): block for block in old}
    titled |= {title: "\n".join([f"### {title}", "", *lines, "", ""]) for title, lines in blocks.items()}
    RESULTS.write_text("".join([before, begin, head, *titled.values(), end, after]))
