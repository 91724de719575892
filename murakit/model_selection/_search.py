"""`MuraSearchCV`: Optuna proposes, scikit-learn scores."""

import copy
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from inspect import signature
from numbers import Integral, Real
from typing import Any, Self, cast

import joblib
import numpy as np
import optuna
import sklearn
from joblib import effective_n_jobs
from numpy.typing import ArrayLike
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.exceptions import FitFailedWarning, NotFittedError
from sklearn.metrics import check_scoring
from sklearn.model_selection import BaseCrossValidator, check_cv
from sklearn.utils import Bunch, get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted, indexable

from ..utils._progress import progress_bar, say
from ._optuna import (
    SearchStudy,
    as_distributions,
    check_same,
    open_study,
    seed_of,
    settings_of,
    storage_error,
)
from ._scores import (
    as_rows,
    check_metric,
    fit_and_score,
    metadata_of_callbacks,
    only_score,
    score_of,
    table_of_results,
)
from ._split import PatientKFold

# The scores of a trial's folds, in its user attributes.
_FOLDS = "murakit:folds"

_CUT_SHORT = "murakit:cut_short"

_DONE = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

_SEVERAL = list | tuple | set | dict


def _has(name):
    """Return a check that the best estimator, or the one to search over before a fit, has a method."""

    def check(search):
        search._check_refit(name)
        getattr(getattr(search, "best_estimator_", search.estimator), name)
        return True

    return check


def _delegated(name):
    """Return a method that calls the method of that name of the best estimator."""

    def method(self: "MuraSearchCV", X: ArrayLike) -> Any:
        check_is_fitted(self)
        return getattr(self.best_estimator_, name)(X)

    method.__name__, method.__qualname__ = name, f"MuraSearchCV.{name}"
    method.__doc__ = f"Return what the best estimator's ``{name}(X)`` returns."
    return available_if(_has(name))(method)


class MuraSearchCV(CallbackSupportMixin, MetaEstimatorMixin, BaseEstimator):
    """Search for hyper-parameters with Optuna, scored by patient-disjoint cross-validation.

    Optuna proposes (its samplers, pruners and storages), scikit-learn scores: ``cv_results_``,
    ``best_estimator_``, several metrics, `refit`, groups and `error_score` are those of
    ``GridSearchCV``.

    Parameters
    ----------
    estimator : estimator object
        What is searched over, a `MuraClassifier` for example.
    param_distributions : dict of str to optuna distribution or list
        What to draw each parameter from; a list is a choice. See `search_space`.
    n_trials : int or None, default=10
        Number of trials in the study, those of earlier runs of the same study included. None: as many
        as `timeout` allows.
    cv : int, cross-validation generator or iterable, default=None
        The folds. None: ``PatientKFold(5)``; an int: ``PatientKFold`` of as many.
    scoring : str, callable, list, tuple or dict, default=None
        As in scikit-learn.
    refit : bool, str or callable, default=True
        As in scikit-learn. With several metrics, the name of the one to search by.
    sampler : optuna.samplers.BaseSampler, default=None
        Proposes the parameters. None: ``TPESampler``.
    pruner : optuna.pruners.BasePruner, default=None
        Ends hopeless trials between two folds. None: every trial runs all folds.
    storage : str or optuna storage, default=None
        Where the study is kept, such as ``"sqlite:///search.db"``. A study that is there already
        is resumed, and several processes may work on one. None: in memory.
    study_name : str, default=None
        Name of the study in the storage.
    timeout : float, default=None
        Seconds after which no further trial is begun.
    callbacks : list of callable, default=None
        Called as ``callback(study, trial)`` after each trial; may call ``study.stop()``.
    n_jobs : int, default=None
        Fits at a time: folds of one trial, or with a pruner, trials.
    error_score : "raise" or float, default=np.nan
        The score of a fold that failed. With NaN, its trial is never the best; a number counts
        in the trial's mean, as in scikit-learn.
    return_train_score : bool, default=False
        As in scikit-learn.
    pre_dispatch : int or str, default="2*n_jobs"
        As in scikit-learn.
    random_state : int, RandomState instance or None, default=None
        Seed of the default sampler.
    verbose : int, default=0
        1: a progress bar over the trials. 2: a line a trial besides.

    Attributes
    ----------
    cv_results_ : dict of ndarray
        One row a trial, as in scikit-learn, with ``trial_number`` and ``trial_state`` besides.
    best_estimator_, best_score_, best_params_, best_index_, n_splits_, refit_time_, scorer_
        As in scikit-learn.
    study_ : optuna.Study
        The study, for Optuna's own reports and plots. A pickle leaves it out where a storage keeps
        it.

    Notes
    -----
    Ctrl-C ends the search with ``KeyboardInterrupt``, so that nothing takes it for finished; the
    trials that were done stay in ``cv_results_`` and in the study, and calling `fit` again on the
    same data, or with the same storage and name, goes on from there.

    References
    ----------
    Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework", KDD (2019).

    Examples
    --------
    >>> import tempfile
    >>> from optuna.distributions import FloatDistribution
    >>> from murakit import MuraClassifier, MuraSearchCV, load_mura, make_mura
    >>> root = make_mura(tempfile.mkdtemp() + "/mura", n_patients=12, image_size=64, random_state=0)
    >>> mura = load_mura(root)
    >>> clf = MuraClassifier(weights=None, image_size=32, max_epochs=1, unfreeze="head", early_stopping=False)
    >>> search = MuraSearchCV(clf, {"lr": FloatDistribution(1e-4, 1e-2, log=True)}, n_trials=2, cv=2)
    >>> search.fit(mura.data, mura.target).cv_results_["mean_test_score"].shape
    (2,)
    """

    # Fitted attributes.
    study_: SearchStudy
    best_index_: int

    def __init__(
        self,
        estimator: BaseEstimator,
        param_distributions: dict[str, Any],
        *,
        n_trials: int | None = 10,
        cv: int | BaseCrossValidator | Iterable | None = None,
        scoring: str | Callable | list | tuple | set | dict | None = None,
        refit: bool | str | Callable = True,
        sampler: optuna.samplers.BaseSampler | None = None,
        pruner: optuna.pruners.BasePruner | None = None,
        storage: str | optuna.storages.BaseStorage | None = None,
        study_name: str | None = None,
        timeout: float | None = None,
        callbacks: Sequence[Callable] | None = None,
        n_jobs: int | None = None,
        error_score: str | float = np.nan,
        return_train_score: bool = False,
        pre_dispatch: int | str = "2*n_jobs",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.estimator = estimator
        self.param_distributions = param_distributions
        self.n_trials = n_trials
        self.cv = cv
        self.scoring = scoring
        self.refit = refit
        self.sampler = sampler
        self.pruner = pruner
        self.storage = storage
        self.study_name = study_name
        self.timeout = timeout
        self.callbacks = callbacks
        self.n_jobs = n_jobs
        self.error_score = error_score
        self.return_train_score = return_train_score
        self.pre_dispatch = pre_dispatch
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    def fit(self, X: ArrayLike, y: ArrayLike | None = None, **params: Any) -> Self:
        """Run the trials, and fit the best parameters on all data.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Paths of images or of study folders.
        y : array-like of shape (n,), default=None
            Labels.
        **params : dict
            As in scikit-learn: ``groups`` for the splitter, others for the estimator's ``fit``;
            ``sample_weight`` for the scorers too that take it.

        Returns
        -------
        self : MuraSearchCV

        Raises
        ------
        ValueError
            For a study of other data, and where every trial failed.
        KeyboardInterrupt
            On Ctrl-C, with the finished trials kept.
        """
        self._check_parameters()
        distributions = as_distributions(self.param_distributions)
        # What an earlier fit left must not stand beside what this one finds.
        for name in [name for name in vars(self) if name.endswith("_") and name != "study_"]:
            delattr(self, name)
        X, y = indexable(X, y)
        scorer, routed = self._route(params)
        splitter = check_cv(self._splitter(), y, classifier=is_classifier(self.estimator))
        # Once for the whole search: a shuffled splitter would deal anew for every trial.
        folds = [tuple(map(as_rows, fold)) for fold in splitter.split(X, y, **routed.splitter.split)]
        if not folds:
            raise ValueError(f"cv={self.cv!r} gives no folds.")
        task = {"estimator": self, "X": X, "y": y, "metadata": metadata_of_callbacks(params)}
        context = self._init_callback_context(max_subtasks=1 + bool(self.refit))
        context.call_on_fit_task_begin(**task)
        # It goes to the worker processes, which need no study.
        light = copy.copy(self)
        light.__dict__.pop("study_", None)
        evaluate = partial(
            fit_and_score,
            X=X,
            y=y,
            pairwise=get_tags(self.estimator).input_tags.pairwise,
            scorer=scorer,
            fit_params=routed.estimator.fit,
            score_params=routed.scorer.score,
            error_score=self.error_score,
            return_train_score=self.return_train_score,
            search=light,
        )
        try:
            self._open_study(X, y, settings_of(self, len(folds), distributions))
            self.n_splits_ = len(folds)
            try:
                failure = self._run(distributions, folds, evaluate, context)
            except KeyboardInterrupt:
                if any(trial.state == TrialState.COMPLETE for trial in self._scored()):
                    self._set_results(None)
                raise
            self._set_results(failure)
        except StorageInternalError as error:
            raise storage_error(self.storage, error) from error
        if self.refit:
            self._refit(task, routed.estimator.fit, context)
        self._resumable = False
        context.call_on_fit_task_end(**task)
        return self

    def _check_parameters(self):
        if not (self.error_score == "raise" or isinstance(self.error_score, Real)):
            raise ValueError(f"error_score={self.error_score!r} must be 'raise' or a number.")
        if self.n_trials is None and self.timeout is None:
            raise ValueError("n_trials=None and timeout=None: the search would never end. Pass one of them.")
        if isinstance(self.scoring, _SEVERAL):
            check_metric(self.refit, self.scoring)

    # -- scikit-learn's conventions -----------------------------------------------------------

    def get_metadata_routing(self) -> MetadataRouter:
        """Return how metadata is routed, as scikit-learn's meta-estimators do.

        Returns
        -------
        routing : sklearn.utils.metadata_routing.MetadataRouter
        """
        fit, score = MethodMapping().add(caller="fit", callee="fit"), MethodMapping()
        score.add(caller="score", callee="score").add(caller="fit", callee="score")
        split = MethodMapping().add(caller="fit", callee="split")
        router = MetadataRouter(owner=self).add(estimator=self.estimator, method_mapping=fit)
        router.add(scorer=self._scorer(self.scoring), method_mapping=score)
        return router.add(splitter=self._splitter(), method_mapping=split)

    def _scorer(self, scoring):
        return check_scoring(self.estimator, scoring, raise_exc=self.error_score == "raise")

    def _route(self, params):
        """Return the scorer, and what of `params` goes to the estimator, the splitter and the scorer."""
        scorer = self._scorer(self.scoring)
        if sklearn.get_config()["enable_metadata_routing"]:
            return scorer, process_routing(self, "fit", **params)
        weights = {key: params[key] for key in ("sample_weight",) if params.get(key) is not None}
        if weights and callable(self.scoring) and not hasattr(self.scoring, "set_score_request"):
            weights = weights if "sample_weight" in signature(self.scoring).parameters else {}
        elif weights and not isinstance(self.scoring, _SEVERAL):
            # scikit-learn's scorer of several metrics hands weights to those that take them.
            scorer = partial(only_score, check_scoring(self.estimator, {"score": scorer}))
        fit_params = {key: value for key, value in params.items() if key != "groups"}
        return scorer, Bunch(
            estimator=Bunch(fit=fit_params),
            splitter=Bunch(split={"groups": params.get("groups")}),
            scorer=Bunch(score=weights),
        )

    def _splitter(self):
        if self.cv is None or isinstance(self.cv, Integral):
            # scikit-learn's default would tear patients apart.
            return PatientKFold(5 if self.cv is None else cast(int, self.cv))
        return self.cv

    def _check_refit(self, name):
        if not self.refit:
            raise AttributeError(
                f"This MuraSearchCV has refit=False, so that there is no best_estimator_ and no {name}. "
                "Fit an estimator with best_params_."
            )

    def __sklearn_is_fitted__(self):
        return hasattr(self, "best_estimator_") if self.refit else hasattr(self, "cv_results_")

    def __sklearn_tags__(self):
        tags, inner = super().__sklearn_tags__(), get_tags(self.estimator)
        tags.estimator_type = inner.estimator_type
        tags.classifier_tags, tags.regressor_tags = inner.classifier_tags, inner.regressor_tags
        tags.input_tags.pairwise, tags.input_tags.sparse = inner.input_tags.pairwise, inner.input_tags.sparse
        tags.array_api_support = inner.array_api_support
        return tags

    def __getstate__(self):
        state = dict(super().__getstate__())
        if self.storage is not None:
            # It holds a connection; optuna.load_study opens it again.
            state.pop("study_", None)
        return state

    # -- the study ----------------------------------------------------------------------------

    def _open_study(self, X, y, settings):
        # As an array of objects, so that a list of paths and an array of them are the same data.
        shown = np.asarray(X, dtype=object) if not hasattr(X, "dtype") else np.asarray(X)
        data = joblib.hash((shown, None if y is None else np.asarray(y)))
        # An earlier fit that did not come to its end is gone on with.
        study: SearchStudy | None = getattr(self, "study_", None)
        held = study is not None and self.study_name is None and getattr(self, "_resumable", False)
        if study is None or not held or study.user_attrs.get("murakit:data") != data:
            study = open_study(self.storage, self.study_name)
        if study.direction != optuna.study.StudyDirection.MAXIMIZE:
            raise ValueError(
                f"The study {study.study_name!r} minimises; scores are maximised. Pass another name."
            )
        check_same(study, {"data": data, **settings})
        seed = seed_of(self.random_state, len(study.get_trials(deepcopy=False)))
        study.sampler = self.sampler or optuna.samplers.TPESampler(seed=seed)
        study.pruner = self.pruner or optuna.pruners.NopPruner()
        study.stopped = False
        self.study_, self._resumable = study, True

    def _finished(self):
        trials = self.study_.get_trials(deepcopy=False, states=_DONE)
        return [trial for trial in trials if _CUT_SHORT not in trial.user_attrs]

    def _scored(self):
        # Trials that others have put into the study may have no folds.
        return [trial for trial in self._finished() if trial.user_attrs.get(_FOLDS)]

    # -- the trials ---------------------------------------------------------------------------

    def _run(self, distributions, folds, evaluate, context):
        """Run trials until there are enough, and return what the last failed fit said."""
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        at_once = effective_n_jobs(self.n_jobs) if self.pruner is not None else 1
        wished = math.inf if self.n_trials is None else self.n_trials
        done, failure = len(self._finished()), None
        n_tasks = None if self.n_trials is None else max(0, wished - done) * len(folds)
        context = context.subcontext("search", max_subtasks=n_tasks, sequential_subtasks=False)
        context.call_on_fit_task_begin(estimator=self)
        parallel = Parallel(n_jobs=self.n_jobs, pre_dispatch=self.pre_dispatch)

        def run(trials, numbers):
            """Score some folds of some trials."""
            tasks = [(trial.params, number, trial.number) for trial in trials for number in numbers]
            # All are made before the first is sent to a worker process with the whole tree of tasks.
            contexts = [
                context.subcontext("candidate-split-evaluation", task_id=trial * len(folds) + number)
                for _, number, trial in tasks
            ]
            return parallel(
                delayed(evaluate)(clone(self.estimator), params, *folds[number], task)
                for (params, number, _), task in zip(tasks, contexts)
            )

        shown: dict[str, Any] = {"total": self.n_trials, "unit": "trial", "disable": not self.verbose}
        with parallel, progress_bar(**shown, desc="MuraSearchCV") as bar:
            bar.update(min(done, wished))
            ask = partial(self.study_.ask, distributions)
            while done < wished and not self.study_.stopped:
                if deadline is not None and time.monotonic() > deadline:
                    break
                failure = self._run_trials(min(at_once, wished - done), len(folds), ask, run) or failure
                # Asked anew each time: other processes may work on the same study.
                now = len(self._finished())
                bar.update(now - done)
                done = now
        context.call_on_fit_task_end(estimator=self)
        return failure

    def _run_trials(self, n_trials, n_folds, ask, run):
        """Run some trials, with a pruner fold by fold, so that it may end them in between."""
        trials: list[optuna.Trial] = []
        records: dict[int, list[dict[str, Any]]] = {}
        told: dict[int, optuna.trial.FrozenTrial] = {}
        failure = None
        stages = [range(n_folds)] if self.pruner is None else [[fold] for fold in range(n_folds)]
        try:
            while len(trials) < n_trials:
                trials.append(ask())
            for stage in stages:
                active = [trial for trial in trials if trial.number not in told]
                outcomes = run(active, stage) if active else []
                failure = self._warn_of_failures(outcomes) or failure
                for position, trial in enumerate(active):
                    new = outcomes[position * len(stage) : (position + 1) * len(stage)]
                    scored = records.setdefault(trial.number, [])
                    scored += [record for record, _, _ in new]
                    trial.set_user_attr(_FOLDS, scored)
                    ended = self._tell(trial, scored, last=stage is stages[-1])
                    if ended is not None:
                        told[trial.number] = ended
        except BaseException:
            # What was cut short never yields a score, and is no trial that a resumed search counts.
            known = self.study_.get_trials(deepcopy=False)
            for trial in trials:
                if not known[trial.number].state.is_finished():
                    trial.set_user_attr(_CUT_SHORT, True)
                    self.study_.tell(trial, state=TrialState.FAIL)
            raise
        for ended in [told[trial.number] for trial in trials]:
            if self.verbose > 1:
                say(f"trial {ended.number}: {ended.state.name}, {ended.value}, {ended.params}")
            for callback in self.callbacks or ():
                callback(self.study_, ended)
        return failure

    def _tell(self, trial, records, last):
        """Tell the study how a trial ended; return the ended trial, or None where it goes on."""
        metric = self.refit if isinstance(self.refit, str) else "score"
        value = float(np.mean([score_of(record, metric) for record in records]))
        if np.isnan(value):
            return self.study_.tell(trial, state=TrialState.FAIL)
        if self.pruner is not None:
            trial.report(value, len(records) - 1)
        if last:
            return self.study_.tell(trial, value)
        return self.study_.tell(trial, state=TrialState.PRUNED) if trial.should_prune() else None

    def _warn_of_failures(self, outcomes):
        """Warn of fits and scores that failed, and return what the fits said."""
        fits = Counter(error for _, error, _ in outcomes if error)
        said = "\n".join(f"{n} of {len(outcomes)} fits failed:\n{error}" for error, n in fits.items())
        if said:
            remedy = "Pass error_score='raise' to stop there."
            message = f"{said}\nThe scores are set to error_score={self.error_score}. {remedy}"
            warnings.warn(message, FitFailedWarning, stacklevel=2)
        for error in dict.fromkeys(error for _, _, error in outcomes if error):
            message = f"Scoring failed. The score is set to error_score={self.error_score}:\n{error}"
            warnings.warn(message, UserWarning, stacklevel=2)
        return said

    # -- the results --------------------------------------------------------------------------

    def _set_results(self, failure):
        trials = self._scored()
        states = [trial.state.name for trial in trials]
        if "COMPLETE" not in states:
            unscored = "Their scores are NaN: look at scoring=." if "FAIL" in states else None
            raise ValueError(
                "No trial was completed, so there are no best parameters. "
                + (failure or unscored or "Raise timeout= or n_trials=, or use a milder pruner.")
            )
        self.cv_results_ = results = table_of_results(
            [trial.params for trial in trials],
            [trial.user_attrs[_FOLDS] for trial in trials],
            self.n_splits_,
            self.return_train_score,
            trial_number=[trial.number for trial in trials],
            trial_state=states,
        )
        # A callable may return one score or several; the table tells.
        self.multimetric_ = "mean_test_score" not in results
        scoring = self.scoring
        if isinstance(scoring, _SEVERAL):
            scoring = scoring if isinstance(scoring, dict) else {name: name for name in scoring}
            self.scorer_ = {name: self._scorer(each) for name, each in scoring.items()}
        else:
            self.scorer_ = self._scorer(scoring)
        if not self.refit and self.multimetric_:
            return
        metric = self.refit if self.multimetric_ else "score"
        if callable(self.refit):
            self.best_index_ = self.refit(results)
            if not isinstance(self.best_index_, Integral):
                raise TypeError(
                    f"refit returned {self.best_index_!r}: the index of a trial must be an integer."
                )
            if not 0 <= self.best_index_ < len(trials):
                raise IndexError(f"refit returned {self.best_index_}: there are {len(trials)} trials.")
        else:
            self.best_index_ = results[f"rank_test_{metric}"].argmin()
            self.best_score_ = results[f"mean_test_{metric}"][self.best_index_]
        self.best_params_ = results["params"][self.best_index_]

    def _refit(self, task, fit_params, context):
        context = context.subcontext("refit-with-best-params")
        best = clone(self.estimator).set_params(**clone(self.best_params_, safe=False))
        data = (task["X"],) if task["y"] is None else (task["X"], task["y"])
        with context.propagate_callback_context(best):
            context.call_on_fit_task_begin(**task)
            started = time.perf_counter()
            best.fit(*data, **fit_params)
            self.refit_time_ = time.perf_counter() - started
        context.call_on_fit_task_end(**task)
        self.best_estimator_ = best
        if hasattr(best, "feature_names_in_"):
            self.feature_names_in_ = best.feature_names_in_

    predict = _delegated("predict")
    predict_proba = _delegated("predict_proba")
    predict_log_proba = _delegated("predict_log_proba")
    decision_function = _delegated("decision_function")
    score_samples = _delegated("score_samples")
    transform = _delegated("transform")
    inverse_transform = _delegated("inverse_transform")

    def score(self, X: ArrayLike, y: ArrayLike | None = None, **params: Any) -> float:
        """Score the best estimator as `scoring` says.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Paths of images or of study folders.
        y : array-like of shape (n,), default=None
            Labels.
        **params : dict
            For the scorer, with metadata routing.

        Returns
        -------
        score : float
            With several metrics, the one that `refit` names.
        """
        self._check_refit("score")
        check_is_fitted(self)
        if params and not sklearn.get_config()["enable_metadata_routing"]:
            raise ValueError(
                f"score takes {sorted(params)} with sklearn.set_config(enable_metadata_routing=True) only."
            )
        scorer = self.scorer_[self.refit] if isinstance(self.scorer_, dict) else self.scorer_
        score = scorer(self.best_estimator_, X, y, **process_routing(self, "score", **params).scorer.score)
        return score[self.refit] if isinstance(score, dict) else score

    @property
    def n_features_in_(self) -> int:
        """Number of features that the best estimator was fitted on."""
        try:
            check_is_fitted(self)
        except NotFittedError as error:
            raise AttributeError("MuraSearchCV has no n_features_in_ before fit.") from error
        return self.best_estimator_.n_features_in_

    @property
    def classes_(self) -> np.ndarray:
        """Labels of the best estimator."""
        _has("classes_")(self)
        return self.best_estimator_.classes_
