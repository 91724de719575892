"""Head only: cross-validation and search over stored features, against the loop by hand.

600 synthetic radiographs (512 px files, 224 px), ResNet18, five patient folds of ten epochs, nothing
stored at the start. Compared with the loop of `plain_pytorch.py` (an epoch of one fold and its
predictions are measured, the rest is that times folds, epochs and trials), with a user who stores the
features by hand in NumPy and trains the head in a bare loop, and with the limit: decoding every image
once on all cores and one forward pass over them. Predictions have to agree to 1e-3 before times count.
Limits: cross-validation at least 40 times faster than the plain loop, at most 1.2 times the limit and
1.25 times the time by hand; `MuraSearchCV` with 10 trials at least 250 times faster, at most 1.5 times
the limit.
"""

import itertools
import tempfile

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score
from torch import nn
from torch.nn import functional

from murakit import MuraSearchCV, PatientKFold
from murakit.cache import ImageStore
from murakit.networks import build_radiograph

from . import plain_pytorch as plain
from ._measure import interleaved
from ._work import (
    BATCH,
    SEED,
    classifier,
    largest_difference,
    orders,
    radiographs,
    same_start,
    settings,
    weights_file,
)

N_FOLDS, N_TRIALS = 5, 10


def run(quick):
    n_images, size, epochs, rounds = (60, 64, 2, 2) if quick else (600, 224, 10, 3)
    with radiographs(n_images, 128 if quick else 512) as (folder, X, y):
        weights, state = weights_file(folder)
        folds = list(PatientKFold(N_FOLDS).split(X, y))
        clf = classifier(weights, "head", size, max_epochs=epochs)

        def ours():
            with tempfile.TemporaryDirectory() as cache:
                return cross_val_score(clf.set_params(cache=cache), X, y, cv=folds, scoring="roc_auc")

        def search():
            with tempfile.TemporaryDirectory() as cache:
                found = MuraSearchCV(
                    clf.set_params(cache=cache),
                    {"lr": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]},
                    n_trials=N_TRIALS,
                    cv=folds,
                    scoring="roc_auc",
                    refit=False,
                    random_state=SEED,
                )
                return found.fit(X, y).best_score_

        def by_hand():
            features = numpy_features(state, X, size)
            return [bare_head(features, y, *fold, weights, epochs) for fold in folds]

        def limit():
            pixels = ImageStore(image_size=size, resize="squash").open(X)[:]
            network = build_radiograph(
                "resnet18", 2, weights=weights, unfreeze="head", dropout=0.0, augmentation=None, seed=0
            ).eval()
            with torch.inference_mode():
                return [network.run_before("head", batch) for batch in pixels.split(BATCH)]

        train, test = folds[0]
        loops = []

        def plain_epoch():
            head, rng = same_start(weights, "head")
            loop = plain.Loop(
                plain.model_of(state, head, "head"), X[train], y[train], size, orders(rng, len(train))
            )
            loop.epoch()
            loops[:] = [loop]

        def plain_prediction():
            return plain.predict_proba(loops[0].model, X[test], size)

        plain_epoch()
        one = clf.set_params(cache=None, max_epochs=1).fit(X[train], y[train]).predict_proba(X[test])
        difference = largest_difference(one, plain_prediction())
        clf.set_params(max_epochs=epochs)
        scores, theirs = ours(), by_hand()
        assert difference < 1e-3, difference
        assert np.allclose(scores, theirs, atol=0.01), (scores, theirs)
        timings = interleaved(
            {
                "plain epoch": plain_epoch,
                "plain prediction": plain_prediction,
                "limit": limit,
                "by hand": by_hand,
                "ours": ours,
                "search": search,
            },
            rounds=rounds,
            warmup=0,
        )
    seconds = {name: np.array(timing.seconds) for name, timing in timings.items()}
    whole = N_FOLDS * (epochs * seconds["plain epoch"] + seconds["plain prediction"])
    table = {
        "plain loop, 5 folds (from one epoch)": (whole, None, None, None),
        "limit: decode once, one forward pass": (seconds["limit"], None, None, None),
        "features in NumPy, bare loop": (seconds["by hand"], whole, None, None),
        "cross_val_score, empty cache": (seconds["ours"], whole, 40, 1.2),
        "MuraSearchCV, 10 trials, empty cache": (seconds["search"], N_TRIALS * whole, 250, 1.5),
    }
    rows = []
    for what, (value, baseline, at_least, at_most) in table.items():
        row = {
            "what": what,
            "median s": f"{np.median(value):.1f}",
            "spread s": f"{value.min():.1f} – {value.max():.1f}",
        }
        to_limit = np.median(value / seconds["limit"])
        row["× limit"] = f"{to_limit:.2f}"
        if baseline is not None:
            faster = np.median(baseline / value)
            row["× faster than plain"] = f"{faster:.0f}"
        if at_least:
            row["asked"] = f"≥ {at_least} × faster, ≤ {at_most} × limit"
            row["ok"] = quick or (faster >= at_least and to_limit <= at_most)
        rows.append(row)
    beside = np.median(seconds["ours"] / seconds["by hand"])
    rows.append(
        {
            "what": f"cross_val_score / by hand: {beside:.2f}",
            "asked": "≤ 1.25",
            "ok": quick or bool(beside <= 1.25),
            "median s": "",
        }
    )
    rows.append({"what": f"{settings()}; probabilities differ from the plain loop's by {difference:.0e}"})
    return rows


def numpy_features(state, X, size):
    """Run the frozen network once, as one does by hand."""
    model = plain.model_of(state, nn.Linear(512, 2).state_dict(), "head")
    model.fc = nn.Identity()
    loader = torch.utils.data.DataLoader(plain.Radiographs(X, [0] * len(X), size), BATCH, num_workers=2)
    model.eval()
    with torch.inference_mode():
        return np.concatenate([model(images).numpy() for images, _ in loader])


def bare_head(features, y, train, test, weights, epochs):
    head, rng = same_start(weights, "head")
    model = nn.Linear(512, 2)
    model.load_state_dict(head)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    weight = plain.class_weights(y[train])
    inputs, labels = torch.from_numpy(features[train]), torch.from_numpy(y[train])
    for order in itertools.islice(orders(rng, len(train)), epochs):
        # A last batch of one image goes to the one before, as murakit does it.
        n_batches = max(1, -(-(len(order) - 1) // BATCH))
        for number in range(n_batches):
            rows = order[number * BATCH : (number + 1) * BATCH if number + 1 < n_batches else None]
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs[rows]), labels[rows], weight=weight).backward()
            optimizer.step()
    with torch.inference_mode():
        proba = model(torch.from_numpy(features[test])).softmax(dim=1)[:, 1].numpy()
    return roc_auc_score(y[test], proba)
