"""Every backbone: its features are those of the model it comes from, and all of murakit works on it."""

import joblib
import numpy as np
import pytest
import torch
from helpers import quick_classifier, same_state, state_of
from torch import nn

from murakit import list_backbones, load_model, load_mura, read_square, save_model, to_onnx
from murakit.inspection import grad_cam
from murakit.networks._backbones import BACKBONES
from murakit.networks._build import build_radiograph, find_backbone
from murakit.networks._pretrained import clear_weights_cache
from murakit.utils._random import seeds_of

TIMM = ("timm/legacy_xception", "timm/test_convnext", "timm/test_vit")
# Chains with tables that no state dict holds, tensors of five dimensions, and no groups of layers.
ODD = ("timm/levit_128s", "timm/tiny_vit_5m_224", "timm/swin_tiny_patch4_window7_224", "timm/poolformer_s12")
TABLE = [name for name in BACKBONES if name != "tiny"]
# One of each family; the others are the same modules, more of them.
LIGHT = ("resnet18", "mobilenet_v3_small", "small", *TIMM[1:])
FAMILIES = ("resnet18", "densenet121", "convnext_tiny", "mobilenet_v3_small", "vgg16")


def every(*quick):
    names = (*TABLE, *TIMM)
    return [pytest.param(name, marks=[] if name in quick else pytest.mark.slow) for name in names]


SIZES = {"inception_v3": 75, "timm/test_vit": 160}


def classifier(backbone, **params):
    defaults = {
        "backbone": backbone,
        "image_size": SIZES.get(backbone, 32),
        "unfreeze": "head",
        "early_stopping": False,
        "augment": False,
        "max_epochs": 1,
        "batch_size": 4,
        "lr": 1e-3,
    }
    return quick_classifier(**{**defaults, **params})


def build(backbone, **params):
    options = {"weights": None, "unfreeze": "all", "dropout": 0.0, "augmentation": None, "seed": 0}
    return build_radiograph(backbone, 2, **{**options, **params})


def model_of(entry):
    """The model as its library builds it, with BatchNorms that do something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = entry.build().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 2)
    return model


def pixels(size):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 1, size, size), dtype=torch.uint8, generator=generator)


def normalised(images, entry):
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (entry.mean, entry.std))
    return (images / 255 - mean) / std


@pytest.fixture(scope="module")
def few(small_mura):
    mura = load_mura(small_mura)
    rows = np.concatenate([np.flatnonzero(mura.target == label)[:2] for label in (0, 1)])
    return mura.data[rows], mura.target[rows]


@pytest.fixture(autouse=True)
def no_weights_left():
    yield
    clear_weights_cache()


@pytest.mark.parametrize(
    "backbone",
    [case for case in every(*FAMILIES) if not case.values[0].startswith(("vgg", "small", "timm/"))],
)
def test_logits_are_those_of_the_head_on_torchvisions_features(backbone, tmp_path):
    entry = BACKBONES[backbone]
    model = model_of(entry)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    network = build(backbone, weights=tmp_path / "weights.pth").eval()
    features = []
    model.get_submodule(entry.last_layer).register_forward_hook(
        lambda _module, args, _output: features.append(args[0].flatten(1))
    )
    images = pixels(96)
    with torch.no_grad():
        # Dropout, which lies between the pooling and the last layer, does nothing in evaluation.
        model(normalised(images, entry))
        torch.testing.assert_close(network.infer(images), network.head(features[0]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backbone", ["vgg16", pytest.param("vgg19", marks=pytest.mark.slow)])
def test_vgg_pools_its_last_feature_maps(backbone, tmp_path):
    entry = BACKBONES[backbone]
    model = model_of(entry)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    network = build(backbone, weights=tmp_path / "weights.pth").eval()
    images = pixels(96)
    with torch.no_grad():
        expected = network.head(model.features(normalised(images, entry)).mean(dim=(2, 3)))
        torch.testing.assert_close(network.infer(images), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "backbone", [*TIMM, *ODD[:1], *(pytest.param(name, marks=pytest.mark.slow) for name in ODD[1:])]
)
def test_logits_are_those_of_the_head_on_timms_features(backbone, tmp_path):
    entry = find_backbone(backbone)
    model = model_of(entry)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    network = build(backbone, weights=tmp_path / "weights.pth").eval()
    images = pixels(entry.input_size)
    with torch.no_grad():
        expected = network.head(model(normalised(images, entry)))
        torch.testing.assert_close(network.infer(images), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backbone", every(*LIGHT))
def test_a_fit_changes_the_stages_from_unfreeze_on_and_no_other(backbone, few):
    stages = find_backbone(backbone).stages
    fresh = build(backbone, seed=seeds_of(0).network).state_dict()
    for unfreeze in (*stages, "head", "all"):
        clf = classifier(backbone, unfreeze=unfreeze).fit(*few)
        state = state_of(clf)
        changed = {
            key.split(".")[1]
            for key in state
            if key.startswith("stages.") and not torch.equal(state[key], fresh[key])
        }
        first = {"head": len(stages), "all": 0}.get(unfreeze)
        first = stages.index(unfreeze) if first is None else first
        with_weights = {key.split(".")[1] for key in fresh if key.startswith("stages.")}
        assert changed == set(stages[first:]) & with_weights
        assert np.isfinite(clf.predict_proba(few[0])).all()


@pytest.mark.parametrize("backbone", every(*LIGHT))
def test_what_is_stored_gives_the_same_training_and_predictions(backbone, few, tmp_path):
    last = find_backbone(backbone).stages[-1]
    with pytest.warns(UserWarning, match="cache_limit"):
        off = classifier(backbone, unfreeze=last, cache_limit=0).fit(*few)
    on = classifier(backbone, unfreeze=last, cache=tmp_path).fit(*few)
    assert same_state(state_of(on), state_of(off))
    expected = off.predict_proba(few[0])
    for _ in range(2):  # what is computed and stored, and what is read
        np.testing.assert_array_equal(on.predict_proba(few[0]), expected)


@pytest.mark.parametrize("n_images", [1, 4, 8, 35])
@pytest.mark.parametrize("unfreeze", ["denseblock4", "head"])
def test_predictions_of_any_number_of_images_do_not_depend_on_what_is_stored(
    unfreeze, n_images, few, tmp_path
):
    # DenseNets and their like take other kernels for other numbers of images; ResNet18 hides it at most stages.
    clf = classifier("densenet121", unfreeze=unfreeze).fit(*few)
    paths = np.resize(few[0], n_images)
    expected = clf.predict_proba(paths)
    clf.set_params(cache=tmp_path)
    for _ in range(2):
        np.testing.assert_array_equal(clf.predict_proba(paths), expected)


@pytest.mark.parametrize("backbone", every("small", *TIMM[1:]))
def test_a_model_is_saved_exported_and_explained(backbone, few, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    clf = classifier(backbone, image_size=max(64, SIZES.get(backbone, 0))).fit(*few)
    expected = clf.predict_proba(few[0])
    joblib.dump(clf, tmp_path / "model.joblib")
    np.testing.assert_array_equal(joblib.load(tmp_path / "model.joblib").predict_proba(few[0]), expected)

    save_model(clf, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.predict_proba(few[0]), expected)

    # It compares what it wrote with predict_proba itself, and raises where they differ.
    to_onnx(clf, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    squares = np.stack([read_square(path, clf._side()) for path in few[0]])[:, None]
    [proba] = session.run(None, {"images": squares})
    np.testing.assert_allclose(proba, expected, atol=1e-5)

    if backbone == "timm/test_vit":
        with pytest.raises(ValueError, match="no feature maps"):
            grad_cam(clf, few[0])
    else:
        heat = grad_cam(clf, few[0])
        assert all(np.isfinite(one).all() and one.max() <= 1 for one in heat.maps)


def test_the_list_shows_what_the_networks_are():
    table = list_backbones()
    assert set(table.index) == set(TABLE) | {"tiny"}
    # torchvision's documentation: 11,689,512 and 7,978,856 with a last layer for 1,000 classes.
    assert table.loc["resnet18", "parameters"] == 11_689_512 - 513_000
    assert table.loc["densenet121", "parameters"] == 7_978_856 - 1_025_000
    assert table.loc["inception_v3", "input_size"] == 299
    assert table.loc["vgg16", "stages"] == "block1, block2, block3, block4, block5"


def test_without_a_size_images_are_of_the_backbones_own(few):
    clf = classifier("small", image_size=None, unfreeze=None).fit(*few)
    assert clf._side() == 64
    assert clf.history_["stage"].tolist() == ["block3"]


def test_a_changed_parameter_does_not_change_the_size_that_a_model_was_fitted_on(few):
    clf = classifier("small", image_size=None).fit(*few)
    expected = clf.predict_proba(few[0])
    np.testing.assert_array_equal(clf.set_params(backbone="resnet18").predict_proba(few[0]), expected)


def test_inceptions_auxiliary_classifier_learns_where_its_stage_does(few):
    fresh = build("inception_v3", seed=seeds_of(0).network).state_dict()
    for unfreeze, learns in (("mixed6", True), ("mixed7", False)):
        clf = classifier("inception_v3", image_size=299, unfreeze=unfreeze).fit(*few)
        state = state_of(clf)
        assert learns != torch.equal(state["auxiliary.fc.weight"], fresh["auxiliary.fc.weight"])


def test_paths_are_dropped_as_the_seed_says(few):
    def train():
        torch.manual_seed(np.random.default_rng().integers(2**31))
        before = torch.random.get_rng_state()
        clf = classifier("efficientnet_b0", unfreeze="all", batch_size=2).fit(*few)
        assert torch.equal(torch.random.get_rng_state(), before)
        return state_of(clf)

    assert same_state(train(), train())


def test_there_are_no_imagenet_weights_of_the_small_network(few):
    with pytest.raises(ValueError, match="no such weights for backbone='small'"):
        classifier("small", weights="imagenet").fit(*few)


def test_images_of_another_than_the_only_size_are_refused(few):
    with pytest.raises(ValueError, match="image_size=32: timm/test_vit takes images of 160 px only"):
        classifier("timm/test_vit", image_size=32).fit(*few)


def test_too_small_images_are_refused(few):
    with pytest.raises(ValueError, match="inception_v3 takes images of 75 px"):
        classifier("inception_v3", image_size=64).fit(*few)


@pytest.mark.parametrize(
    "backbone, message", [("resnet19", "choose one of"), ("timm/resnet1", r"timm/resnet1\d")]
)
def test_an_unknown_backbone_is_refused_with_those_there_are(backbone, message, few):
    with pytest.raises(ValueError, match=message):
        classifier(backbone).fit(*few)
