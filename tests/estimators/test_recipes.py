"""Recipes are parameters that a MuraClassifier takes."""

import pytest
from helpers import quick_classifier

from murakit import MuraClassifier, recipe
from murakit.estimators._recipes import RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_fits(name, images):
    small = {"backbone": "tiny", "weights": None, "image_size": 32, "max_epochs": 2, "head_epochs": 0}
    stage = {"layer2": "one", "layer4": "two"}.get(RECIPES[name]["unfreeze"], RECIPES[name]["unfreeze"])
    clf = MuraClassifier(**recipe(name, **small, unfreeze=stage)).fit(images.data, images.target)
    assert clf.n_epochs_ == 2


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_stages_of_its_backbone(name):
    clf = MuraClassifier(**recipe(name, weights=None))
    assert clf._build_network(2, 0).stages_before(clf.unfreeze) is not None


def test_the_papers_recipe_weighs_by_region_and_has_one_output(images):
    clf = quick_classifier(**recipe("paper", backbone="tiny", image_size=32, max_epochs=1))
    assert clf.fit(images.data, images.target).net_.module_.head.out_features == 1


def test_a_recipe_is_a_copy_with_changes():
    params = recipe("paper", lr=1.0)
    params["augment"]["rotation"] = 0
    assert params["lr"] == 1.0
    assert recipe("paper")["lr"] == 1e-4 and recipe("paper")["augment"]["rotation"] == 30


def test_an_unknown_recipe_is_refused():
    with pytest.raises(ValueError, match=r"recipe 'best' is not known; choose one of \['muraproj'"):
        recipe("best")
