"""One patient has one name, however a spreadsheet spells it."""

import unicodedata
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from helpers import quick_classifier

from murakit import check_disjoint, evaluate_predictions, load_radiographs
from murakit.utils._validation import as_identifier, check_identifiers, check_labels


@pytest.mark.parametrize(
    "value", ["7", "7.0", 7, 7.0, " 7 ", "7.00", np.int64(7), np.float32(7), Decimal("7.0")]
)
def test_seven_is_one_patient(value):
    assert as_identifier(value) == "7"
    with pytest.raises(ValueError, match="share 1 patient: 7"):
        check_disjoint(["a.png"], ["b.png"], groups_a=[value], groups_b=["7"])


@pytest.mark.parametrize("text", ["007", "07.0", "7.5", "7e0", "0x7", "-07", "7.", "P7.0"])
def test_what_is_not_seven_stays_another(text):
    assert as_identifier(text) == text


def test_accents_are_composed():
    composed, apart = "Müller", unicodedata.normalize("NFD", "Müller")
    assert composed != apart and as_identifier(apart) == as_identifier(composed) == composed


def test_an_empty_name_is_a_missing_one():
    with pytest.raises(ValueError, match="groups: row 1 has no patient; it is ' '"):
        check_identifiers(["a", " "], 2)


@pytest.mark.parametrize("kind", ["Int64", "Float64", "string", "object", "category"])
def test_columns_of_any_type_give_the_same_names(kind):
    column = pd.Series([1, 2, 1]).astype("object" if kind == "string" else kind).astype(kind)
    assert check_identifiers(column, 3).tolist() == ["1", "2", "1"]


def test_spellings_of_one_patient_are_one_patient_in_an_evaluation():
    y, proba = [0, 1, 0, 1], [0.1, 0.8, 0.4, 0.6]
    found = evaluate_predictions(y, proba, patients=["7", 7.0, " 7", "8"], n_resamples=0)
    assert found.to_frame().n_patients["all"] == 2


def test_labels_are_stripped(images):
    words = np.array(["normal", "abnormal"], dtype=object)[images.target]
    words[0] += " "
    clf = quick_classifier(max_epochs=1).fit(images.data, words)
    assert clf.classes_.tolist() == ["abnormal", "normal"]


def test_labels_of_a_table_are_stripped(images, tmp_path):
    rows = pd.DataFrame(
        {
            "path": images.data[[0, 30, 50, 70]],
            "label": ["normal", "abnormal ", " normal", "abnormal"],
            "who": list("abcd"),
        }
    )
    mine = load_radiographs(rows, path="path", label="label", patient="who")
    assert mine.target_names == ["abnormal", "normal"]


@pytest.mark.parametrize("y", [np.linspace(0, 1, 60), np.arange(60), [f"p{n}" for n in range(60)]])
def test_targets_of_a_regression_are_refused(y):
    with pytest.raises(ValueError, match="Is this a regression"):
        check_labels(y, 60)
