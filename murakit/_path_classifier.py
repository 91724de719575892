"""A classifier of radiographs by their paths: how they are read, and what network looks at them.

`MuraClassifier` adds the parameters, and says what they mean.
"""

import inspect
import os
import warnings
from numbers import Integral

import numpy as np
import torch

from ._base import NetClassifier
from ._checkpoint import Checkpoint, weights_of
from ._data import Samples, plain
from ._layers import SigmoidHead
from ._onnx import onnx_logits
from ._paths import as_paths, check_unique, expand, patients_of, regions_or_none
from ._patients import known_after, known_among
from ._sources import Sources
from ._store import Files
from ._weight_files import known_in
from .augmentation import Augmentation
from .images import PIXELS
from .networks import LEAST_PORTION, build_radiograph, find_backbone, log_probabilities

# Parameters that the course of a training does not depend on.
_NO_MATTER = frozenset(
    (
        "cache",
        "cache_limit",
        "callbacks",
        "checkpoint",
        "decision_threshold",
        "device",
        "n_jobs",
        "runtime",
        "tta",
        "verbose",
        "warm_start",
    )
)


class PathClassifier(NetClassifier):
    """Base of `MuraClassifier`, whose parameters it reads."""

    # -- what a sample of radiographs is ----------------------------------------------------

    def _read_samples(self, X, *, reset=False, training=False):
        paths = as_paths(X)
        if not len(paths):
            raise ValueError("X is empty: found 0 samples, while a minimum of 1 is required.")
        images, row = expand(paths)
        if training:
            check_unique(images, row)
        if reset:
            self.n_features_in_ = 1
        return Samples(images, row, len(paths))

    def _patients_of(self, items):
        return patients_of(
            items,
            remedy="Pass the patients as groups= to fit (inside a meta-estimator: with "
            "sklearn.set_config(enable_metadata_routing=True)), or set early_stopping=False.",
        )

    def _regions_of(self, items):
        return regions_or_none(items)

    def _first_trained_stage(self):
        return find_backbone(self.backbone).later_half if self.unfreeze is None else self.unfreeze

    def _side(self, name=None):
        """Return the side of the squares that images are scaled to for a backbone; by default, the fitted one."""
        if self.image_size is not None:
            return self.image_size
        # The parameter may have been changed since the fit.
        return find_backbone(self._net.module_.name if name is None else name).input_size

    def _train(self, train, valid, classes, seeds, *, continued, one_epoch=False):
        if not one_epoch:
            self._check_phases(continued)
        before = None if continued else known_in(self.weights)
        if before is not None:
            self._warn_of_known(before, (train, valid))
        super()._train(train, valid, classes, seeds, continued=continued, one_epoch=one_epoch)
        if before is not None:
            known = known_after(before, self.train_patients_, self.validation_patients_)
            self.train_patients_, self.validation_patients_ = known
        return self

    def _warn_of_known(self, before, parts):
        """Warn of patients whom the weights come from: those left out of this fit may be known as well."""
        names = [part.patient_names() for part in parts if part is not None]
        patients = np.unique(np.concatenate([part for part in names if part is not None] or [[]]).astype(str))
        known = patients[known_among(patients, np.concatenate([part for part in before if part is not None]))]
        if len(known):
            warnings.warn(
                f"weights={os.fspath(self.weights)!r} come from a model that knows {len(known)} of the {len(patients)} "
                f"patients of this fit ({', '.join(known[:3])}). A cross-validation or validation on such patients is "
                "too good: start from other weights, or judge on patients that neither has seen.",
                UserWarning,
                stacklevel=4,
            )

    def _check_phases(self, continued):
        """Raise where nothing is left of the epochs after those of the head alone and of the warm-up."""
        unfreeze = self._first_trained_stage()
        phases = {}
        if not continued and unfreeze != "head":
            phases["head_epochs"] = self.head_epochs
        if self.lr_schedule == "cosine":
            phases["warmup_epochs"] = self.warmup_epochs
        if 0 < sum(phases.values()) >= self.max_epochs:
            told = " and ".join(f"{name}={value}" for name, value in phases.items() if value)
            raise ValueError(
                f"{told} leave none of max_epochs={self.max_epochs} to train unfreeze={unfreeze!r} "
                "at its learning rate. Lower them, or raise max_epochs."
            )

    def _build_network(self, n_classes, seed):
        entry = find_backbone(self.backbone)
        side = self._side(entry.name)
        if side < entry.min_size or (entry.fixed_size and side != entry.input_size):
            least = f"{entry.input_size} px only" if entry.fixed_size else f"{entry.min_size} px and more"
            raise ValueError(f"image_size={self.image_size}: {self.backbone} takes images of {least}.")
        if self.decision_threshold is not None and n_classes != 2:
            raise ValueError(
                f"decision_threshold={self.decision_threshold} is for two classes, and y has {n_classes}: set None."
            )
        if self.loss == "bce" and n_classes != 2:
            raise ValueError(
                f"loss='bce' is for two classes, and y has {n_classes}: set loss='cross_entropy'."
            )
        return build_radiograph(
            self.backbone,
            n_classes,
            weights=self.weights,
            unfreeze=self._first_trained_stage(),
            dropout=self.dropout,
            augmentation=self._augmentation(),
            seed=seed,
            # A callback may do with the network what it likes.
            share_frozen=not any(not isinstance(callback, str) for callback in self.callbacks or ()),
            one_output=self.loss == "bce",
        )

    def _augmentation(self):
        if isinstance(self.augment, dict):
            try:
                return Augmentation(**self.augment)
            except TypeError as error:
                known = ", ".join(inspect.signature(Augmentation).parameters)
                raise ValueError(f"augment={self.augment!r}: its keys may be {known}.") from error
        return Augmentation() if self.augment else None

    def _continue_network(self, network):
        if network.name != self.backbone or isinstance(network.head, SigmoidHead) != (self.loss == "bce"):
            raise ValueError(
                f"warm_start: the network was not built as backbone={self.backbone!r} with loss={self.loss!r}. Set "
                "both back, or train a new estimator."
            )
        network.augmentation = self._augmentation()
        network.dropout.p = self.dropout
        return network

    def _checkpoint_of(self, network, train, valid):
        if self.checkpoint is None:
            return None
        if not isinstance(self.random_state, Integral):
            raise ValueError(
                f"checkpoint: with random_state={self.random_state!r} another fit is another training, which cannot "
                "go on from this one's. Set random_state to a whole number."
            )
        params = {name: plain(value) for name, value in self.get_params().items() if name not in _NO_MATTER}
        import murakit

        versions = murakit.__version__, torch.__version__, PIXELS
        parts = [repr((versions, sorted(params.items()))), *weights_of(network)]
        for data in (train,) if valid is None else (train, valid):
            # The files themselves, not only their names.
            parts += ["\0".join(data.items), *Files(data.items).ids, data.code, data.weight]
        return Checkpoint(self.checkpoint, parts)

    def _training_options(self, *, one_epoch):
        names = ("stage_lr_decay", "head_lr", "warmup_epochs", "mixup", "ema_decay")
        options = {name: getattr(self, name) for name in names}
        # A plan over all epochs has no meaning for one of them.
        options["lr_schedule"] = "plateau" if one_epoch else self.lr_schedule
        if self.label_smoothing:
            options["criterion__label_smoothing"] = self.label_smoothing
        return options

    # -- reading ----------------------------------------------------------------------------

    def _sources(self, network, unfreeze, device, *, fitting):
        names = ("resize", "cache", "cache_limit", "feature_dtype", "n_jobs")
        settings = {name: getattr(self, name) for name in names}
        settings |= {
            "image_size": self._side(network.name),
            "device": device,
            "autocast": self._autocast(device),
            "fitting": fitting,
        }
        return Sources(network, unfreeze, verbose=self.verbose if fitting else 0, **settings)

    def _training_inputs(self, network, parts, device, head_epochs):
        unfreeze = self._first_trained_stage()
        network.freeze_below(unfreeze).eval()
        sources = self._sources(network, unfreeze, device, fitting=True)
        changing = network.augmentation is not None
        return [
            sources.for_training(
                items,
                augmented=augmented and changing,
                views=self.augment_views,
                head_epochs=head_epochs,
                mixed=augmented and self.mixup > 0,
            )
            for items, augmented in parts
        ]

    def _log_proba_batches(self, network, items, device):
        sources = self._sources(network, self._net.unfreeze, device, fitting=False)
        by_onnx = self.runtime == "onnx" and device == "cpu"
        # A few images are not filled up to a whole portion, which would take several times as long. What is
        # stored was: without it, what PyTorch predicts would depend on what is stored, in its last bits.
        exact = len(items) >= LEAST_PORTION
        for inputs, begin in sources.for_prediction(items, mirrored=self.tta, stored=exact):
            done = []
            for batch in inputs:
                logits = onnx_logits(network, batch) if by_onnx and begin is None else None
                if logits is None:
                    with torch.autocast(sources.device.type, torch.bfloat16, self._autocast(device)):
                        logits = network.infer(batch.to(device, non_blocking=True), begin, exact)
                done.append(log_probabilities(logits.double()))
            yield done[0] if len(done) == 1 else torch.logaddexp(*done) - np.log(2)
