"""Augmentation changes what it says, by as much as it says."""

import numpy as np
import pytest
import torch
from helpers import quick_classifier

from murakit.augmentation import Augmentation

NONE = {"flip": 0.0, "rotation": 0.0, "scale": 0.0, "shift": 0.0, "brightness": 0.0, "contrast": 0.0}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch():
    return torch.rand(6, 1, 33, 33, generator=seeded(9))


def test_without_strength_nothing_changes(batch):
    torch.testing.assert_close(Augmentation(**NONE)(batch, seeded()), batch, atol=1e-5, rtol=0)


def test_a_flip_mirrors_left_and_right(batch):
    flipped = Augmentation(**{**NONE, "flip": 1.0})(batch, seeded())
    torch.testing.assert_close(flipped, batch.flip(-1), atol=1e-5, rtol=0)


def test_half_of_the_images_are_flipped():
    batch = torch.zeros(2000, 1, 4, 4)
    batch[..., 0] = 1
    flipped = Augmentation(**{**NONE, "flip": 0.5})(batch, seeded())[..., 0, -1].mean()
    assert float(flipped) == pytest.approx(0.5, abs=0.05)


def test_a_shift_moves_by_no_more_than_its_share():
    batch = torch.zeros(200, 1, 41, 41)
    batch[:, :, 20, 20] = 1
    moved = Augmentation(**{**NONE, "shift": 0.1})(batch, seeded())
    weight = moved / moved.sum(dim=(1, 2, 3), keepdim=True)
    position = (weight * torch.arange(41.0)).sum(dim=(1, 2, 3)) - 20
    assert 3 < float(position.abs().max()) <= 4.2


def test_a_rotation_turns_by_no_more_than_its_angle():
    batch = torch.zeros(400, 1, 101, 101)
    batch[:, :, 50, 90] = 1
    turned = Augmentation(**{**NONE, "rotation": 30})(batch, seeded()).flatten(1).argmax(dim=1)
    rows, columns = (turned // 101 - 50).numpy(), (turned % 101 - 50).numpy()
    angles = np.degrees(np.arctan2(rows, columns))
    radii = np.hypot(rows, columns)
    assert 27 < np.abs(angles).max() <= 31
    assert np.abs(radii - 40).max() < 1.5


def test_the_scale_changes_by_no_more_than_its_share():
    batch = torch.zeros(400, 1, 101, 101)
    batch[:, :, 40:61, 40:61] = 1
    areas = Augmentation(**{**NONE, "scale": 0.2})(batch, seeded()).sum(dim=(1, 2, 3)) / 441
    assert 0.65 < float(areas.min()) < 0.75 and 1.4 < float(areas.max()) < 1.6


def test_brightness_and_contrast_stay_in_range(batch):
    changed = Augmentation(**{**NONE, "brightness": 0.5, "contrast": 0.5})(batch, seeded())
    assert float(changed.min()) >= 0 and float(changed.max()) <= 1
    assert not torch.allclose(changed.mean(dim=(1, 2, 3)), batch.mean(dim=(1, 2, 3)), atol=1e-3)


def test_images_of_a_batch_change_each_in_its_own_way_and_a_seed_repeats(batch):
    same = batch[:1].expand(6, -1, -1, -1)
    one, two, other = (Augmentation()(same, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])


def test_training_images_are_augmented_and_validation_images_are_not(images, monkeypatch):
    seen = []
    apply = Augmentation.apply

    def watch(self, batch, draws):
        seen.append(len(batch))
        return apply(self, batch, draws)

    monkeypatch.setattr(Augmentation, "apply", watch)
    clf = quick_classifier(max_epochs=1).fit(images.data, images.target)
    assert sum(seen) == np.isin(images.patients, clf.train_patients_).sum()
    seen.clear()
    clf.predict(images.data)
    assert seen == []
