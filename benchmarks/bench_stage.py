"""Frozen up to layer3: five folds of ten epochs with layer4 trained, against the loop by hand.

96 synthetic radiographs (512 px files, 224 px), ResNet18, five patient folds, ten epochs, nothing
stored at the start; predictions of the test folds included. The plain loop of `plain_pytorch.py` is
measured over two epochs of one fold and its predictions, and counted five times five; so is fresh
augmentation (two of ten epochs). The limit is one pass through the frozen stages and the bare training
steps of the others on tensors in memory. Before times count: the weights with and without the store are
equal bit for bit, and without augmentation probabilities after one epoch agree with the plain loop's to
0.02 (AdamW makes steps of full length out of differences in the last bits).
Limits: without augmentation at least 2.2 times faster than the plain loop and at most 1.1 times the
limit; with four fixed views at least 1.8 times, with fresh augmentation at least 1.2 times faster.
"""

import itertools
import tempfile
import warnings
from functools import partial

import numpy as np
import torch
from sklearn.model_selection import cross_val_score
from torch.nn import functional

from murakit import CacheWarning, PatientKFold
from murakit.cache import ImageStore
from murakit.networks import build_radiograph

from . import plain_pytorch as plain
from ._measure import interleaved
from ._work import (
    BATCH,
    classifier,
    largest_difference,
    orders,
    radiographs,
    same_start,
    settings,
    weights_file,
)

N_FOLDS, MEASURED = 5, 2


def run(quick):
    n_images, size, epochs, rounds = (40, 64, 2, 2) if quick else (96, 224, 10, 3)
    with radiographs(n_images, 128 if quick else 512) as (folder, X, y):
        weights, state = weights_file(folder)
        folds = list(PatientKFold(N_FOLDS).split(X, y))
        train, test = folds[0]

        ours_of = partial(classifier, weights, "layer4", size, max_epochs=epochs)

        def ours(**params):
            with tempfile.TemporaryDirectory() as cache:
                clf = ours_of(cache=cache, **params)
                return cross_val_score(clf, X, y, cv=folds, scoring="roc_auc")

        def limit():
            network = start(weights)
            pixels = ImageStore(image_size=size, resize="squash").open(X)[:]
            with torch.inference_mode():
                before = torch.cat([network.run_before("layer4", batch) for batch in pixels.split(BATCH)])
            before = before.clone()  # an inference tensor cannot be trained on
            for fold_train, fold_test in folds:
                bare_steps(start(weights), before, y, fold_train, fold_test, epochs)

        def plain_fold(augment=False):
            head, rng = same_start(weights, "layer4")
            model = plain.model_of(state, head, "layer4")
            loop = plain.Loop(model, X[train], y[train], size, orders(rng, len(train)), augment=augment)
            for _ in range(MEASURED):
                loop.epoch()
            plain.predict_proba(model, X[test], size)

        difference = checked(ours_of, weights, state, X, y, train, test, size)
        timings = interleaved(
            {
                "plain": plain_fold,
                "plain, augmented": lambda: plain_fold(augment=True),
                "limit": limit,
                "ours": ours,
                "views": lambda: ours(augment=True, augment_views=4),
                "fresh": lambda: ours(augment=True, max_epochs=MEASURED),
            },
            rounds=rounds,
            warmup=0,
        )
    seconds = {name: np.array(timing.seconds) for name, timing in timings.items()}
    more = epochs / MEASURED
    whole = N_FOLDS * more * seconds["plain"]
    augmented = N_FOLDS * more * seconds["plain, augmented"]
    rows = []
    for what, value, baseline, at_least, at_most in (
        ("plain loop (from two epochs of a fold)", whole, None, None, None),
        ("plain loop, augmented (likewise)", augmented, None, None, None),
        ("limit: one frozen pass, bare steps", seconds["limit"], None, None, None),
        ("murakit, no augmentation", seconds["ours"], whole, 2.2, 1.1),
        ("murakit, augment_views=4", seconds["views"], augmented, 1.8, None),
        ("murakit, fresh augmentation", more * seconds["fresh"], augmented, 1.2, None),
    ):
        row = {"what": what, "median s": f"{np.median(value):.1f}"}
        row["spread s"] = f"{value.min():.1f} – {value.max():.1f}"
        row["× limit"] = f"{np.median(value / seconds['limit']):.2f}"
        if at_least:
            faster, to_limit = np.median(baseline / value), np.median(value / seconds["limit"])
            row["× faster than plain"] = f"{faster:.2f}"
            row["asked"] = f"≥ {at_least} × faster" + (f", ≤ {at_most} × limit" if at_most else "")
            row["ok"] = quick or bool(faster >= at_least and (at_most is None or to_limit <= at_most))
        rows.append(row)
    rows.append({"what": f"{settings()}; probabilities differ from the plain loop's by {difference:.0e}"})
    return rows


def start(weights):
    network = build_radiograph(
        "resnet18", 2, weights=weights, unfreeze="layer4", dropout=0.0, augmentation=None, seed=0
    )
    return network.eval()


def bare_steps(network, inputs, y, train, test, epochs):
    optimizer = torch.optim.AdamW(
        [
            {"params": network.head.parameters(), "lr": 1e-3},
            {"params": network.stages["layer4"].parameters(), "lr": 1e-4},
        ],
        weight_decay=1e-2,
    )
    weight, labels = plain.class_weights(y[train]), torch.from_numpy(y)
    network.train()
    for order in itertools.islice(orders(np.random.default_rng(0), len(train)), epochs):
        for first in range(0, len(order), BATCH):
            rows = torch.from_numpy(train[order[first : first + BATCH]])
            optimizer.zero_grad()
            logits = network(inputs[rows], begin="layer4")
            functional.cross_entropy(logits, labels[rows], weight=weight).backward()
            optimizer.step()
    network.eval()
    with torch.inference_mode():
        return network(inputs[torch.from_numpy(test)], begin="layer4").softmax(dim=1)


def checked(ours_of, weights, state, X, y, train, test, size):
    """Return the difference to the plain loop after an epoch, once the store is shown to change no bit."""
    with tempfile.TemporaryDirectory() as cache, warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        fits = [
            ours_of(max_epochs=2, **where).fit(X[train], y[train])
            for where in ({"cache": cache}, {"cache": cache}, {"cache_limit": 0})
        ]
    states = [clf.net_.module_.state_dict() for clf in fits]
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]) and torch.equal(value, states[2][key]), key
    head, rng = same_start(weights, "layer4")
    model = plain.model_of(state, head, "layer4")
    plain.Loop(model, X[train], y[train], size, orders(rng, len(train))).epoch()
    ours = ours_of(max_epochs=1).fit(X[train], y[train]).predict_proba(X[test])
    difference = largest_difference(ours, plain.predict_proba(model, X[test], size))
    assert difference < 0.02, difference
    return difference
