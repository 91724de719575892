"""What predictions mean: labels, probabilities, study folders, mirror images."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import TinyNet, quick_classifier
from PIL import Image

from murakit import networks, predict_frame, read_image, read_square


def test_labels_of_any_type_come_back(images):
    for names in (np.array(["normal", "abnormal"]), np.array([-7, 40]), np.array([False, True])):
        y = names[images.target]
        pos_label = 40 if 40 in names else None
        clf = quick_classifier(max_epochs=1, pos_label=pos_label).fit(images.data, y)
        assert clf.pos_label_ == names[1]
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


def test_studies_that_no_path_says_have_to_be_passed(images, tmp_path):
    clf = quick_classifier().fit(images.data, images.target)
    flat = [shutil.copy(path, tmp_path / f"{row}.png") for row, path in enumerate(images.data)]
    with pytest.raises(ValueError, match=r"The study of row 0 .*0.png.* studies="):
        predict_frame(clf, flat, level="study")
    expected = predict_frame(clf, images.data, level="study")
    told = {"patients": images.patients, "studies": images.studies, "regions": images.regions}
    found = predict_frame(clf, flat, level="study", **told)
    columns = ["patient", "region", "probability", "prediction"]
    pd.testing.assert_frame_equal(found[columns], expected[columns])
    assert found.path.tolist() == list(dict.fromkeys(images.studies))
    by_folder = predict_frame(clf, [tmp_path], level="study")
    assert by_folder.path.tolist() == [str(tmp_path)]


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


@pytest.mark.parametrize("unfreeze", ["head", "two"])
@pytest.mark.parametrize("through_data", [False, True])
def test_weights_that_are_changed_by_hand_are_noticed(images, unfreeze, through_data):
    clf = quick_classifier(unfreeze=unfreeze, augment=False).fit(images.data, images.target)
    before = clf.predict_proba(images.data)
    weight = clf.net_.module_.stages["one"][0].weight
    # .data changes a tensor behind the back of its version counter.
    target = weight.data if through_data else weight
    with torch.no_grad():
        target.mul_(-1)
    changed = clf.predict_proba(images.data)
    assert np.abs(changed - before).max() > 1e-4
    with torch.no_grad():
        target.mul_(-1)
    np.testing.assert_allclose(clf.predict_proba(images.data), before, atol=1e-6)


def test_models_of_one_start_can_be_changed_apart(images):
    one, other = (
        quick_classifier(unfreeze="head", augment=False).fit(images.data, images.target) for _ in range(2)
    )
    expected = other.predict_proba(images.data)
    one.net_.module_.stages["one"][0].weight.data.zero_()
    np.testing.assert_array_equal(other.predict_proba(images.data), expected)
    # Nor does a fit to come begin with what was changed.
    again = quick_classifier(unfreeze="head", augment=False).fit(images.data, images.target)
    np.testing.assert_array_equal(again.predict_proba(images.data), expected)
    assert (one.predict_proba(images.data) != expected).any()


def test_a_stage_that_cannot_be_traced_predicts_as_it_is(images, monkeypatch):
    class Branching(TinyNet):
        def __init__(self):
            super().__init__()
            self.one = Doubling(*self.one)

    class Doubling(torch.nn.Sequential):
        def forward(self, x):
            x = super().forward(x)
            return x * 2 if x.sum() > 0 else x

    entry = networks.Backbone(
        "tiny", ("one", "two"), 8, Branching, lambda model: {"one": model.one, "two": model.two}, "fc"
    )
    monkeypatch.setitem(networks.BACKBONES, "tiny", entry)
    clf = quick_classifier(max_epochs=1).fit(images.data, images.target)
    network = clf.net_.module_.eval()
    pixels = torch.from_numpy(np.stack([read_square(path, 32) for path in images.data])[:, None])
    with torch.no_grad():
        x = (pixels.float() / 255 - network.mean.view(1, 3, 1, 1)) / network.std.view(1, 3, 1, 1)
        for stage in network.stages.values():
            x = stage(x)
        expected = network.head(network.pool(x)).softmax(dim=1)
    np.testing.assert_allclose(clf.predict_proba(images.data), expected, atol=1e-5)
