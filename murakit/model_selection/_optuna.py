"""The Optuna study of a search: where it is kept, what it is of, how it is stopped."""

import logging
import os
import random
import time
from contextlib import contextmanager, suppress
from numbers import Integral
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import StorageInternalError

# Two processes that make the tables of one new database at once disturb each other this often at most.
_ATTEMPTS = 20


class SearchStudy(optuna.Study):
    """A study that samplers and callbacks may stop outside Optuna's own loop too."""

    stopped = False

    def stop(self) -> None:
        """Ask for no further trial."""
        self.stopped = True
        with suppress(RuntimeError):
            super().stop()


def open_study(storage: str | optuna.storages.BaseStorage | None, name: str | None) -> SearchStudy:
    """Return the study of that name, made where there is none; raise where the storage cannot be used."""
    with _quiet_optuna():
        if storage is None:
            storage = optuna.storages.InMemoryStorage()
        elif isinstance(storage, str):
            storage = _open_database(storage)
        study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", load_if_exists=True
        )
        return SearchStudy(study.study_name, storage)


def _open_database(url):
    # Optuna loads it only where there is a database.
    from sqlalchemy.exc import DatabaseError, SQLAlchemyError

    for attempt in range(_ATTEMPTS):
        try:
            return optuna.storages.RDBStorage(url)
        except (DatabaseError, StorageInternalError) as error:
            reason = str(error.__cause__ or error).lower()
            made_meanwhile = "already exists" in reason or "unique" in reason or "duplicate" in reason
            if not made_meanwhile or attempt + 1 == _ATTEMPTS:
                raise storage_error(url, error) from error
            time.sleep(random.uniform(0.01, 0.1))
        except SQLAlchemyError as error:
            raise storage_error(url, error) from error


def storage_error(storage: Any, error: Exception) -> ValueError:
    """Return an error that says in words what is wrong with a storage."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    reason = f"{type(cause).__name__}: {getattr(cause, 'orig', None) or cause}".strip().splitlines()[0]
    if "locked" in reason:
        return ValueError(
            f"storage={storage!r} is locked ({reason}): another program has kept it from being written to for longer "
            "than the database waits. Close that program and call fit again; finished trials are kept."
        )
    return ValueError(
        f"storage={storage!r} cannot be opened or used ({reason}). For a file, pass 'sqlite:///search.db', in a folder "
        "that exists and can be written to; for a server, see that it runs and lets you in."
    )


@contextmanager
def _quiet_optuna():
    """Silence the line that Optuna logs for each new study."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def check_same(study: optuna.Study, values: dict[str, Any]) -> None:
    """Write into a new study what it is of, and refuse a study that is of something else."""
    known = study.user_attrs
    for what, value in values.items():
        found = known.get(f"murakit:{what}", value)
        if found != value:
            detail = "" if what == "data" else f" ({_difference(found, value)})"
            raise ValueError(
                f"The study {study.study_name!r} was made with other {what}{detail}, so that its scores cannot be "
                "compared with new ones. Pass another study_name."
            )
        if f"murakit:{what}" not in known:
            study.set_user_attr(f"murakit:{what}", value)


def _difference(found, value):
    """Tell in words how two settings differ."""
    if not (isinstance(found, dict) and isinstance(value, dict)):
        return f"{found} instead of {value}"
    names = sorted(name for name in {*found, *value} if found.get(name) != value.get(name))
    return ", ".join(f"{name}={found.get(name)!r} instead of {value.get(name)!r}" for name in names)


_UNKNOWN = object()


def _in_words(value: Any) -> Any:
    """Return a parameter as JSON gives it back, or `_UNKNOWN` for objects that have no lasting name."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, os.PathLike):
        return str(value)
    if isinstance(value, dict):
        words = {str(key): _in_words(part) for key, part in value.items()}
        return _UNKNOWN if _UNKNOWN in words.values() else words
    if isinstance(value, list | tuple):
        parts = [_in_words(part) for part in value]
        return _UNKNOWN if any(part is _UNKNOWN for part in parts) else parts
    return value if isinstance(value, str | int | float | type(None)) else _UNKNOWN


def _known(values):
    words = {name: _in_words(value) for name, value in values.items()}
    return {name: value for name, value in words.items() if value is not _UNKNOWN}


def settings_of(search: Any, n_folds: int, distributions: dict[str, BaseDistribution]) -> dict[str, Any]:
    """Return what decides a trial's scores, beside the data and the drawn parameters, as JSON can hold it."""
    # Where a result is kept and who computes it do not decide what it is.
    irrelevant = {"verbose", "n_jobs", "device", "cache", "cache_limit", "checkpoint", "runtime"}
    params = {
        name: value
        for name, value in search.estimator.get_params().items()
        if name not in distributions and name.rpartition("__")[2] not in irrelevant
    }
    scoring = search.scoring
    if isinstance(scoring, list | tuple | set | dict):
        scoring = ", ".join(sorted(scoring))
    elif callable(scoring):
        # The repr of a function holds its address, which no other process shares.
        scoring = getattr(scoring, "__qualname__", None) or repr(scoring)
    return {
        "scoring": scoring,
        "refit": search.refit if isinstance(search.refit, str) else None,
        "return_train_score": search.return_train_score,
        "number of folds": n_folds,
        "estimator": type(search.estimator).__name__,
        "parameters of the estimator": _known(params),
        "search space": _known({k: getattr(v, "choices", repr(v)) for k, v in distributions.items()}),
    }


def seed_of(random_state: Any, n_before: int) -> int | None:
    """Return the seed of a sampler for a study that has some trials already."""
    if random_state is None:
        return None
    seed = random_state if isinstance(random_state, Integral) else random_state.randint(2**31 - 1)
    # A resumed search with its first seed would propose the trials again that it has.
    return int(np.random.SeedSequence([int(seed), n_before]).generate_state(1)[0])


def as_distributions(param_distributions: dict[str, Any]) -> dict[str, BaseDistribution]:
    """Return what to draw each parameter from; a list is a choice."""
    if not isinstance(param_distributions, dict):
        raise ValueError(
            f"param_distributions is a {type(param_distributions).__name__}: pass a dict of names and distributions, "
            "such as search_space(estimator)."
        )
    distributions = {}
    for name, value in param_distributions.items():
        if isinstance(value, list | tuple):
            value = CategoricalDistribution(value)
        if not isinstance(value, BaseDistribution):
            raise ValueError(
                f"param_distributions[{name!r}] is {value!r}: pass an Optuna distribution such as "
                "optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True), or a list of choices."
            )
        distributions[name] = value
    return distributions
