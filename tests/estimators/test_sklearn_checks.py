"""scikit-learn's own checks.

`MuraClassifier` takes paths, so that of scikit-learn's suite only the checks that feed no X apply to
it; they run by name. The whole suite runs over a stand-in that feeds numbers to the same base.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.model_selection import PredefinedSplit
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import validate_data
from torch import nn

from murakit import MuraClassifier, MuraSearchCV, PatientKFold, PatientShuffleSplit
from murakit.cache._base import TensorRows
from murakit.datasets._samples import as_rows
from murakit.estimators._base import NetClassifier


class NumericNetwork(nn.Module):
    """One frozen or trained stage and a head, as `Radiograph` has them."""

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n_features, 16), nn.ReLU())
        self.head = nn.Linear(16, n_classes)
        self.generator = None

    def freeze_below(self, unfreeze):
        return self

    def trained_state(self, unfreeze):
        return self.state_dict()

    def forward(self, x):
        return self.head(self.body(x))


class NumericClassifier(NetClassifier):
    """MuraClassifier's base on rows of numbers: every row is a patient of its own."""

    def __init__(
        self,
        class_weight=None,
        dropout=0.0,
        optimizer="adam",
        lr=0.05,
        backbone_lr_factor=1.0,
        weight_decay=0.0,
        batch_size=32,
        max_epochs=20,
        head_epochs=0,
        early_stopping=False,
        monitor="loss",
        validation_fraction=0.2,
        n_iter_no_change=5,
        lr_patience=None,
        device="cpu",
        precision="float32",
        random_state=0,
        warm_start=False,
        callbacks=None,
        verbose=0,
    ):
        self.class_weight = class_weight
        self.dropout = dropout
        self.optimizer = optimizer
        self.lr = lr
        self.backbone_lr_factor = backbone_lr_factor
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.head_epochs = head_epochs
        self.early_stopping = early_stopping
        self.monitor = monitor
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.lr_patience = lr_patience
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.verbose = verbose

    def _read_samples(self, X, groups=None, *, reset=False, name="X", groups_name="groups"):
        X = validate_data(self, X, reset=reset, dtype=np.float32)
        patients = np.arange(len(X)) if groups is None else groups
        return replace(as_rows(len(X), patients=patients), path=X)

    def _build_network(self, n_classes, seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return NumericNetwork(self.n_features_in_, n_classes)

    def _training_inputs(self, network, parts, device, head_epochs):
        return [(TensorRows(tensor(items)), None) for items, _ in parts]

    def _log_proba_batches(self, network, items, device):
        # One row at a time: the last bits of a product of matrices depend on their size.
        for row in tensor(items).split(1):
            yield network(row).double().log_softmax(dim=1)


def tensor(items):
    return torch.from_numpy(np.ascontiguousarray(items))


EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": (
        "batches are drawn at random: a repeated row falls into other batches than one of weight two"
    ),
}


@parametrize_with_checks(
    [NumericClassifier(), NumericClassifier(early_stopping=True)],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_the_base_passes_scikit_learns_checks(estimator, check):
    check(estimator)


CHECKS_WITHOUT_X = [
    "check_estimator_cloneable",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_get_params_invariance",
    "check_set_params",
    "check_parameters_default_constructible",
    "check_mixin_order",
    "check_estimator_tags_renamed",
]


@pytest.mark.parametrize("name", CHECKS_WITHOUT_X)
def test_the_classifier_passes_the_checks_that_need_no_numbers(name):
    getattr(estimator_checks, name)("MuraClassifier", MuraClassifier())


def test_the_string_tag_says_that_paths_go_in():
    tags = MuraClassifier().__sklearn_tags__()
    assert tags.input_tags.string and tags.input_tags.one_d_array
    assert tags.estimator_type == "classifier" and tags.target_tags.required


@pytest.mark.parametrize(
    "splitter", [PatientKFold(3, shuffle=True, random_state=1), PatientShuffleSplit(3, random_state=1)]
)
def test_splitters_have_a_repr_and_parameters_as_scikit_learns(splitter):
    assert "n_splits=3" in repr(splitter)
    assert splitter.get_n_splits() == 3


def test_the_search_can_be_cloned_and_shown():
    from sklearn.base import clone

    search = MuraSearchCV(MuraClassifier(), {"lr": [1e-3, 1e-4]}, cv=PredefinedSplit([0, 1]))
    assert clone(search).get_params()["n_trials"] == 10
    assert "MuraSearchCV" in search._repr_html_()
