"""Recipes: parameters of published settings, and of our own best one, by name; and search spaces."""

from typing import TYPE_CHECKING, Any

from ..networks._build import find_backbone
from ._classifier import MuraClassifier

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# Augmentation of the paper: horizontal flips, and rotations up to 30 degrees.
_PAPER_AUGMENTATION = {
    "flip": 0.5,
    "rotation": 30.0,
    "scale": 0.0,
    "shift": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
}

RECIPES: dict[str, dict[str, Any]] = {
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


def recipe(name: str, **changes: Any) -> dict[str, Any]:
    """Return the parameters of a published training, or of our own best one.

    Parameters
    ----------
    name : {"paper", "muraproj", "resnet18-partial", "strong"}
        Name of the recipe.

        - ``"paper"``: the DenseNet-169 of MURA's authors [1]_; their ensemble averages five such networks.
        - ``"muraproj"``: a ResNet-50, of which first the head and then all layers are trained [2]_.
        - ``"resnet18-partial"``: a ResNet-18, trained from layer2 on, with class weights and early stopping.
        - ``"strong"``: our own. Only the last stage of a ResNet-18 is trained, on all patients, for ten
          epochs, with a cosine schedule and label smoothing. It contains the changes that significantly
          improved the results on real radiographs (``benchmarks/RESULTS.md``, "ablation").
    **changes
        Parameters of `MuraClassifier` to add or to change.

    Returns
    -------
    params : dict
        Parameters for ``MuraClassifier(**params)``. It is a copy and may be changed.

    Raises
    ------
    ValueError
        If the name is not known.

    Notes
    -----
    Parameters that a source does not mention have `MuraClassifier`'s default. "muraproj" splits by the rule of
    its source (15 % of the patients, seed 42), but into other patients.

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


def search_space(estimator: Any) -> "dict[str, BaseDistribution]":
    """Return Optuna distributions of the most important parameters of a `MuraClassifier`.

    Parameters
    ----------
    estimator : estimator object
        A `MuraClassifier`, or any estimator that contains one (a pipeline, a calibrated classifier).

    Returns
    -------
    distributions : dict of str to optuna distribution
        Distributions for ``param_distributions`` of `MuraSearchCV`, by the names of the parameters in
        `estimator`.

    Raises
    ------
    ValueError
        If the estimator contains no `MuraClassifier`.

    Examples
    --------
    >>> from murakit import MuraClassifier, search_space
    >>> sorted(search_space(MuraClassifier(unfreeze="head")))
    ['dropout', 'lr', 'weight_decay']
    """
    # Imported here, because only a search needs Optuna.
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    parts = {"": estimator, **{f"{name}__": value for name, value in estimator.get_params(deep=True).items()}}
    found = [(prefix, value) for prefix, value in parts.items() if isinstance(value, MuraClassifier)]
    if not found:
        raise ValueError(
            f"There is no MuraClassifier in {estimator!r} to search over; write the distributions by hand."
        )
    prefix, classifier = found[0]
    space: dict[str, BaseDistribution] = {
        "lr": FloatDistribution(1e-4, 1e-2, log=True),
        "weight_decay": FloatDistribution(1e-4, 1e-1, log=True),
        "dropout": FloatDistribution(0.0, 0.5),
    }
    if classifier.unfreeze != "head":
        if classifier.weights is not None:
            # Only pretrained stages can stay frozen, not random ones.
            stages = find_backbone(classifier.backbone).stages
            space["unfreeze"] = CategoricalDistribution(list(stages[:-4:-1]))
        space["backbone_lr_factor"] = FloatDistribution(1e-2, 1.0, log=True)
    return {prefix + name: distribution for name, distribution in space.items()}
