"""Public docstrings are numpydoc, complete, and their examples run."""

import doctest
import importlib
import inspect

import matplotlib
import pytest
from matplotlib import pyplot
from numpydoc.validate import validate

import murakit
from murakit import augmentation

matplotlib.use("agg")

# A summary of several lines is allowed (SS06), "See Also" is where it helps (SA01), a section of examples
# or of extended summary is asked of functions and classes, not of each method (EX01, ES01).
IGNORED = {"SS06", "SA01", "ES01", "GL01", "GL02", "GL03", "RT02", "RT03", "PR09"}
METHODS_MAY_LACK = {"EX01"}


def public_objects():
    for name in murakit.__all__:
        yield f"murakit.{name}"
    yield "murakit.augmentation.Augmentation"
    yield from (f"murakit.plotting.{name}" for name in murakit.plotting.__all__)
    yield from (f"murakit.inspection.{name}" for name in murakit.inspection.__all__)
    yield "murakit.evaluation.Evaluation"
    yield "murakit.evaluation.Comparison"
    yield "murakit.evaluation.ShortcutAudit"


def public_methods():
    for path in public_objects():
        owner = _resolve(path)
        if inspect.isclass(owner):
            for name, member in vars(owner).items():
                if inspect.isfunction(member) and not name.startswith("_") and name != "set_fit_request":
                    yield f"{path}.{name}"


def _resolve(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def errors(path, ignored):
    return [error for error in validate(path)["errors"] if error[0] not in ignored]


@pytest.mark.parametrize("path", list(public_objects()))
def test_docstrings_follow_numpydoc(path):
    ignored = IGNORED | (METHODS_MAY_LACK if issubclass_of_exception(path) else set())
    assert errors(path, ignored) == []


@pytest.mark.parametrize("path", list(public_methods()))
def test_docstrings_of_methods_follow_numpydoc(path):
    assert errors(path, IGNORED | METHODS_MAY_LACK) == []


def issubclass_of_exception(path):
    found = _resolve(path)
    return inspect.isclass(found) and issubclass(found, Exception)


@pytest.mark.parametrize("path", list(public_objects()))
def test_examples_run(path, capsys):
    found = _resolve(path)
    tests = doctest.DocTestFinder(recurse=False).find(found, path, globs={})
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in tests:
        assert test.examples or issubclass_of_exception(path), f"{path} has no example"
        runner.run(test)
    pyplot.close("all")
    assert runner.failures == 0, capsys.readouterr().out


def test_every_public_name_is_there():
    assert set(murakit.__all__) <= set(dir(murakit))
    assert augmentation.__all__ == ["Augmentation"]
