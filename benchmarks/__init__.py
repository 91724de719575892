"""Benchmarks: ``python -m benchmarks [NAME ...] [--quick]``.

A case is a file ``bench_*.py``. The first line of its docstring is its title, the rest says what is
compared and what the limit is. Its ``run(quick)`` returns a list of dicts, one a row of the table:
free columns, in the order of their first appearance, and ``"ok"``, which is True, False, or left
out where there is no limit. `benchmarks._measure` times functions in turns and makes such rows.
"""
