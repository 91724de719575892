"""Galleries: all views of a study together, and the most confident mistakes."""

import matplotlib
import numpy as np
import pytest

from murakit import evaluate_predictions
from murakit.inspection import show_mistakes, show_studies, worst_mistakes

matplotlib.use("agg")


def test_all_views_of_a_study_are_shown_together(images):
    figure = show_studies(
        images.data, images.target, studies=images.studies, regions=images.regions, n_studies=3
    )
    rows = figure.subfigs
    assert len(rows) == 3
    for row in rows:
        title = row.get_suptitle()
        study = title.split(" · ")[0]
        n_views = int((images.studies == study).sum())
        assert sum(len(ax.images) for ax in row.axes) == min(n_views, 4)
        assert ("abnormal" in title) == study.endswith("positive")


def test_the_most_confident_mistakes_come_first(images):
    y = images.target
    rng = np.random.default_rng(0)
    proba = np.where(y == 1, rng.uniform(0, 0.5, len(y)), rng.uniform(0.5, 1, len(y)))
    ids = {"patients": images.patients, "studies": images.studies, "images": images.data}
    found = evaluate_predictions(y, proba, regions=images.regions, n_resamples=0, **ids)
    mistakes = worst_mistakes(found, n_mistakes=3)
    scores = {kind: found.predictions.proba[rows, 1] for kind, rows in mistakes.items()}
    everything = found.predictions.proba[:, 1]
    np.testing.assert_allclose(
        scores["false negatives"], np.sort(everything[found.predictions.code == 1])[:3]
    )
    np.testing.assert_allclose(
        scores["false positives"], np.sort(everything[found.predictions.code == 0])[::-1][:3]
    )
    figure = show_mistakes(found, n_mistakes=2)
    titles = [row.get_suptitle() for row in figure.subfigs]
    assert [title.split(":")[0] for title in titles] == ["False negative"] * 2 + ["False positive"] * 2
    assert f"{scores['false negatives'][0]:.2f}" in titles[0]


def test_without_paths_or_mistakes_there_is_nothing_to_show():
    wrong = evaluate_predictions([0, 1], [0.9, 0.1], patients=["a", "b"], n_resamples=0)
    with pytest.raises(ValueError, match="holds no paths"):
        show_mistakes(wrong)
    right = evaluate_predictions([0, 1], [0.1, 0.9], patients=["a", "b"], n_resamples=0)
    with pytest.raises(ValueError, match="no such error"):
        show_mistakes(right)
