"""Training loop: a subclass of skorch's net.

skorch provides the callbacks, the history and the training step. This subclass adds separate training
and validation data, weights of images, epochs that train only the head, learning-rate schedules, mixup,
averaged weights, checkpoints, and the weights of the best epoch. KeyboardInterrupt is raised, where
skorch ends the training as if it were complete.
"""

import copy
import math
import pickle
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNet
from skorch.callbacks import BatchScoring, Callback, EarlyStopping, EpochScoring
from skorch.history import History
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..metrics._scorer import FixedPredictions, as_scorer
from ..networks._frozen import drop_cache
from ..utils._device import placed
from ..utils._progress import EpochProgress
from ._batches import Batch, Batches, MeanLoss, TrainingData
from ._checkpoint import Checkpoint, restore_training, training_state
from ._optim import WeightAverage, cosine_schedule, parameter_groups

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}

_OPTIMIZER_DEFAULTS = {"sgd": {"momentum": 0.9}}

# The MURA paper divides the learning rate by ten when the validation loss plateaus.
PLATEAU_FACTOR = 0.1

# Weight of the auxiliary classifier's loss, as in torchvision's training of Inception.
_AUXILIARY_LOSS_WEIGHT = 0.4

# Number of losses that are copied from a GPU at once.
_LOSSES_PER_TRANSFER = 32

# Smallest batch size of the validation; a larger batch_size of the training is used for both.
_MIN_VALIDATION_BATCH = 32


# What skorch's loggers write to (TensorBoard, WandbLogger, MlflowLogger, NeptuneLogger, SacredLogger): an open file
# or connection, of which a copy would be another one.
_LIVE = ("writer", "wandb_run", "run", "client", "experiment")


def check_callbacks(
    callbacks: Iterable[str | Callback | Callable[[], Callback]] | None, monitor: str
) -> None:
    """Raise ValueError for callbacks that this net cannot run, and for unknown names of scorers."""
    for callback in callbacks or ():
        if isinstance(callback, str):
            as_scorer(callback)
        elif isinstance(callback, Callback) or not callable(callback):
            _check_callback(callback)
    if monitor != "loss":
        as_scorer(monitor)


def _check_callback(callback):
    if isinstance(callback, EpochScoring | BatchScoring):
        raise ValueError(
            f"callbacks: {type(callback).__name__} would run all images through the network once more; "
            "pass the name of its scorer instead, such as 'roc_auc', to have it in history_."
        )
    if not isinstance(callback, Callback):
        raise ValueError(
            f"callbacks: {callback!r} is neither a skorch callback, nor a function that returns one, nor a "
            "scorer's name."
        )


def callbacks_of_training(
    callbacks: Iterable[str | Callback | Callable[[], Callback]] | None,
) -> list[Callback]:
    """Return the skorch callbacks of one training; names of scorers are left out.

    An instance is copied, so that its state is that of this training alone. Not copied is what a logger writes
    to, nor a callback that cannot be copied. A function without arguments is called, and returns a callback.
    """
    made = []
    for callback in callbacks or ():
        if isinstance(callback, Callback):
            made.append(_copied(callback))
        elif not isinstance(callback, str):
            made.append(callback())
            _check_callback(made[-1])
    return made


def _copied(callback):
    live = [vars(callback)[name] for name in _LIVE if name in vars(callback)]
    try:
        return copy.deepcopy(callback, {id(each): each for each in live})
    except Exception:
        # Locks, threads and open files raise errors of many types.
        return callback


def can_be_pickled(callback: Any) -> bool:
    """Return whether a callback can be pickled: open files, connections and lambdas cannot."""
    try:
        pickle.dumps(callback)
    except Exception:
        return False
    return True


def name_of_callback(callback: Callback | Callable[[], Callback]) -> str:
    """Return the name of a callback's class, or of the function that returns it."""
    return getattr(callback, "__name__", type(callback).__name__)


class EpochTasks(Protocol):
    """What is told of the epochs of a training."""

    def begin(self) -> None:
        """Take note that an epoch begins."""

    def end(self, net: "TrainingNet") -> bool:
        """Take note that an epoch has ended; return whether the training ends with it."""


class TrainingNet(NeuralNet):
    """Net for one training of one network.

    Parameters that skorch's net does not have are those of `MuraClassifier`, with defaults resolved.
    """

    def __init__(
        self,
        module: nn.Module,
        *args: Any,
        unfreeze: str = "all",
        head_epochs: int = 0,
        backbone_lr_factor: float = 1.0,
        stage_lr_decay: float = 1.0,
        head_lr: float | None = None,
        lr_schedule: str = "plateau",
        warmup_epochs: int = 0,
        mixup: float = 0.0,
        ema_decay: float | None = None,
        monitor: str = "loss",
        lr_patience: int | None = None,
        early_stopping: bool = False,
        n_iter_no_change: int = 5,
        classes: NDArray | None = None,
        scorers: Sequence[str] = (),
        autocast: bool = False,
        epochs_before: int = 0,
        rng: np.random.Generator | None = None,
        progress: EpochProgress | None = None,
        criterion: type[nn.Module] = nn.CrossEntropyLoss,
        **kwargs: Any,
    ) -> None:
        super().__init__(module, criterion, *args, **kwargs)
        self.unfreeze = unfreeze
        self.head_epochs = head_epochs
        self.backbone_lr_factor = backbone_lr_factor
        self.stage_lr_decay = stage_lr_decay
        self.head_lr = head_lr
        self.lr_schedule = lr_schedule
        self.warmup_epochs = warmup_epochs
        self.mixup = mixup
        self.ema_decay = ema_decay
        self.monitor = monitor
        self.lr_patience = lr_patience
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.classes = classes
        self.scorers = scorers
        self.autocast = autocast
        self.epochs_before = epochs_before
        self.rng = rng
        self.progress = progress

    @property
    def _default_callbacks(self):
        return []

    # -- optimizer and schedules ------------------------------------------------------------

    def initialize_optimizer(self, triggered_directly: bool | None = None) -> Self:
        """Create the optimizer, with parameter groups for the head and the trained stages."""
        self.module_.requires_grad_(True)
        self.module_.freeze_below(self.unfreeze)
        groups = parameter_groups(self.module_, self.backbone_lr_factor, self.stage_lr_decay)
        kwargs = {**_OPTIMIZER_DEFAULTS.get(self.optimizer, {}), **self.get_params_for("optimizer")}
        # One kernel for each parameter instead of a dozen: saves a fifth of the time of a step of the head.
        kwargs.setdefault("fused", True)
        self.optimizer_ = OPTIMIZERS[self.optimizer](groups, lr=self.lr, **kwargs)
        self.average_ = self.mixed_ = self.kept_steps_ = None
        if self.ema_decay is not None:
            self.average_ = WeightAverage(self.module_, self.unfreeze, self.ema_decay)
        self._start_phase(head_only=self.head_epochs > 0)
        return self

    def _start_phase(self, *, head_only):
        """Freeze stages and set learning rates for the epochs that follow, with new schedulers."""
        self.module_.freeze_below("head" if head_only else self.unfreeze)
        rate = self.head_lr if head_only and self.head_lr is not None else self.lr
        for group in self.optimizer_.param_groups:
            group["lr"] = rate * group["factor"]
        self.phase_ = "head" if head_only else self.unfreeze
        self.epochs_without_gain_ = 0
        self.plateau_ = self.steps_ = None
        if self.lr_schedule == "plateau" and self.lr_patience is not None:
            self.plateau_ = ReduceLROnPlateau(
                self.optimizer_, "max", factor=PLATEAU_FACTOR, patience=self.lr_patience, threshold=0.0
            )

    def _start_cosine_schedule(self, n_batches, *, head_only):
        """Create the scheduler of a phase; the number of batches is only known in its first epoch."""
        n_epochs = self.head_epochs if head_only else self.max_epochs - self.head_epochs
        n_warmup = 0 if head_only else self.warmup_epochs * n_batches
        self.steps_ = cosine_schedule(self.optimizer_, n_epochs * n_batches, n_warmup)
        if self.kept_steps_ is not None:
            self.steps_.load_state_dict(self.kept_steps_)
            for group, rate in zip(self.optimizer_.param_groups, self.steps_.get_last_lr()):
                group["lr"] = rate
            self.kept_steps_ = None

    @property
    def optimizer_layout(self) -> tuple[str, str, tuple[int, ...]]:
        """Description of the optimizer: its state can be loaded into another one with an equal description."""
        groups = tuple(len(group["params"]) for group in self.optimizer_.param_groups)
        return self.optimizer, self.unfreeze, groups

    # -- training step ----------------------------------------------------------------------

    def infer(
        self, x: torch.Tensor, stage: str | None = None, **fit_params: Any
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Return the logits of a batch of inputs of `stage`; None: of pixels."""
        kwargs = {} if stage is None else {"begin": stage}
        device_type = torch.device(self.device).type
        set_autocast = self.autocast or torch.is_autocast_enabled(device_type)
        with torch.autocast(device_type, torch.bfloat16, self.autocast) if set_autocast else nullcontext():
            logits = self.module_(x.to(self.device, non_blocking=True), **kwargs)
        return tuple(each.float() for each in logits) if isinstance(logits, tuple) else logits.float()

    def train_step(self, batch: Batch, **fit_params: Any) -> dict[str, Any]:
        """Do one training step.

        Without callbacks, skorch's method is not used: it lists all parameters and gradients for callbacks
        in every step.
        """
        if self.mixup:
            batch = self._apply_mixup(batch)
        if self.callbacks_:
            step = super().train_step(batch, **fit_params)
        else:
            for group in self.optimizer_.param_groups:
                for weights in group["params"]:
                    weights.grad = None
            step = self.train_step_single(batch, **fit_params)
            self.optimizer_.step()
        if self.steps_ is not None:
            self.steps_.step()
        if self.average_ is not None:
            self.average_.update()
        return step

    def _apply_mixup(self, batch):
        """Blend each input with another one of the batch (Zhang et al., "mixup", ICLR 2018)."""
        inputs, target = batch
        share = float(self.rng.beta(self.mixup, self.mixup))
        order = torch.from_numpy(self.rng.permutation(len(inputs))).to(inputs.device)
        mixed = torch.lerp(inputs[order].float(), inputs.float(), share)
        self.mixed_ = order, share
        return (mixed if inputs.is_floating_point() else mixed.round().to(inputs.dtype)), target

    def _set_training(self, training=True):
        # Setting the mode of all modules takes longer than a training step of the head.
        if self.module_.training != training:
            self.module_.train(training)

    def get_loss(
        self,
        y_pred: torch.Tensor | tuple[torch.Tensor, ...],
        y_true: tuple[torch.Tensor, torch.Tensor],
        X: torch.Tensor | None = None,
        training: bool = False,
    ) -> torch.Tensor:
        """Return the weighted mean loss, as ``CrossEntropyLoss(weight=...)`` defines it."""
        target, weight = (part.to(self.device, non_blocking=True) for part in y_true)
        loss = self._batch_loss(y_pred, target, weight)
        if training and self.mixed_ is not None:
            order, share = self.mixed_
            order = order.to(target.device)
            loss = share * loss + (1 - share) * self._batch_loss(y_pred, target[order], weight[order])
        return loss

    def _batch_loss(self, y_pred, target, weight):
        if isinstance(y_pred, tuple):
            main, auxiliary = (self._batch_loss(logits, target, weight) for logits in y_pred)
            return main + _AUXILIARY_LOSS_WEIGHT * auxiliary
        loss = self.criterion_(y_pred, target)
        if loss.ndim:  # reduction="none": weights that depend on more than the class
            # If all weights of a batch are zero, the loss is 0 instead of 0 / 0.
            loss = (loss * weight).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
        return loss

    # -- epochs -----------------------------------------------------------------------------

    def train_on(
        self,
        train: TrainingData,
        valid: TrainingData | None = None,
        checkpoint: Checkpoint | None = None,
        tasks: EpochTasks | None = None,
    ) -> Self:
        """Train for up to ``max_epochs``; with early stopping, load the weights of the best epoch.

        Parameters
        ----------
        train : TrainingData
        valid : TrainingData or None
        checkpoint : Checkpoint or None
            Checkpoint that the training is resumed from, and that is written after each epoch.
        tasks : EpochTasks or None
            Is told of each epoch.

        Raises
        ------
        KeyboardInterrupt
            If the training was interrupted.
        FloatingPointError
            If a loss is infinite or NaN.
        """
        self.best_score_, self.best_epoch_, self.best_state_ = None, None, None
        # Without validation images, the training loss is monitored.
        self.watched_ = "train_loss" if valid is None else f"valid_{self.monitor}"
        self.notify("on_train_begin", X=train, y=None)
        try:
            self.fit_loop((train, valid), checkpoint=checkpoint, tasks=tasks)
        finally:
            if self.progress is not None:
                self.progress.close()
        self.notify("on_train_end", X=train, y=None)
        if self.average_ is not None:
            self.average_.swap()
        if self.best_state_ is not None:
            self.module_.load_state_dict(self.best_state_, strict=False)
        return self

    def fit_loop(
        self,
        X: tuple[TrainingData, TrainingData | None],
        y: None = None,
        epochs: int | None = None,
        checkpoint: Checkpoint | None = None,
        tasks: EpochTasks | None = None,
        **fit_params: Any,
    ) -> Self:
        """Run the epochs; X is the pair of training and validation data."""
        all_train, all_valid = X
        if checkpoint is not None and (state := checkpoint.read()) is not None:
            restore_training(self, state)
            if self._stops_early():
                return self
        for epoch in range(len(self.history) + 1, self.max_epochs + 1):
            if epoch == self.head_epochs + 1 and self.head_epochs:
                self._start_phase(head_only=False)
            head_only = epoch <= self.head_epochs
            train = all_train.in_phase(head_only=head_only)
            valid = None if all_valid is None else all_valid.in_phase(head_only=head_only)
            if hasattr(train.inputs, "start_epoch"):
                train.inputs.start_epoch(self.epochs_before + epoch - 1)
            batches = Batches(train, self.batch_size, self.rng, self.device)
            if self.lr_schedule == "cosine" and self.steps_ is None:
                self._start_cosine_schedule(len(batches), head_only=head_only)
            started = time.perf_counter()
            if tasks is not None:
                tasks.begin()
            self.notify("on_epoch_begin", dataset_train=train, dataset_valid=valid)
            self.history.record("lr", self.optimizer_.param_groups[0]["lr"])
            self.run_single_epoch(
                batches, training=True, prefix="train", step_fn=self.train_step, stage=train.inputs.stage
            )
            with nullcontext() if self.average_ is None else self.average_.applied():
                if valid is not None:
                    self._validate(valid)
                improved = self._compare_with_best()
            self.history.record("dur", time.perf_counter() - started)
            stopped = self._notify_epoch_end(train, valid)
            # After the callbacks: loggers take numbers alone, and MLflow no booleans.
            self.history.record("stage", self.phase_)
            self.history.record("best", improved)
            if tasks is not None and tasks.end(self):
                stopped = True
            if self.progress is not None:
                self.progress.update(self.history[-1])
            if checkpoint is not None:
                checkpoint.write(training_state(self))
            if stopped or self._stops_early():
                break
        return self

    def run_single_epoch(
        self,
        iterator: Iterable[Batch],
        training: bool,
        prefix: str,
        step_fn: Callable[..., dict[str, Any]],
        **fit_params: Any,
    ) -> None:
        """Run `step_fn` on all batches, and record their mean loss in the history."""
        losses = MeanLoss()
        # Reading a loss stops a GPU until the next batch is sent. Callbacks expect the loss of every batch.
        at_once = torch.device(self.device).type == "cpu" or bool(self.callbacks_)
        for batch in iterator:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            losses.add(step["loss"], batch[1][1])
            if at_once or len(losses.pending) == _LOSSES_PER_TRANSFER:
                self._update_mean(losses, prefix)
            if self.callbacks_:
                self.history.record_batch(f"{prefix}_loss", losses.last)
                self.history.record_batch(f"{prefix}_batch_size", len(batch[0]))
            self.notify("on_batch_end", batch=batch, training=training, **step)
        self._update_mean(losses, prefix)
        self._record_score(f"{prefix}_loss", losses.weighted_sum / losses.weight_sum, sign=-1)
        self.history.record(f"{prefix}_batch_count", losses.count)

    def _update_mean(self, losses, prefix):
        bad_batch = losses.update()
        if bad_batch is not None:
            self._raise_not_finite(prefix, losses.last, bad_batch)

    def _raise_not_finite(self, prefix, loss, batch):
        kind = {"train": "training", "valid": "validation"}[prefix]
        raise FloatingPointError(
            f"The {kind} loss became {loss} in epoch {len(self.history)}, batch {batch}. Try a smaller lr (now "
            f"{self.lr:g}) or backbone_lr_factor (now {self.backbone_lr_factor:g}), precision='float32', or "
            "weights='imagenet' where the weights are random."
        )

    def _validate(self, valid):
        """Record the loss and the scores of one forward pass over the validation data."""
        logits = []

        def step(batch):
            result = self.validation_step(batch, stage=valid.inputs.stage)
            logits.append(result["y_pred"].cpu())
            return result

        batches = Batches(valid, max(self.batch_size, _MIN_VALIDATION_BATCH), device=self.device)
        self.run_single_epoch(batches, training=False, prefix="valid", step_fn=step)
        if not self.scorers:
            return
        proba = torch.cat(logits).softmax(dim=1).numpy()
        predictions = FixedPredictions(self.classes, proba)
        target = self.classes[valid.target.numpy()]
        for name in self.scorers:
            score = float(as_scorer(name)(predictions, np.zeros((len(target), 1)), target))
            self._record_score(f"valid_{name}", score, sign=1)

    def _record_score(self, name, score, sign):
        """Record a score, and whether it is the best so far, as skorch's `PassthroughScoring` does."""
        before = [row[name] for row in self.history if not math.isnan(row.get(name, math.nan))]
        self.history.record(name, score)
        best = not math.isnan(score) and all(sign * score > sign * other for other in before)
        self.history.record(f"{name}_best", best)

    def _compare_with_best(self):
        """Return whether this epoch is the best so far; also step the scheduler of the plateau."""
        row = self.history[-1]
        value = row[self.watched_]
        if math.isnan(value):
            raise ValueError(
                f"monitor={self.monitor!r} is undefined on the validation images of epoch {row['epoch']}, so "
                "the best epoch is undefined. Use monitor='loss', or a larger validation_fraction, so that the "
                "validation images have every class."
            )
        score = -value if self.watched_ in ("train_loss", "valid_loss") else value
        if self.plateau_ is not None:
            self.plateau_.step(score)
        improved = self.best_score_ is None or score > self.best_score_
        self.epochs_without_gain_ = 0 if improved else self.epochs_without_gain_ + 1
        if improved:
            self.best_score_, self.best_epoch_ = score, row["epoch"]
            if self.early_stopping:
                state = self.module_.trained_state(self.unfreeze)
                self.best_state_ = {key: tensor.detach().clone() for key, tensor in state.items()}
        return improved

    def _stops_early(self):
        waited = self.epochs_without_gain_ >= self.n_iter_no_change
        return self.early_stopping and waited and len(self.history) > self.head_epochs

    def _notify_epoch_end(self, train, valid):
        """Notify the callbacks; return True if skorch's EarlyStopping ends the training.

        That callback raises KeyboardInterrupt, as Ctrl-C does. Its counter shows which of the two it was.
        """
        try:
            self.notify("on_epoch_end", dataset_train=train, dataset_valid=valid)
        except KeyboardInterrupt:
            stoppers = (callback for _, callback in self.callbacks_ if isinstance(callback, EarlyStopping))
            if any(callback.misses_ >= callback.patience for callback in stoppers):
                return True
            raise
        return False

    def __getstate__(self):
        # Callbacks hold open files and connections, and are of no use without a training.
        state = super().__getstate__()
        return {**state, "callbacks": None, "callbacks_": []}

    def snapshot(self) -> Self:
        """Return a net, on the CPU, that predicts as if the training had ended after this epoch."""
        with nullcontext() if self.average_ is None else self.average_.applied():
            # Generators cannot be copied, and predictions draw nothing.
            module = copy.deepcopy(self.module_, {id(self.module_.generator): None})
        if self.best_state_ is not None:
            module.load_state_dict(self.best_state_, strict=False)
        # Not copy.copy, which would pickle what lies on a GPU.
        net = object.__new__(type(self))
        net.__dict__.update(self.__dict__, module_=module, history_=History(), callbacks_=[])
        return net.strip()

    def strip(self) -> Self:
        """Delete all that only training needs, and move the network to the CPU."""
        self.module_.generator = None
        # The fused stages of the head phase are out of date: these stages were trained afterwards.
        drop_cache(self.module_)
        placed(self.module_, "cpu").eval()
        self.module_.requires_grad_(False)
        self.device = "cpu"
        self.module = type(self.module_)
        for name in (
            "optimizer_",
            "plateau_",
            "steps_",
            "average_",
            "mixed_",
            "best_state_",
            "rng",
            "progress",
        ):
            setattr(self, name, None)
        for row in self.history:
            row.pop("batches", None)
        return self
