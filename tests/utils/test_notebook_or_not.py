"""A process that only starts or reads notebooks is no notebook."""

import subprocess
import sys

import pytest

from murakit.utils import _progress


def test_a_process_that_has_imported_the_kernels_package_is_no_notebook():
    pytest.importorskip("ipykernel")
    script = "import ipykernel; from murakit.utils._progress import in_notebook; print(in_notebook())"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_a_kernel_is_a_notebook(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel.kernelapp", object())
    assert _progress.in_notebook() and _progress.is_interactive()
