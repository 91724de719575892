"""`write_report`: an evaluation as one HTML file, with tables, pictures, mistakes and limits."""

import base64
import datetime
import html
import io
import os
import platform

import numpy as np

from ..estimators._classifier import MuraClassifier
from ..evaluation._compare import as_comparison
from ..evaluation._result import Evaluation
from ..inspection._gallery import has_paths, show_mistakes, worst_mistakes
from ..inspection._heat_maps import grad_cam
from ..io._atomic import written_whole
from ..plotting._curves import OperatingPointDisplay, ReliabilityDisplay
from ..plotting._dataset import DatasetDisplay
from ..plotting._history import HistoryDisplay
from ..plotting._regions import RegionConfusionDisplay, RegionDisplay
from ..plotting._style import pyplot
from ..utils._versions import installed_versions
from ._template import PAGE, STYLE

NOT_FOR_CLINICAL_USE = (
    "For research only. This is no medical device: no result of it may decide about a patient."
)

# What rounding may move a probability by: half precision and other batches.
_AS_JUDGED = 0.02

_PACKAGES = ("murakit", "torch", "torchvision", "scikit-learn", "skorch", "numpy", "pillow", "captum")


def write_report(
    evaluation,
    path,
    *,
    estimator=None,
    data=None,
    audit=None,
    title="Evaluation of a classifier of radiographs",
    n_mistakes=4,
    heat_maps=True,
):
    """Write an evaluation as one HTML file that needs no network.

    Parameters
    ----------
    evaluation : Evaluation
        What `murakit.evaluate` returns.
    path : str or path-like
        The file to write; an older one is replaced when the new one is complete.
    estimator : classifier, default=None
        What was judged: its parameters, its training curve and its heat maps.
    data : Bunch or dict of str to Bunch, default=None
        The data set, as `load_mura` returns it, or several by name, such as train and valid.
    audit : ShortcutAudit, default=None
        What `murakit.audit_shortcuts` returns.
    title : str, default="Evaluation of a classifier of radiographs"
        Heading of the page.
    n_mistakes : int, default=4
        Most confident errors of each kind to show; 0: none.
    heat_maps : bool, default=True
        Lay Grad-CAM over the mistakes, where `estimator` is a `MuraClassifier`. The page says so where
        that network's probabilities are not those that were judged.

    Returns
    -------
    path : str
        The absolute path of the file.

    Raises
    ------
    TypeError
        For something else than an `Evaluation`.
    ImportError
        Without matplotlib (``murakit[plot]``) or, for heat maps, Captum (``murakit[explain]``).

    References
    ----------
    Mongan, Moy and Kahn, "Checklist for Artificial Intelligence in Medical Imaging (CLAIM)",
    Radiology: Artificial Intelligence 2 (2020): what such a report has to say.

    Examples
    --------
    >>> import tempfile
    >>> from murakit import evaluate_predictions, write_report
    >>> evaluation = evaluate_predictions(
    ...     [0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], patients=list("abcd"), n_resamples=100
    ... )
    >>> path = write_report(evaluation, tempfile.mkdtemp() + "/report.html", n_mistakes=0)
    >>> with open(path, encoding="utf-8") as file:
    ...     "Cohen&#x27;s kappa" in file.read()
    True
    """
    if not isinstance(evaluation, Evaluation):
        raise TypeError(
            f"write_report takes an Evaluation, not a {type(evaluation).__name__}: see murakit.evaluate."
        )
    parts = {} if data is None else data if isinstance(data, dict) and "data" not in data else {"": data}
    sections = [
        ("Result", _result(evaluation)),
        ("By region", _regions(evaluation)),
        ("Probabilities and threshold", _probabilities(evaluation)),
        ("Beside published results", _published(evaluation)),
        ("Data", "".join(_data(name, part) for name, part in parts.items())),
        ("Shortcuts", "" if audit is None else audit._repr_html_()),
        ("Model and training", "" if estimator is None else _model(estimator)),
        ("Most confident mistakes", _mistakes(evaluation, estimator, n_mistakes, heat_maps)),
        ("Limits", _limits(evaluation)),
        ("Versions", _versions()),
    ]
    sections = [(name, body) for name, body in sections if body]
    page = PAGE.format(
        style=STYLE,
        title=html.escape(title),
        warning=NOT_FOR_CLINICAL_USE,
        made=datetime.datetime.now().strftime("%d %B %Y, %H:%M"),
        contents="".join(f'<li><a href="#s{at}">{name}</a></li>' for at, (name, _) in enumerate(sections)),
        body="".join(
            f'<section id="s{at}"><h2>{name}</h2>{body}</section>' for at, (name, body) in enumerate(sections)
        ),
    )
    path = os.path.abspath(os.fspath(path))
    with written_whole(path) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
        file.write(page)
    return path


# -- sections -------------------------------------------------------------------------------


def _result(evaluation):
    frame = evaluation.to_frame().loc["all"]
    counts = (
        f"{frame['n_studies']:,} studies ({frame['n_images']:,} images) of {frame['n_patients']:,} patients"
        + (f", {frame['prevalence']:.1%} abnormal" if not np.isnan(frame["prevalence"]) else "")
    )
    cards = "".join(
        f'<div class="card"><span class="name">{html.escape(name)}</span>'
        f'<span class="value">{_value(estimate)}</span>'
        f'<span class="range">{_range(estimate)}</span></div>'
        for name, estimate in (
            ("Cohen's kappa", evaluation.get("kappa")),
            ("AUROC", evaluation.get("auroc")),
            ("Sensitivity", evaluation.get("sensitivity")),
            ("Specificity", evaluation.get("specificity")),
        )
    )
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in [evaluation.caption(), *evaluation.undefined()])
    return f"<p>{counts}.</p><div class='cards'>{cards}</div>{notes}{_table(evaluation.table('all').T)}"


def _value(estimate):
    return "–" if np.isnan(estimate.value) else f"{estimate.value:.3f}"


def _range(estimate):
    return "no interval" if np.isnan(estimate.low) else estimate.bounds()


def _regions(evaluation):
    if not evaluation.units.regions():
        return ""
    display = RegionConfusionDisplay(evaluation).plot()
    one = len(display.axes_) == 1
    matrices = _picture(
        display, "Confusion matrix" if one else "Confusion matrices of all and of each region"
    )
    return (
        "<div class='pair'>"
        + _picture(RegionDisplay(evaluation).plot(), "Cohen's kappa of each region with its interval")
        + _picture(
            RegionDisplay(evaluation).plot(metric="auroc", published=False),
            "AUROC of each region with its interval",
        )
        + "</div>"
        + matrices
    )


def _probabilities(evaluation):
    if len(evaluation.classes) != 2:
        return ""
    if len(set(evaluation.units.code)) < 2:
        return "<p>All samples have one label: there is no ROC curve.</p>"
    return (
        "<div class='pair'>"
        + _picture(OperatingPointDisplay(evaluation).plot(), "ROC curve with its interval and the threshold")
        + _picture(ReliabilityDisplay(evaluation).plot(), "Share of abnormal against predicted probability")
        + "</div>"
    )


def _published(evaluation):
    if len(evaluation.classes) != 2:
        return ""  # what is published is of two classes
    table = as_comparison(evaluation).beside_published("kappa")
    note = (
        "<p>Numbers of others were measured on other studies, some per image, with other labels: the third column says "
        "where. A difference between lines of different origin is no result.</p>"
    )
    return note + _table(table, index=False, kind="text")


def _data(name, part):
    display = DatasetDisplay.from_data(part)
    heading = f"<h3>{html.escape(name)}</h3>" if name else ""
    picture = _picture(
        display, f"Studies per region and label, and sizes, of {name or 'the data set'}", wide=True
    )
    counts = display.counts_.reset_index()
    counts["label"] = counts["label"].astype(str)
    return heading + picture + _table(counts.astype(str), index=False)


def _model(estimator):
    defaults = type(estimator)().get_params(deep=False) if isinstance(estimator, MuraClassifier) else {}
    rows = "".join(
        f"<tr{'' if _same(value, defaults.get(name, value)) else ' class=set'}><th>{html.escape(name)}</th>"
        f"<td>{html.escape(repr(value))}</td></tr>"
        for name, value in sorted(estimator.get_params(deep=False).items())
    )
    text = f"<p>{html.escape(type(estimator).__name__)}; parameters in bold differ from the defaults.</p>"
    if hasattr(estimator, "history_"):
        text += _training(estimator)
    return (
        f"{text}<details open><summary>Parameters</summary><table class='parameters'>{rows}</table></details>"
    )


def _training(estimator):
    trained, held = estimator.train_patients_, estimator.validation_patients_
    sentences = [f"{estimator.n_epochs_} epochs were run, and epoch {estimator.best_epoch_} is kept."]
    if trained is not None:
        sentences.append(f"Trained on {len(trained):,} patients.")
    if held is not None:
        sentences.append(f"{len(held):,} other patients chose the epoch.")
    picture = _picture(
        HistoryDisplay.from_estimator(estimator), "Losses, scores and learning rate of each epoch"
    )
    return f"<p>{' '.join(sentences)}</p>{picture}"


def _same(value, default):
    try:
        return bool(value == default)
    except (TypeError, ValueError):
        return False


def _mistakes(evaluation, estimator, n_mistakes, heat_maps):
    if not n_mistakes or len(evaluation.classes) != 2:
        return ""
    if not has_paths(evaluation):
        return "<p>The evaluation was made without the paths of its images, so none can be shown.</p>"
    found = worst_mistakes(evaluation, n_mistakes=n_mistakes)
    units = evaluation.units
    maps = [] if heat_maps and isinstance(estimator, MuraClassifier) else None
    text = ""
    if maps is not None and not np.array_equal(getattr(estimator, "classes_", units.classes), units.classes):
        maps = None
        text = "<p>No heat maps: the estimator tells other classes apart than were judged.</p>"

    def explain(paths):
        maps.append(grad_cam(estimator, paths))
        return maps[-1]

    for kind, rows in found.items():
        true, predicted = ((1, 0), (0, 1))[kind == "false positives"]
        n_all = int(((units.code == true) & (units.predicted == predicted)).sum())
        text += f"<h3>{kind.capitalize()}: {n_all:,}</h3>"
        if not len(rows):
            text += "<p>None.</p>"
            continue
        figure = show_mistakes(
            evaluation, n_mistakes=n_mistakes, kind=kind, heat_maps=None if maps is None else explain
        )
        text += _image(figure, f"The most confident {kind}, all views of each study", wide=True)
    if not maps:
        return text
    note = (
        "<p>Bright areas (the line is at half of the highest value) speak for &ldquo;abnormal&rdquo; to this "
        "network (Grad-CAM). They say what moves it, not where an injury is.</p>"
    )
    judged = units.proba[np.concatenate(list(found.values())), 1]
    apart = np.abs(judged - [one.proba.mean() for one in maps]).max()
    if apart > _AS_JUDGED:
        note += (
            "<p class='warning'>The network explained here is not what was judged: its probabilities for these "
            f"studies differ from the evaluation's by up to {apart:.2f}. Either the report was given another "
            "estimator, or the evaluation's probabilities were changed after the network (by calibration, "
            "an ensemble or tta).</p>"
        )
    return note + text


def _limits(evaluation):
    frame = evaluation.to_frame()
    lines = [
        NOT_FOR_CLINICAL_USE,
        "The numbers hold for patients like these, with films like these, labelled as these were; they say nothing "
        "about another hospital, device or age group.",
        "Intervals show what other patients of the same kind would have changed, not errors of the labels, nor what "
        "another training of the same model would give.",
        "A label is that of a study: some views of an abnormal study show nothing abnormal.",
    ]
    small = frame.index[(frame.kind == "region") & (frame.n_studies < 50)]
    if len(small):
        lines.append(f"Fewer than 50 studies: {', '.join(small)}. Their numbers are little more than a hint.")
    if (frame["accuracy"] == 1).any():
        lines.append(
            "Where no error was made, resamples do not differ and the interval has no width: few cases, not certainty."
        )
    if evaluation.threshold is not None:
        lines.append(
            f"The threshold {evaluation.threshold:.3g} has to come from other patients than these; if it was chosen on "
            "them, sensitivity, specificity and kappa are too good."
        )
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"


def _versions():
    found = [f"Python {platform.python_version()}"]
    found += [f"{name} {version}" for name, version in installed_versions(_PACKAGES).items()]
    return f"<p>{', '.join(found)}; {platform.system()} {platform.machine()}.</p>"


# -- pieces ---------------------------------------------------------------------------------


def _table(frame, index=True, kind=None):
    table = frame.rename_axis(index=None, columns=None)
    return f"<div class='scroll'>{table.to_html(border=0, index=index, escape=True, classes=kind)}</div>"


def _picture(display, alt, *, wide=False):
    return _image(display.figure_, alt, wide=wide)


def _image(figure, alt, *, wide=False):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    pyplot().close(figure)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    width = round(figure.get_figwidth() * 96 * 1.15)
    kind = "wide" if wide else "narrow"
    return (
        f'<figure class="{kind}"><img src="data:image/png;base64,{data}" alt="{html.escape(alt)}" width="{width}">'
        f"<figcaption>{html.escape(alt)}.</figcaption></figure>"
    )
