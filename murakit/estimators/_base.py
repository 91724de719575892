"""Base class of scikit-learn classifiers that train a network, whatever their samples are.

`MuraClassifier` is a subclass whose samples are paths of radiographs. The base is separate so that
scikit-learn's estimator checks, whose samples are numbers, can run on the same code.
"""

import copy
import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ..datasets._patients import known_after, known_among
from ..datasets._samples import SampleTable
from ..metrics._predictions import mean_of_groups
from ..model_selection._scores import metadata_of_callbacks
from ..model_selection._split import patient_holdout
from ..networks._frozen import drop_cache, drop_if_changed, unshare_weights
from ..training._batches import TrainingData
from ..training._checkpoint import Checkpoint
from ..training._inputs import Dataset
from ..training._loss_weights import class_table, region_table, region_weights
from ..training._net import (
    OPTIMIZERS,
    TrainingNet,
    callbacks_of_training,
    can_be_pickled,
    check_callbacks,
    name_of_callback,
)
from ..utils._device import autocasts, placed, resolve_device
from ..utils._memory import trimming
from ..utils._progress import EpochProgress
from ..utils._random import chosen_threads, seeds_of
from ..utils._validation import check_labels, check_weights, plain

_PATIENTS_REMEDY = (
    "Pass the patients as groups= to fit (inside a meta-estimator: with "
    "sklearn.set_config(enable_metadata_routing=True)), or set early_stopping=False."
)


@dataclass(frozen=True)
class Labelled:
    """Images of the training or the validation side, with their classes and sample weights.

    Attributes
    ----------
    samples : SampleTable
        One row per image.
    code : ndarray of shape (n,), dtype int
        Class of each image, as an index into ``classes_``.
    weight : ndarray of shape (n,), dtype float64
        Sample weight of each image.
    """

    samples: SampleTable
    code: NDArray[np.integer]
    weight: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.code)

    def take(self, images: NDArray) -> "Labelled":
        """Return some of the images, selected by mask or by index."""
        return Labelled(self.samples.take(images), self.code[images], self.weight[images])

    def patient_names(self) -> NDArray | None:
        """Return the patients, sorted; None if that of any image is not known."""
        patients = self.samples.known("patient")
        return None if patients is None else np.unique(patients)


class _EpochTasks:
    """The epochs of a fit as tasks of scikit-learn's callbacks.

    Parameters
    ----------
    context : sklearn.callback.CallbackContext
        That of the fit.
    task : dict
        What the callbacks are told: the estimator, X, y and metadata.
    """

    def __init__(self, context, task):
        self.context = context
        self.task = task

    def begin(self):
        self.epoch = self.context.subcontext(task_name="epoch")
        self.epoch.call_on_fit_task_begin(**self.task)

    def end(self, net):
        # A function: only callbacks that ask for a fitted estimator wait for its copy.
        return self.epoch.call_on_fit_task_end(
            **self.task, reconstruction_attributes=lambda: {"_net": net.snapshot(), "classes_": net.classes}
        )


class NetClassifier(CallbackSupportMixin, ClassifierMixin, BaseEstimator, metaclass=ABCMeta):
    """Base class of classifiers that train a network.

    It checks labels, weights and groups, holds patients out, trains, predicts, and sets the fitted
    attributes. It never looks at what a sample is. For parameters and attributes see `MuraClassifier`.

    A subclass must have

    - an ``__init__`` with every parameter in ``_parameter_constraints``;
    - `_read_samples`: makes a `SampleTable` of an X. Of its columns, the base uses ``path`` (one item per
      image, which it only selects and passes on to the last two methods below), ``row`` (the row of X that
      each image belongs to), ``sample`` (its length is the number of rows of X), and ``patient`` and
      ``region`` (None where not known);
    - `_build_network`: makes a network with random or pretrained weights;
    - `_training_inputs`: makes the datasets that the network is trained and validated on;
    - `_log_proba_batches`: predicts.

    It may override the methods under "Optional hooks".
    """

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

    # With metadata routing enabled, `groups` reaches fit without set_fit_request.
    __metadata_request__fit = {"groups": True}

    # Fitted attributes.
    classes_: NDArray
    history_: pd.DataFrame
    n_epochs_: int
    best_epoch_: int
    validation_score_: float | None
    train_patients_: NDArray | None
    validation_patients_: NDArray | None
    _net: TrainingNet

    # -- the four methods of a subclass -----------------------------------------------------

    @abstractmethod
    def _read_samples(
        self,
        X: Any,
        groups: ArrayLike | None = None,
        *,
        reset: bool = False,
        name: str = "X",
        groups_name: str = "groups",
    ) -> SampleTable:
        """Check an X and return its `SampleTable`.

        Parameters
        ----------
        X : what the subclass takes
        groups : array-like of shape (n,) or None
            Patient of each row. None: known from X, or not known.
        reset : bool
            Whether a new fit begins: then ``n_features_in_``, and whatever else is learnt from X alone, is set.
            False: X must agree with what was set.
        name, groups_name : str
            Names of the two in error messages.

        Returns
        -------
        samples : SampleTable
            ``samples.path`` may be an array of any items that can be selected by a mask, numbers for example.
        """

    @abstractmethod
    def _build_network(self, n_classes: int, seed: int) -> nn.Module:
        """Return a new network, on the CPU; `seed` decides its random weights.

        It must have

        - ``forward(inputs)``, or ``forward(inputs, begin=stage)`` if a dataset has a ``stage``: logits
          (b, n_classes) of a batch;
        - ``head``: its last layer;
        - ``freeze_below(stage)``: freezes the stages before `stage` (``requires_grad=False``), which is
          ``"head"`` or what `_first_trained_stage` returns;
        - ``trained_state(stage)``: the state dict without the stages before `stage`;
        - ``generator``: an attribute that the base sets to the `torch.Generator` of a training, and to None
          after it.
        """

    @abstractmethod
    def _training_inputs(
        self, network: Any, parts: Sequence[tuple[NDArray, bool]], device: str, head_epochs: int
    ) -> Sequence[tuple[Dataset, Dataset | None]]:
        """Return the datasets of the training and, if there is one, of the validation.

        Parameters
        ----------
        network : Module
            What `_build_network` returned, on `device`.
        parts : list of (items, augmented)
            The training images and, if there is a validation, its images. Items come from
            ``SampleTable.path``; `augmented` is True for the training.
        device : str
        head_epochs : int
            Number of first epochs that train only the head.

        Returns
        -------
        datasets : list of (inputs, head_inputs)
            Arguments of `murakit.training._batches.TrainingData`, for each of the parts. `head_inputs` are
            the inputs of the epochs that train only the head; None: `inputs`.
        """

    @abstractmethod
    def _log_proba_batches(self, network: Any, items: NDArray, device: str) -> Iterator[torch.Tensor]:
        """Yield log-probabilities (b, n_classes), batch by batch, of the items of a ``SampleTable.path``.

        The network is on `device`, in evaluation mode.
        """

    # -- optional hooks ---------------------------------------------------------------------

    def _check_classes(self, classes: NDArray) -> None:
        """Raise if this classifier cannot be fitted on these classes."""

    def _check_repeats(self, samples: SampleTable, labels: NDArray) -> None:
        """Raise if rows of the same image have different labels; `labels` has one label per image."""

    def _continue_network(self, network: Any) -> Any:
        """Return a trained network with the parameters that may change between two fits of a warm start."""
        return network

    def _first_trained_stage(self) -> str:
        """Return the stage that ``freeze_below`` and ``trained_state`` of the network are called with."""
        return "all"

    def _training_options(self, *, one_epoch: bool) -> dict[str, Any]:
        """Return further parameters of the `TrainingNet`; `one_epoch` is True for `partial_fit`.

        A `stage_lr_decay` other than 1 needs a network with a dict ``stages`` of its stages, in order.
        """
        return {}

    def _checkpoint_of(self, network: Any, train: Labelled, valid: Labelled | None) -> Checkpoint | None:
        """Return the `Checkpoint` of a training, or None to keep none."""
        return None

    def _predicted_codes(self, proba: NDArray[np.float64]) -> NDArray[np.integer]:
        """Return the predicted class of each row of probabilities, as an index into ``classes_``."""
        return proba.argmax(axis=1)

    # -- fitting ----------------------------------------------------------------------------

    @with_callbacks
    def fit(
        self,
        X: Any,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        X_val: Any = None,
        y_val: ArrayLike | None = None,
        groups_val: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train on X and y; see `MuraClassifier.fit`."""
        self._validate_params()
        check_callbacks(self.callbacks, self.monitor)
        # For scikit-learn's callbacks, which are set by set_callbacks and are not those of skorch.
        context = self._init_callback_context(max_subtasks=self.max_epochs)
        metadata = metadata_of_callbacks({"sample_weight": sample_weight})
        task = {"estimator": self, "X": X, "y": y, "metadata": metadata}
        context.call_on_fit_task_begin(**task)
        self._device()
        continued = self.warm_start and hasattr(self, "_net")
        if X_val is None and (y_val is not None or groups_val is not None):
            raise ValueError("y_val or groups_val was passed without X_val: pass the validation samples too.")
        data, classes = self._prepare(X, y, groups, sample_weight, reset=not continued)
        if len(np.unique(data.code)) < 2:
            raise ValueError(
                f"y holds only one class, {plain(classes[data.code[0]])!r}: a classifier needs two classes or "
                "more. Load the other label too, or check how y was made."
            )
        seeds = seeds_of(self.random_state, self.n_epochs_ if continued else None)
        if X_val is not None:
            train, valid = (
                data,
                self._given_validation(data, groups, X_val, y_val, groups_val, classes, continued),
            )
        elif self.early_stopping:
            train, valid = self._hold_out(data, seeds.split, continued)
        else:
            train, valid = data, None
        tasks = _EpochTasks(context, task)
        self._train(train, valid, classes, seeds, continued=continued, tasks=tasks)
        context.call_on_fit_task_end(**task)
        return self

    def partial_fit(
        self,
        X: Any,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one more epoch; see `MuraClassifier.partial_fit`."""
        self._validate_params()
        check_callbacks(self.callbacks, self.monitor)
        self._device()
        continued = hasattr(self, "_net")
        data, found = self._prepare(X, y, groups, sample_weight, reset=not continued, classes=classes)
        if len(found) < 2:
            raise ValueError(
                f"y holds only one class, {plain(found[0])!r}: name all of them in classes= on the first call."
            )
        return self._train(
            data,
            None,
            found,
            seeds_of(self.random_state, self.n_epochs_ if continued else None),
            continued=continued,
            one_epoch=True,
        )

    def _prepare(self, X, y, groups, sample_weight, *, reset, classes=None):
        """Check X, y, groups and weights, and return them per image, with the classes."""
        samples = self._read_samples(X, groups, reset=reset)
        y = check_labels(y, samples.n_rows)
        classes = np.unique(y if classes is None else np.asarray(classes))
        remedy = "Map it to one of them or leave the row out."
        if not reset:
            if len(np.setdiff1d(classes, self.classes_)):
                remedy = "Train on the same classes, or on a new estimator (warm_start=False)."
            classes = self.classes_
        self._check_classes(classes)
        unknown = np.flatnonzero(~np.isin(y, classes))
        if len(unknown):
            raise ValueError(
                f"y: row {unknown[0]} has the label {plain(y[unknown[0]])!r}, which is none of the classes "
                f"{classes.tolist()}. {remedy}"
            )
        self._check_repeats(samples, y[samples.row])
        code = np.searchsorted(classes, y)[samples.row]
        weight = np.ones(len(code))
        if sample_weight is not None:
            weight = check_weights(sample_weight, len(y))[samples.row]
        used = weight > 0
        if not used.any():
            raise ValueError("sample_weight is zero for every sample; there is nothing to learn from.")
        return Labelled(samples, code, weight).take(used), classes

    def _hold_out(self, data, rng, continued):
        """Split a data set by patient into a training and a validation side."""
        patients = data.samples.required("patient", _PATIENTS_REMEDY)
        held = np.zeros(len(data.code), dtype=bool)
        free = ~held
        if continued:
            # The network has been trained on some patients already, so these cannot validate it.
            free = ~known_among(patients, self._patients_before())
            if self.validation_patients_ is not None:
                held = known_among(patients, self.validation_patients_)
            if not free.any():
                raise ValueError(
                    "warm_start: the network has been trained on every patient of X, so none can be held out. "
                    "Pass X_val and y_val of other patients, or set early_stopping=False."
                )
        if not held.any():
            part = data.take(free)
            held[free] = patient_holdout(
                patients[free], part.code, part.samples.known("region"), self.validation_fraction, rng
            )
        lacking = np.setdiff1d(data.code, data.code[~held])
        if not held.any() or len(lacking):
            raise ValueError(
                f"{len(np.unique(patients))} patients are too few to hold out validation_fraction="
                f"{self.validation_fraction:g} of them and keep every class in training. Pass X_val and y_val, "
                "or set early_stopping=False to train on all for max_epochs."
            )
        return data.take(~held), data.take(held)

    def _patients_before(self):
        """Return the patients of the fits that a warm start continues; raise if they are not known."""
        if self.train_patients_ is None:
            raise ValueError(
                "warm_start: the patients of an earlier fit are not known, so that validation could not be kept "
                "apart from them. Pass groups= in every fit, or set early_stopping=False."
            )
        return self.train_patients_

    def _given_validation(self, data, groups, X_val, y_val, groups_val, classes, continued):
        """Check the validation set that was passed to `fit`; raise if it has patients of the training."""
        if y_val is None:
            raise ValueError("X_val was passed without y_val: pass the labels of the validation samples too.")
        samples = self._read_samples(X_val, groups_val, name="X_val", groups_name="groups_val")
        y_val = check_labels(y_val, samples.n_rows, name="y_val")
        unknown = np.setdiff1d(y_val, classes)
        if len(unknown):
            raise ValueError(f"y_val has the labels {unknown.tolist()}, which y does not have.")
        if (groups is None) != (groups_val is None):
            missing = "groups_val" if groups_val is None else "groups"
            raise ValueError(
                f"{missing} is missing: pass the patients of X as groups= and those of X_val as groups_val=, or "
                "neither, so that both are read from the paths."
            )
        ours, theirs = (table.required("patient", _PATIENTS_REMEDY) for table in (data.samples, samples))
        if continued:
            ours = np.concatenate([ours, self._patients_before()])
        others = np.unique(theirs.astype(str))
        shared = others[known_among(others, ours)]
        if len(shared):
            raise ValueError(
                f"{len(shared)} patients are in X and in X_val, or were trained on before ({', '.join(shared[:3])}): "
                "the validation score would be that of known patients. Split by patient, for example with "
                "PatientShuffleSplit."
            )
        code = np.searchsorted(classes, y_val)[samples.row]
        return Labelled(samples, code, np.ones(len(code)))

    def _train(self, train, valid, classes, seeds, *, continued, one_epoch=False, tasks=None):
        weights, table = self._loss_weights(train, valid, classes)
        with chosen_threads():
            # A copy: if the training fails, the estimator keeps the network that it had.
            network = (
                self._continue_network(copy.deepcopy(self._net.module_))
                if continued
                else self._build_network(len(classes), seeds.network)
            )
            parts = [(train.samples.path, True)] + ([] if valid is None else [(valid.samples.path, False)])
            head_epochs = 0 if continued or one_epoch else min(self.head_epochs, self.max_epochs)
            device = self._device()
            inputs = self._training_inputs(placed(network, device), parts, device, head_epochs)
            data = [
                TrainingData(rows, part.code, weight, head_rows)
                for (rows, head_rows), part, weight in zip(inputs, (train, valid), weights)
            ] + [None]
            net = self._make_net(network, classes, seeds, validated=valid is not None, one_epoch=one_epoch)
            if table is None or net.get_params_for("criterion"):
                net.set_params(criterion__reduction="none")
            else:
                # PyTorch's weighted mean, so that a plain PyTorch loop gives the same loss to the last bit.
                net.set_params(criterion__weight=torch.as_tensor(table, dtype=torch.float32))
            net.set_params(head_epochs=head_epochs, epochs_before=self.n_epochs_ if continued else 0)
            network.generator = torch.Generator().manual_seed(seeds.torch)
            net.initialize()
            if one_epoch and continued:
                self._resume_optimizer(net)
            checkpoint = None if one_epoch else self._checkpoint_of(network, train, valid)
            net.train_on(*data[:2], checkpoint, tasks)
        self._keep(net, classes, train, valid, continued=continued, one_epoch=one_epoch)
        if checkpoint is not None:
            checkpoint.remove()
        return self

    def _resume_optimizer(self, net):
        """Load the optimizer's state of the last partial_fit, if its parameter groups are still the same."""
        kept = getattr(self, "_optimizer_state", None)
        if kept is None or kept[0] != net.optimizer_layout:
            return
        rates = [(group["lr"], group["weight_decay"]) for group in net.optimizer_.param_groups]
        net.optimizer_.load_state_dict(kept[1])
        for group, (rate, decay) in zip(net.optimizer_.param_groups, rates):
            group["lr"], group["weight_decay"] = rate, decay

    def _loss_weights(self, train, valid, classes):
        """Return the weights of the images of both sides, and the weights of the classes.

        The latter are None if the weights of the images depend on anything but the class.
        """
        parts = [train] if valid is None else [train, valid]
        if self.class_weight == "region":
            regions = [part.samples.known("region") for part in parts]
            table = region_table(train.code, regions[0], len(classes))
            weights = [region_weights(table, part.code, named) for part, named in zip(parts, regions)]
            by_class = False
        else:
            table = class_table(self.class_weight, train.code, classes, train.weight)
            weights = [table[part.code] for part in parts]
            by_class = bool((table > 0).all()) and all((part.weight == 1).all() for part in parts)
        weights = [(weight * part.weight).astype(np.float32) for weight, part in zip(weights, parts)]
        for weight, side in zip(weights, ("training", "validation")):
            if not weight.sum() > 0:
                raise ValueError(
                    f"class_weight and sample_weight leave the {side} images without any weight. "
                    "Give the classes that occur weights above zero."
                )
        return [*weights, None], table if by_class else None

    def _make_net(self, network, classes, seeds, *, validated, one_epoch):
        names = [name for name in self.callbacks or () if isinstance(name, str)]
        if self.monitor != "loss":
            names.append(self.monitor)
        epochs = 1 if one_epoch else self.max_epochs
        options = {
            "max_epochs": epochs,
            "batch_size": self.batch_size,
            "optimizer": self.optimizer,
            "optimizer__weight_decay": self.weight_decay,
            "lr": self.lr,
            "backbone_lr_factor": self.backbone_lr_factor,
            "unfreeze": self._first_trained_stage(),
            **self._training_options(one_epoch=one_epoch),
            "monitor": self.monitor,
            "lr_patience": self.lr_patience,
            "early_stopping": self.early_stopping and validated,
            "n_iter_no_change": self.n_iter_no_change,
        }
        return TrainingNet(
            network,
            # Plain numbers: optimizers and schedules keep them, and a checkpoint cannot contain NumPy's.
            **{name: plain(value) for name, value in options.items()},
            classes=classes,
            scorers=tuple(dict.fromkeys(names)),
            autocast=self._autocast(self._device()),
            rng=seeds.order,
            callbacks=callbacks_of_training(self.callbacks),
            progress=EpochProgress(epochs, type(self).__name__, disable=not self.verbose),
            device=self._device(),
            train_split=None,
            verbose=0,
        )

    def _keep(self, net, classes, train, valid, *, continued, one_epoch):
        """Set the fitted attributes. They are set last, so that a failed fit changes none."""
        patients_before = (self.train_patients_, self.validation_patients_) if continued else None
        trained, held = known_after(patients_before, train.patient_names(), valid and valid.patient_names())
        state = net.optimizer_.state_dict() if one_epoch else None
        self._optimizer_state = state and (net.optimizer_layout, state)
        best, score = net.best_epoch_, net.best_score_
        history = pd.DataFrame([{k: v for k, v in row.items() if k != "batches"} for row in net.history])
        # skorch's callbacks ask for the flags of each score; history_ has that of the monitored one.
        flags = [f"{c}_best" for c in history if c == "train_loss" or c.startswith("valid_")]
        dropped = [c for c in history if c.endswith("_batch_count") or c in flags]
        history = history.drop(columns=dropped)
        before = self.history_ if continued else history.iloc[:0]
        history["epoch"] += len(before)
        self._net = net.strip()
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
        self.train_patients_, self.validation_patients_ = trained, held

    @property
    def net_(self) -> TrainingNet:
        """The trained net, on the CPU.

        Frozen stages share memory between fits: this prepares the frozen stages of a ResNet18 for each fit of a
        cross-validation in 3 ms instead of 750 ms (two busy cores). Reading `net_` copies the shared
        weights first, so that a change of them does not change other models.
        """
        if not hasattr(self, "_net"):
            raise AttributeError(f"this {type(self).__name__} is not fitted, so it has no net_ yet")
        unshare_weights(self._net.module_)
        return self._net

    # -- device and precision ---------------------------------------------------------------

    def _device(self, *, predicting=False):
        return resolve_device(self.device, predicting=predicting)

    def _autocast(self, device):
        return autocasts(self.precision, device)

    # -- predicting -------------------------------------------------------------------------

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of each class; see `MuraClassifier.predict_proba`."""
        check_is_fitted(self)
        samples = self._read_samples(X)
        device = self._device(predicting=True)
        network = self._net.module_
        drop_if_changed(network)
        try:
            placed(network, device).eval()
            with torch.inference_mode():
                blocks = self._log_proba_batches(network, samples.path, device)
                per_image = np.concatenate([block.cpu().numpy() for block in trimming(blocks)])
            damaged = np.flatnonzero(np.isnan(per_image).any(axis=1))
            if len(damaged):
                # argmax of NaN is 0, which would be the class "normal".
                raise FloatingPointError(
                    f"The network gives NaN for {len(damaged)} of {len(per_image)} images, the first in row "
                    f"{samples.row[damaged[0]]} of X: its weights are damaged. Train it again, or load another file."
                )
        finally:
            if device != "cpu":
                drop_cache(network.to("cpu"))
        proba = mean_of_groups(np.exp(per_image), samples.row, samples.n_rows)
        # Above zero, so that the log-odds are finite.
        proba = np.maximum(proba, np.finfo(np.float64).tiny)
        return proba / proba.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> NDArray:
        """Return the predicted class of each sample: by the decision threshold, or the most probable one."""
        codes = self._predicted_codes(self.predict_proba(X))
        return self.classes_[codes]

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return the log-odds (n,) of the second of two classes; of more, the log-probabilities (n, n_classes)."""
        scores = np.log(self.predict_proba(X))
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_net")

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        # Up to twice as large as the weights, and only needed by the next partial_fit of this object.
        state.pop("_optimizer_state", None)
        left_out = [callback for callback in self.callbacks or () if not can_be_pickled(callback)]
        if "_net" in state and left_out:
            names = ", ".join(map(name_of_callback, left_out))
            warnings.warn(
                f"callbacks ({names}) cannot be pickled and are left out of the copy or file of this fitted model. Its "
                "predictions do not need them.",
                stacklevel=2,
            )
            state["callbacks"] = [each for each in self.callbacks if each not in left_out] or None
        return state
