"""Search for hyper-parameters with Optuna, and resume the search later.

`MuraSearchCV` lets Optuna propose and scikit-learn score: each trial is cross-validated by patient,
hopeless trials are pruned between two folds, and every trial is kept in a file, so that a search can
be interrupted, resumed with ``--resume``, and shared by several processes.

Without ``--data`` the radiographs are synthetic, and so are the scores. For research only.
"""

# %%
# The flags (``--help`` lists them). ``--n-trials`` counts those of earlier runs too: after 6 trials,
# ``--resume --n-trials 10`` runs 4 more.
from _common import classifier, data_folder, example_parser, load, parse, whole_number

parser = example_parser(__doc__, "03_search_with_optuna", epochs=10, image_size=48, n_patients=80)
parser.add_argument("--n-trials", type=whole_number(1), help="trials in all (default: 6; with --quick, 2)")
parser.add_argument("--folds", type=whole_number(2), help="number of folds (default: 3; with --quick, 2)")
args = parse(parser)
n_trials = args.n_trials or (2 if args.quick else 6)
n_folds = args.folds or (2 if args.quick else 3)
root = data_folder(args)

# %%
# Trials are compared on the patients of ``train``; those of ``valid`` wait for the one model that wins.
# Had they a say in the choice, its score on them would be too good.
from murakit import check_disjoint

train, valid = load(args, root, "train"), load(args, root, "valid")
check_disjoint(train, valid)
print(
    f"train: {len(train.data)} images, {len(set(train.patients))} patients; valid: {len(valid.data)} images"
)

# %%
# What to search
# --------------
# ``search_space`` names what matters most, with ranges that suit most data. It is a plain dict of Optuna's
# distributions: add to it, or take away.
from murakit import search_space

# The synthetic patients are too few to hold some of them out of every training for early stopping as well.
clf = classifier(args, early_stopping=args.data is not None)
space = search_space(clf)
if args.weights is None:
    # Random weights hold nothing worth freezing, and learn as fast as the head.
    space = {
        name: choices for name, choices in space.items() if name not in ("unfreeze", "backbone_lr_factor")
    }
elif "unfreeze" in args.given:
    space.pop("unfreeze", None)
if "lr" in args.given:
    space.pop("lr")
for name, choices in space.items():
    print(f"  {name}: {choices}")

# %%
# Where the trials are kept
# -------------------------
# In an SQLite file in the output folder. Each search is a study of its own in it, in Optuna's sense of the
# word; ``--resume`` takes the last one up again.
import optuna

storage = f"sqlite:///{(args.output_dir / 'search.db').resolve()}"
earlier = optuna.get_all_study_names(storage) if (args.output_dir / "search.db").is_file() else []
if args.resume and not earlier:
    raise SystemExit(f"--resume: {args.output_dir} holds no search yet; run once without --resume")
number = len(earlier) + (not args.resume)
study_name = f"search-{number}"

# %%
# Search
# ------
# A trial is pruned when, after one of its folds, it is worse than the median of the trials before it. The
# first three run through, to make a median of. Trials are scored per study: the AUROC of the mean
# probability over a study's images.
from murakit import MuraSearchCV, PatientKFold, study_scorer


def tell(study, trial):
    """Print a line a trial."""
    scores = list(trial.intermediate_values.values())
    auroc = f"AUROC {scores[-1]:.3f} after {len(scores)} folds" if scores else "no score"
    print(f"  trial {trial.number + 1}: {trial.state.name.lower()}, {auroc}", flush=True)


search = MuraSearchCV(
    clf,
    space,
    n_trials=n_trials,
    cv=PatientKFold(n_folds, shuffle=True, random_state=args.seed),
    scoring=study_scorer("roc_auc"),
    pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
    storage=storage,
    study_name=study_name,
    callbacks=[tell],
    random_state=args.seed,
)
print(f"\n{study_name}: {n_trials} trials of {n_folds} folds")
try:
    search.fit(train.data, train.target)
except KeyboardInterrupt:
    raise SystemExit("Interrupted; the finished trials are kept. Go on with --resume.") from None

# %%
# The trials
# ----------
# ``cv_results_`` is scikit-learn's, one row a trial. A pruned trial has no mean, for some of its folds
# were never run.
import pandas as pd

results = pd.DataFrame(search.cv_results_)
columns = {
    "trial_number": "trial",
    "trial_state": "state",
    "mean_test_score": "AUROC",
    "std_test_score": "std",
}
params = {column: column.removeprefix("param_") for column in results if column.startswith("param_")}
table = results[[*columns, *params]].rename(columns=columns | params)
table["trial"] += 1
table = table.sort_values("AUROC", ascending=False)
table.to_csv(args.output_dir / "trials.csv", index=False)
print("\nAll trials, the best first (AUROC per study, mean over the folds):")
print(table.to_string(index=False, na_rep="-", float_format="{:.4g}".format))

print("\nBest parameters:")
for name, value in search.best_params_.items():
    print(f"  {name} = {value:.4g}" if isinstance(value, float) else f"  {name} = {value}")

# %%
# The winner on ``valid``
# -----------------------
# ``best_score_`` is the highest of several scores, and so a little too high, the more trials the more so.
# The score on ``valid`` is not: these patients are seen here for the first time. ``best_estimator_`` was
# trained on all of ``train`` with the best parameters.
import joblib

auroc = search.score(valid.data, valid.target)
model_path = args.output_dir / "best_model.joblib"
joblib.dump(search.best_estimator_, model_path)
print(f"\nAUROC per study: {search.best_score_:.3f} in cross-validation, {auroc:.3f} on valid")
print(f"Saved model: {model_path.resolve()}")
