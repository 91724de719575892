"""The training loop: a private skorch net with what skorch leaves open.

skorch keeps the callbacks, the history and the step; this net adds training and validation data of
their own, weights an image, stages that are unfrozen on the way, a learning rate that falls on a
plateau, the best epoch restored, and an interruption that is not swallowed.
"""

import math
import time

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import BatchScoring, Callback, EarlyStopping, EpochScoring
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ._ahead import ahead
from ._folding import forget
from ._scoring import FixedPredictions, as_scorer

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
_OPTIMIZER_DEFAULTS = {"sgd": {"momentum": 0.9}}

# The paper divides the rate by ten when the validation loss plateaus.
PLATEAU_FACTOR = 0.1

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


class TrainingData:
    """What a network trains on or is validated with.

    Parameters
    ----------
    inputs : Rows or TensorRows
        Anything of that length whose ``__getitems__(rows)`` returns the tensor of a batch, with the
        attributes ``held`` (whether that takes no time) and ``stage`` (the first stage that the
        network runs on it; None: from the beginning).
    target : ndarray of shape (n,), dtype int64
        Codes of the classes.
    weight : ndarray of shape (n,), dtype float32
        Weight of each image in the loss.
    head_inputs : Rows, TensorRows or None
        What to take instead of `inputs` while only the head is trained.
    """

    def __init__(self, inputs, target, weight, head_inputs=None):
        self.inputs = inputs
        self.head_inputs = head_inputs
        self.target = torch.as_tensor(target, dtype=torch.int64)
        self.weight = torch.as_tensor(weight, dtype=torch.float32)

    def __len__(self):
        return len(self.target)

    def in_phase(self, *, head_only):
        """Return the data of the epochs in which only the head is trained, or of the others."""
        if not head_only or self.head_inputs is None:
            return self
        return TrainingData(self.head_inputs, self.target, self.weight)


class Batches:
    """Batches of a `TrainingData`, shuffled anew each time where a generator is given.

    Where it takes time, the next batch is gathered while this one is computed on.

    A last batch of one image would have no variance for a BatchNorm to divide by; it goes to the
    batch before.
    """

    def __init__(self, data, batch_size, rng=None, device="cpu"):
        self.data = data
        self.batch_size = batch_size
        self.rng = rng
        self.device = torch.device(device)

    def __iter__(self):
        n_rows = len(self.data)
        order = np.arange(n_rows) if self.rng is None else self.rng.permutation(n_rows)
        starts = list(range(0, n_rows, self.batch_size))
        if self.rng is not None and len(starts) > 1 and n_rows - starts[-1] == 1:
            starts.pop()
        batches = (order[start:stop] for start, stop in zip(starts, [*starts[1:], n_rows]))
        inputs = self.data.inputs
        gathered = ((rows, self._gather(inputs, rows)) for rows in batches)
        for rows, batch in gathered if inputs.held else ahead(gathered):
            rows = torch.from_numpy(rows)
            yield batch, (self.data.target[rows], self.data.weight[rows])

    def _gather(self, inputs, rows):
        batch = inputs.__getitems__(rows)
        if self.device.type == "cuda" and not batch.is_cuda:
            # From pinned memory the copy runs while the GPU computes.
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        return batch


class _Tally:
    """The mean of an epoch's losses, weighted as its images are."""

    def __init__(self):
        self.waiting = []
        self.total = self.norm = 0.0
        self.count = 0
        self.last = math.nan

    def add(self, loss, weight):
        self.waiting.append((loss.detach(), float(weight.sum())))

    def read(self):
        """Take up the losses that were added; return the number of the first batch that has none."""
        if not self.waiting:
            return None
        losses = torch.stack([loss for loss, _ in self.waiting]).tolist()
        for loss, (_, weight) in zip(losses, self.waiting):
            self.count += 1
            self.last = loss
            if not math.isfinite(loss):
                return self.count
            self.total += loss * weight
            self.norm += weight
        self.waiting = []
        return None


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
        monitor="loss",
        lr_patience=None,
        early_stopping=False,
        n_iter_no_change=5,
        classes=None,
        scorers=(),
        autocast=False,
        rng=None,
        progress=None,
        criterion=nn.CrossEntropyLoss,
        **kwargs,
    ):
        super().__init__(module, criterion, *args, **kwargs)
        self.unfreeze = unfreeze
        self.head_epochs = head_epochs
        self.backbone_lr_factor = backbone_lr_factor
        self.monitor = monitor
        self.lr_patience = lr_patience
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.classes = classes
        self.scorers = scorers
        self.autocast = autocast
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
        head = list(self.module_.head.parameters())
        in_head = {id(parameter) for parameter in head}
        trained = [p for p in self.module_.parameters() if p.requires_grad and id(p) not in in_head]
        groups = [{"params": head}, {"params": trained}] if trained else [{"params": head}]
        kwargs = {**_OPTIMIZER_DEFAULTS.get(self.optimizer, {}), **self.get_params_for("optimizer")}
        self.optimizer_ = OPTIMIZERS[self.optimizer](groups, lr=self.lr, **kwargs)
        self._start_phase(head_only=self.head_epochs > 0)
        return self

    def _start_phase(self, *, head_only):
        """Set rates and frozen stages for the epochs to come, and forget the last plateau."""
        self.module_.freeze_below("head" if head_only else self.unfreeze)
        for group, factor in zip(self.optimizer_.param_groups, (1.0, self.backbone_lr_factor)):
            group["lr"] = self.lr * factor
        self.phase_ = "head" if head_only else self.unfreeze
        self.epochs_without_gain_ = 0
        self.plateau_ = None
        if self.lr_patience is not None:
            self.plateau_ = ReduceLROnPlateau(
                self.optimizer_, "max", factor=PLATEAU_FACTOR, patience=self.lr_patience, threshold=0.0
            )

    # -- one step ---------------------------------------------------------------------------

    def infer(self, x, stage=None, **fit_params):
        kwargs = {} if stage is None else {"begin": stage}
        device_type = torch.device(self.device).type
        with torch.autocast(device_type, dtype=torch.bfloat16, enabled=self.autocast):
            logits = self.module_(x.to(self.device, non_blocking=True), **kwargs)
        return logits.float()

    def train_step(self, batch, **fit_params):
        """Do one step; skorch's own lists every parameter for callbacks, even where there are none."""
        if self.callbacks_:
            return super().train_step(batch, **fit_params)
        self._zero_grad_optimizer()
        step = self.train_step_single(batch, **fit_params)
        self.optimizer_.step()
        return step

    def _set_training(self, training=True):
        # Walking through all modules takes longer than a step of a head.
        if self.module_.training != training:
            self.module_.train(training)

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Return the weighted mean, as ``CrossEntropyLoss(weight=...)`` defines it."""
        target, weight = (part.to(self.device, non_blocking=True) for part in y_true)
        loss = self.criterion_(y_pred, target)
        if loss.ndim:  # reduction="none": weights that the class alone does not say
            # A batch in which nothing weighs anything teaches nothing, instead of 0 / 0.
            loss = (loss * weight).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
        return loss

    # -- the epochs -------------------------------------------------------------------------

    def train_on(self, train, valid=None):
        """Train for up to ``max_epochs``, and restore the best of them with early stopping.

        Parameters
        ----------
        train : TrainingData
        valid : TrainingData or None

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
            self.fit_loop((train, valid))
        finally:
            if self.progress is not None:
                self.progress.close()
        self.notify("on_train_end", X=train, y=None)
        if self.best_state_ is not None:
            self.module_.load_state_dict(self.best_state_, strict=False)
        return self

    def fit_loop(self, X, y=None, epochs=None, **fit_params):
        whole_train, whole_valid = X
        for epoch in range(1, self.max_epochs + 1):
            if epoch == self.head_epochs + 1 and self.head_epochs:
                self._start_phase(head_only=False)
            head_only = epoch <= self.head_epochs
            train = whole_train.in_phase(head_only=head_only)
            valid = None if whole_valid is None else whole_valid.in_phase(head_only=head_only)
            if hasattr(train.inputs, "start_epoch"):
                train.inputs.start_epoch(epoch - 1)
            batches = Batches(train, self.batch_size, self.rng, self.device)
            started = time.perf_counter()
            self.notify("on_epoch_begin", dataset_train=train, dataset_valid=valid)
            self.history.record("stage", self.phase_)
            self.history.record("lr", self.optimizer_.param_groups[0]["lr"])
            self.run_single_epoch(
                batches, training=True, prefix="train", step_fn=self.train_step, stage=train.inputs.stage
            )
            if valid is not None:
                self._validate(valid)
            self.history.record("best", self._judge())
            self.history.record("dur", time.perf_counter() - started)
            stopped = self._notify_epoch_end(train, valid)
            if self.progress is not None:
                self.progress.update(self.history[-1])
            if stopped or self._exhausted():
                break
        return self

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        tally = _Tally()
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
        score = -value if self.watched_.endswith("_loss") else value
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
        forget(self.module_)
        self.module_.to("cpu")
        self.module_.eval()
        self.module_.requires_grad_(False)
        self.device = "cpu"
        self.module = type(self.module_)
        for name in ("optimizer_", "plateau_", "best_state_", "rng", "progress"):
            setattr(self, name, None)
        for row in self.history:
            row.pop("batches", None)
        return self
