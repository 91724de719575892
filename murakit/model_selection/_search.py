"""`MuraSearchCV`: Optuna's trials, scikit-learn's scores."""

import copy
import math
import time
import warnings
from numbers import Integral

import joblib
import numpy as np
import optuna
from joblib import effective_n_jobs
from optuna.trial import TrialState
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils.validation import indexable

from ..utils._progress import progress_bar
from ._optuna import (
    Folds,
    all_failed,
    as_distributions,
    as_json,
    check_refit,
    claim,
    failed,
    open_study,
    sampler_seed_of,
    score,
    settings_of,
    stoppable,
)
from ._split import PatientKFold

_FOLDS = "murakit:folds"

_DATA = "murakit:data"

_CUT_SHORT = "murakit:cut_short"

_DONE = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class _NothingToRun(Exception):
    """The study already holds all the trials that were asked for."""


class MuraSearchCV(BaseSearchCV):
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
        1: a progress bar over the trials.

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

    def __init__(
        self,
        estimator,
        param_distributions,
        *,
        n_trials=10,
        cv=None,
        scoring=None,
        refit=True,
        sampler=None,
        pruner=None,
        storage=None,
        study_name=None,
        timeout=None,
        callbacks=None,
        n_jobs=None,
        error_score=np.nan,
        return_train_score=False,
        pre_dispatch="2*n_jobs",
        random_state=None,
        verbose=0,
    ):
        super().__init__(
            estimator,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.param_distributions = param_distributions
        self.n_trials = n_trials
        self.sampler = sampler
        self.pruner = pruner
        self.storage = storage
        self.study_name = study_name
        self.timeout = timeout
        self.callbacks = callbacks
        self.random_state = random_state

    def fit(self, X, y=None, **params):
        """Run the trials, and fit the best parameters on all data.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Paths of images or of study folders.
        y : array-like of shape (n,), default=None
            Labels.
        **params : dict
            As in scikit-learn: ``groups`` for the splitter, others for the estimator's ``fit``.

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
        X, y = indexable(X, y)
        check_refit(self.scoring, self.refit)
        if self.n_trials is None and self.timeout is None:
            raise ValueError("n_trials=None and timeout=None: the search would never end. Pass one of them.")
        # What an earlier fit left must not stand beside what this one finds.
        for name in [name for name in vars(self) if name.endswith("_") and name != "study_"]:
            delattr(self, name)
        self._distributions = as_distributions(self.param_distributions)
        self._open_study(X, y)
        self._table = {}
        # One line a trial is the progress bar's; scikit-learn's own lines come with verbose=2.
        self._loud, self.verbose = self.verbose, max(0, self.verbose - 1)
        try:
            super().fit(X, y, **params)
            self._resumable = False
        except _NothingToRun:
            self._resumable = False
            self._conclude()
            if self.refit:
                self._refit(X, y, params)
        except KeyboardInterrupt:
            done = any(trial.state == TrialState.COMPLETE for trial in self._finished())
            if done and hasattr(self, "_n_folds"):
                if not self._table:
                    self._tabulate()
                self._conclude()
            raise
        finally:
            self.verbose = self._loud
            for name in ("table", "latest", "distributions", "evaluated", "failure", "loud", "n_folds"):
                self.__dict__.pop(f"_{name}", None)
        return self

    def get_metadata_routing(self):
        """Return how metadata is routed, as scikit-learn's meta-estimators do.

        Returns
        -------
        routing : sklearn.utils.metadata_routing.MetadataRouter
        """
        twin = copy.copy(self)
        twin.cv = self._splitter()
        return BaseSearchCV.get_metadata_routing(twin)

    def _splitter(self):
        if self.cv is None or isinstance(self.cv, Integral):
            # scikit-learn's default would tear patients apart.
            return PatientKFold(5 if self.cv is None else self.cv)
        return self.cv

    def __sklearn_is_fitted__(self):
        return hasattr(self, "best_estimator_") if self.refit else hasattr(self, "cv_results_")

    # -- the study --------------------------------------------------------------------------

    def _open_study(self, X, y):
        # As an array of objects, so that a list of paths and an array of them are the same data.
        shown = np.asarray(X, dtype=object) if not hasattr(X, "dtype") else np.asarray(X)
        data = joblib.hash((shown, None if y is None else np.asarray(y)))
        held = getattr(self, "study_", None)
        resumable = held is not None and self.study_name is None and getattr(self, "_resumable", False)
        if resumable and held.user_attrs.get(_DATA) == data:
            study = held
        else:
            study = open_study(self.storage, self.study_name)
        study.pruner = self.pruner or optuna.pruners.NopPruner()
        if study.direction != optuna.study.StudyDirection.MAXIMIZE:
            raise ValueError(
                f"The study {study.study_name!r} minimises; scores are maximised. Pass another name."
            )
        claim(study, _DATA, data, "data")
        sampler_seed = sampler_seed_of(self.random_state, len(study.trials))
        study.sampler = self.sampler or optuna.samplers.TPESampler(seed=sampler_seed)
        study._stop_flag = False
        self.study_ = study
        self._resumable = True

    def _finished(self):
        trials = self.study_.get_trials(deepcopy=False, states=_DONE)
        return [trial for trial in trials if _CUT_SHORT not in trial.user_attrs]

    # -- the trials -------------------------------------------------------------------------

    def _run_search(self, evaluate_candidates):
        self._n_folds = self.n_splits_
        for name, value in settings_of(self, self._n_folds, self._distributions).items():
            claim(self.study_, f"murakit:{name}", value, name)
        self._evaluated = False
        self._failure = None
        default = self.cv is None or isinstance(self.cv, Integral)
        folds = Folds(self._splitter() if default else self._checked_cv_orig)
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        at_once = effective_n_jobs(self.n_jobs) if self.pruner is not None else 1
        done = len(self._finished())
        wished = math.inf if self.n_trials is None else self.n_trials
        with progress_bar(
            total=self.n_trials, desc="MuraSearchCV", unit="trial", disable=not self._loud
        ) as bar:
            bar.update(min(done, wished))
            while done < wished and not self.study_._stop_flag:
                if deadline is not None and time.monotonic() > deadline:
                    break
                with stoppable(self.study_):
                    self._run_trials(min(at_once, wished - done), evaluate_candidates, folds)
                # Asked anew each time: other processes may work on the same study.
                now = len(self._finished())
                bar.update(now - done)
                done = now
        self._tabulate()
        if not self._evaluated:
            raise _NothingToRun

    def _run_trials(self, n_trials, evaluate_candidates, folds):
        running = [self.study_.ask(self._distributions) for _ in range(n_trials)]
        records = {trial.number: [] for trial in running}
        active = list(running)
        try:
            if self.pruner is None:
                self._evaluate(active, records, evaluate_candidates, folds, self._n_folds)
            else:
                for fold in range(self._n_folds):
                    self._evaluate(active, records, evaluate_candidates, folds.only(fold), 1)
                    active = self._prune(active, records, fold)
                    if not active:
                        break
            for trial in active:
                self._tell(trial, records[trial.number])
        except BaseException:
            # What was cut short never yields a score, and is no trial that a resumed search counts.
            for trial in running:
                if not self.study_.trials[trial.number].state.is_finished():
                    trial.set_user_attr(_CUT_SHORT, True)
                    self.study_.tell(trial, state=TrialState.FAIL)
            raise
        for trial in running:
            for callback in self.callbacks or ():
                callback(self.study_, self.study_.trials[trial.number])

    def _evaluate(self, active, records, evaluate_candidates, folds, n_folds):
        """Score some folds of some trials, and write their scores into the study."""
        # scikit-learn counts the splits it is given against this attribute.
        self.n_splits_ = n_folds
        try:
            evaluate_candidates([dict(trial.params) for trial in active], cv=folds)
            self._evaluated = True
            latest = self._latest[-len(active) * n_folds :]
        except ValueError as error:
            if "fits failed" not in str(error):
                raise
            # scikit-learn raises where all fits of one call fail; here that is one trial among others.
            warnings.warn(str(error), FitFailedWarning, stacklevel=2)
            self._failure = str(error)
            latest = [all_failed(self)] * (len(active) * n_folds)
        finally:
            self.n_splits_ = self._n_folds
        errors = [record["fit_error"] for record in latest if record is not None and record.get("fit_error")]
        self._failure = errors[-1] if errors else self._failure
        for number, trial in enumerate(active):
            records[trial.number] += latest[number * n_folds : (number + 1) * n_folds]
            trial.set_user_attr(_FOLDS, [as_json(record) for record in records[trial.number]])

    def _format_results(self, candidate_params, n_splits, out, more_results=None):
        # Called with all that this process has scored; the study, which other processes and earlier
        # runs share, is the record, and _tabulate() fills this very dict from it at the end.
        self._latest = out
        return self._table

    def _objective(self, records):
        name = self.refit if isinstance(self.refit, str) else "score"
        scores = [score(record, name) for record in records]
        return float(np.mean(scores))

    def _prune(self, active, records, fold):
        kept = []
        for trial in active:
            value = self._objective(records[trial.number])
            if np.isnan(value):
                self.study_.tell(trial, state=TrialState.FAIL)
                continue
            trial.report(value, fold)
            # After the last fold there is nothing left to save.
            if fold + 1 < self._n_folds and trial.should_prune():
                self.study_.tell(trial, state=TrialState.PRUNED)
            else:
                kept.append(trial)
        return kept

    def _tell(self, trial, records):
        value = self._objective(records)
        if np.isnan(value):
            self.study_.tell(trial, state=TrialState.FAIL)
        else:
            self.study_.tell(trial, value)

    # -- the results ------------------------------------------------------------------------

    def _tabulate(self):
        """Fill the table of results from the study."""
        trials = [trial for trial in self._finished() if trial.user_attrs.get(_FOLDS)]
        if not any(trial.state == TrialState.COMPLETE for trial in trials):
            if self._failure is None and any(trial.state == TrialState.FAIL for trial in trials):
                self._failure = "Their scores are NaN: look at scoring=."
            raise ValueError(
                "No trial was completed, so there are no best parameters. "
                + (self._failure or "Raise timeout= or n_trials=, or use a milder pruner.")
            )
        template = next(t for t in trials if t.state == TrialState.COMPLETE).user_attrs[_FOLDS][0]
        out = []
        for trial in trials:
            records = [record or failed(template) for record in trial.user_attrs[_FOLDS]]
            out += records + [failed(template)] * (self._n_folds - len(records))
        more = {
            "trial_number": [trial.number for trial in trials],
            "trial_state": [trial.state.name for trial in trials],
        }
        with warnings.catch_warnings():
            # Pruned and failed trials have no mean score; their state says so.
            warnings.filterwarnings("ignore", message="One or more of the .* scores are non-finite")
            params = [trial.params for trial in trials]
            self._table.update(super()._format_results(params, self._n_folds, out, more))

    def _conclude(self):
        """Set what scikit-learn's fit would have set, had it run a trial or come to its end."""
        scorers, _ = self._get_scorers()
        self.cv_results_ = dict(self._table)
        # A callable may return one score or several; the table tells.
        self.multimetric_ = "mean_test_score" not in self.cv_results_
        metric = self.refit if self.multimetric_ else "score"
        self.n_splits_ = self._n_folds
        if self.refit or not self.multimetric_:
            self.best_index_ = self._select_best_index(self.refit, metric, self.cv_results_)
            if not callable(self.refit):
                self.best_score_ = self.cv_results_[f"mean_test_{metric}"][self.best_index_]
            self.best_params_ = self.cv_results_["params"][self.best_index_]
        self.scorer_ = getattr(scorers, "_scorers", scorers)

    def _refit(self, X, y, params):
        self.best_estimator_ = clone(self.estimator).set_params(**clone(self.best_params_, safe=False))
        started = time.time()
        targets = () if y is None else (y,)
        self.best_estimator_.fit(X, *targets, **self._get_routed_params_for_fit(params).estimator.fit)
        self.refit_time_ = time.time() - started

    def __getstate__(self):
        state = dict(super().__getstate__())
        if self.storage is not None:
            # It holds a connection; optuna.load_study opens it again.
            state.pop("study_", None)
        return state
