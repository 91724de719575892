"""The scores of one fold, and the table of the scores of all trials."""

import time
from collections.abc import Callable, Collection, Sequence
from numbers import Real
from traceback import format_exc
from typing import Any

import numpy as np
from numpy.ma import MaskedArray
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from sklearn.base import clone


def rows_of(values: Any, rows: np.ndarray) -> Any:
    """Return some rows of an array, a table, a sparse matrix or a list."""
    if hasattr(values, "iloc"):
        return values.iloc[rows]
    return values[rows] if hasattr(values, "shape") else [values[row] for row in rows]


def as_rows(rows: ArrayLike) -> np.ndarray:
    """Return one side of a fold as numbers of rows; splitters may give a mask too."""
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else rows


def metadata_of_callbacks(params: dict[str, Any]) -> dict[str, Any] | None:
    """Return what scikit-learn's callbacks are told besides X and y."""
    return None if params.get("sample_weight") is None else {"sample_weight": params["sample_weight"]}


def n_rows_of(values: Any) -> int | None:
    """Return the number of rows of what `rows_of` can cut; None for anything else."""
    if hasattr(values, "shape"):
        return values.shape[0] if values.shape else None
    return len(values) if hasattr(values, "__len__") else None


def _metadata_of(params, X, rows):
    """Return the parameters of a method, with those that have a value for each sample cut to some rows."""
    n_rows = n_rows_of(X)
    return {
        key: rows_of(value, rows) if n_rows_of(value) == n_rows else value for key, value in params.items()
    }


def fit_and_score(
    estimator: Any,
    params: dict[str, Any],
    train: np.ndarray,
    test: np.ndarray,
    context: Any,
    *,
    X: Any,
    y: Any,
    pairwise: bool,
    scorer: Callable,
    fit_params: dict[str, Any],
    score_params: dict[str, Any],
    error_score: float | str,
    return_train_score: bool,
    search: Any,
) -> tuple[dict[str, Any], str | None, str | None]:
    """Fit an estimator on one side of a fold and score it on the other.

    Returns
    -------
    record : dict
        ``test_scores``, ``train_scores`` where asked for, ``fit_time`` and ``score_time``, as numbers that
        JSON can hold. Of several metrics, the scores are a dict.
    fit_error, score_error : str or None
        The traceback of what went wrong.
    """
    estimator.set_params(**clone(params, safe=False))
    sides: dict[str, tuple[Any, ...]] = {}
    for side, rows in (("train", train), ("test", test)):
        samples = X[np.ix_(rows, train)] if pairwise else rows_of(X, rows)
        sides[side] = (samples,) if y is None else (samples, rows_of(y, rows))
    fit_params = _metadata_of(fit_params, X, train)
    task = {"estimator": search, "X": sides["train"][0], "y": None if y is None else sides["train"][1]}
    task["metadata"] = metadata_of_callbacks(fit_params)
    started = time.perf_counter()
    try:
        with context.propagate_callback_context(estimator):
            context.call_on_fit_task_begin(**task)
            estimator.fit(*sides["train"], **fit_params)
    except Exception:
        if error_score == "raise":
            raise
        record = {
            "test_scores": float(error_score),
            "fit_time": time.perf_counter() - started,
            "score_time": 0.0,
        }
        return (
            record | ({"train_scores": float(error_score)} if return_train_score else {}),
            format_exc(),
            None,
        )
    finally:
        context.call_on_fit_task_end(**task)
    record, errors = {"fit_time": time.perf_counter() - started}, []
    for side, rows in (("test", test), ("train", train))[: 1 + return_train_score]:
        started = time.perf_counter()
        kwargs = _metadata_of(score_params, X, rows)
        record[f"{side}_scores"], found = _scores(scorer, estimator, sides[side], kwargs, error_score)
        errors += found
        record.setdefault("score_time", time.perf_counter() - started)
    return record, None, errors[0] if errors else None


def _scores(scorer, estimator, data, params, error_score):
    """Return the scores, one or a dict of several, and the tracebacks of those that could not be computed."""
    try:
        found = scorer(estimator, *data, **params)
    except Exception:
        if error_score == "raise":
            raise
        return float(error_score), [format_exc()]
    scores, errors = {}, []
    for name, value in (found if isinstance(found, dict) else {"score": found}).items():
        if isinstance(found, dict) and isinstance(value, str):
            # In the place of a score that failed, scikit-learn's scorer of several metrics returns the traceback.
            errors.append(value)
            value = error_score
        value = value.item() if getattr(value, "size", None) == 1 else value
        if not isinstance(value, Real):
            raise ValueError(
                f"scoring must return a number, got {value!r} ({type(value)}) instead. (scorer={name})"
            )
        scores[name] = float(value)
    return scores if isinstance(found, dict) else scores["score"], errors


def only_score(scorer: Callable, *args: Any, **kwargs: Any) -> float:
    """Return the score of a scorer of several metrics that has one."""
    return scorer(*args, **kwargs)["score"]


def check_metric(refit: Any, metrics: Collection[str]) -> None:
    """Raise where `refit` names none of several metrics."""
    if not (isinstance(refit, str) and refit in metrics):
        raise ValueError(
            f"With several metrics, refit must name the one to search by: one of {sorted(metrics)}, got {refit!r}."
        )


def score_of(record: dict[str, Any] | None, name: str, part: str = "test_scores") -> float:
    """Return one score of a fold; NaN for a fold that was not run."""
    # A fold that failed has one score, whatever the metrics.
    scores = (record or {}).get(part, np.nan)
    if not isinstance(scores, dict):
        return scores
    check_metric(name, scores)
    return scores[name]


def table_of_results(
    params: Sequence[dict[str, Any]],
    records: Sequence[Sequence[dict[str, Any] | None]],
    n_folds: int,
    return_train_score: bool,
    **columns: Sequence[Any],
) -> dict[str, Any]:
    """Return ``cv_results_`` as scikit-learn's searches lay it out, with further columns in front."""
    table: dict[str, Any] = {name: np.asarray(column) for name, column in columns.items()}
    records = [[*row, *[None] * (n_folds - len(row))] for row in records]

    def add(what, values, splits=True):
        values = np.array(values, dtype=np.float64)
        if splits:
            table.update({f"split{fold}_{what}": values[:, fold] for fold in range(n_folds)})
        table[f"mean_{what}"], table[f"std_{what}"] = values.mean(axis=1), values.std(axis=1)

    for what in ("fit_time", "score_time"):
        add(what, [[score_of(record, what, what) for record in row] for row in records], splits=False)
    for name in dict.fromkeys(name for each in params for name in each):
        table[f"param_{name}"] = _param_column(params, name)
    table["params"] = list(params)
    scored = [record["test_scores"] for row in records for record in row if record]
    metrics = next((scores for scores in scored if isinstance(scores, dict)), ["score"])
    for metric in metrics:
        add(f"test_{metric}", [[score_of(record, metric) for record in row] for row in records])
        # A trial without a mean stands last, beside all others that have none.
        means = np.nan_to_num(-table[f"mean_test_{metric}"], nan=np.inf, posinf=np.inf, neginf=-np.inf)
        table[f"rank_test_{metric}"] = rankdata(means, method="min").astype(np.int32)
        if return_train_score:
            add(
                f"train_{metric}",
                [[score_of(record, metric, "train_scores") for record in row] for row in records],
            )
    return table


def _param_column(params, name):
    """Return the values of a parameter, masked where a trial has none."""
    values = {row: each[name] for row, each in enumerate(params) if name in each}
    try:
        found = np.array(list(values.values()))
        dtype = found.dtype if found.ndim == 1 and found.dtype.kind != "U" else object
    except ValueError:
        dtype = object
    column = MaskedArray(np.empty(len(params), dtype=dtype), mask=True)
    for row, value in values.items():
        column[row] = value
    return column
