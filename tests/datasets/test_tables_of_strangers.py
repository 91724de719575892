"""Tables from other tools are taken as they are, and what is in them stays."""

import pickle
import shutil

import joblib
import numpy as np
import pandas as pd
import pytest
from helpers import quick_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import cross_val_score

from murakit import PatientKFold, evaluate, load_radiographs, predict_frame

pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")


@pytest.fixture
def renamed(images, tmp_path):
    """The images under names that say nothing, in a table with columns of its own."""
    files = []
    for number, path in enumerate(images.data):
        files.append(f"{number}.png")
        shutil.copy(path, tmp_path / files[-1])
    table = pd.DataFrame(
        {"file": files, "fracture": images.target, "who": images.patients, "exam": images.studies}
    )
    return tmp_path, table.assign(sex=np.where(np.arange(len(files)) % 3, "F", None), image="x")


NAMES = {"path": "file", "label": "fracture", "patient": "who", "study": "exam"}


@pytest.fixture
def mine(renamed):
    root, table = renamed
    return load_radiographs(table, root=root, **NAMES)


def test_other_columns_stay_in_the_frame(renamed, mine):
    _, table = renamed
    assert mine.frame["sex"].isna().tolist() == table["sex"].isna().tolist()
    assert set(mine.frame["table_image"]) == {"x"} and mine.frame["image"][3] == "3.png"


def test_a_table_without_labels_loads_for_prediction(renamed, images):
    root, table = renamed
    found = load_radiographs(table, path="file", patient="who", root=root)
    assert found.target is None and found.target_names == []
    clf = quick_classifier(max_epochs=1).fit(images.data, images.target)
    assert predict_frame(clf, found.data)["patient"].tolist() == images.patients.tolist()


@pytest.mark.parametrize(
    "convert",
    [
        lambda t: pl.from_pandas(t),
        lambda t: pl.from_pandas(t).lazy(),
        lambda t: pa.Table.from_pandas(t),
        lambda t: t.convert_dtypes(),
        lambda t: t.convert_dtypes(dtype_backend="pyarrow"),
    ],
    ids=["polars", "lazy polars", "pyarrow", "nullable", "pyarrow-backed"],
)
def test_tables_of_any_library_give_the_same_bunch(renamed, mine, convert):
    root, table = renamed
    found = load_radiographs(convert(table), root=root, **NAMES)
    assert found.data.tolist() == mine.data.tolist()
    assert found.target.tolist() == mine.target.tolist() and found.target.dtype == mine.target.dtype
    assert found.patients.tolist() == mine.patients.tolist()


@pytest.mark.parametrize("column", [pl.Series, pd.array, pa.array, lambda v: pd.Series(v).convert_dtypes()])
def test_columns_of_any_library_train_the_same(images, column):
    expected = quick_classifier(max_epochs=1).fit(images.data, images.target, groups=images.patients)
    clf = quick_classifier(max_epochs=1).fit(
        column(list(images.data)), column(images.target.tolist()), groups=column(list(images.patients))
    )
    np.testing.assert_array_equal(clf.predict_proba(images.data), expected.predict_proba(images.data))


def test_what_is_no_table_is_named():
    with pytest.raises(TypeError, match="got list of builtins"):
        load_radiographs([["a.png", 1]], path="file")


def test_rows_of_a_table_carry_their_patient_into_whatever_splits_them(mine):
    clf = quick_classifier(max_epochs=1)
    scores = cross_val_score(clf, mine.data, mine.target, cv=PatientKFold(2), error_score="raise")
    assert len(scores) == 2
    fitted = clf.fit(mine.data, mine.target)
    assert set(fitted.train_patients_) | set(fitted.validation_patients_) == set(mine.patients)
    assert not set(fitted.train_patients_) & set(fitted.validation_patients_)
    calibrated = CalibratedClassifierCV(clf, cv=PatientKFold(2)).fit(mine.data, mine.target)
    found = evaluate(calibrated, mine.data, mine.target, allow_known_patients=True, n_resamples=0)
    assert found.to_frame().n_patients["all"] == len(set(mine.patients))
    assert found.to_frame().n_studies["all"] == len(set(mine.studies))


def test_a_path_with_its_patient_is_text_and_can_be_pickled(mine):
    path = mine.data[0]
    assert path == str(path) and hash(path) == hash(str(path))
    again = pickle.loads(pickle.dumps(mine.data[:3]))
    assert [p.patient for p in again] == mine.patients[:3].tolist()
    assert joblib.hash(again) == joblib.hash(mine.data[:3])


def test_paths_that_were_text_in_between_no_longer_say_their_patient(mine):
    plain = np.array([str(path) for path in mine.data], dtype=object)
    with pytest.raises(ValueError, match="patient of row 0 is not known"):
        quick_classifier().fit(plain, mine.target)


def test_a_bunch_shows_itself_in_a_few_lines(mine, images):
    for bunch in (mine, images):
        text = repr(bunch)
        assert len(text.splitlines()) <= 10 and f"{len(bunch.data):,} samples" in text
        assert "<table" in bunch._repr_html_()
    assert "normal" in repr(images) and "wrist" in repr(images)
