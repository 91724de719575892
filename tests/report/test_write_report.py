"""The report: one whole page that needs no network, says what there is and escapes text from data."""

import os
import re
from html.parser import HTMLParser
from importlib.resources import files

import matplotlib
import numpy as np
import pytest
from helpers import quick_classifier
from PIL import Image
from sklearn.utils import Bunch

from murakit import audit_shortcuts, evaluate, evaluate_predictions, load_mura, write_report
from murakit.inspection import worst_mistakes

matplotlib.use("agg")


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.links, self.headings = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        if tag == "img":
            self.images.append(attrs)
        self.links += [attrs[name] for name in ("href", "src") if name in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def test_a_report_is_one_whole_file_without_a_network(images, small_mura, tmp_path):
    clf = quick_classifier(max_epochs=1).fit(images.data, images.target)
    valid = load_mura(small_mura, subset="valid")
    found = evaluate(clf, valid.data, valid.target, n_resamples=50)
    audit = audit_shortcuts(images.data, images.target, n_splits=2, n_resamples=20)
    path = write_report(
        found, tmp_path / "report.html", estimator=clf, data={"valid": valid}, audit=audit, title="A <b> & c"
    )
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert path == str(tmp_path / "report.html")
    page = Page(text)
    assert not page.open  # every element is closed
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert "http" not in re.sub(r"data:image/png;base64,[^\"]+", "", text)
    assert len(page.images) >= 7 and all(image["alt"] for image in page.images)
    assert page.headings == [
        "Result", "By region", "Probabilities and threshold", "Beside published results", "Data", "Shortcuts",
        "Model and training", "Most confident mistakes", "Limits", "Versions",
    ]  # fmt: skip
    assert "A &lt;b&gt; &amp; c" in text and "no medical device" in text
    assert f"{found.get('kappa').value:.3f}" in text
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_report_says_where_its_heat_maps_are_of_another_network_than_was_judged(
    images, small_mura, tmp_path
):
    valid = load_mura(small_mura, subset="valid")
    clf = quick_classifier(max_epochs=1).fit(images.data, images.target)
    other = quick_classifier(max_epochs=3, lr=0.05, random_state=1).fit(images.data, images.target)
    found = evaluate(clf, valid.data, valid.target, n_resamples=0)
    mistakes = np.concatenate(list(worst_mistakes(found).values()))
    assert len(mistakes)

    def text(estimator):
        write_report(found, tmp_path / "report.html", estimator=estimator)
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    assert "is not what was judged" not in text(clf)
    theirs = evaluate(other, valid.data, valid.target, n_resamples=0)
    apart = np.abs(found.predictions.proba - theirs.predictions.proba)[mistakes, 1].max()
    assert apart > 0.02
    assert f"differ from the evaluation's by up to {apart:.2f}." in text(other)


def test_a_report_explains_no_network_of_other_classes(images, small_mura, tmp_path):
    valid = load_mura(small_mura, subset="valid")
    clf = quick_classifier(max_epochs=1).fit(images.data, images.target)
    of_regions = quick_classifier(max_epochs=1, pos_label="wrist").fit(images.data, images.regions)
    found = evaluate(clf, valid.data, valid.target, n_resamples=0)
    write_report(found, tmp_path / "report.html", estimator=of_regions)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "tells other classes apart" in text and "Grad-CAM" not in text


def test_a_report_of_arrays_alone_has_what_there_is(tmp_path):
    rng = np.random.default_rng(0)
    y, proba = rng.integers(3, size=60), rng.dirichlet(np.ones(3), size=60)
    found = evaluate_predictions(y, proba, patients=np.arange(60), n_resamples=20)
    write_report(found, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.headings == ["Result", "Limits", "Versions"]


def test_a_report_of_two_classes_without_paths_says_that_no_mistake_can_be_shown(tmp_path):
    found = evaluate_predictions([0, 1, 1], [0.9, 0.2, 0.7], patients=list("abc"), n_resamples=20)
    write_report(found, tmp_path / "report.html")
    assert "without the paths of its images" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_text_from_data_is_escaped(tmp_path):
    evil = "<script>alert('x')</script>"
    paths = []
    for number in range(4):
        # Windows allows no such names of files.
        paths.append(str(tmp_path / f"{number}{'' if os.name == 'nt' else '<script>'}.png"))
        Image.fromarray(np.full((20, 30), 60 * number, dtype=np.uint8)).save(paths[-1])
    patients = [f"{evil}{number}" for number in range(4)]
    found = evaluate_predictions(
        [0, 1, 0, 1],
        [0.9, 0.2, 0.1, 0.8],
        patients=patients,
        studies=patients,
        regions=[evil] * 4,
        images=paths,
        n_resamples=20,
    )
    data = {
        "data": np.array(paths, dtype=object),
        "target": np.array([evil, "b"] * 2),
        "patients": np.array(patients, dtype=object),
        "studies": np.array(patients, dtype=object),
        "regions": np.array([evil] * 4, dtype=object),
    }
    estimator = quick_classifier(class_weight={evil: 1})
    write_report(
        found,
        tmp_path / "report.html",
        estimator=estimator,
        data={evil: Bunch(**data)},
        title=evil,
        heat_maps=False,
    )
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text.lower()
    page = Page(text)
    assert not page.open
    # As text, it is there: in the title, the data's name, its labels and regions, and the parameters.
    assert text.count("&lt;script&gt;") >= 10
    assert f"Studies per region and label, and sizes, of {evil}" in [image["alt"] for image in page.images]


def test_text_in_tables_is_escaped(tmp_path):
    classes = ["<script>a", "<script>b", "<script>c"]
    rng = np.random.default_rng(0)
    found = evaluate_predictions(
        rng.choice(classes, 60), rng.dirichlet(np.ones(3), 60), patients=np.arange(60), regions=["<b>"] * 60,
        classes=classes, n_resamples=20,
    )  # fmt: skip
    write_report(found, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text and "<b>" not in text


def test_the_templates_come_with_the_package():
    templates = files("murakit.report") / "templates"
    names = {entry.name for entry in (templates / "sections").iterdir()}
    assert (templates / "report.html").is_file() and "result.html" in names


@pytest.mark.parametrize("names", [["train", "valid"], ["data", "target"]], ids=", ".join)
def test_data_sets_may_have_any_names(images, tmp_path, names):
    found = evaluate_predictions([0, 1, 1], [0.9, 0.2, 0.7], patients=list("abc"), n_resamples=0)
    write_report(found, tmp_path / "report.html", data=dict.fromkeys(names, images))
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    alts = [image["alt"] for image in page.images]
    assert all(f"Studies per region and label, and sizes, of {name}" in alts for name in names)


def test_one_data_set_needs_no_name(images, tmp_path):
    found = evaluate_predictions([0, 1, 1], [0.9, 0.2, 0.7], patients=list("abc"), n_resamples=0)
    write_report(found, tmp_path / "report.html", data=images)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Studies per region and label, and sizes, of the data set" in [
        image["alt"] for image in page.images
    ]
