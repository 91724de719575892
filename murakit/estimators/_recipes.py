"""Settings that others have published, and the best of our own, by name."""

from ..networks._build import find_backbone
from ._classifier import MuraClassifier

# What the paper changes in an image: lateral inversions, and rotations up to 30 degrees.
_PAPER_AUGMENTATION = {
    "flip": 0.5,
    "rotation": 30.0,
    "scale": 0.0,
    "shift": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
}

RECIPES = {
    "paper": {
        "backbone": "densenet169",
        "unfreeze": "all",
        "image_size": 320,
        "resize": "squash",
        "augment": _PAPER_AUGMENTATION,
        "loss": "bce",
        "class_weight": "region",
        "optimizer": "adam",
        "lr": 1e-4,
        "backbone_lr_factor": 1.0,
        "weight_decay": 0.0,
        "batch_size": 8,
        "monitor": "loss",
    },
    "muraproj": {
        "backbone": "resnet50",
        "unfreeze": "all",
        "image_size": 224,
        "class_weight": None,
        "optimizer": "adamw",
        "head_epochs": 15,
        "head_lr": 1e-4,
        "lr": 1e-5,
        "backbone_lr_factor": 1.0,
        "max_epochs": 30,
        "monitor": "roc_auc",
        "n_iter_no_change": 15,
        "validation_fraction": 0.15,
        "random_state": 42,
    },
    "resnet18-partial": {
        "backbone": "resnet18",
        "unfreeze": "layer2",
        "image_size": 224,
        "class_weight": "balanced",
        "monitor": "loss",
        "lr_patience": 2,
        "n_iter_no_change": 5,
    },
    "strong": {
        "backbone": "resnet18",
        "unfreeze": "layer4",
        "image_size": 224,
        "augment": False,
        "early_stopping": False,
        "max_epochs": 10,
        "lr_schedule": "cosine",
        "label_smoothing": 0.1,
    },
}


def recipe(name, **changes):
    """Return the parameters of a published set-up, or of our own.

    Parameters
    ----------
    name : {"paper", "muraproj", "resnet18-partial", "strong"}
        ``"paper"``: one DenseNet-169 of MURA's authors [1]_, whose ensemble averages five of them.
        ``"muraproj"``: a ResNet-50, its head first and then all layers [2]_. ``"resnet18-partial"``: a
        ResNet-18 from layer2 on, with class weights and early stopping. ``"strong"``: ours, a ResNet-18 whose
        last stage learns from all patients, ten epochs along a cosine, from smoothed labels: of what was
        tried on real radiographs, what helped beyond chance (``benchmarks/RESULTS.md``, "ablation").
    **changes
        Parameters of `MuraClassifier` to add or to change.

    Returns
    -------
    params : dict
        For ``MuraClassifier(**params)``; a copy, to be changed at will.

    Raises
    ------
    ValueError
        For another name.

    Notes
    -----
    What a source does not say is left at `MuraClassifier`'s default. "muraproj" splits by the same
    rule (15 % of the patients, seed 42), not into the same patients.

    References
    ----------
    .. [1] Rajpurkar et al., "MURA: Large Dataset for Abnormality Detection in Musculoskeletal
       Radiographs", arXiv 1712.06957 (2017).
    .. [2] https://github.com/yinkev/muraproj

    Examples
    --------
    >>> from murakit import MuraClassifier, recipe
    >>> MuraClassifier(**recipe("paper", batch_size=16)).batch_size
    16
    """
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r} is not known; choose one of {sorted(RECIPES)}.")
    params = {**RECIPES[name], **changes}
    return {key: dict(value) if isinstance(value, dict) else value for key, value in params.items()}


def search_space(estimator):
    """Return Optuna distributions for what matters most in a `MuraClassifier`.

    Parameters
    ----------
    estimator : estimator object
        A `MuraClassifier`, or any estimator that holds one (a pipeline, a calibrated classifier).

    Returns
    -------
    distributions : dict of str to optuna distribution
        For ``param_distributions`` of `MuraSearchCV`, with the names that `estimator` knows them by.

    Raises
    ------
    ValueError
        Where there is no `MuraClassifier` in the estimator.

    Examples
    --------
    >>> from murakit import MuraClassifier, search_space
    >>> sorted(search_space(MuraClassifier(unfreeze="head")))
    ['dropout', 'lr', 'weight_decay']
    """
    # Only a search needs Optuna.
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    held = {"": estimator, **{f"{name}__": value for name, value in estimator.get_params(deep=True).items()}}
    found = [(prefix, value) for prefix, value in held.items() if isinstance(value, MuraClassifier)]
    if not found:
        raise ValueError(
            f"There is no MuraClassifier in {estimator!r} to search over; write the distributions by hand."
        )
    prefix, classifier = found[0]
    space = {
        "lr": FloatDistribution(1e-4, 1e-2, log=True),
        "weight_decay": FloatDistribution(1e-4, 1e-1, log=True),
        "dropout": FloatDistribution(0.0, 0.5),
    }
    if classifier.unfreeze != "head":
        if classifier.weights is not None:
            # Of random weights, there is nothing in the first stages to keep.
            stages = find_backbone(classifier.backbone).stages
            space["unfreeze"] = CategoricalDistribution(list(stages[:-4:-1]))
        space["backbone_lr_factor"] = FloatDistribution(1e-2, 1.0, log=True)
    return {prefix + name: distribution for name, distribution in space.items()}
