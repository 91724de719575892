"""Calibrate the probabilities, and choose a threshold for a wanted sensitivity.

A network ranks radiographs better than it says how sure it is, and 0.5 is rarely the threshold that a
reader wants: a fracture that is missed costs more than a second look. scikit-learn's
`CalibratedClassifierCV` corrects the probabilities, its `TunedThresholdClassifierCV` finds the threshold,
and both work on patients that the network has not been trained on.

Without ``--data`` the radiographs are synthetic, and so are the scores. For research only: a threshold
for use on patients is chosen and proven on data of the place where it is to be used.
"""

# %%
# The flags (``--help`` lists them).
from _common import classifier, data_folder, example_parser, load, parse, share, whole_number

parser = example_parser(
    __doc__, "04_calibrate_and_choose_threshold", epochs=12, image_size=64, n_patients=240
)
parser.add_argument("--sensitivity", type=share, default=0.9, help="wanted at least (default: %(default)s)")
parser.add_argument(
    "--method",
    choices=("temperature", "sigmoid", "isotonic"),
    default="temperature",
    help="how to calibrate (default: %(default)s)",
)
parser.add_argument(
    "--folds", type=whole_number(2), help="folds to calibrate by (default: 3; with --quick, 2)"
)
args = parse(parser)
if args.resume:
    parser.error("--resume: there is nothing to go on from; 01_train_and_evaluate.py resumes")
n_folds = args.folds or (2 if args.quick else 3)
root = data_folder(args)

# %%
# Three sets of patients
# ----------------------
# A sample is a study folder here (``level="study"``), so that everything below is per study. The patients
# of ``train`` are parted once more: on most of them the network is trained and calibrated, on the others
# the threshold is chosen. What comes out is judged on ``valid``. A threshold that is chosen on ``valid``
# reaches the wanted sensitivity there by construction, which says nothing about the next patient.
from murakit import PatientShuffleSplit, check_disjoint

train, valid = (load(args, root, subset, level="study") for subset in ("train", "valid"))
split = PatientShuffleSplit(1, test_size=0.3, random_state=args.seed)
fit_rows, tune_rows = next(split.split(train.data, train.target))
sets = {
    "fit": (train.data[fit_rows], train.target[fit_rows]),
    "tune": (train.data[tune_rows], train.target[tune_rows]),
    "valid": (valid.data, valid.target),
}
check_disjoint(sets["fit"][0], sets["tune"][0])
check_disjoint(train, valid)
for name, (X, y) in sets.items():
    print(f"{name}: {len(X)} studies, {y.sum()} of them abnormal")

# %%
# Calibrate
# ---------
# Each fold trains a network on two thirds of the patients, and learns the calibration from what that
# network says about the others, whom it has not seen. The result is the mean of the calibrated networks.
#
# Temperature scaling divides the log-odds by one number: it makes a network less, or more, sure of itself,
# and never changes which of two studies one network finds the more suspicious. ``--method sigmoid`` also shifts the
# log-odds; ``--method isotonic`` fits any rising curve, and needs a thousand studies or more for it.
from sklearn.calibration import CalibratedClassifierCV

from murakit import PatientKFold

calibrated = CalibratedClassifierCV(
    classifier(args),
    method=args.method,
    cv=PatientKFold(n_folds, shuffle=True, random_state=args.seed),
)
calibrated.fit(*sets["fit"])

# %%
# The very same networks with and without calibration, on ``valid``. The Brier score is the mean squared
# error of the probability, log loss punishes being sure and wrong; smaller is better for both.
import numpy as np
import pandas as pd
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

X_valid, y_valid = sets["valid"]
networks = [pair.estimator for pair in calibrated.calibrated_classifiers_]
before = np.mean([network.predict_proba(X_valid)[:, 1] for network in networks], axis=0)
after = calibrated.predict_proba(X_valid)[:, 1]
calibration = pd.DataFrame(
    {
        "Brier": [brier_score_loss(y_valid, p) for p in (before, after)],
        "log loss": [log_loss(y_valid, p) for p in (before, after)],
        "AUROC": [roc_auc_score(y_valid, p) for p in (before, after)],
        "mean P(abnormal)": [before.mean(), after.mean()],
    },
    index=["networks", f"calibrated ({args.method})"],
)
print(f"\nOn valid, where {y_valid.mean():.3f} of the studies are abnormal:")
print(calibration.to_string(float_format="{:.3f}".format))
if calibration["log loss"].iloc[1] > calibration["log loss"].iloc[0]:
    print(
        "Calibration did not help here: the networks were well calibrated, or their folds had too few patients."
    )

# %%
# Choose the threshold
# --------------------
# ``TunedThresholdClassifierCV`` maximises a score over the thresholds. This one is the specificity, less a
# heavy fine for each percent of sensitivity that is lacking: no gain in specificity can outweigh it.
#
# The model is fitted already, and "tune" are other patients, so that nothing has to be trained again
# (``cv="prefit"``). With too few patients to put some aside, ``TunedThresholdClassifierCV(calibrated,
# cv=PatientKFold(5))`` chooses the threshold on all of them, for the price of training each network anew
# in every fold.
from sklearn.metrics import make_scorer, recall_score
from sklearn.model_selection import TunedThresholdClassifierCV


def specificity_at_sensitivity(y, called, *, wanted):
    """Return the specificity, less 100 for each 1.0 of sensitivity below `wanted`."""
    sensitivity = recall_score(y, called, pos_label=1)
    specificity = recall_score(y, called, pos_label=0)
    return specificity - 100 * max(0.0, wanted - sensitivity)


tuned = TunedThresholdClassifierCV(
    calibrated,
    scoring=make_scorer(specificity_at_sensitivity, wanted=args.sensitivity),
    response_method="predict_proba",
    thresholds=1000,
    cv="prefit",
    refit=False,
)
tuned.fit(*sets["tune"])
print(f"\nThreshold for a sensitivity of {args.sensitivity:g} on tune: {tuned.best_threshold_:.3f}")

# %%
# What it is worth
# ----------------
# On "tune" the wanted sensitivity is reached, on ``valid`` about so: with ten abnormal studies one of
# them more or less is 0.1. Choose a higher ``--sensitivity`` where falling short of it must not happen.
lines = []
for name in ("tune", "valid"):
    X, y = sets[name]
    proba = calibrated.predict_proba(X)[:, 1]
    for threshold in (0.5, tuned.best_threshold_):
        called = (proba >= threshold).astype(int)
        lines.append(
            {
                "set": name,
                "threshold": threshold,
                "sensitivity": recall_score(y, called, pos_label=1),
                "specificity": recall_score(y, called, pos_label=0),
                "missed": f"{((called == 0) & (y == 1)).sum()} of {(y == 1).sum()}",
                "false alarms": f"{((called == 1) & (y == 0)).sum()} of {(y == 0).sum()}",
            }
        )
operating_points = pd.DataFrame(lines)
operating_points.to_csv(args.output_dir / "operating_points.csv", index=False)
print(operating_points.to_string(index=False, float_format="{:.3f}".format))

# %%
# Save
# ----
# Calibration and threshold belong to the model. ``FixedThresholdClassifier`` holds all of it, and not the
# scoring function above, which another process would not know when it loads the file.
import joblib
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import FixedThresholdClassifier

final = FixedThresholdClassifier(
    FrozenEstimator(calibrated), threshold=tuned.best_threshold_, response_method="predict_proba"
).fit(*sets["tune"])
assert (final.predict(X_valid) == tuned.predict(X_valid)).all()
model_path = args.output_dir / "model_with_threshold.joblib"
joblib.dump(final, model_path)
print(f"\nSaved model, with its calibration and threshold: {model_path.resolve()}")
