"""A scikit-learn classifier around a network: everything but what an input is.

`MuraClassifier` adds how a sample is read. Kept apart so that scikit-learn's own checks, which
feed numbers, can run over the same code.
"""

import copy
import os
from contextlib import contextmanager
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from ._data import Images, check_groups, check_labels, plain
from ._progress import EpochProgress
from ._scoring import as_scorer
from ._splits import patient_holdout
from ._training import OPTIMIZERS, TrainingData, TrainingNet
from ._weights import class_table, region_table, region_weights

# Sums in PyTorch depend, in the last bits, on the number of threads, and joblib gives its worker
# processes fewer. A fit with a seed uses the threads of the process that imported murakit first;
# the workers inherit that number here, and wait without spinning, for spinning threads that share
# a core are five times slower.
_THREADS_AT_IMPORT = torch.get_num_threads()
_SHARED_THREADS = int(os.environ.setdefault("MURAKIT_NUM_THREADS", str(_THREADS_AT_IMPORT)))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class Seeds(NamedTuple):
    """Independent sources of randomness, all from ``random_state``."""

    split: np.random.Generator
    order: np.random.Generator
    network: int
    torch: int


class NetClassifier(ClassifierMixin, BaseEstimator):
    """Base of the classifiers that train a network; see `MuraClassifier` for the parameters."""

    _parameter_constraints: dict = {
        "class_weight": [dict, StrOptions({"balanced", "region"}), None],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "backbone_lr_factor": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "head_epochs": [Interval(Integral, 0, None, closed="left")],
        "early_stopping": ["boolean"],
        "monitor": [str],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "lr_patience": [Interval(Integral, 0, None, closed="left"), None],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "callbacks": [list, tuple, None],
        "verbose": ["verbose"],
    }

    # With metadata routing on, `groups` goes to fit without set_fit_request.
    __metadata_request__fit = {"groups": True}

    # -- what a subclass says ---------------------------------------------------------------

    def _read_samples(self, X, *, reset=False):
        """Return the `Samples` of an X; with ``reset``, of a fit."""
        raise NotImplementedError  # pragma: no cover - abstract

    def _patients_of(self, items):
        """Return the patient of each item; raise where one cannot be told."""
        raise NotImplementedError  # pragma: no cover - abstract

    def _regions_of(self, items):
        """Return the region of each item, or None where they do not say."""
        return None

    def _build_network(self, n_classes, seed):
        """Return a network with ``stages``, ``head`` and ``freeze_below``."""
        raise NotImplementedError  # pragma: no cover - abstract

    def _load(self, items):
        """Return the input tensor of all items."""
        raise NotImplementedError  # pragma: no cover - abstract

    def _run_frozen_part(self, network, inputs):
        """Return what the trained part of the network takes, where that can be had beforehand."""
        return inputs

    def _load_batches(self, items):
        """Yield input tensors of successive batches of items."""
        raise NotImplementedError  # pragma: no cover - abstract

    # -- fitting ----------------------------------------------------------------------------

    def fit(self, X, y, groups=None, X_val=None, y_val=None, groups_val=None, sample_weight=None):
        """Train on X and y; see `MuraClassifier.fit`."""
        self._validate_params()
        self._check_callbacks()
        continued = self.warm_start and hasattr(self, "net_")
        data, classes = self._prepare(X, y, groups, sample_weight, reset=not continued)
        if len(np.unique(data.code)) < 2:
            raise ValueError(
                f"y holds only one class, {plain(classes[data.code[0]])!r}: a classifier needs two classes or "
                "more. Load the other label too, or check how y was made."
            )
        seeds = self._seeds()
        if X_val is not None:
            train, valid = data, self._given_validation(data, groups, X_val, y_val, groups_val, classes)
        elif self.early_stopping:
            train, valid = self._hold_out(data, seeds.split, self.validation_patients_ if continued else None)
        else:
            train, valid = data, None
        return self._train(train, valid, classes, seeds, continued=continued)

    def partial_fit(self, X, y, classes=None, groups=None, sample_weight=None):
        """Train for one more epoch; see `MuraClassifier.partial_fit`."""
        self._validate_params()
        self._check_callbacks()
        continued = hasattr(self, "net_")
        data, classes = self._prepare(X, y, groups, sample_weight, reset=not continued, classes=classes)
        return self._train(data, None, classes, self._seeds(), continued=continued, one_epoch=True)

    def _prepare(self, X, y, groups, sample_weight, *, reset, classes=None):
        """Check a data set, and spread its labels, weights and patients over its images."""
        samples = self._read_samples(X, reset=reset)
        y = check_labels(y, samples.n_rows)
        classes = np.unique(y if classes is None else np.asarray(classes))
        remedy = "Map it to one of them or leave the row out."
        if not reset:
            if len(np.setdiff1d(classes, self.classes_)):
                remedy = "Train on the same classes, or on a new estimator (warm_start=False)."
            classes = self.classes_
        unknown = np.flatnonzero(~np.isin(y, classes))
        if len(unknown):
            raise ValueError(
                f"y: row {unknown[0]} has the label {plain(y[unknown[0]])!r}, which is none of the classes "
                f"{classes.tolist()}. {remedy}"
            )
        code = np.searchsorted(classes, y)[samples.row]
        weight = np.ones(len(code))
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, y, ensure_non_negative=True)[samples.row]
        patients = self._patients(samples, groups)
        used = weight > 0
        if not used.any():
            raise ValueError("sample_weight is zero for every sample; there is nothing to learn from.")
        return Images(
            samples.items[used], code[used], weight[used], None if patients is None else patients[used]
        ), classes

    def _patients(self, samples, groups):
        if groups is not None:
            return check_groups(groups, samples.n_rows)[samples.row]
        try:
            return self._patients_of(samples.items)
        except ValueError:
            # Only a split needs them, and raises then.
            return None

    def _hold_out(self, data, rng, before=None):
        if data.patients is None:
            self._patients_of(data.items)  # raises, naming the row
        # A warm start has been trained on the other patients: another split would validate on them.
        held = np.isin(data.patients, before) if before is not None else np.zeros(len(data.code), dtype=bool)
        if not held.any():
            regions = self._regions_of(data.items)
            held = patient_holdout(data.patients, data.code, regions, self.validation_fraction, rng)
        lacking = np.setdiff1d(data.code, data.code[~held])
        if not held.any() or len(lacking):
            raise ValueError(
                f"{len(np.unique(data.patients))} patients are too few to hold out validation_fraction="
                f"{self.validation_fraction:g} of them and keep every class in training. Pass X_val and y_val, "
                "or set early_stopping=False to train on all for max_epochs."
            )
        return data.take(~held), data.take(held)

    def _given_validation(self, data, groups, X_val, y_val, groups_val, classes):
        if y_val is None:
            raise ValueError("X_val was passed without y_val: pass the labels of the validation samples too.")
        samples = self._read_samples(X_val)
        y_val = check_labels(y_val, samples.n_rows, name="y_val")
        unknown = np.setdiff1d(y_val, classes)
        if len(unknown):
            raise ValueError(f"y_val has the labels {unknown.tolist()}, which y does not have.")
        if groups is not None and groups_val is not None:
            ours = data.patients
            theirs = check_groups(groups_val, samples.n_rows, name="groups_val")[samples.row]
        else:
            ours, theirs = self._patients_of(data.items), self._patients_of(samples.items)
        shared = np.intersect1d(ours.astype(str), theirs.astype(str))
        if len(shared):
            raise ValueError(
                f"{len(shared)} patients are in X and in X_val ({', '.join(shared[:3])}): the validation score "
                "would be that of known patients. Split by patient, for example with PatientShuffleSplit."
            )
        code = np.searchsorted(classes, y_val)[samples.row]
        return Images(samples.items, code, np.ones(len(code)), theirs)

    def _train(self, train, valid, classes, seeds, *, continued, one_epoch=False):
        weights, table = self._loss_weights(train, valid, classes)
        with self._repeatable_threads():
            # The estimator's own network stays as it is until the training has come to its end.
            network = (
                copy.deepcopy(self.net_.module_)
                if continued
                else self._build_network(len(classes), seeds.network)
            )
            data = [
                None if part is None else self._to_tensors(network, part, weight)
                for part, weight in zip((train, valid), weights)
            ]
            net = self._make_net(network, classes, seeds, validated=valid is not None, one_epoch=one_epoch)
            if table is None:
                net.set_params(criterion__reduction="none")
            else:
                # PyTorch's own weighted mean: the very bits that a loop by hand computes.
                net.set_params(criterion__weight=torch.as_tensor(table, dtype=torch.float32))
            net.set_params(
                head_epochs=0 if continued or one_epoch else min(self.head_epochs, self.max_epochs)
            )
            network.generator = torch.Generator().manual_seed(seeds.torch)
            net.initialize()
            if one_epoch and continued and getattr(self, "_optimizer_state", None) is not None:
                net.optimizer_.load_state_dict(self._optimizer_state)
            net.train_on(*data)
        self._keep(net, classes, train, valid, continued=continued, one_epoch=one_epoch)
        return self

    def _to_tensors(self, network, part, weight):
        inputs = self._run_frozen_part(network, self._load(part.items))
        return TrainingData(inputs, part.code, weight)

    def _loss_weights(self, train, valid, classes):
        """Return the weights of the images of both sides, and the table that says them, if one does."""
        parts = [train] if valid is None else [train, valid]
        if self.class_weight == "region":
            table = region_table(train.code, self._regions_of(train.items), len(classes))
            weights = [region_weights(table, part.code, self._regions_of(part.items)) for part in parts]
            by_class = False
        else:
            table = class_table(self.class_weight, train.code, classes)
            weights = [table[part.code] for part in parts]
            by_class = all((part.weight == 1).all() for part in parts)
        weights = [weight * part.weight for weight, part in zip(weights, parts)]
        return [*weights, None], table if by_class else None

    def _make_net(self, network, classes, seeds, *, validated, one_epoch):
        names = [name for name in self.callbacks or () if isinstance(name, str)]
        if self.monitor != "loss":
            names.append(self.monitor)
        epochs = 1 if one_epoch else self.max_epochs
        device = self._device()
        return TrainingNet(
            network,
            max_epochs=epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            optimizer__weight_decay=self.weight_decay,
            lr=self.lr,
            backbone_lr_factor=self.backbone_lr_factor,
            unfreeze=self._first_trained_stage(),
            monitor=self.monitor,
            lr_patience=self.lr_patience,
            early_stopping=self.early_stopping and validated,
            n_iter_no_change=self.n_iter_no_change,
            classes=classes,
            scorers=tuple(dict.fromkeys(names)),
            autocast=self._autocast(device),
            rng=seeds.order,
            callbacks=[
                copy.deepcopy(callback) for callback in self.callbacks or () if not isinstance(callback, str)
            ],
            progress=EpochProgress(epochs, type(self).__name__, disable=not self.verbose),
            device=device,
            train_split=None,
            verbose=0,
        )

    def _first_trained_stage(self):
        return "all"

    def _keep(self, net, classes, train, valid, *, continued, one_epoch):
        """Set the fitted attributes: only now, so that a failed fit leaves none."""
        self._optimizer_state = net.optimizer_.state_dict() if one_epoch else None
        best, score = net.best_epoch_, net.best_score_
        history = pd.DataFrame([{k: v for k, v in row.items() if k != "batches"} for row in net.history])
        history = history.drop(columns=[c for c in history if c.endswith("_batch_count")])
        before = self.history_ if continued else history.iloc[:0]
        history["epoch"] += len(before)
        self.net_ = net.strip()
        self.classes_ = classes
        self.history_ = pd.concat([before, history], ignore_index=True) if len(before) else history
        self.n_epochs_ = len(self.history_)
        kept = best if net.early_stopping else len(history)
        self.best_epoch_ = kept + len(before)
        scored = score if net.early_stopping else None
        if valid is not None and scored is None:
            scored = float(history.iloc[-1][f"valid_{self.monitor}"])
        elif scored is not None and self.monitor == "loss":
            scored = -scored
        self.validation_score_ = scored
        self.train_patients_ = train.patient_names()
        self.validation_patients_ = None if valid is None else valid.patient_names()

    def _check_callbacks(self):
        for scoring in (*(self.callbacks or ()), *(() if self.monitor == "loss" else (self.monitor,))):
            if isinstance(scoring, str):
                as_scorer(scoring)

    # -- randomness and the machine ---------------------------------------------------------

    def _seeds(self):
        state = self.random_state
        if state is None:
            # Fresh entropy: NumPy's global state is the caller's.
            sequence = np.random.SeedSequence()
        elif isinstance(state, Integral):
            sequence = np.random.SeedSequence(int(state))
        else:
            sequence = np.random.SeedSequence(int(state.randint(2**31 - 1)))
        split, order, network, generator = sequence.spawn(4)
        return Seeds(
            np.random.default_rng(split),
            np.random.default_rng(order),
            int(network.generate_state(1)[0]),
            int(generator.generate_state(1)[0]),
        )

    @contextmanager
    def _repeatable_threads(self):
        before = torch.get_num_threads()
        # A number that the caller set in this process is the caller's wish.
        wished = before != _THREADS_AT_IMPORT
        if self.random_state is not None and not wished and before != _SHARED_THREADS:
            torch.set_num_threads(_SHARED_THREADS)
        try:
            yield
        finally:
            if torch.get_num_threads() != before:
                torch.set_num_threads(before)

    def _device(self):
        if str(self.device) == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(self.device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                f"device={self.device!r}, but PyTorch sees no GPU here. Pass device='auto' or 'cpu'."
            )
        return str(device)

    def _autocast(self, device):
        on_gpu = torch.device(device).type == "cuda"
        if self.precision == "auto":
            # On CPUs without the instructions bfloat16 is many times slower.
            return on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        return self.precision == "bfloat16"

    # -- predicting -------------------------------------------------------------------------

    def _log_proba(self, X):
        """Return the logarithm of the mean probability over the images of each row."""
        check_is_fitted(self)
        samples = self._read_samples(X)
        device = self._device()
        network, done = self.net_.module_, []
        try:
            network.to(device)
            with torch.inference_mode():
                for batch in self._load_batches(samples.items):
                    done.append(self._image_log_proba(network, batch, device).cpu().numpy())
        finally:
            network.to("cpu")
        per_image = np.concatenate(done)
        total = np.full((samples.n_rows, len(self.classes_)), -np.inf)
        np.logaddexp.at(total, samples.row, per_image)
        return total - np.log(np.bincount(samples.row, minlength=samples.n_rows))[:, None]

    def _image_log_proba(self, network, batch, device):
        network.eval()
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=self._autocast(device)):
            logits = network(batch.to(device, non_blocking=True))
        return logits.double().log_softmax(dim=1)

    def predict_proba(self, X):
        """Return the probability of each class; see `MuraClassifier.predict_proba`."""
        proba = np.exp(self._log_proba(X))
        return proba / proba.sum(axis=1, keepdims=True)

    def predict(self, X):
        """Return the most probable class of each sample, as a value of ``classes_``."""
        best = self._log_proba(X).argmax(axis=1)
        return self.classes_[best]

    def decision_function(self, X):
        """Return the log-odds of the second class, or the log-probability of each of more than two."""
        scores = self._log_proba(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def __getstate__(self):
        state = dict(super().__getstate__())
        # As large as the weights or twice that, and of use only to the next partial_fit here.
        state.pop("_optimizer_state", None)
        return state
