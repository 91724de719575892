"""Display of a data set: patients, studies, images and their sizes."""

from typing import Self

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from ..datasets._samples import as_samples
from ..io._images import read_header
from ._style import COLOURS, COLUMN, GREY, LIGHT, paper

_MOST_MEASURED = 2000


class DatasetDisplay:
    """Patients, studies and images per region and label, studies per patient, views, image sizes.

    Parameters
    ----------
    data : Bunch
        What `load_mura` and `load_radiographs` return.

    Attributes
    ----------
    axes_ : ndarray of shape (2, 2) of matplotlib Axes
    ax_ : matplotlib Axes
        The first.
    figure_ : matplotlib Figure
    counts_ : DataFrame
        Patients, studies and images, one row a region and label.

    References
    ----------
    Rajpurkar et al., "MURA: Large Dataset for Abnormality Detection in Musculoskeletal
    Radiographs", arXiv 1712.06957 (2017): the same counts of MURA.

    Examples
    --------
    >>> import tempfile
    >>> from murakit import load_mura, make_mura
    >>> from murakit.plotting import DatasetDisplay
    >>> root = make_mura(tempfile.mkdtemp() + "/mura", n_patients=12, image_size=64, random_state=0)
    >>> DatasetDisplay.from_data(load_mura(root)).counts_.columns.tolist()
    ['patients', 'studies', 'images']
    """

    def __init__(self, data: Bunch) -> None:
        self.data = data

    @classmethod
    def from_data(cls, data: Bunch) -> Self:
        """Draw a data set.

        Parameters
        ----------
        data : Bunch
            With ``data``, ``target``, ``patients``, ``studies`` and ``regions``.

        Returns
        -------
        display : DatasetDisplay
        """
        return cls(data).plot()

    def plot(self) -> Self:
        """Draw four panels into a figure of two columns' width.

        Returns
        -------
        self : DatasetDisplay

        Raises
        ------
        FileNotFoundError
            For a missing image.
        UnreadableImage
            For an image whose size cannot be read.
        """
        data = self.data
        samples = as_samples(data.data)
        images, row = samples.path, samples.row
        frame = _frame(data, images, row)
        self.counts_ = frame.groupby(["region", "label"], sort=True).agg(
            patients=("patient", "nunique"), studies=("study", "nunique"), images=("image", "size")
        )
        with paper() as plt:
            self.figure_, self.axes_ = plt.subplots(
                2, 2, figsize=(2 * COLUMN, 4.6), layout="constrained", width_ratios=[1.2, 1]
            )
            self.ax_ = self.axes_[0, 0]
            self._draw_regions(self.ax_, frame.groupby("region")["patient"].nunique())
            per_patient = frame.groupby("patient")["study"].nunique()
            per_study = frame.groupby("study")["image"].size()
            _draw_counts(self.axes_[0, 1], per_patient, "Studies of a patient", "Patients")
            _draw_counts(self.axes_[1, 0], per_study, "Images (views) of a study", "Studies")
            self._draw_sizes(self.axes_[1, 1], images)
        return self

    def _draw_regions(self, ax, patients):
        studies = self.counts_["studies"].unstack("label", fill_value=0)
        studies = studies[sorted(studies, key=_normal_first)]
        images = self.counts_["images"].groupby(level="region").sum()
        place = np.arange(len(studies))[::-1]
        left = np.zeros(len(studies))
        hatches = ("", "////", "....", "xxxx")
        for number, label in enumerate(studies):
            ax.barh(
                place,
                studies[label],
                left=left,
                color="white" if number % 2 == 0 else LIGHT,
                edgecolor=COLOURS[0],
                linewidth=0.8,
                hatch=hatches[number % 4],
                label=str(label),
            )
            left = left + studies[label].to_numpy()
        for y, region, end in zip(place, studies.index, left):
            ax.text(
                end, y, f" {patients[region]:,} patients\n {images[region]:,} images", va="center", fontsize=6
            )
        ax.set_yticks(place, [str(region).capitalize() for region in studies.index])
        ax.set(xlabel="Studies", xlim=(0, left.max() * 1.4))
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=2)

    def _draw_sizes(self, ax, images):
        chosen = images
        if len(images) > _MOST_MEASURED:
            chosen = np.random.default_rng(0).choice(images, _MOST_MEASURED, replace=False)
        sizes = np.array([read_header(path)[:2] for path in chosen])
        ax.scatter(*sizes.T, s=5, color=COLOURS[0], alpha=0.35, linewidth=0)
        side = sizes.max() * 1.08
        ax.plot([0, side], [0, side], color=LIGHT, linewidth=0.8, zorder=0)
        what = "all" if len(chosen) == len(images) else f"{len(chosen):,} of {len(images):,}"
        ax.set(
            xlabel="Image width in pixels", ylabel="Height", xlim=(0, side), ylim=(0, side), aspect="equal"
        )
        ax.text(0.03, 0.97, f"{what} images", transform=ax.transAxes, va="top", fontsize=6, color=GREY)


def _frame(data, images, row):
    names = {0: "normal", 1: "abnormal"}
    target = [names.get(label, label) for label in np.asarray(data.target).tolist()]
    columns = {"label": target, "region": data.regions, "patient": data.patients, "study": data.studies}
    return pd.DataFrame(columns, dtype=object).iloc[row].reset_index(drop=True).assign(image=images)


def _normal_first(label):
    return label == "abnormal", str(label)


def _draw_counts(ax, counts, xlabel, ylabel):
    values, n = np.unique(counts, return_counts=True)
    bars = ax.bar(values, n, color=LIGHT, edgecolor=COLOURS[0], linewidth=0.8)
    ax.bar_label(bars, [f"{number:,}" for number in n], fontsize=6, padding=1)
    ax.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, n.max() * 1.12))
    ax.xaxis.get_major_locator().set_params(integer=True)
