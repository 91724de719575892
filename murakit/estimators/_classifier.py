"""`MuraClassifier`: radiographs in, probabilities out, as a scikit-learn classifier."""

import inspect
import os
import warnings
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ..cache._base import Files
from ..datasets._patients import known_after, known_among
from ..datasets._samples import as_samples, check_repeats
from ..io._images import PIXELS
from ..metrics._labels import positive_index
from ..metrics._predictions import predicted_codes
from ..networks._build import build_radiograph, find_backbone
from ..networks._network import MIN_CHUNK_SIZE, SigmoidHead, log_probabilities
from ..networks._onnx import onnx_logits, require_onnx
from ..networks._pretrained import patients_of_weights
from ..networks.augmentation import Augmentation
from ..training._checkpoint import Checkpoint, weight_arrays
from ..training._inputs import NetworkInputs
from ..utils._validation import plain
from ..utils._versions import __version__
from ._base import NetClassifier

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
        "pos_label",
        "runtime",
        "tta",
        "verbose",
        "warm_start",
    )
)


class MuraClassifier(NetClassifier):
    """Classifier of radiographs: a convolutional network trained from image paths.

    A sample is the path of an image, or of a study folder, which stands for all of its images:
    each is trained on with the study's label, and the study's probability is the mean over them
    [1]_. Early stopping watches patients of their own: no patient is on both sides of the split
    that is made inside `fit`.

    Parameters
    ----------
    backbone : str, default="resnet18"
        The network: one of `list_backbones`, such as ``"densenet169"``, or ``"timm/NAME"`` with any
        model of timm (``pip install 'murakit[timm]'``). ``"small"`` is trained from scratch.
    weights : "imagenet", path-like or None, default="imagenet"
        ImageNet weights of torchvision or timm (downloaded once), a file, or random weights. The
        file: what `save_model` wrote, whose patients this model then knows as well, or a state dict
        by torch.save or safetensors (of their model or of ``net_.module_``); its last layer is taken
        where it has as many classes.
    unfreeze : str or None, default=None
        The first stage that is trained: of ResNets ``"stem"``, ``"layer1"`` ... ``"layer4"``, of others
        see `list_backbones`; ``"head"`` (only the last layer) or ``"all"``. Stages before it stay as
        they are, BatchNorm statistics included. None: the later half (of ResNets from ``"layer2"`` on).
    image_size : int or None, default=None
        Side of the square that images are scaled to, in pixels. None: that of the backbone's ImageNet
        weights, of ResNets 224.
    resize : {"pad", "squash"}, default="pad"
        Keep the aspect ratio and pad with black, or change the ratio. Like `image_size`, it is read
        when predicting as well: after a change, fit again.
    augment : bool or dict, default=True
        Random changes of the training images; a dict sets the strengths of
        `murakit.augmentation.Augmentation`, such as ``{"rotation": 30}``.
    class_weight : {"balanced", "region"}, dict or None, default="balanced"
        Weights of the classes in the loss. ``"balanced"``: as in scikit-learn, counted over the
        training images of this fit. ``"region"``: the paper's weights, per region [1]_. A dict
        maps each class to its weight.
    pos_label : label or None, default=None
        The abnormal one of two classes. None: 1 of 0/1, True, "abnormal" or "positive"; for any other pair of
        labels it has to be passed, because sorting would call "none" of "fracture" and "none" the abnormal one.
    loss : {"cross_entropy", "bce"}, default="cross_entropy"
        ``"bce"``: the head has one output with a sigmoid, for two classes, as in the paper [1]_.
    label_smoothing : float, default=0.0
        Share of each label that is spread over all classes.
    mixup : float, default=0.0
        Strength (alpha) of mixup [2]_: each batch is mixed with itself in another order. 0: none. Mixed
        are pixels where training changes images afresh, else what the first trained stage takes.
    dropout : float, default=0.0
        Share of the features dropped before the last layer, in training.
    optimizer : {"adamw", "adam", "sgd"}, default="adamw"
        The optimizer (SGD with momentum 0.9).
    lr : float, default=1e-3
        Learning rate of the head.
    backbone_lr_factor : float, default=0.1
        What the backbone's trained stages multiply `lr` by.
    stage_lr_decay : float, default=1.0
        What the learning rate of a stage is of that of the stage after it.
    weight_decay : float, default=1e-2
        Weight decay of all trained parameters.
    batch_size : int, default=32
        Images a training step.
    max_epochs : int, default=30
        Epochs at the most.
    head_epochs : int, default=0
        Epochs in which only the head is trained, before `unfreeze` takes effect.
    head_lr : float or None, default=None
        Learning rate in those epochs; None: `lr`.
    early_stopping : bool, default=True
        Hold patients out, stop when `monitor` no longer improves on them, and keep the best
        epoch. Otherwise train on all for `max_epochs` and keep the last.
    monitor : str, default="loss"
        What is watched on the validation images: ``"loss"``, ``"kappa"``, or the name of a
        scikit-learn scorer such as ``"roc_auc"``.
    validation_fraction : float, default=0.15
        Share of the images to hold out for early stopping, by whole patients, with labels and
        regions in proportion.
    n_iter_no_change : int, default=5
        Epochs without improvement after which training stops.
    lr_schedule : {"plateau", "cosine"}, default="plateau"
        ``"plateau"``: see `lr_patience`. ``"cosine"``: down to zero over `max_epochs`, step by step.
    lr_patience : int or None, default=2
        Epochs without improvement after which the learning rate is divided by 10; None: never.
    warmup_epochs : int, default=0
        With ``"cosine"``: epochs in which the learning rate rises to its height.
    ema_decay : float or None, default=None
        Validate and keep a moving average of the weights, which keeps so much of itself in a step,
        such as 0.99. None: the weights of the last step.
    tta : bool, default=False
        Average the probabilities of each image and of its mirror image.
    decision_threshold : float or None, default=None
        Probability of the abnormal class from which on `predict` says it, chosen on patients
        of their own by `murakit.threshold_at`. None: the most probable class. To be set at any time.
    cache : str, path-like or None, default=None
        A folder for decoded images and for what the frozen stages make of them, each computed once
        for all epochs, folds, trials and processes that name it. None: memory, for the time of one
        `fit`. On a disk of this machine, for network drives lack the locks that it needs.
        `murakit.cache_info` tells what it holds, `murakit.clear_cache` empties it.
    cache_limit : int or None, default=None
        Most bytes that `cache` (without it: a fit, in memory) may take. What does not fit is not
        stored, with a warning. None: all but 1 GiB of the free disk, or a quarter of the free memory.
    augment_views : int or None, default=None
        Train on so many fixed random views of each image, in turns, so that frozen stages see each
        view once. None: fresh random changes in every epoch, and frozen stages run in every step.
        Without frozen stages there is nothing to gain, and changes stay fresh.
    feature_dtype : {"float32", "float16"}, default="float32"
        Type in which outputs of frozen stages are stored. ``"float16"`` takes half the room;
        probabilities change by some hundredths.
    runtime : {"torch", "onnx"}, default="torch"
        What predicts on a CPU: PyTorch, or ONNX Runtime (``pip install 'murakit[onnx]'``), which is
        faster but takes seconds to start. Its numbers are taken only if they are PyTorch's to 1e-5.
    device : str or torch.device, default="auto"
        ``"auto"``: a CUDA GPU where there is one, else the CPU. Where there is no GPU, a model
        that was trained with ``"cuda"`` predicts on the CPU.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        ``"auto"``: bfloat16 autocast on GPUs that compute in it, else float32.
    n_jobs : int or None, default=None
        Threads that decode images. None: as many as there are CPUs; -1 likewise.
    random_state : int, RandomState instance or None, default=None
        Decides the validation patients, the head's first weights, the order of the images and
        their augmentation. An int gives the same weights in every process of the same kind of
        CPU: PyTorch then uses the number of threads that it had when murakit was imported, in
        joblib's workers too. No global random state is read or changed.
    warm_start : bool, default=False
        Go on from the weights of the last `fit`, with `unfreeze`, `augment`, `dropout` and the
        optimizer's parameters as they are now; patients trained on before are never held out.
    checkpoint : str, path-like or None, default=None
        A folder in which the state of a training is kept after each epoch. An interrupted `fit` that is
        begun again, with the same data and parameters, goes on from there and ends in the same weights;
        states of callbacks are not kept. Folds and trials have files of their own, which are deleted
        when they are done. Needs a `random_state`.
    callbacks : list or None, default=None
        Callbacks of skorch, or functions without arguments that return one; a string names a scikit-learn
        scorer to log each epoch. An instance is copied for each fit; what a logger such as ``TensorBoard``
        writes to is not, and a callback that cannot be copied is used itself. Where clones of the estimator
        are fitted, such as in a cross-validation, pass a function: an open file cannot be cloned.
        scikit-learn's own callbacks, such as ``sklearn.callback.ScoringMonitor``, are set by
        ``set_callbacks``; each epoch is a task of the fit.
    verbose : int, default=0
        1: a progress bar over the epochs, or a line an epoch where output is not a terminal.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The class labels, sorted.
    pos_label_ : label or None
        The abnormal one of two classes. None: there are more, or scikit-learn has encoded them.
    net_ : skorch.NeuralNet
        The trained net, on the CPU; ``net_.module_`` is the network.
    history_ : DataFrame
        One row an epoch: losses, scores, learning rate, stage, whether it was the best so far.
    best_epoch_ : int
        The epoch, counted from 1, whose weights are kept.
    n_epochs_ : int
        Epochs that were run.
    validation_score_ : float or None
        `monitor` on the validation images, at the epoch that is kept.
    train_patients_, validation_patients_ : ndarray or None
        The patients that were trained on, over all warm starts, and held out; None where they
        are not known. A model of `load_model` may have hashes for names.
    n_features_in_ : int
        Always 1: the path.

    See Also
    --------
    list_backbones : Backbones, their stages and sizes.
    load_mura : Paths, labels and patients of a MURA folder.
    PatientKFold : Folds that never split a patient.
    MuraSearchCV : Search for hyper-parameters with Optuna.

    Notes
    -----
    After `fit` the object holds weights and history, no images and no optimizer, and lies on the
    CPU; `murakit.save_model` writes it to a file, and ``joblib.dump`` does.

    References
    ----------
    .. [1] Rajpurkar et al., "MURA: Large Dataset for Abnormality Detection in Musculoskeletal
       Radiographs", arXiv 1712.06957 (2017).
    .. [2] Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR (2018).

    Examples
    --------
    >>> import tempfile
    >>> from murakit import MuraClassifier, load_mura, make_mura
    >>> root = make_mura(tempfile.mkdtemp() + "/mura", n_patients=12, image_size=64, random_state=0)
    >>> mura = load_mura(root)
    >>> clf = MuraClassifier(weights=None, image_size=32, max_epochs=1, unfreeze="head", random_state=0)
    >>> clf.fit(mura.data, mura.target).predict_proba(mura.data[:3]).shape
    (3, 2)
    """

    _parameter_constraints: dict = {
        **NetClassifier._parameter_constraints,
        "backbone": [str],
        "weights": [str, os.PathLike, None],
        "unfreeze": [str, None],
        # Most backbones halve the image five times.
        "image_size": [Interval(Integral, 32, None, closed="left"), None],
        "resize": [StrOptions({"pad", "squash"})],
        "augment": ["boolean", dict],
        "pos_label": [str, "boolean", Real, None],
        "loss": [StrOptions({"cross_entropy", "bce"})],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "mixup": [Interval(Real, 0, None, closed="left")],
        "stage_lr_decay": [Interval(Real, 0, None, closed="neither")],
        "head_lr": [Interval(Real, 0, None, closed="neither"), None],
        "lr_schedule": [StrOptions({"plateau", "cosine"})],
        "warmup_epochs": [Interval(Integral, 0, None, closed="left")],
        "ema_decay": [Interval(Real, 0, 1, closed="neither"), None],
        "tta": ["boolean"],
        "decision_threshold": [Interval(Real, 0, 1, closed="both"), None],
        "cache": [str, os.PathLike, None],
        "cache_limit": [Interval(Integral, 0, None, closed="left"), None],
        "augment_views": [Interval(Integral, 1, None, closed="left"), None],
        "feature_dtype": [StrOptions({"float32", "float16"})],
        "runtime": [StrOptions({"torch", "onnx"})],
        "checkpoint": [str, os.PathLike, None],
        "n_jobs": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Integral, None, -1, closed="right"),
            None,
        ],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    }

    # Its predictions take a `SampleTable` as X as well, so that whoever has one need not find files anew.
    takes_sample_tables = True

    def __init__(
        self,
        backbone="resnet18",
        *,
        weights="imagenet",
        unfreeze=None,
        image_size=None,
        resize="pad",
        augment=True,
        class_weight="balanced",
        pos_label=None,
        loss="cross_entropy",
        label_smoothing=0.0,
        mixup=0.0,
        dropout=0.0,
        optimizer="adamw",
        lr=1e-3,
        backbone_lr_factor=0.1,
        stage_lr_decay=1.0,
        weight_decay=1e-2,
        batch_size=32,
        max_epochs=30,
        head_epochs=0,
        head_lr=None,
        early_stopping=True,
        monitor="loss",
        validation_fraction=0.15,
        n_iter_no_change=5,
        lr_schedule="plateau",
        lr_patience=2,
        warmup_epochs=0,
        ema_decay=None,
        tta=False,
        decision_threshold=None,
        cache=None,
        cache_limit=None,
        augment_views=None,
        feature_dtype="float32",
        runtime="torch",
        device="auto",
        precision="auto",
        n_jobs=None,
        random_state=None,
        warm_start=False,
        checkpoint=None,
        callbacks=None,
        verbose=0,
    ):
        self.backbone = backbone
        self.weights = weights
        self.unfreeze = unfreeze
        self.image_size = image_size
        self.resize = resize
        self.augment = augment
        self.class_weight = class_weight
        self.pos_label = pos_label
        self.loss = loss
        self.label_smoothing = label_smoothing
        self.mixup = mixup
        self.dropout = dropout
        self.optimizer = optimizer
        self.lr = lr
        self.backbone_lr_factor = backbone_lr_factor
        self.stage_lr_decay = stage_lr_decay
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.head_epochs = head_epochs
        self.head_lr = head_lr
        self.early_stopping = early_stopping
        self.monitor = monitor
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.lr_schedule = lr_schedule
        self.lr_patience = lr_patience
        self.warmup_epochs = warmup_epochs
        self.ema_decay = ema_decay
        self.tta = tta
        self.decision_threshold = decision_threshold
        self.cache = cache
        self.cache_limit = cache_limit
        self.augment_views = augment_views
        self.feature_dtype = feature_dtype
        self.runtime = runtime
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.warm_start = warm_start
        self.checkpoint = checkpoint
        self.callbacks = callbacks
        self.verbose = verbose

    def fit(self, X, y, groups=None, X_val=None, y_val=None, groups_val=None, sample_weight=None):
        """Train on radiographs.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Paths of images or of study folders.
        y : array-like of shape (n,)
            Labels, of any type; two classes or more.
        groups : array-like of shape (n,), default=None
            The patient of each sample. None: read from the path.
        X_val : array-like of shape (m,) or (m, 1), default=None
            Samples of other patients to validate on, instead of patients held out from X.
        y_val : array-like of shape (m,), default=None
            Their labels.
        groups_val : array-like of shape (m,), default=None
            Their patients. None: read from the path.
        sample_weight : array-like of shape (n,), default=None
            Weight of each sample in the loss; samples of weight zero are left out.

        Returns
        -------
        self : MuraClassifier

        Raises
        ------
        ValueError
            Before any training: for one class, missing labels, rows that contradict each other, groups of another
            length, and where a patient is needed and cannot be told.
        FileNotFoundError
            For missing paths.
        UnreadableImage
            For a file that is no readable image.
        FloatingPointError
            Where the loss becomes NaN or infinite.

        Warns
        -----
        UserWarning
            Where `weights` is a saved model that was trained on patients of this fit: a
            cross-validation over them would be too good.
        """
        if self.runtime == "onnx":
            require_onnx()  # not after hours of training
        return super().fit(X, y, groups, X_val, y_val, groups_val, sample_weight)

    def partial_fit(self, X, y, classes=None, groups=None, sample_weight=None):
        """Train for one epoch on these samples, going on from the present weights.

        Nothing is held out and nothing stops early.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Paths of images or of study folders.
        y : array-like of shape (n,)
            Labels.
        classes : array-like of shape (n_classes,), default=None
            All classes, on the first call, where y does not hold them all.
        groups : array-like of shape (n,), default=None
            The patient of each sample, for ``train_patients_``.
        sample_weight : array-like of shape (n,), default=None
            Weight of each sample in the loss.

        Returns
        -------
        self : MuraClassifier
        """
        return super().partial_fit(X, y, classes, groups, sample_weight)

    def predict_proba(self, X):
        """Return the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Paths of images or of study folders; a folder gets the mean over its images.

        Returns
        -------
        proba : ndarray of shape (n, n_classes), dtype float64
            In the order of ``classes_``.

        Raises
        ------
        UnreadableImage
            For a file that is no readable image.
        """
        return super().predict_proba(X)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        return tags

    # -- what a sample of radiographs is ----------------------------------------------------

    def _read_samples(self, X, groups=None, *, reset=False, name="X", groups_name="groups"):
        samples = as_samples(X, patients=groups, name=name, patients_name=groups_name)
        if not len(samples):
            raise ValueError(f"{name} is empty: found 0 samples, while a minimum of 1 is required.")
        if reset:
            self.n_features_in_ = 1
        return samples

    @property
    def pos_label_(self):
        check_is_fitted(self)
        at = self._positive(self.classes_)
        return None if at is None else plain(self.classes_[at])

    def _positive(self, classes):
        """Return the position of the abnormal class; None where there is none of two, or it is not known."""
        if len(classes) != 2:
            return None
        # cross_val_predict and voting classifiers pass 0 and 1 for the sorted labels.
        encoded = {plain(label) for label in classes} == {0, 1} and self.pos_label not in (None, 0, 1)
        return None if encoded else positive_index(classes, self.pos_label)

    def _check_classes(self, classes):
        self._positive(classes)

    def _check_repeats(self, samples, labels):
        check_repeats(samples, labels)

    def _predicted_codes(self, proba):
        if self.decision_threshold is None:
            return proba.argmax(axis=1)
        positive = self._positive(self.classes_)
        if positive is None and len(self.classes_) == 2:
            raise ValueError(
                f"decision_threshold={self.decision_threshold}: it is one on the probability of pos_label="
                f"{self.pos_label!r}, and this fit was given the labels 0 and 1 for it. Set the threshold after the "
                "fit on the labels themselves."
            )
        return predicted_codes(proba, self.decision_threshold, positive)

    def _first_trained_stage(self):
        return find_backbone(self.backbone).later_half if self.unfreeze is None else self.unfreeze

    def _side(self, name=None):
        """Return the side of the squares that images are scaled to for a backbone; by default, the fitted one."""
        if self.image_size is not None:
            return self.image_size
        # The parameter may have been changed since the fit.
        return find_backbone(self._net.module_.name if name is None else name).input_size

    def _train(self, train, valid, classes, seeds, *, continued, one_epoch=False, tasks=None):
        if not one_epoch:
            self._check_phases(continued)
        before = None if continued else patients_of_weights(self.weights)
        if before is not None:
            self._warn_of_known(before, (train, valid))
        super()._train(train, valid, classes, seeds, continued=continued, one_epoch=one_epoch, tasks=tasks)
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
        versions = __version__, torch.__version__, PIXELS
        parts = [repr((versions, sorted(params.items()))), *weight_arrays(network)]
        for data in (train,) if valid is None else (train, valid):
            # The files themselves, not only their names.
            items = data.samples.path
            parts += ["\0".join(items), *Files(items).ids, data.code, data.weight]
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
        return NetworkInputs(network, unfreeze, verbose=self.verbose if fitting else 0, **settings)

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
        # A few images are not padded to a whole chunk, which would take several times as long. Stored
        # activations were computed in whole chunks, so they are not used here: else the last bits of a
        # prediction would depend on what is stored.
        exact = len(items) >= MIN_CHUNK_SIZE
        for inputs, begin in sources.for_prediction(items, mirrored=self.tta, stored=exact):
            done = []
            for batch in inputs:
                logits = onnx_logits(network, batch) if by_onnx and begin is None else None
                if logits is None:
                    with torch.autocast(sources.device.type, torch.bfloat16, self._autocast(device)):
                        logits = network.infer(batch.to(device, non_blocking=True), begin, exact)
                done.append(log_probabilities(logits.double()))
            yield done[0] if len(done) == 1 else torch.logaddexp(*done) - np.log(2)
