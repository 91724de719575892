"""What the trials of a search draw from, run on and write down."""

import logging
import os
from contextlib import contextmanager
from numbers import Integral, Real

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution


class Folds:
    """The folds of one search, split once: a shuffled splitter would deal anew for every trial."""

    def __init__(self, cv, fold=None, splits=None):
        self.cv = cv
        self.fold = fold
        self.splits = [] if splits is None else splits

    def split(self, X, y=None, **params):
        if not self.splits:
            self.splits.extend(self.cv.split(X, y, **params))
        yield from self.splits if self.fold is None else [self.splits[self.fold]]

    def only(self, fold):
        return Folds(self.cv, fold, self.splits)


def claim(study, key, value, what):
    """Write into a new study what it is of, and refuse one that is of something else."""
    found = study.user_attrs.get(key, value)
    if found != value:
        detail = "" if what == "data" else f" ({_difference(found, value)})"
        raise ValueError(
            f"The study {study.study_name!r} was made with other {what}{detail}, so that its scores cannot be "
            "compared with new ones. Pass another study_name."
        )
    study.set_user_attr(key, value)


def _difference(found, value):
    """Tell in words how two settings differ."""
    if not (isinstance(found, dict) and isinstance(value, dict)):
        return f"{found} instead of {value}"
    names = sorted(name for name in {*found, *value} if found.get(name) != value.get(name))
    return ", ".join(f"{name}={found.get(name)!r} instead of {value.get(name)!r}" for name in names)


def open_study(storage, name):
    """Return the study of that name, made where there is none; raise where the storage cannot be used."""
    try:
        with quiet_optuna():
            return optuna.create_study(
                storage=storage, study_name=name, direction="maximize", load_if_exists=True
            )
    except Exception as error:
        # Of SQLAlchemy, or of a driver of one of its databases.
        if storage is None or not type(error).__module__.startswith(("sqlalchemy", "sqlite3")):
            raise
        raise ValueError(
            f"storage={storage!r} cannot be opened ({type(error).__name__}). For a file, pass 'sqlite:///search.db', "
            "in a folder that exists."
        ) from error


_UNKNOWN = object()


def _in_words(value):
    """Return a parameter as JSON gives it back, or `_UNKNOWN` for objects that have no lasting name."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, os.PathLike):
        return str(value)
    if isinstance(value, dict):
        words = {str(key): _in_words(part) for key, part in value.items()}
        return _UNKNOWN if _UNKNOWN in words.values() else words
    if isinstance(value, list | tuple):
        words = [_in_words(part) for part in value]
        return _UNKNOWN if any(word is _UNKNOWN for word in words) else words
    return value if isinstance(value, str | int | float | type(None)) else _UNKNOWN


def settings_of(search, n_folds, distributions):
    """Return what decides a trial's scores, beside the data and the drawn parameters, in words."""
    # Neither where a result is kept nor who computes it decides what it is.
    nowhere = {"verbose", "n_jobs", "device", "cache", "cache_limit", "checkpoint", "runtime"}
    plain = {
        name: words
        for name, value in search.estimator.get_params().items()
        if name not in distributions
        and name.rpartition("__")[2] not in nowhere
        and (words := _in_words(value)) is not _UNKNOWN
    }
    space = {
        name: words
        for name, value in distributions.items()
        if (words := _in_words(getattr(value, "choices", repr(value)))) is not _UNKNOWN
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
        "parameters of the estimator": plain,
        "search space": space,
    }


def sampler_seed_of(random_state, n_before):
    """Return the seed of a sampler for a study that has some trials already."""
    if random_state is None:
        return None
    seed = random_state if isinstance(random_state, Integral) else random_state.randint(2**31 - 1)
    # A resumed search with its first seed would propose the trials again that it has.
    return int(np.random.SeedSequence([int(seed), n_before]).generate_state(1)[0])


def as_json(record):
    """Keep what a table of results needs of scikit-learn's record of a fold."""
    if record is None:
        return None
    kept = {
        key: record[key] for key in ("test_scores", "train_scores", "fit_time", "score_time") if key in record
    }
    return {
        key: {name: float(score) for name, score in value.items()}
        if isinstance(value, dict)
        else float(value)
        for key, value in kept.items()
    }


def failed(template):
    """Return a record like another one in which every figure is missing."""
    return {
        key: dict.fromkeys(value, np.nan) if isinstance(value, dict) else np.nan
        for key, value in template.items()
    }


def all_failed(search):
    """Return the record of folds that all failed: ``error_score`` for each score, or None where that is no number."""
    if not isinstance(search.error_score, Real) or np.isnan(search.error_score):
        return None
    scores = float(search.error_score)
    if isinstance(search.scoring, list | tuple | set | dict):
        scores = dict.fromkeys(search.scoring, scores)
    record = {"test_scores": scores, "fit_time": 0.0, "score_time": 0.0}
    return {**record, "train_scores": scores} if search.return_train_score else record


def score(record, name):
    if record is None:
        return np.nan
    scores = record["test_scores"]
    if not isinstance(scores, dict):
        return scores
    if name not in scores:
        raise ValueError(
            f"With several metrics, refit must name the one to search by: one of {sorted(scores)}, got {name!r}."
        )
    return scores[name]


def as_distributions(param_distributions):
    if not isinstance(param_distributions, dict):
        raise ValueError(
            f"param_distributions is a {type(param_distributions).__name__}: pass a dict of names and distributions, "
            "such as search_space(estimator)."
        )
    distributions = {}
    for name, value in param_distributions.items():
        if isinstance(value, BaseDistribution):
            distributions[name] = value
        elif isinstance(value, (list, tuple)):
            distributions[name] = CategoricalDistribution(value)
        else:
            raise ValueError(
                f"param_distributions[{name!r}] is {value!r}: pass an Optuna distribution such as "
                "optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True), or a list of choices."
            )
    return distributions


@contextmanager
def quiet_optuna():
    """Silence the line that Optuna logs for each new study."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@contextmanager
def stoppable(study):
    """Let samplers and callbacks call ``study.stop()``, which Optuna allows in its own loop only."""
    study._thread_local.in_optimize_loop = True
    try:
        yield
    finally:
        study._thread_local.in_optimize_loop = False


def check_refit(scoring, refit):
    """Raise where several metrics are scored and none is named to search by."""
    if not isinstance(scoring, list | tuple | set | dict):
        return
    if not (isinstance(refit, str) and refit in scoring):
        raise ValueError(
            f"With several metrics, refit must name the one to search by: one of {sorted(scoring)}, got {refit!r}."
        )
