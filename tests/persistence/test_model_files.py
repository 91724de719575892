"""What is no whole, unaltered model of murakit is refused, and none of its code runs."""

import base64
import gzip
import json
import math
import pickle
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from helpers import quick_classifier
from safetensors import safe_open
from safetensors.torch import save_file

from murakit import ModelFileError, MuraClassifier, load_model, model_info, save_model
from murakit.io._safetensors import write_model


@pytest.fixture(scope="module")
def models(images, tmp_path_factory):
    """The files of two models of one kind."""
    from helpers import TINY

    from murakit import networks

    paths = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.BACKBONES, "tiny", TINY)
        for seed in (0, 1):
            clf = quick_classifier(random_state=seed).fit(images.data, images.target)
            paths.append(tmp_path_factory.mktemp("models") / "model.safetensors")
            save_model(clf, paths[-1])
    return paths


@pytest.fixture
def model(models):
    return models[0]


def contents(path):
    with safe_open(path, framework="pt") as file:
        names = file.keys()
        return dict(file.metadata()), {name: file.get_tensor(name) for name in names}


@pytest.fixture
def forged(model, tmp_path):
    """A function that writes the model with another document or other tensors, and the hash that fits them."""

    def forged(change=None, tensors=None):
        header, found = contents(model)
        document = json.loads(header["murakit"])
        if change is not None:
            change(document)
        path = tmp_path / "forged.safetensors"
        write_model(path, document, found if tensors is None else tensors(found))
        return path

    return forged


def refusal(path):
    with pytest.raises(ModelFileError) as error:
        load_model(path)
    message = str(error.value)
    assert isinstance(error.value, ValueError) and repr(str(path)) in message
    # An error ends in what to do.
    assert message.endswith((".", ")")) or "choose" in message
    return message


def test_what_was_forged_without_a_change_loads(forged, model, images):
    np.testing.assert_array_equal(
        load_model(forged()).predict_proba(images.data), load_model(model).predict_proba(images.data)
    )


# -- pickles --------------------------------------------------------------------------------


class Planted:
    """Leaves a folder behind when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.mkdir, (self.marker,)


def write_pickle(planted, path):
    path.write_bytes(pickle.dumps(planted))


def write_old_pickle(planted, path):
    path.write_bytes(pickle.dumps(planted, protocol=0))


def write_zipped_pickle(planted, path):
    path.write_bytes(gzip.compress(pickle.dumps(planted)))


def write_compressed(planted, path):
    joblib.dump(planted, path, compress=3)


@pytest.mark.parametrize(
    "write",
    [write_pickle, write_old_pickle, write_zipped_pickle, joblib.dump, write_compressed, torch.save],
    ids=["pickle", "protocol 0", "gzip", "joblib", "compressed joblib", "torch.save"],
)
def test_a_pickle_is_refused_and_not_run(tmp_path, write):
    marker = tmp_path / "ran"
    path = tmp_path / "model.safetensors"
    write(Planted(marker), path)
    message = refusal(path)
    assert "joblib.load" in message or write is write_old_pickle
    with pytest.raises(ModelFileError):
        model_info(path)
    assert not marker.exists()
    # It would have run.
    if write in (write_pickle, write_old_pickle):
        pickle.loads(path.read_bytes())
        assert marker.exists()


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_inside_of_the_header_is_not_run(forged, tmp_path, protocol):
    marker = tmp_path / "ran"
    code = pickle.dumps(Planted(marker), protocol=protocol)
    for text in (code.decode("latin-1"), base64.b64encode(code).decode()):

        def plant(document, text=text):
            document["metrics"] = {"pickle": text}
            document["models"][0]["parameters"]["optimizer"] = text

        refusal(forged(plant))
        # As a text among others it stays one.
        info = model_info(forged(lambda document, text=text: document.update(metrics=text)))
        assert info["metrics"] == text
    assert not marker.exists()


# -- damage ---------------------------------------------------------------------------------


def test_a_file_that_was_cut_short_is_refused(model, tmp_path):
    whole = model.read_bytes()
    n_header = 8 + int.from_bytes(whole[:8], "little")
    path = tmp_path / "cut.safetensors"
    for length in (0, 1, 7, 8, 9, 100, n_header - 1, n_header, n_header + 5, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "no whole safetensors file" in refusal(path), length


def test_one_bit_that_was_flipped_is_noticed_wherever_it_is(model, tmp_path):
    whole = bytearray(model.read_bytes())
    path = tmp_path / "flipped.safetensors"
    for at in [*range(12), *range(12, len(whole), 29), len(whole) - 1]:
        whole[at] ^= 1 << at % 8
        path.write_bytes(whole)
        with pytest.raises(ModelFileError):
            load_model(path)
        whole[at] ^= 1 << at % 8


def test_weights_under_another_models_header_are_refused(models, tmp_path):
    header, _ = contents(models[0])
    _, tensors = contents(models[1])
    save_file(tensors, tmp_path / "swapped.safetensors", metadata=header)
    assert "changed or swapped" in refusal(tmp_path / "swapped.safetensors")


def test_a_header_that_was_edited_is_refused(model, tmp_path):
    header, tensors = contents(model)
    header["murakit"] = header["murakit"].replace('"values": [0, 1]', '"values": [1, 2]')
    save_file(tensors, tmp_path / "edited.safetensors", metadata=header)
    assert "changed or swapped" in refusal(tmp_path / "edited.safetensors")


# -- other files ----------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="save_model"):
        load_model(tmp_path / "none.safetensors")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"murakit": "{}"}])
def test_weights_without_a_model_of_murakit_are_refused(model, tmp_path, metadata):
    _, tensors = contents(model)
    save_file(tensors, tmp_path / "weights.safetensors", metadata=metadata)
    assert "holds no model of murakit" in refusal(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    "text", ["[]", "null", '{"format": "else"}', "{", "NaN", "1" * 5000, '{"format": NaN}']
)
def test_a_header_that_is_no_document_is_refused(tmp_path, text):
    path = tmp_path / "other.safetensors"
    save_file({}, path, metadata={"murakit": text, "sha256": "0"})
    refusal(path)


def test_a_header_without_an_end_is_refused_at_once(tmp_path):
    path = tmp_path / "long.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + b"{")
    assert "no whole safetensors file" in refusal(path)
    with open(path, "wb") as file:
        file.write((2**24 + 1).to_bytes(8, "little") + b"{")
        file.truncate(2**25)
    assert "16,777,217 bytes, and murakit reads 16,777,216" in refusal(path)


@pytest.mark.parametrize("deep", ["[" * 10**6, '{"a":' * 10**5, "[" * 10**5 + "]" * 10**5])
def test_a_header_that_is_nested_deeply_is_refused(tmp_path, deep):
    path = tmp_path / "deep.safetensors"
    save_file({}, path, metadata={"murakit": deep, "sha256": "0"})
    refusal(path)


def test_values_that_are_nested_deeply_are_refused(forged):
    deep = json.loads("[" * 400 + "]" * 400)

    def change(document):
        document["models"][0]["parameters"]["augment"] = {"rotation": deep}

    refusal(forged(change))


def test_a_newer_format_asks_for_an_upgrade(forged):
    message = refusal(forged(lambda document: document.update(format_version=2)))
    assert "format version 2, and this murakit reads versions up to 1. Upgrade" in message


# -- what cannot be a model -----------------------------------------------------------------


def in_model(*keys, value):
    """A change of one entry of the model's record."""

    def change(document):
        place = document["models"][0]
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def backbone(name):
    """A change of the name of the backbone, everywhere in the model's record."""

    def change(document):
        record = document["models"][0]
        record["network"]["backbone"] = record["parameters"]["backbone"] = name

    return change


REFUSED = {
    "another kind": (lambda document: document.update(kind="Pipeline"), "holds a 'Pipeline'.*upgrade"),
    "no kind": (lambda document: document.pop("kind"), "'kind' in its header is missing"),
    "a version that is none": (lambda document: document.update(format_version="1"), "'format_version'"),
    "a version that is a boolean": (
        lambda document: document.update(format_version=True),
        "'format_version'",
    ),
    "models that are none": (lambda document: document.update(models={}), "'models'"),
    "no model": (lambda document: document.update(models=[]), "0 models"),
    "a model too many": (lambda document: document["models"].append(document["models"][0]), "missing"),
    "a record that is none": (lambda document: document.update(models=[7]), "'parameters'"),
    "unknown parameters": (in_model("parameters", "magic", value=1), r"no parameters \['magic'\].*upgrade"),
    "a wrong parameter": (in_model("parameters", "lr", value=-1), "'lr' parameter"),
    "a parameter of another type": (in_model("parameters", "resize", value={"a": 1}), "its parameters"),
    "an unknown tag": (in_model("parameters", "lr", value={"$code": "1"}), r"\$code"),
    "a tag beside others": (in_model("parameters", "lr", value={"$tuple": [], "b": 1}), r"\$tuple"),
    "a tag around nothing": (in_model("parameters", "class_weight", value={"$dict": [1]}), r"\$dict"),
    "keys that cannot be": (in_model("parameters", "class_weight", value={"$dict": [[[], 1]]}), r"\$dict"),
    "a scorer that is none": (in_model("parameters", "monitor", value="__import__"), "its parameters"),
    "callbacks that are none": (in_model("parameters", "callbacks", value=[1]), "callbacks"),
    "a path of weights": (in_model("parameters", "weights", value="/etc/passwd"), "names a path"),
    "a cache": (in_model("parameters", "cache", value="/tmp/x"), "names a path"),
    "an unknown backbone": (backbone("none"), "backbone='none' is not known"),
    "an unknown model of timm": (backbone("timm/nothing"), "timm has no model 'nothing'"),
    "a model of a hub": (backbone("timm/hf-hub:timm/resnet18"), "timm has no model"),
    "a network that the file does not hold": (backbone("resnet152"), "58.* weights, and the file holds 476"),
    "a huge network of timm": (
        backbone("timm/vit_giant_patch14_dinov2"),
        "1,1.* weights, and the file holds 476",
    ),
    "a size that fills the memory": (
        in_model("parameters", "image_size", value=10**9),
        "image_size=1000000000",
    ),
    "a size just above": (in_model("parameters", "image_size", value=8193), "image_size=8193 .* 8,192 px"),
    "another backbone": (in_model("parameters", "backbone", value="resnet18"), "other stages"),
    "other stages": (in_model("network", "stages", value=["one"]), "other stages than this murakit's tiny"),
    "an unknown stage": (in_model("network", "unfreeze", value="three"), "no stage of tiny"),
    "another size": (in_model("preprocessing", "image_size", value=64), "images of another size"),
    "another normalisation": (in_model("preprocessing", "mean", value=[0, 0, 0]), "another size or norm"),
    "augmentation that is none": (in_model("parameters", "augment", value={"blur": 1}), "keys may be"),
    "classes too many": (
        in_model("classes", "values", value=list(range(10**5))),
        "100000 classes, and .* for 2",
    ),
    "one class": (in_model("classes", "values", value=[0]), "two or more different labels"),
    "a class twice": (in_model("classes", "values", value=[1, 1]), "two or more different labels"),
    "classes out of order": (in_model("classes", "values", value=[1, 0]), "two or more different labels"),
    "classes of another type": (in_model("classes", "values", value=["a", "b"]), "not of the type 'int64'"),
    "classes that are cut": (in_model("classes", "values", value=[0.5, 1.5]), "different labels"),
    "classes that are lists": (in_model("classes", "values", value=[[0], [1]]), "its classes are no texts"),
    "a type of objects": (in_model("classes", "dtype", value="datetime64[s]"), "not of the type"),
    "a type that is none": (in_model("classes", "dtype", value="(10000000,)i8"), "not of the type"),
    "epochs too many": (in_model("training", "n_epochs", value=9), "numbers of epochs"),
    "an epoch before the first": (in_model("training", "best_epoch", value=0), "numbers of epochs"),
    "an epoch after the last": (in_model("training", "best_epoch", value=3), "numbers of epochs"),
    "a score that is none": (in_model("training", "validation_score", value="high"), "validation score"),
    "no history": (in_model("training", "history", value=[]), "columns of its history"),
    "a column that is none": (in_model("training", "history", value=[[]]), "'name'"),
    "a column of lists": (
        lambda document: document["models"][0]["training"]["history"][0].update(values=[[], []]),
        "its columns are not of the type 'int64'",
    ),
    "a column of another length": (
        lambda document: document["models"][0]["training"]["history"][0]["values"].pop(),
        "columns of its history",
    ),
    "patients that are none": (in_model("training", "train_patients", value=[[1]]), "no texts or numbers"),
    "patients that are a text": (in_model("training", "train_patients", value="abc"), "'train_patients'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_document_of_what_no_classifier_is_is_refused(forged, name):
    change, expected = REFUSED[name]
    with pytest.raises(ModelFileError, match=expected):
        load_model(forged(change))


HEAD = "models.0.head.weight"
WRONG_TENSORS = {
    "missing": (
        lambda found: {k: v for k, v in found.items() if k != HEAD},
        r"1 tensors are missing \['head",
    ),
    "unknown": (lambda found: {**found, "models.0.tail": torch.ones(1)}, r"1 are unknown \['tail"),
    "of no model": (lambda found: {**found, "models.1.tail": torch.ones(1)}, "belong to none of them"),
    "for more classes": (
        lambda found: {**found, HEAD: torch.ones(3, 8)},
        r"\(3, 8\).*for 2 classes has \(2, 8\)",
    ),
    "of another shape": (lambda found: {**found, HEAD: torch.ones(2, 9)}, r"has shape \(2, 9\)"),
    "of another type": (lambda found: {**found, HEAD: torch.ones(2, 8).half()}, "torch.float16"),
    "none": (lambda found: {}, "tensors are missing"),
}


@pytest.mark.parametrize("name", WRONG_TENSORS)
def test_tensors_that_are_not_the_networks_are_refused(forged, name):
    tensors, expected = WRONG_TENSORS[name]
    with pytest.raises(ModelFileError, match=expected):
        load_model(forged(tensors=tensors))


@pytest.mark.parametrize("device", ["cuda:7", "meta", "no device", "cpu", 7, None])
def test_a_file_chooses_no_device(forged, images, device):
    clf = load_model(forged(in_model("parameters", "device", value=device)))
    assert clf.device == ("cpu" if device == "cpu" else "auto")
    assert clf.predict(images.data[:2]).shape == (2,)


def test_a_network_that_is_too_large_is_refused_before_it_is_built(forged, monkeypatch):
    path = forged(backbone("timm/vit_giant_patch14_dinov2"))
    built = []
    monkeypatch.setattr(MuraClassifier, "_build_network", lambda *args: built.append(args))
    assert "weights, and the file holds" in refusal(path)
    assert not built


def changed(name, value):
    """A change of the first value of a tensor of the model."""

    def change(found):
        tensor = found[f"models.0.{name}"].clone()
        tensor.view(-1)[0] = value
        return {**found, f"models.0.{name}": tensor}

    return change


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (
            "stages.one.0.weight",
            math.nan,
            "1 of the 108 values of the tensor '.*stages.one.0.weight' are NaN",
        ),
        ("head.bias", -math.inf, "1 of the 2 values of the tensor '.*head.bias' are NaN or infinite"),
        ("stages.two.1.running_var", -1e-3, "tensor '.*stages.two.1.running_var'.* negative value -0.001"),
    ],
)
def test_weights_that_no_training_leaves_are_refused(forged, name, value, expected):
    path = forged(tensors=changed(name, value))
    with pytest.raises(ModelFileError, match=expected):
        load_model(path)


def test_a_variance_of_zero_is_sound(forged):
    load_model(forged(tensors=changed("stages.two.1.running_var", 0.0)))


def test_a_parameter_that_an_older_file_lacks_has_its_default(forged):
    path = forged(lambda document: document["models"][0]["parameters"].pop("feature_dtype"))
    assert load_model(path).feature_dtype == "float32"
