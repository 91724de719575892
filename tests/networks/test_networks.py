"""Networks are torchvision's, taken apart; weights fit or say why they don't."""

import copy
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torchvision
from helpers import quick_classifier
from torch import nn

from murakit.networks._backbones import BACKBONES
from murakit.networks._build import build_radiograph
from murakit.networks._frozen import fused_grey_stage
from murakit.networks._network import Radiograph


def build(backbone="resnet18", **params):
    options = {"weights": None, "unfreeze": "all", "dropout": 0.0, "augmentation": None, "seed": 0}
    return build_radiograph(backbone, 2, **{**options, **params})


def save(state, tmp_path, name="weights.pth"):
    torch.save(state, tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_logits_are_torchvisions(backbone, tmp_path):
    torch.manual_seed(0)
    model = torchvision.models.get_model(backbone, weights=None)
    model.fc = nn.Linear(model.fc.in_features, 2)
    network = build(backbone, weights=save(model.state_dict(), tmp_path)).eval()
    images = torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    with torch.no_grad():
        expected = model.eval()((images.expand(-1, 3, -1, -1) / 255 - mean) / std)
        torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [32, 63, 64])
@pytest.mark.parametrize("kernel, padding", [(7, 3), (3, 1), (3, 0), (5, 4)])
def test_a_first_convolution_of_grey_values_is_that_of_three_channels(size, kernel, padding):
    torch.manual_seed(0)
    stage = nn.Sequential(nn.Conv2d(3, 6, kernel, stride=2, padding=padding), nn.BatchNorm2d(6))
    stage[1].running_mean.normal_()
    stage[1].running_var.uniform_(0.5, 2)
    network = Radiograph({"one": stage}, 6, 2).eval()
    images = torch.randint(0, 256, (3, 1, size, size), dtype=torch.uint8)
    mean, std = network.mean.view(1, 3, 1, 1), network.std.view(1, 3, 1, 1)
    with torch.no_grad():
        expected = network.head(network.pool(stage((images / 255 - mean) / std)))
        torch.testing.assert_close(network.infer(images), expected, rtol=1e-5, atol=1e-5)
    assert any(type(module).__name__ == "_GreyConv" for module in fused_grey_stage(network, "one").modules())


def test_a_run_in_half_precision_leaves_nothing_for_those_in_full():
    images = torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8)
    first, second = build(), build()
    with torch.no_grad():
        expected = first.eval().infer(images)
        with torch.autocast("cpu", torch.bfloat16):
            second.eval().infer(images)
        assert torch.equal(second.infer(images), expected)


def test_training_in_half_precision_is_the_same_from_stored_activations():
    network = build("densenet121", unfreeze="denseblock4").train()
    images = torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8)
    gradients = []
    with torch.autocast("cpu", torch.bfloat16):
        stored = network.run_before("denseblock4", images).float()
        for inputs, begin in ((images, None), (stored, "denseblock4")):
            model = copy.deepcopy(network)
            model(inputs, begin=begin).float().log_softmax(1)[:, 0].sum().backward()
            gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.equal(one, other) for one, other in zip(*gradients))
    assert sum(bool(one.any()) for one in gradients[0]) > 40


def test_predictions_in_half_precision_are_the_same_from_stored_activations():
    network = build("densenet121").eval()
    images = torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = network.infer(images, exact=True)
        for stage in list(network.stages)[1:]:
            stored = network.run_before(stage, images).float()
            assert torch.equal(network.infer(stored, stage, exact=True), expected)


@pytest.mark.parametrize(
    "backbone, size",
    # Larger images go through the early stages in other portions than through the late ones.
    [("resnet18", 64), ("resnet18", 224), ("resnet50", 64), ("densenet121", 64), ("mobilenet_v3_small", 192)],
)
def test_what_frozen_stages_make_of_an_image_does_not_depend_on_how_many_there_are(backbone, size):
    network = build_radiograph(
        backbone, 2, weights=None, unfreeze="head", dropout=0.0, augmentation=None, seed=0
    ).eval()
    images = torch.randint(0, 256, (33, 1, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        whole = network.run_before("head", images)
        for n_images in (1, 2, 7, 16, 20):
            assert torch.equal(network.run_before("head", images[:n_images]), whole[:n_images]), n_images
        for stage in network.stages:
            before = network.run_before(stage, images[:7])
            if stage != next(iter(network.stages)):
                assert torch.equal(network.run_before("head", before, begin=stage), whole[:7]), stage


def test_threads_fold_and_run_networks_at_once():
    def infer(seed):
        with torch.inference_mode():
            return build(seed=seed).eval().infer(images)

    images = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    expected = infer(0)
    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(infer, [0] * 16):
                assert torch.equal(found, expected)
    # Tracing replaces what every module is called by, and has to put it back.
    assert nn.Linear(2, 2)(torch.zeros(1, 2)).shape == (1, 2)


def test_another_first_layer_takes_three_channels():
    torch.manual_seed(0)
    stage = nn.Sequential(nn.Conv2d(3, 6, 3, stride=1, padding=1), nn.ReLU())
    network = Radiograph({"one": stage}, 6, 2).eval()
    images = torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)
    mean, std = network.mean.view(1, 3, 1, 1), network.std.view(1, 3, 1, 1)
    assert fused_grey_stage(network, "one") is None
    with torch.no_grad():
        expected = network.head(network.pool(stage((images / 255 - mean) / std)))
        torch.testing.assert_close(network.infer(images), expected, rtol=1e-5, atol=1e-5)


def test_stages_are_in_order():
    for name, backbone in BACKBONES.items():
        assert list(build(name).stages) == list(backbone.stages)


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {f"module.{k}": v for k, v in s.items()}]
)
def test_a_state_dict_loads_in_the_forms_that_it_is_saved_in(wrap, tmp_path):
    model = torchvision.models.resnet18(weights=None)
    network = build(weights=save(wrap(model.state_dict()), tmp_path))
    assert torch.equal(network.stages["layer1"][0].conv1.weight, model.layer1[0].conv1.weight)


def test_a_state_dict_without_or_with_another_last_layer_leaves_the_head_new(tmp_path):
    state = torchvision.models.resnet18(weights=None).state_dict()
    fresh = build().head.weight
    with_imagenet = build(weights=save(state, tmp_path)).head.weight
    without = {key: value for key, value in state.items() if not key.startswith("fc.")}
    assert torch.equal(with_imagenet, fresh)
    assert torch.equal(build(weights=save(without, tmp_path)).head.weight, fresh)


def test_half_precision_weights_load_into_single(tmp_path):
    state = {
        key: value.half() for key, value in torchvision.models.resnet18(weights=None).state_dict().items()
    }
    assert build(weights=save(state, tmp_path)).stages["stem"][0].weight.dtype == torch.float32


def test_a_trained_networks_own_state_dict_loads_with_its_head(images, tmp_path):
    clf = quick_classifier(backbone="resnet18", unfreeze="head").fit(images.data, images.target)
    path = save(clf.net_.module_.state_dict(), tmp_path)
    again = quick_classifier(backbone="resnet18", unfreeze="head", weights=path, lr=1e-12, weight_decay=0.0)
    again.fit(images.data, images.target)
    np.testing.assert_allclose(again.predict_proba(images.data), clf.predict_proba(images.data), atol=1e-6)


def test_weights_of_another_backbone_are_refused(tmp_path):
    path = save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path)
    with pytest.raises(ValueError, match=r"does not fit resnet50: \d+ entries are missing"):
        build("resnet50", weights=path)


def test_a_file_that_could_run_code_is_refused(tmp_path):
    path = save(torchvision.models.resnet18(weights=None), tmp_path)  # the model, not its state dict
    with pytest.raises(ValueError, match="cannot be read as a state dict .* run code"):
        build(weights=path)


def test_a_file_that_holds_no_state_dict_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no state dict"):
        build(weights=save([1, 2, 3], tmp_path))


@pytest.mark.real_data
def test_the_restored_imagenet_weights_load(real_data):
    path = real_data / "resnet18_imagenet_restored.pth"
    if not path.exists():
        pytest.skip(f"no {path.name}")
    state = torch.load(path, weights_only=True)
    network = build(weights=path)
    assert torch.equal(network.stages["layer3"][0].conv1.weight, state["layer3.0.conv1.weight"].float())


def test_imagenet_weights_are_asked_of_torchvision(monkeypatch):
    state = torchvision.models.resnet18(weights=None).state_dict()
    asked = []

    def download(url, **kwargs):
        asked.append(url)
        return state

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    network = build(weights="imagenet")
    assert asked == [torchvision.models.ResNet18_Weights.DEFAULT.url]
    assert torch.equal(network.stages["stem"][0].weight, state["conv1.weight"])


def test_frozen_stages_stay_in_eval_mode_and_get_no_gradient():
    network = build(unfreeze="layer3").train()
    assert not any(
        m.training for name in ("stem", "layer1", "layer2") for m in network.stages[name].modules()
    )
    assert all(m.training for m in network.stages["layer3"].modules())
    network(torch.zeros(2, 1, 64, 64, dtype=torch.uint8)).sum().backward()
    graded = {name for name, p in network.named_parameters() if p.grad is not None}
    assert {name.split(".")[1] for name in graded if name.startswith("stages")} == {"layer3", "layer4"}


@pytest.mark.parametrize("unfreeze", ["all", "layer2", "head"])
def test_the_frozen_part_and_the_rest_make_the_whole(unfreeze):
    images = torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8)
    network = build(unfreeze=unfreeze).eval()
    begin = None if unfreeze == "all" else unfreeze
    with torch.no_grad():
        before = network.run_before(unfreeze, images) if begin else images
        assert torch.equal(network(before, begin=begin), network(images))
        assert torch.equal(
            network.run_before("head", before, begin=begin), network.run_before("head", images)
        )
        if begin:
            assert torch.equal(network.run_before(unfreeze, images[:1]), before[:1])


def test_dropout_draws_from_the_networks_generator():
    network = Radiograph({"one": nn.Identity()}, 3, 2, dropout=0.5).train()
    images = torch.full((64, 1, 8, 8), 200, dtype=torch.uint8)
    outputs = []
    for seed in (0, 0, 1):
        network.generator = torch.Generator().manual_seed(seed)
        outputs.append(network(images))
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    dropped = network.dropout(torch.ones(10_000), torch.Generator().manual_seed(0))
    assert dropped.mean() == pytest.approx(1, abs=0.05) and set(dropped.tolist()) == {0.0, 2.0}
    assert torch.equal(network.dropout.eval()(torch.ones(5)), torch.ones(5))


def test_threads_that_build_networks_at_once_get_their_own():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(6) as threads:
            built = list(threads.map(lambda seed: build("tiny", seed=seed), [*range(20)] * 3))
    finally:
        sys.setswitchinterval(before)
    for seed, network in zip([*range(20)] * 3, built):
        assert torch.equal(network.head.weight, build("tiny", seed=seed).head.weight)
