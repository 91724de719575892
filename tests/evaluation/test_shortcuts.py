"""Audits of shortcuts: what they find where one was planted, and where none was."""

import numpy as np
import pytest
from PIL import Image

from murakit import audit_shortcuts, load_mura, make_mura


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
