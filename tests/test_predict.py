"""What predictions mean: labels, probabilities, study folders, mirror images."""

import numpy as np
import pandas as pd
import pytest
from helpers import quick_classifier
from PIL import Image

from murakit import read_image, read_square


def test_labels_of_any_type_come_back(images):
    for names in (np.array(["normal", "abnormal"]), np.array([-7, 40]), np.array([False, True])):
        y = names[images.target]
        clf = quick_classifier(max_epochs=1).fit(images.data, y)
        np.testing.assert_array_equal(clf.classes_, np.unique(names))
        assert set(clf.predict(images.data)) <= set(names)


def test_more_than_two_classes(small_mura):
    from murakit import load_mura

    mura = load_mura(small_mura, target="region_abnormal")
    clf = quick_classifier(max_epochs=1, class_weight="region").fit(mura.data, mura.target)
    proba = clf.predict_proba(mura.data)
    assert proba.shape == (len(mura.data), 4) and list(clf.classes_) == mura.target_names
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_array_equal(clf.predict(mura.data), clf.classes_[proba.argmax(axis=1)])
    np.testing.assert_allclose(np.exp(clf.decision_function(mura.data)), proba)


def test_the_decision_function_is_the_log_odds(images):
    clf = quick_classifier().fit(images.data, images.target)
    proba = clf.predict_proba(images.data)
    np.testing.assert_allclose(clf.decision_function(images.data), np.log(proba[:, 1] / proba[:, 0]))
    np.testing.assert_array_equal(clf.predict(images.data), (proba[:, 1] > 0.5).astype(int))


def test_a_study_folder_gets_the_mean_over_its_images(images, studies):
    clf = quick_classifier().fit(studies.data, studies.target)
    by_image = pd.Series(clf.predict_proba(images.data)[:, 1]).groupby(images.studies).mean()
    by_study = pd.Series(clf.predict_proba(studies.data)[:, 1], index=studies.studies)
    pd.testing.assert_series_equal(by_study, by_image[by_study.index], check_names=False, atol=1e-6)


def test_training_on_studies_is_training_on_their_images(images, studies):
    from helpers import same_state, state_of

    of_images = quick_classifier().fit(images.data, images.target)
    of_studies = quick_classifier().fit(studies.data, studies.target)
    assert same_state(state_of(of_images), state_of(of_studies))


def test_images_and_studies_may_be_mixed(images, studies):
    clf = quick_classifier().fit(images.data, images.target)
    mixed = [studies.data[0], images.data[-1]]
    assert clf.predict_proba(mixed).shape == (2, 2)


def test_tta_averages_an_image_and_its_mirror_image(images, tmp_path):
    clf = quick_classifier().fit(images.data, images.target)
    mirrored = []
    for number, path in enumerate(images.data[:4]):
        mirrored.append(tmp_path / f"{number}.png")
        # On the square that the network sees: padding may be off by one pixel otherwise.
        Image.fromarray(read_square(path, 32)[:, ::-1]).save(mirrored[-1])
    plain = clf.predict_proba(images.data[:4])
    expected = (plain + clf.predict_proba(mirrored)) / 2
    np.testing.assert_allclose(clf.set_params(tta=True).predict_proba(images.data[:4]), expected, atol=1e-6)


def test_predictions_do_not_depend_on_the_batch(images):
    clf = quick_classifier().fit(images.data, images.target)
    whole = clf.predict_proba(images.data)
    for batch_size in (1, 7, 1000):
        clf.set_params(batch_size=batch_size)
        np.testing.assert_allclose(clf.predict_proba(images.data), whole, atol=1e-6)


def test_unlabelled_paths_outside_of_a_layout_can_be_predicted(images, tmp_path):
    clf = quick_classifier().fit(images.data, images.target)
    Image.open(images.data[0]).save(tmp_path / "anything.png")
    np.testing.assert_allclose(
        clf.predict_proba([tmp_path / "anything.png"]), clf.predict_proba(images.data[:1])
    )


def test_an_unreadable_image_is_named(images, tmp_path):
    from murakit import UnreadableImage

    clf = quick_classifier().fit(images.data, images.target)
    (tmp_path / "broken.png").write_bytes(b"")
    with pytest.raises(UnreadableImage, match=r"broken\.png.*empty"):
        clf.predict([*images.data[:3], tmp_path / "broken.png"])


def test_nothing_to_predict_is_an_error(images):
    clf = quick_classifier().fit(images.data, images.target)
    with pytest.raises(ValueError, match="0 samples"):
        clf.predict([])


def test_groups_stand_in_for_patients_that_no_path_names(tmp_path, images):
    paths = []
    for number, path in enumerate(images.data):
        paths.append(tmp_path / f"{number:03d}.png")
        Image.open(path).save(paths[-1])
    clf = quick_classifier().fit(paths, images.target, groups=images.patients)
    assert set(clf.train_patients_) | set(clf.validation_patients_) == set(images.patients)
    assert not set(clf.train_patients_) & set(clf.validation_patients_)


def test_squashing_and_padding_see_different_pixels(images):
    wide = [path for path in images.data if np.ptp(read_image(path).shape)][:4]
    padded, squashed = (
        quick_classifier(resize=resize).fit(images.data, images.target).predict_proba(wide)
        for resize in ("pad", "squash")
    )
    assert len(wide) == 4 and (padded != squashed).all()
