"""The training loop: a private skorch net with what skorch leaves open.

skorch keeps the callbacks, the history and the step; this net adds training and validation data of
their own, weights an image, stages that are unfrozen on the way, a learning rate that falls on a
plateau, the best epoch restored, and an interruption that is not swallowed.
"""

import math
import time
from contextlib import nullcontext

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import BatchScoring, Callback, EarlyStopping, EpochScoring
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..metrics._scorer import FixedPredictions, as_scorer
from ..networks._frozen import drop_cache
from ..utils._device import placed
from ._batches import Batches, Tally
from ._checkpoint import restore, state_of
from ._optim import WeightAverage, cosine, parameter_groups

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}

_OPTIMIZER_DEFAULTS = {"sgd": {"momentum": 0.9}}

# The paper divides the rate by ten when the validation loss plateaus.
PLATEAU_FACTOR = 0.1

# What the auxiliary classifier's loss counts, as in torchvision's own training of Inception.
_AUXILIARY_SHARE = 0.4

# Losses that a GPU is asked for together, and images that are validated together where that is more
# than a training step takes.
_LOSSES_AT_ONCE = 32

_VALIDATED_AT_ONCE = 32


def check_callbacks(callbacks, monitor):
    """Raise for callbacks that cannot work here, and for scorers that scikit-learn does not know."""
    for callback in callbacks or ():
        if isinstance(callback, str):
            as_scorer(callback)
        elif isinstance(callback, EpochScoring | BatchScoring):
            raise ValueError(
                f"callbacks: {type(callback).__name__} would run the images once more; pass the name of its "
                "scorer instead, such as 'roc_auc', to have it in history_."
            )
        elif not isinstance(callback, Callback):
            raise ValueError(
                f"callbacks: {callback!r} is neither a skorch callback (an instance) nor a scorer's name."
            )
    if monitor != "loss":
        as_scorer(monitor)


class TrainingNet(NeuralNet):
    """skorch's net for one training of one network.

    Parameters beyond skorch's are those of `MuraClassifier`, already resolved.
    """

    def __init__(
        self,
        module,
        *args,
        unfreeze="all",
        head_epochs=0,
        backbone_lr_factor=1.0,
        stage_lr_decay=1.0,
        head_lr=None,
        lr_schedule="plateau",
        warmup_epochs=0,
        mixup=0.0,
        ema_decay=None,
        monitor="loss",
        lr_patience=None,
        early_stopping=False,
        n_iter_no_change=5,
        classes=None,
        scorers=(),
        autocast=False,
        epochs_before=0,
        rng=None,
        progress=None,
        criterion=nn.CrossEntropyLoss,
        **kwargs,
    ):
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

    # -- what is optimised ------------------------------------------------------------------

    def initialize_optimizer(self, triggered_directly=None):
        """Give the optimizer the head and the backbone's trained stages, each at its own rate."""
        self.module_.requires_grad_(True)
        self.module_.freeze_below(self.unfreeze)
        groups = parameter_groups(self.module_, self.backbone_lr_factor, self.stage_lr_decay)
        kwargs = {**_OPTIMIZER_DEFAULTS.get(self.optimizer, {}), **self.get_params_for("optimizer")}
        # One kernel a parameter instead of a dozen: a fifth of the time of a step of the head.
        kwargs.setdefault("fused", True)
        self.optimizer_ = OPTIMIZERS[self.optimizer](groups, lr=self.lr, **kwargs)
        self.average_ = self.mixed_ = self.kept_steps_ = None
        if self.ema_decay is not None:
            self.average_ = WeightAverage(self.module_, self.unfreeze, self.ema_decay)
        self._start_phase(head_only=self.head_epochs > 0)
        return self

    def _start_phase(self, *, head_only):
        """Set rates and frozen stages for the epochs to come, and forget the last plateau."""
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

    def _start_steps(self, n_batches, *, head_only):
        """Plan the rates of a phase, now that its number of steps is known."""
        n_epochs = self.head_epochs if head_only else self.max_epochs - self.head_epochs
        n_warm = 0 if head_only else self.warmup_epochs * n_batches
        self.steps_ = cosine(self.optimizer_, n_epochs * n_batches, n_warm)
        if self.kept_steps_ is not None:
            self.steps_.load_state_dict(self.kept_steps_)
            for group, rate in zip(self.optimizer_.param_groups, self.steps_.get_last_lr()):
                group["lr"] = rate
            self.kept_steps_ = None

    @property
    def layout(self):
        """What an optimizer has to have in common with another, for its momenta to be taken up."""
        groups = tuple(len(group["params"]) for group in self.optimizer_.param_groups)
        return self.optimizer, self.unfreeze, groups

    # -- one step ---------------------------------------------------------------------------

    def infer(self, x, stage=None, **fit_params):
        kwargs = {} if stage is None else {"begin": stage}
        device_type = torch.device(self.device).type
        mixed = self.autocast or torch.is_autocast_enabled(device_type)
        with torch.autocast(device_type, torch.bfloat16, self.autocast) if mixed else nullcontext():
            logits = self.module_(x.to(self.device, non_blocking=True), **kwargs)
        return tuple(each.float() for each in logits) if isinstance(logits, tuple) else logits.float()

    def train_step(self, batch, **fit_params):
        """Do one step; skorch's own lists every parameter for callbacks, even where there are none."""
        if self.mixup:
            batch = self._mix(batch)
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

    def _mix(self, batch):
        """Lay a share of another image of the batch over each (Zhang et al., "mixup", ICLR 2018)."""
        inputs, target = batch
        share = float(self.rng.beta(self.mixup, self.mixup))
        order = torch.from_numpy(self.rng.permutation(len(inputs))).to(inputs.device)
        mixed = torch.lerp(inputs[order].float(), inputs.float(), share)
        self.mixed_ = order, share
        return (mixed if inputs.is_floating_point() else mixed.round().to(inputs.dtype)), target

    def _set_training(self, training=True):
        # Walking through all modules takes longer than a step of a head.
        if self.module_.training != training:
            self.module_.train(training)

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Return the weighted mean, as ``CrossEntropyLoss(weight=...)`` defines it."""
        target, weight = (part.to(self.device, non_blocking=True) for part in y_true)
        loss = self._loss_of(y_pred, target, weight)
        if training and self.mixed_ is not None:
            order, share = self.mixed_
            order = order.to(target.device)
            loss = share * loss + (1 - share) * self._loss_of(y_pred, target[order], weight[order])
        return loss

    def _loss_of(self, y_pred, target, weight):
        if isinstance(y_pred, tuple):
            main, auxiliary = (self._loss_of(logits, target, weight) for logits in y_pred)
            return main + _AUXILIARY_SHARE * auxiliary
        loss = self.criterion_(y_pred, target)
        if loss.ndim:  # reduction="none": weights that the class alone does not say
            # A batch in which nothing weighs anything teaches nothing, instead of 0 / 0.
            loss = (loss * weight).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
        return loss

    # -- the epochs -------------------------------------------------------------------------

    def train_on(self, train, valid=None, checkpoint=None):
        """Train for up to ``max_epochs``, and restore the best of them with early stopping.

        Parameters
        ----------
        train : TrainingData
        valid : TrainingData or None
        checkpoint : Checkpoint or None
            Where the state is kept after each epoch, and taken up from.

        Raises
        ------
        KeyboardInterrupt
            Where the training was interrupted: it never ends as if it were done.
        FloatingPointError
            Where the loss is no number any more.
        """
        self.best_score_, self.best_epoch_, self.best_state_ = None, None, None
        # Without validation images, the training loss is all that a plateau can be seen on.
        self.watched_ = "train_loss" if valid is None else f"valid_{self.monitor}"
        self.notify("on_train_begin", X=train, y=None)
        try:
            self.fit_loop((train, valid), checkpoint=checkpoint)
        finally:
            if self.progress is not None:
                self.progress.close()
        self.notify("on_train_end", X=train, y=None)
        if self.average_ is not None:
            self.average_.swap()
        if self.best_state_ is not None:
            self.module_.load_state_dict(self.best_state_, strict=False)
        return self

    def fit_loop(self, X, y=None, epochs=None, checkpoint=None, **fit_params):
        whole_train, whole_valid = X
        if checkpoint is not None and (state := checkpoint.read()) is not None:
            restore(self, state)
            if self._exhausted():
                return self
        for epoch in range(len(self.history) + 1, self.max_epochs + 1):
            if epoch == self.head_epochs + 1 and self.head_epochs:
                self._start_phase(head_only=False)
            head_only = epoch <= self.head_epochs
            train = whole_train.in_phase(head_only=head_only)
            valid = None if whole_valid is None else whole_valid.in_phase(head_only=head_only)
            if hasattr(train.inputs, "start_epoch"):
                train.inputs.start_epoch(self.epochs_before + epoch - 1)
            batches = Batches(train, self.batch_size, self.rng, self.device)
            if self.lr_schedule == "cosine" and self.steps_ is None:
                self._start_steps(len(batches), head_only=head_only)
            started = time.perf_counter()
            self.notify("on_epoch_begin", dataset_train=train, dataset_valid=valid)
            self.history.record("stage", self.phase_)
            self.history.record("lr", self.optimizer_.param_groups[0]["lr"])
            self.run_single_epoch(
                batches, training=True, prefix="train", step_fn=self.train_step, stage=train.inputs.stage
            )
            with nullcontext() if self.average_ is None else self.average_.in_place():
                if valid is not None:
                    self._validate(valid)
                self.history.record("best", self._judge())
            self.history.record("dur", time.perf_counter() - started)
            stopped = self._notify_epoch_end(train, valid)
            if self.progress is not None:
                self.progress.update(self.history[-1])
            if checkpoint is not None:
                checkpoint.write(state_of(self))
            if stopped or self._exhausted():
                break
        return self

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        tally = Tally()
        # Asking a GPU for a loss makes it wait for the next batch; callbacks expect to find it.
        at_once = torch.device(self.device).type == "cpu" or bool(self.callbacks_)
        for batch in iterator:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            tally.add(step["loss"], batch[1][1])
            if at_once or len(tally.waiting) == _LOSSES_AT_ONCE:
                self._check(tally, prefix)
            if self.callbacks_:
                self.history.record_batch(f"{prefix}_loss", tally.last)
                self.history.record_batch(f"{prefix}_batch_size", len(batch[0]))
            self.notify("on_batch_end", batch=batch, training=training, **step)
        self._check(tally, prefix)
        self.history.record(f"{prefix}_loss", tally.total / tally.norm)
        self.history.record(f"{prefix}_batch_count", tally.count)

    def _check(self, tally, prefix):
        bad = tally.read()
        if bad is not None:
            self._fail(prefix, tally.last, bad)

    def _fail(self, prefix, loss, batch):
        what = {"train": "training", "valid": "validation"}[prefix]
        raise FloatingPointError(
            f"The {what} loss became {loss} in epoch {len(self.history)}, batch {batch}. Try a smaller lr (now "
            f"{self.lr:g}) or backbone_lr_factor (now {self.backbone_lr_factor:g}), precision='float32', or "
            "weights='imagenet' where the weights are random."
        )

    def _validate(self, valid):
        """Loss and scores of one forward pass over the validation data."""
        logits = []

        def step(batch):
            result = self.validation_step(batch, stage=valid.inputs.stage)
            logits.append(result["y_pred"].cpu())
            return result

        batches = Batches(valid, max(self.batch_size, _VALIDATED_AT_ONCE), device=self.device)
        self.run_single_epoch(batches, training=False, prefix="valid", step_fn=step)
        if not self.scorers:
            return
        proba = torch.cat(logits).softmax(dim=1).numpy()
        predictions = FixedPredictions(self.classes, proba)
        target = self.classes[valid.target.numpy()]
        for name in self.scorers:
            score = float(as_scorer(name)(predictions, np.zeros((len(target), 1)), target))
            self.history.record(f"valid_{name}", score)

    def _judge(self):
        """Compare this epoch with the best one, and let the learning rate know."""
        row = self.history[-1]
        value = row[self.watched_]
        if math.isnan(value):
            raise ValueError(
                f"monitor={self.monitor!r} is undefined on the validation images of epoch {row['epoch']}, so "
                "no epoch can be called the best. Use monitor='loss', or a larger validation_fraction so that "
                "every class is among them."
            )
        score = -value if self.watched_ in ("train_loss", "valid_loss") else value
        if self.plateau_ is not None:
            self.plateau_.step(score)
        gained = self.best_score_ is None or score > self.best_score_
        self.epochs_without_gain_ = 0 if gained else self.epochs_without_gain_ + 1
        if gained:
            self.best_score_, self.best_epoch_ = score, row["epoch"]
            if self.early_stopping:
                state = self.module_.trained_state(self.unfreeze)
                self.best_state_ = {key: tensor.detach().clone() for key, tensor in state.items()}
        return gained

    def _exhausted(self):
        waited = self.epochs_without_gain_ >= self.n_iter_no_change
        return self.early_stopping and waited and len(self.history) > self.head_epochs

    def _notify_epoch_end(self, train, valid):
        """Tell the callbacks; return True where skorch's own early stopping asks for the end.

        That callback raises KeyboardInterrupt, as Ctrl-C does; only its counter tells them apart.
        """
        try:
            self.notify("on_epoch_end", dataset_train=train, dataset_valid=valid)
        except KeyboardInterrupt:
            stoppers = (callback for _, callback in self.callbacks_ if isinstance(callback, EarlyStopping))
            if any(callback.misses_ >= callback.patience for callback in stoppers):
                return True
            raise
        return False

    def strip(self):
        """Drop all that only training needs, and go to the CPU."""
        self.module_.generator = None
        # Stages that were run as frozen ones while the head alone was trained have changed since.
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
