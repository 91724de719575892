"""Public functions, classes and methods have type hints; the type checker holds the code to them."""

import inspect

import pytest

import murakit
from murakit import inspection, plotting


def public_objects():
    """Yield each public function and class once, whatever number of names it has."""
    objects = [getattr(murakit, name) for name in murakit.__all__]
    objects += [getattr(room, name) for room in (plotting, inspection) for name in room.__all__]
    objects += [murakit.augmentation.Augmentation, murakit.store.ImageStore]
    objects += [getattr(murakit.evaluation, name) for name in ("Evaluation", "Comparison", "ShortcutAudit")]
    return list(dict.fromkeys(objects))


def functions_of(found):
    """Yield the names and functions of a class's own public methods and properties, or of a function."""
    if not inspect.isclass(found):
        yield found.__name__, found
        return
    for owner in found.__mro__:
        if not owner.__module__.startswith("murakit."):
            continue
        for name, member in vars(owner).items():
            member = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            # A dataclass writes its own __init__; scikit-learn adds set_fit_request and its like.
            ours = inspect.isfunction(member) and member.__module__.startswith("murakit.")
            if ours and (not name.startswith("_") or name == "__init__") and not name.endswith("_request"):
                yield f"{found.__name__}.{name}", member


def lacking(function):
    """Return the parameters without a hint, and "return" where that has none."""
    signature = inspect.signature(function)
    names = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.annotation is parameter.empty and name not in ("self", "cls")
    ]
    # What __init__ returns, everybody knows.
    if signature.return_annotation is signature.empty and function.__name__ != "__init__":
        names.append("return")
    return names


def untyped(found):
    return {name: names for name, function in functions_of(found) if (names := lacking(function))}


@pytest.mark.parametrize(
    "found",
    list(public_objects()),
    ids=lambda found: found.__name__,
)
def test_public_names_have_type_hints(found):
    assert untyped(found) == {}


def test_a_lack_of_hints_is_noticed():
    def half(path: str, n=3):
        return path * n

    class Whole:
        def __init__(self, path: str):
            self.path = path

    assert lacking(half) == ["n", "return"]
    assert lacking(Whole.__init__) == []
