"""Heat maps: where they lie on the image, and what they are compared with."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import quick_classifier
from PIL import Image
from torch.nn import functional

from murakit import read_image, read_square
from murakit.inspection import HeatMaps, grad_cam, pointing_game
from murakit.io import _images

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
    opened, real = [], _images.opened

    def counted(path):
        opened.append(path)
        return real(path)

    monkeypatch.setattr(_images, "opened", counted)
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
