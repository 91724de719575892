"""The runner: ``python -m benchmarks [NAME ...] [--quick]``."""

import argparse
import datetime
import importlib
import os
import platform
import re
import sys
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "RESULTS.md"
HEAD = """\
# Benchmark results

Written by `python -m benchmarks`; a run replaces the sections of its own cases and leaves the others.
Figures of one machine at one time: compare the ratios, not the seconds.
"""
PACKAGES = ("torch", "scikit-learn", "numpy", "pillow", "lmdb")


def main(arguments=None):
    names = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run benchmarks.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"cases to run: {', '.join(names)} (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes; print only, write nothing")
    options = parser.parse_args(arguments)
    chosen = [name.removeprefix("bench_").removesuffix(".py") for name in options.names] or names
    if unknown := sorted(set(chosen) - set(names)):
        parser.error(f"no case {', '.join(unknown)}; there is {', '.join(names)}")
    fine = [run_case(name, options.quick) for name in chosen]
    return 0 if all(fine) else 1


def run_case(name, quick):
    """Run one case, print its table, and write its section unless `quick`; return whether all is well."""
    module = importlib.import_module(f"benchmarks.bench_{name}")
    print(f"== {name}: {module.__doc__.splitlines()[0]}", flush=True)
    try:
        rows = module.run(quick)
    except Exception:
        # One broken case must not keep the others from running.
        traceback.print_exc()
        return False
    table = markdown(rows)
    print(table + "\n", flush=True)
    if not quick:
        write_section(name, section(name, module.__doc__, table))
    return all(row.get("ok") is not False for row in rows)


def markdown(rows):
    """Return rows (dicts) as a table, aligned so that it also reads well in a terminal."""
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "ok"))
    columns += ["ok"] if any("ok" in row for row in rows) else []
    words = {True: "yes", False: "**NO**", None: ""}
    cells = [
        [words[row.get(key)] if key == "ok" else str(row.get(key, "")) for key in columns] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(columns, *cells)]
    lines = [columns, ["-" * width for width in widths], *cells]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines
    )


def section(name, doc, table):
    title, _, text = doc.strip().partition("\n")
    return f"## {name}: {title}\n{text.rstrip()}\n\n{environment()}\n\n{table}\n"


def environment():
    """Return the date and what the figures depend on, without naming the machine."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    parts = [datetime.date.today().isoformat(), f"{cores} cores", f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            parts.append(f"no {package}")
    return ", ".join(parts) + "."


def write_section(name, text):
    """Put a section into RESULTS.md, between its markers or, the first time, at the end."""
    start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
    content = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else HEAD
    block = f"{start}\n{text}{end}"
    pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    if pattern.search(content):
        # A function, because a replacement string would read backslashes as escapes.
        content = pattern.sub(lambda _: block, content)
    else:
        content = f"{content.rstrip()}\n\n{block}\n"
    RESULTS.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
