"""`MuraClassifier`: a scikit-learn classifier from paths of radiographs to probabilities."""

import inspect
import os
import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback

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
from ..utils._typing import PathLike, Paths
from ..utils._validation import plain
from ..utils._versions import __version__
from ._base import NetClassifier

# Parameters that do not identify a training: after a change of them, an interrupted training is still continued
# from its checkpoint.
_NOT_IN_CHECKPOINT = frozenset(
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
    """Classifier of radiographs: a convolutional network that is trained on paths of images.

    A sample is the path of an image or of a study folder. A study folder stands for all of its images: each
    image is trained on with the label of the study, and the probabilities of the study are the mean over its
    images [1]_. Early stopping uses a validation split by patient, which `fit` makes: no patient is on both
    sides of it.

    Parameters
    ----------
    backbone : str, default="resnet18"
        Name of the network: one of `list_backbones`, such as ``"densenet169"``, or ``"timm/NAME"`` for any
        model of timm (``pip install 'murakit[timm]'``). ``"small"`` is a network to train from scratch.
    weights : "imagenet", path-like or None, default="imagenet"
        Initial weights. ``"imagenet"``: those of torchvision or timm, which are downloaded once. A path: a
        model written by `save_model`, or a state dict written by torch.save or safetensors (of torchvision's
        or timm's model, or of ``net_.module_``). The last layer is loaded if it has the same number of
        classes. The patients of a model by `save_model` are added to ``train_patients_`` and
        ``validation_patients_``. None: random weights.
    unfreeze : str or None, default=None
        First stage to train: ``"stem"``, ``"layer1"`` ... ``"layer4"`` of a ResNet (see `list_backbones` for
        others), ``"head"`` for the last layer only, or ``"all"``. The stages before it are frozen, including
        their BatchNorm statistics. None: the later half of the stages (of a ResNet, from ``"layer2"``).
    image_size : int or None, default=None
        Side of the square that images are scaled to, in pixels. None: the size that the backbone's ImageNet
        weights were trained with (224 for ResNets).
    resize : {"pad", "squash"}, default="pad"
        How images become square. ``"pad"``: keep the aspect ratio and pad with black. ``"squash"``: change the
        aspect ratio. Predictions use `resize` and `image_size` too: after a change, fit again.
    augment : bool or dict, default=True
        Whether to augment the training images at random. A dict sets the parameters of
        `murakit.augmentation.Augmentation`, such as ``{"rotation": 30}``.
    class_weight : {"balanced", "region"}, dict or None, default="balanced"
        Weights of the classes in the loss. ``"balanced"``: inversely proportional to the class frequencies in
        the training images, as in scikit-learn. ``"region"``: the weights of the MURA paper, per region [1]_.
        A dict maps each class to its weight. None: all weights are 1.
    pos_label : label or None, default=None
        The abnormal one of two classes. None: 1 of 0/1, True, "abnormal" or "positive". For any other pair of
        labels it is required: sorting, for example, would make "none" the abnormal one of "fracture" and
        "none".
    loss : {"cross_entropy", "bce"}, default="cross_entropy"
        Loss function. ``"bce"`` is binary cross-entropy: the head has one output with a sigmoid, as in the
        paper [1]_. It needs two classes.
    label_smoothing : float, default=0.0
        Label smoothing in [0, 1): the fraction of each target that is spread evenly over all classes.
    mixup : float, default=0.0
        Parameter alpha of mixup [2]_, which blends each batch with a random permutation of itself. 0: no
        mixup. Pixels are blended if images are augmented anew in every epoch; otherwise, the inputs of the
        first trained stage.
    dropout : float, default=0.0
        Probability, in [0, 1), that a feature is set to zero before the last layer, while training.
    optimizer : {"adamw", "adam", "sgd"}, default="adamw"
        Optimizer. ``"sgd"`` has a momentum of 0.9.
    lr : float, default=1e-3
        Learning rate of the head.
    backbone_lr_factor : float, default=0.1
        Learning-rate multiplier of the backbone: its trained stages have the learning rate
        ``lr * backbone_lr_factor``.
    stage_lr_decay : float, default=1.0
        Factor between the learning rates of a stage and the next one (layer-wise decay): with 0.5, each
        trained stage has half the learning rate of the stage after it.
    weight_decay : float, default=1e-2
        Weight decay of all trained parameters.
    batch_size : int, default=32
        Number of images per training step.
    max_epochs : int, default=30
        Largest number of epochs.
    head_epochs : int, default=0
        Number of first epochs that train only the head; after them, `unfreeze` applies.
    head_lr : float or None, default=None
        Learning rate in the first `head_epochs` epochs. None: `lr`.
    early_stopping : bool, default=True
        Whether to hold out patients for validation, stop when `monitor` no longer improves on them, and keep
        the weights of the best epoch. False: train on all patients for `max_epochs` and keep the weights of
        the last epoch.
    monitor : str, default="loss"
        Metric on the validation images that decides on early stopping: ``"loss"``, ``"kappa"``, or the name
        of a scikit-learn scorer such as ``"roc_auc"``.
    validation_fraction : float, default=0.15
        Fraction of the images to hold out for early stopping. Whole patients are held out, stratified by label
        and region.
    n_iter_no_change : int, default=5
        Number of epochs without improvement after which training stops.
    lr_schedule : {"plateau", "cosine"}, default="plateau"
        Learning-rate schedule. ``"plateau"``: divide by 10 when `monitor` stops improving, see `lr_patience`.
        ``"cosine"``: cosine annealing to zero over `max_epochs`, updated in every step.
    lr_patience : int or None, default=2
        With ``"plateau"``: number of epochs without improvement after which the learning rate is divided by
        10. None: it is never divided.
    warmup_epochs : int, default=0
        With ``"cosine"``: number of epochs in which the learning rate rises linearly to its full value.
    ema_decay : float or None, default=None
        Decay per step of an exponential moving average of the weights, such as 0.99. The averaged weights are
        validated and kept. None: no average; the weights of the last step are validated and kept.
    tta : bool, default=False
        Test-time augmentation: whether to average the probabilities of each image and its mirror image.
    decision_threshold : float or None, default=None
        Smallest probability of the abnormal class at which `predict` returns it. `murakit.threshold_at` chooses
        it, on patients that the model was not trained on. It may be set after `fit`. None: `predict` returns
        the most probable class.
    cache : str, path-like or None, default=None
        Folder that stores decoded images and the outputs of frozen stages. Each is computed once for all
        epochs, folds, trials and processes that use the folder. None: they are kept in memory during one
        `fit`. The folder must be on a local disk, because network drives lack the file locks that it needs.
        `murakit.cache_info` shows what it contains, and `murakit.clear_cache` empties it.
    cache_limit : int or None, default=None
        Largest size of the folder `cache` in bytes; without `cache`, of what one `fit` keeps in memory. What
        does not fit is not stored, with a warning. None: the free disk space less 1 GiB, or a quarter of the
        free memory.
    augment_views : int or None, default=None
        Number of fixed random views of each image. Each epoch trains on one view of each image, in turn, so
        frozen stages process each view only once. None: images are augmented anew in every epoch, and frozen
        stages run in every step. Without frozen stages, fixed views would save nothing: images are augmented
        anew then too.
    feature_dtype : {"float32", "float16"}, default="float32"
        Data type in which outputs of frozen stages are stored. ``"float16"`` takes half the space and changes
        probabilities by some hundredths.
    runtime : {"torch", "onnx"}, default="torch"
        Library that computes predictions on a CPU. ``"onnx"`` is ONNX Runtime (``pip install
        'murakit[onnx]'``): it is faster but takes seconds to start. Its results are used only if its
        probabilities equal PyTorch's to 1e-5.
    device : str or torch.device, default="auto"
        Device to compute on. ``"auto"``: a CUDA GPU if there is one, otherwise the CPU. A model trained with
        ``"cuda"`` predicts on the CPU on a machine without a GPU.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the computation. ``"auto"``: bfloat16 autocast on GPUs that support it, otherwise float32.
    n_jobs : int or None, default=None
        Number of threads that decode images. None or -1: one per CPU.
    random_state : int, RandomState instance or None, default=None
        Seed of the validation split, the initial weights of the head, the order of the images and the
        augmentation. With an int, the trained weights are the same in every process that has the same kind of
        CPU and the same number of threads. joblib's workers have fewer threads than the main process; the
        environment variable ``MURAKIT_NUM_THREADS`` sets the number of threads of a fit. Global random states
        are neither read nor changed.
    warm_start : bool, default=False
        Whether `fit` continues from the weights of the last `fit`. `unfreeze`, `augment`, `dropout` and the
        parameters of the optimizer may be changed in between. Patients trained on before are never held out.
    checkpoint : str, path-like or None, default=None
        Folder that keeps the state of the training after each epoch. If a `fit` was interrupted, the next one
        with the same data and parameters continues it and ends with the same weights. The state of callbacks
        is not kept. Each fold or trial has its own file, which is deleted when its training is complete. It
        needs a `random_state`.
    callbacks : list or None, default=None
        Callbacks of skorch, or functions without arguments that return one; a string names a scikit-learn
        scorer to log each epoch. An instance is copied for each fit; what a logger such as ``TensorBoard``
        writes to is not, and a callback that cannot be copied is used itself. Where clones of the estimator
        are fitted, such as in a cross-validation, pass a function: an open file cannot be cloned.
        scikit-learn's own callbacks, such as ``sklearn.callback.ScoringMonitor``, are set by
        ``set_callbacks``; each epoch is a task of the fit.
    verbose : int, default=0
        1: show a progress bar over the epochs, or print a line per epoch if the output is not a terminal.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The class labels, sorted.
    pos_label_ : label or None
        The abnormal one of two classes. None if there are more classes, or if scikit-learn has encoded the
        labels as 0 and 1.
    net_ : skorch.NeuralNet
        The trained net, on the CPU; ``net_.module_`` is the network.
    history_ : DataFrame
        One row per epoch: losses, scores, learning rate, stage, and whether it was the best epoch so far.
    best_epoch_ : int
        Epoch whose weights are kept, counted from 1.
    n_epochs_ : int
        Number of epochs of training.
    validation_score_ : float or None
        `monitor` on the validation images in the epoch that is kept.
    train_patients_, validation_patients_ : ndarray or None
        Patients trained on and held out, over all warm starts. None if they are not known. A model read by
        `load_model` may have hashes instead of names.
    n_features_in_ : int
        Always 1: the path.

    See Also
    --------
    list_backbones : Backbones, their stages and sizes.
    load_mura : Paths, labels and patients of a MURA folder.
    PatientKFold : Cross-validation folds that never split a patient.
    MuraSearchCV : Search for hyper-parameters with Optuna.

    Notes
    -----
    After `fit`, the object contains the weights, on the CPU, and the history, but no images and no optimizer.
    `murakit.save_model` or ``joblib.dump`` writes it to a file.

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

    # Predictions also take a `SampleTable` as X, so that a caller who has one does not list folders again.
    takes_sample_tables = True

    def __init__(
        self,
        backbone: str = "resnet18",
        *,
        weights: PathLike | None = "imagenet",
        unfreeze: str | None = None,
        image_size: int | None = None,
        resize: str = "pad",
        augment: bool | dict[str, float] = True,
        class_weight: str | dict[Any, float] | None = "balanced",
        pos_label: Any = None,
        loss: str = "cross_entropy",
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        dropout: float = 0.0,
        optimizer: str = "adamw",
        lr: float = 1e-3,
        backbone_lr_factor: float = 0.1,
        stage_lr_decay: float = 1.0,
        weight_decay: float = 1e-2,
        batch_size: int = 32,
        max_epochs: int = 30,
        head_epochs: int = 0,
        head_lr: float | None = None,
        early_stopping: bool = True,
        monitor: str = "loss",
        validation_fraction: float = 0.15,
        n_iter_no_change: int = 5,
        lr_schedule: str = "plateau",
        lr_patience: int | None = 2,
        warmup_epochs: int = 0,
        ema_decay: float | None = None,
        tta: bool = False,
        decision_threshold: float | None = None,
        cache: PathLike | None = None,
        cache_limit: int | None = None,
        augment_views: int | None = None,
        feature_dtype: str = "float32",
        runtime: str = "torch",
        device: str | torch.device = "auto",
        precision: str = "auto",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        warm_start: bool = False,
        checkpoint: PathLike | None = None,
        callbacks: Sequence[str | Callback] | None = None,
        verbose: int = 0,
    ) -> None:
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

    def fit(
        self,
        X: Paths,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        X_val: Paths | None = None,
        y_val: ArrayLike | None = None,
        groups_val: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train the network on radiographs.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Paths of images or of study folders.
        y : array-like of shape (n,)
            Labels of any type, with two classes or more.
        groups : array-like of shape (n,), default=None
            Patient of each sample. None: read from the path.
        X_val : array-like of shape (m,) or (m, 1), default=None
            Validation samples of other patients. None: with `early_stopping`, patients of X are held out.
        y_val : array-like of shape (m,), default=None
            Labels of `X_val`.
        groups_val : array-like of shape (m,), default=None
            Patients of `X_val`. None: read from the path.
        sample_weight : array-like of shape (n,), default=None
            Weight of each sample in the loss. Samples of weight zero are left out.

        Returns
        -------
        self : MuraClassifier

        Raises
        ------
        ValueError
            Before training starts: if there is only one class, labels are missing, rows contradict each other,
            inputs have different lengths, or a patient is needed but not known.
        FileNotFoundError
            If a path does not exist.
        UnreadableImage
            If a file is not a readable image.
        FloatingPointError
            If the loss becomes NaN or infinite.

        Warns
        -----
        UserWarning
            If `weights` is a saved model that was trained on patients of this fit: the scores of a
            cross-validation over them would be too good.
        """
        if self.runtime == "onnx":
            require_onnx()  # before the training, not hours later
        return super().fit(X, y, groups, X_val, y_val, groups_val, sample_weight)

    def partial_fit(
        self,
        X: Paths,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch on these samples, starting from the current weights.

        There is no validation and no early stopping.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Paths of images or of study folders.
        y : array-like of shape (n,)
            Labels.
        classes : array-like of shape (n_classes,), default=None
            All classes. It is needed in the first call if `y` does not contain all of them.
        groups : array-like of shape (n,), default=None
            Patient of each sample, for ``train_patients_``. None: read from the path.
        sample_weight : array-like of shape (n,), default=None
            Weight of each sample in the loss.

        Returns
        -------
        self : MuraClassifier
        """
        return super().partial_fit(X, y, classes, groups, sample_weight)

    def predict_proba(self, X: Paths) -> NDArray[np.float64]:
        """Return the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Paths of images or of study folders. The probabilities of a folder are the mean over its images.

        Returns
        -------
        proba : ndarray of shape (n, n_classes), dtype float64
            Probabilities, with the columns in the order of ``classes_``.

        Raises
        ------
        UnreadableImage
            If a file is not a readable image.
        """
        return super().predict_proba(X)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        return tags

    # -- reading samples --------------------------------------------------------------------

    def _read_samples(self, X, groups=None, *, reset=False, name="X", groups_name="groups"):
        samples = as_samples(X, patients=groups, name=name, patients_name=groups_name)
        if not len(samples):
            raise ValueError(f"{name} is empty: found 0 samples, while a minimum of 1 is required.")
        if reset:
            self.n_features_in_ = 1
        return samples

    @property
    def pos_label_(self) -> Any:
        check_is_fitted(self)
        at = self._positive(self.classes_)
        return None if at is None else plain(self.classes_[at])

    def _positive(self, classes):
        """Return the index of the abnormal one of two classes; None if there are more, or labels are encoded."""
        if len(classes) != 2:
            return None
        # scikit-learn's cross_val_predict and voting classifiers encode the sorted labels as 0 and 1.
        encoded = {plain(label) for label in classes} == {0, 1} and self.pos_label not in (None, 0, 1)
        return None if encoded else positive_index(classes, self.pos_label)

    def _check_classes(self, classes):
        if self.pos_label is not None and len(classes) > 2:
            raise ValueError(
                f"pos_label={self.pos_label!r} is for two classes, and y has {len(classes)}: set pos_label=None."
            )
        self._positive(classes)

    def _check_repeats(self, samples, labels):
        check_repeats(samples, labels)

    def _predicted_codes(self, proba):
        if self.decision_threshold is None:
            return proba.argmax(axis=1)
        positive = self._positive(self.classes_)
        if positive is None and len(self.classes_) == 2:
            raise ValueError(
                f"decision_threshold={self.decision_threshold} applies to the probability of pos_label="
                f"{self.pos_label!r}, but the labels were encoded as 0 and 1 before this fit. Set the threshold after "
                "a fit on the labels themselves."
            )
        return predicted_codes(proba, self.decision_threshold, positive)

    def _first_trained_stage(self):
        return find_backbone(self.backbone).later_half if self.unfreeze is None else self.unfreeze

    def _side(self, name=None):
        """Return the side of the images, in pixels, for a backbone. None: the backbone of the fitted network."""
        if self.image_size is not None:
            return self.image_size
        # Not self.backbone, which may have been changed since the fit.
        return find_backbone(self._net.module_.name if name is None else name).input_size

    def _train(self, train, valid, classes, seeds, *, continued, one_epoch=False, tasks=None):
        if not one_epoch:
            self._check_phases(continued)
        before = None if continued else patients_of_weights(self.weights)
        if before is not None:
            self._warn_of_known_patients(before, (train, valid))
        super()._train(train, valid, classes, seeds, continued=continued, one_epoch=one_epoch, tasks=tasks)
        if before is not None:
            known = known_after(before, self.train_patients_, self.validation_patients_)
            self.train_patients_, self.validation_patients_ = known
        return self

    def _warn_of_known_patients(self, before, parts):
        """Warn if the initial weights come from a model that knows patients of this fit.

        Such a model probably knows patients of a test set as well.
        """
        names = [part.patient_names() for part in parts if part is not None]
        patients = np.unique(np.concatenate([part for part in names if part is not None] or [[]]).astype(str))
        known = patients[known_among(patients, np.concatenate([part for part in before if part is not None]))]
        if len(known):
            assert self.weights is not None  # only weights of a file come with patients
            warnings.warn(
                f"weights={os.fspath(self.weights)!r} come from a model that knows {len(known)} of the {len(patients)} "
                f"patients of this fit ({', '.join(known[:3])}). Scores of a cross-validation or validation on such "
                "patients are too good: start from other weights, or evaluate on patients that neither has seen.",
                UserWarning,
                stacklevel=4,
            )

    def _check_phases(self, continued):
        """Raise if the epochs of the head phase and of the warm-up leave no epoch with the full learning rate."""
        unfreeze = self._first_trained_stage()
        phases = {}
        if not continued and unfreeze != "head":
            phases["head_epochs"] = self.head_epochs
        if self.lr_schedule == "cosine":
            phases["warmup_epochs"] = self.warmup_epochs
        if 0 < sum(phases.values()) >= self.max_epochs:
            settings = " and ".join(f"{name}={value}" for name, value in phases.items() if value)
            raise ValueError(
                f"{settings} leave none of max_epochs={self.max_epochs} to train unfreeze={unfreeze!r} "
                "at its learning rate. Lower them, or raise max_epochs."
            )

    def _build_network(self, n_classes, seed):
        entry = find_backbone(self.backbone)
        side = self._side(entry.name)
        if side < entry.min_size or (entry.fixed_size and side != entry.input_size):
            allowed = f"{entry.input_size} px only" if entry.fixed_size else f"{entry.min_size} px and more"
            raise ValueError(f"image_size={self.image_size}: {self.backbone} takes images of {allowed}.")
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
            # A callback may change the network, and so the shared memory of other networks.
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
                f"checkpoint: with random_state={self.random_state!r} each fit is another training, which cannot "
                "continue an interrupted one. Set random_state to a whole number."
            )
        params = {
            name: plain(value) for name, value in self.get_params().items() if name not in _NOT_IN_CHECKPOINT
        }
        versions = __version__, torch.__version__, PIXELS
        parts = [repr((versions, sorted(params.items()))), *weight_arrays(network)]
        for data in (train,) if valid is None else (train, valid):
            # The identities of the files, not only their names: their contents may have changed.
            items = data.samples.path
            parts += ["\0".join(items), *Files(items).ids, data.code, data.weight]
        return Checkpoint(self.checkpoint, parts)

    def _training_options(self, *, one_epoch):
        names = ("stage_lr_decay", "head_lr", "warmup_epochs", "mixup", "ema_decay")
        options = {name: getattr(self, name) for name in names}
        # A schedule over all epochs has no meaning for the one epoch of partial_fit.
        options["lr_schedule"] = "plateau" if one_epoch else self.lr_schedule
        if self.label_smoothing:
            options["criterion__label_smoothing"] = self.label_smoothing
        return options

    # -- inputs of the network --------------------------------------------------------------

    def _inputs_of(self, network, unfreeze, device, *, fitting):
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
        inputs = self._inputs_of(network, unfreeze, device, fitting=True)
        has_augmentation = network.augmentation is not None
        return [
            inputs.for_training(
                items,
                augmented=augmented and has_augmentation,
                views=self.augment_views,
                head_epochs=head_epochs,
                mixed=augmented and self.mixup > 0,
            )
            for items, augmented in parts
        ]

    def _log_proba_batches(self, network, items, device):
        inputs = self._inputs_of(network, self._net.unfreeze, device, fitting=False)
        by_onnx = self.runtime == "onnx" and device == "cpu"
        # Few images are not padded to a whole chunk, because that would take several times as long. Stored
        # activations were computed in whole chunks, so they are not used here: otherwise the last bits of a
        # prediction would depend on what is stored.
        exact = len(items) >= MIN_CHUNK_SIZE
        for batches, begin in inputs.for_prediction(items, mirrored=self.tta, stored=exact):
            done = []
            for batch in batches:
                logits = onnx_logits(network, batch) if by_onnx and begin is None else None
                if logits is None:
                    with torch.autocast(inputs.device.type, torch.bfloat16, self._autocast(device)):
                        logits = network.infer(batch.to(device, non_blocking=True), begin, exact)
                done.append(log_probabilities(logits.double()))
            yield done[0] if len(done) == 1 else torch.logaddexp(*done) - np.log(2)
