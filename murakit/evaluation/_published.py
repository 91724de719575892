"""Published results on MURA, each with the data that it was measured on and its source."""

from typing import NamedTuple

import pandas as pd


class Published(NamedTuple):
    """A metric that a publication or project reports."""

    who: str
    group: str  # "all", or a region
    metric: str
    value: float
    low: float | None
    high: float | None
    measured_on: str
    source: str


_PAPER = "DenseNet-169 ensemble of the MURA paper"

_TEST = "MURA's hidden test set (207 studies), per study, label: majority of three radiologists"

_RAJPURKAR = "Rajpurkar et al., arXiv 1712.06957 (2017)"

_BOARD = "leaderboard of the MURA competition (closed)"

_VALID = "MURA valid (1,199 studies), per study"

_PAPER_KAPPA = {
    "elbow": (0.710, 0.674, 0.745),
    "finger": (0.389, 0.332, 0.446),
    "forearm": (0.737, 0.707, 0.766),
    "hand": (0.851, 0.830, 0.871),
    "humerus": (0.600, 0.558, 0.642),
    "shoulder": (0.729, 0.697, 0.760),
    "wrist": (0.931, 0.922, 0.940),
    "all": (0.705, 0.700, 0.710),
}

PUBLISHED = (
    *(
        Published(_PAPER, group, "kappa", *numbers, _TEST, _RAJPURKAR)
        for group, numbers in _PAPER_KAPPA.items()
    ),
    Published(_PAPER, "all", "auroc", 0.929, None, None, _TEST, _RAJPURKAR),
    Published(_PAPER, "all", "sensitivity", 0.815, None, None, _TEST, _RAJPURKAR),
    Published(_PAPER, "all", "specificity", 0.887, None, None, _TEST, _RAJPURKAR),
    *(
        Published(f"radiologist {number}", "all", "kappa", value, None, None, _TEST, _RAJPURKAR)
        for number, value in enumerate((0.731, 0.763, 0.778), start=1)
    ),
    Published(
        "best of the leaderboard (ensemble, Nov 2018)", "all", "kappa", 0.843, None, None, _TEST, _BOARD
    ),
    *(
        Published(model, "all", "kappa", value, None, None, _VALID, "ilias-ant/x-ray-abnormality-detection")
        for model, value in (
            ("ResNet-50, ImageNet", 0.618),
            ("DenseNet-169, ImageNet", 0.629),
            ("DenseNet-201, ImageNet", 0.645),
            ("CNN from scratch", 0.386),
        )
    ),
    *(
        Published(
            "ResNet-50, head first, then all layers",
            "all",
            metric,
            value,
            None,
            None,
            "15 % of the patients of MURA train, per image",
            "yinkev/muraproj",
        )
        for metric, value in (("auroc", 0.860), ("accuracy", 0.810), ("sensitivity", 0.71))
    ),
    *(
        Published(
            "best of five backbones, one model per region",
            group,
            "accuracy",
            value,
            None,
            None,
            "MURA valid (3,197 images), per image",
            "aandrovitsanea/cnn_mura",
        )
        for group, value in (
            ("elbow", 0.779),
            ("finger", 0.696),
            ("forearm", 0.791),
            ("hand", 0.680),
            ("humerus", 0.833),
            ("shoulder", 0.721),
            ("wrist", 0.782),
        )
    ),
)


def published_results(metric: str | None = None, group: str | None = None) -> pd.DataFrame:
    """Return published results on MURA.

    They were measured on different studies: when you compare a number with one of them, also report what
    both were measured on (column ``measured_on``).

    Parameters
    ----------
    metric : str or None, default=None
        Metric to return, such as ``"kappa"``. None: all.
    group : str or None, default=None
        Group to return: ``"all"`` (all regions together) or one region. None: all groups.

    Returns
    -------
    table : DataFrame
        Columns who, group, metric, value, low, high (bounds of a 95 % interval, if one was published),
        measured_on and source.

    References
    ----------
    Rajpurkar et al., "MURA: Large Dataset for Abnormality Detection in Musculoskeletal
    Radiographs", arXiv 1712.06957 (2017); the column ``source`` names the others.

    Examples
    --------
    >>> from murakit import published_results
    >>> published_results("kappa", "wrist")[["value", "low", "high"]].values.tolist()
    [[0.931, 0.922, 0.94]]
    """
    table = pd.DataFrame(PUBLISHED, columns=Published._fields)
    for column, wanted in (("metric", metric), ("group", group)):
        if wanted is not None:
            known = sorted(set(table[column]))
            if wanted not in known:
                raise ValueError(f"{column}={wanted!r}: nothing published is listed; choose one of {known}.")
            table = table[table[column] == wanted]
    return table.astype({"low": float, "high": float}).reset_index(drop=True)
