"""Heat maps, galleries, audits and the report."""

import re
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import quick_classifier
from PIL import Image
from torch.nn import functional

from murakit import (
    audit_shortcuts,
    evaluate,
    evaluate_predictions,
    load_mura,
    make_mura,
    read_image,
    read_square,
    write_report,
)
from murakit.inspection import HeatMaps, grad_cam, pointing_game, show_mistakes, show_studies, worst_mistakes

matplotlib.use("agg")


@pytest.fixture(scope="module")
def two_sizes(tmp_path_factory):
    """Images of a wide and of a tall film."""
    folder = tmp_path_factory.mktemp("sizes")
    rng = np.random.default_rng(0)
    paths = []
    for name, shape in (("wide", (40, 100)), ("tall", (90, 36))):
        paths.append(str(folder / f"{name}.png"))
        Image.fromarray(rng.integers(0, 255, shape).astype(np.uint8)).save(paths[-1])
    return paths


# -- heat maps ------------------------------------------------------------------------------


def by_hand(clf, path, code):
    """Grad-CAM of the last stage, written out."""
    network = clf.net_.module_
    square = torch.from_numpy(read_square(path, clf.image_size, clf.resize))[None, None] / 255
    x = ((square - network.mean.view(1, 3, 1, 1)) / network.std.view(1, 3, 1, 1)).requires_grad_()
    for stage in network.stages.values():
        x = stage(x)
    x.retain_grad()
    network.head(network.pool(x))[0, code].backward()
    weights = x.grad.mean(dim=(2, 3), keepdim=True)
    return functional.relu((weights * x).sum(dim=1))[0].detach()


@pytest.mark.parametrize("resize", ["pad", "squash"])
def test_grad_cam_is_the_one_written_by_hand(images, two_sizes, resize):
    clf = quick_classifier(resize=resize).fit(images.data, images.target)
    for target in (0, 1):
        found = grad_cam(clf, two_sizes, target=target, stage="two")
        for path, heat in zip(two_sizes, found.maps):
            assert heat.shape == read_image(path).shape
            cam = by_hand(clf, path, target)
            square = functional.interpolate(cam[None, None], (32, 32), mode="bilinear", align_corners=False)[
                0, 0
            ]
            if resize == "pad":
                wide = heat.shape[1] > heat.shape[0]
                inner = round(32 * min(heat.shape) / max(heat.shape))
                start = (32 - inner) // 2
                square = square[start : start + inner] if wide else square[:, start : start + inner]
            expected = functional.interpolate(
                square[None, None], heat.shape, mode="bilinear", align_corners=False
            )
            expected = expected[0, 0].numpy()
            np.testing.assert_allclose(heat, expected / max(expected.max(), 1e-30), atol=1e-4)


@pytest.mark.parametrize("method", ["gradcam", "occlusion"])
def test_maps_are_of_the_images_own_size_and_the_model_stays_as_it_is(images, two_sizes, method):
    clf = quick_classifier().fit(images.data, images.target)
    before = clf.predict_proba(two_sizes)
    found = grad_cam(clf, two_sizes, method=method)
    assert [heat.shape for heat in found.maps] == [(40, 100), (90, 36)]
    assert all(0 <= heat.min() and heat.max() in (0, 1) for heat in found.maps)
    assert found.overlay(0).shape == (40, 100, 3)
    np.testing.assert_allclose(found.proba, before[:, 1], atol=1e-6)
    np.testing.assert_array_equal(clf.predict_proba(two_sizes), before)
    assert len(found.plot().axes) == 2


def test_each_image_is_decoded_once_for_its_map(images, two_sizes, monkeypatch):
    clf = quick_classifier().fit(images.data, images.target)
    opened, real = [], Image.open

    def counted(path, *args, **kwargs):
        opened.append(str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Image, "open", counted)
    grad_cam(clf, two_sizes)
    assert opened == two_sizes


def test_occlusion_finds_what_alone_speaks_for_a_class(images, tmp_path):
    """A network that looks at brightness: covering the one bright spot is what hurts."""
    clf = quick_classifier(unfreeze="all").fit(images.data, images.target)
    network = clf.net_.module_
    with torch.no_grad():
        for stage in network.stages.values():
            stage[0].weight.fill_(0.1)
            stage[0].bias.zero_()
            stage[1].reset_running_stats()
            stage[1].weight.fill_(1.0)
            stage[1].bias.zero_()
        network.head.weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 8))
    pixels = np.zeros((64, 64), dtype=np.uint8)
    pixels[8:24, 36:52] = 255
    path = str(tmp_path / "spot.png")
    Image.fromarray(pixels).save(path)
    x, y = grad_cam(clf, [path], method="occlusion").peak(0)
    assert 36 <= x < 52 and 8 <= y < 24


def test_a_stage_of_too_few_positions_is_not_taken_unasked(images, two_sizes):
    # At 32 px, stage one has 8 x 8 positions and stage two 4 x 4; at 64 px, two has 8 x 8.
    for size, expected in ((32, "one"), (64, "two")):
        clf = quick_classifier(image_size=size).fit(images.data, images.target)
        maps = {stage: grad_cam(clf, two_sizes, stage=stage).maps[0] for stage in (None, "one", "two")}
        np.testing.assert_array_equal(maps[None], maps[expected])
        assert not np.array_equal(maps["one"], maps["two"])


def test_bad_questions_are_answered(images):
    clf = quick_classifier().fit(images.data, images.target)
    for arguments, message in (
        ({"method": "lime"}, "method='lime'"),
        ({"target": 7}, "target=7 is none of the classes"),
        ({"stage": "layer9"}, "no stage of tiny"),
    ):
        with pytest.raises(ValueError, match=message):
            grad_cam(clf, images.data[:1], **arguments)
    with pytest.raises(TypeError, match="MuraClassifier"):
        grad_cam(object(), images.data[:1])


def test_the_pointing_game_by_hand(tmp_path):
    paths, maps = [], []
    for number, (x, y) in enumerate([(1, 1), (8, 8), (3, 2)]):
        pixels = np.zeros((10, 10), dtype=np.uint8)
        pixels[:, :5] = 200  # the body is the left half
        paths.append(str(tmp_path / f"train/XR_HAND/patient0000{number}/study1/image1.png"))
        (tmp_path / f"train/XR_HAND/patient0000{number}/study1").mkdir(parents=True)
        Image.fromarray(pixels).save(paths[-1])
        heat = np.zeros((10, 10), dtype=np.float32)
        heat[y, x] = 1
        maps.append(heat)
    boxes = pd.DataFrame(
        {
            # Named from another root, as findings.csv does; the third image has no finding.
            "path": [f"MURA-v1.1/train/XR_HAND/patient0000{n}/study1/image1.png" for n in (0, 1)],
            "x0": [0, 0],
            "y0": [0, 0],
            "x1": [5, 5],
            "y1": [2, 2],
        }
    )
    found = pointing_game(HeatMaps(paths, maps, target=1, proba=np.ones(3), method="gradcam"), boxes)
    assert found == {"n": 2, "hits": 0.5, "chance": pytest.approx(0.2), "ratio": pytest.approx(2.5)}
    with pytest.raises(ValueError, match="has a finding"):
        pointing_game(HeatMaps(paths[2:], maps[2:], target=1, proba=[1], method="gradcam"), boxes)


# -- studies and mistakes -------------------------------------------------------------------


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
    scores = {kind: found.units.proba[rows, 1] for kind, rows in mistakes.items()}
    everything = found.units.proba[:, 1]
    np.testing.assert_allclose(scores["false negatives"], np.sort(everything[found.units.code == 1])[:3])
    np.testing.assert_allclose(
        scores["false positives"], np.sort(everything[found.units.code == 0])[::-1][:3]
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


# -- shortcuts ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    # Without habits of patients and machines: nothing but bones and findings.
    root = tmp_path_factory.mktemp("audit") / "MURA-v1.1"
    return make_mura(root, n_patients=150, regions="wrist", image_size=64, patient_effect=0.0, random_state=0)


def test_a_planted_shortcut_is_found(clean, tmp_path):
    data = load_mura(clean, subset="all")
    paths = []
    for path, label in zip(data.data, data.target):
        planted = tmp_path / path.split("MURA-v1.1/")[1]
        planted.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            side = 1.25 if label else 1.0
            image.resize((round(image.width * side), round(image.height * side))).save(planted)
        paths.append(str(planted))
    found = audit_shortcuts(paths, data.target, n_resamples=100)
    assert found.table.auroc["image size"] > 0.9 and found.table.suspicious["image size"]
    assert "can be told from image size" in found.conclusion()
    assert "can be told from image size" in repr(found) and "<table" in found._repr_html_()


def test_where_none_was_planted_none_is_found(clean):
    data = load_mura(clean, subset="all")
    found = audit_shortcuts(data.data, data.target, n_resamples=100)
    single = found.table.drop(index=["mean brightness", "file size", "all together"])
    assert single.auroc.between(0.4, 0.6).all(), found
    assert not single.suspicious.any()


def test_an_audit_of_too_few_studies_does_not_speak_anybody_free(tmp_path):
    data = load_mura(
        make_mura(tmp_path / "mura", n_patients=24, regions="wrist", image_size=64, random_state=0)
    )
    found = audit_shortcuts(data.data, data.target, n_splits=2, n_resamples=100)
    assert not found.table.suspicious.any()
    assert "too few to exclude it" in found.conclusion() and "than chance" not in repr(found)


def test_an_audit_needs_patients_of_both_labels(images):
    with pytest.raises(ValueError, match="fewer than n_splits=50"):
        audit_shortcuts(images.data, images.target, n_splits=50)
    with pytest.raises(ValueError, match="1 classes"):
        audit_shortcuts(images.data, np.zeros(len(images.data), dtype=int))


# -- the report -----------------------------------------------------------------------------


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
    apart = np.abs(found.units.proba - theirs.units.proba)[mistakes, 1].max()
    assert apart > 0.02
    assert f"differ from the evaluation's by up to {apart:.2f}." in text(other)


def test_a_report_explains_no_network_of_other_classes(images, small_mura, tmp_path):
    valid = load_mura(small_mura, subset="valid")
    clf = quick_classifier(max_epochs=1).fit(images.data, images.target)
    of_regions = quick_classifier(max_epochs=1).fit(images.data, images.regions)
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
