"""Train the ensemble of MURA's authors, and print the table of their paper.

Rajpurkar et al. (arXiv 1712.06957) train DenseNet-169s with one sigmoid output, a loss that is weighted in
each region by how rare abnormal images are there, 320 px, Adam and a learning rate that is divided by 10
when the validation loss stands still. Their model is the mean of the five networks with the lowest
validation loss. Here it is rebuilt, with ``recipe("paper")`` and scikit-learn's `VotingClassifier`.

Without ``--data`` a small network learns from synthetic radiographs, drawings of bones: every step is the
paper's, the scores mean nothing for real radiographs. With ``--data MURA-v1.1`` sizes are the paper's too,
and a GPU is needed. For research only: no result of it may decide about a patient.
"""

# %%
# The flags (``--help`` lists them). The paper does not say how many networks the five were chosen from.
from _common import classifier, data_folder, example_parser, load, parse, trained, whole_number

parser = example_parser(
    __doc__,
    "06_paper_recipe",
    epochs=12,
    image_size=64,
    n_patients=260,
    lr=2e-3,
    backbone="small",
    published="paper",
)
parser.add_argument("--models", type=whole_number(2), help="networks to train (default: 7; with --quick, 3)")
parser.add_argument("--keep", type=whole_number(2), help="networks to average (default: 5; with --quick, 2)")
args = parse(parser)
n_models = args.models or (3 if args.quick else 7)
n_kept = args.keep or (2 if args.quick else 5)
if n_kept > n_models:
    parser.error(f"--keep: {n_kept} of {n_models} networks cannot be kept")
root = data_folder(args)

# %%
# ``valid`` is not touched until the ensemble is chosen: in the paper, too, the networks were chosen on
# other patients than they were judged on. (The paper judges on a test set that was never given out, which
# is why its figures and those on ``valid`` are measured on different studies.)
from murakit import check_disjoint

train, valid = load(args, root, "train"), load(args, root, "valid")
check_disjoint(train, valid)
for name, mura in (("train", train), ("valid", valid)):
    print(f"{name}: {len(mura.data)} images, {len(set(mura.studies))} studies")

# %%
# The recipe
# ----------
# ``recipe`` returns parameters of `MuraClassifier`, and nothing else. The flags change those that have to
# be smaller on synthetic data.
from murakit import recipe

clf = classifier(args)
print("\nThe paper's settings, and what this run makes of them:")
for name, value in recipe("paper").items():
    ours = getattr(clf, name)
    print(f"  {name} = {value}" + ("" if ours == value else f"; here {ours}"))

# %%
# Train
# -----
# Each seed gives other first weights, another order of the images, and holds out other patients: the
# validation losses differ by luck with the patients as well. A network that is done is kept in a file, and
# one that is interrupted keeps its last epoch: with ``--resume`` neither is lost.
print()
members = {}
for number in range(n_models):
    seed = args.seed + number
    members[f"seed {seed}"] = trained(args, f"seed_{seed}", classifier(args, random_state=seed), train)
    done = members[f"seed {seed}"]
    print(
        f"seed {seed}: epoch {done.best_epoch_} of {done.n_epochs_}, loss {done.validation_score_:.3f} on "
        f"{len(done.validation_patients_)} held-out patients",
        flush=True,
    )

# %%
# The ensemble
# ------------
# The networks with the lowest validation loss. With ``voting="soft"`` the probabilities are averaged.
# ``VotingClassifier`` would fit its members once more; ``FrozenEstimator`` keeps them as they are, so that
# its ``fit`` only learns which labels there are.
from sklearn.ensemble import VotingClassifier
from sklearn.frozen import FrozenEstimator

chosen = sorted(members, key=lambda name: members[name].validation_score_)[:n_kept]
ensemble = VotingClassifier([(name, FrozenEstimator(members[name])) for name in chosen], voting="soft")
ensemble.fit(train.data, train.target)
print(f"\nAveraged: {', '.join(chosen)}")

# %%
# The paper's table
# -----------------
# A study's probability is the mean over its views, abnormal above 0.5; the figure is Cohen's kappa per
# region, with a 95 % interval. ``evaluate`` looks into the ensemble, and would raise if one of its networks
# knew a patient of ``valid``.
from murakit import evaluate, published_results

evaluation = evaluate(ensemble, valid.data, valid.target)
table = evaluation.table()[["Studies", "Cohen's kappa", "AUROC", "Sensitivity", "Specificity"]]
paper = published_results()
paper = paper[paper["who"].str.contains("ensemble of the MURA paper")]
kappas = paper[paper["metric"] == "kappa"].set_index("group")
table["Kappa in the paper"] = [
    "{value:.3f} ({low:.3f}–{high:.3f})".format(**kappas.loc[group]) if group in kappas.index else "–"
    for group in table.index
]
table.to_csv(args.output_dir / "table.csv")
print("\nStudies of valid, by region: " + ("synthetic radiographs" if args.data is None else str(args.data)))
print(table.to_string())
print(evaluation.caption())
others = paper[(paper["group"] == "all") & (paper["metric"] != "kappa")]
print(
    "The paper, all regions: "
    + ", ".join(f"{row.metric.replace('auroc', 'AUROC')} {row.value:.3f}" for row in others.itertuples())
)
print(f"Measured on {paper['measured_on'].iloc[0]}.")
if args.data is None:
    print(
        "Synthetic radiographs are no X-rays: the two columns of kappas have nothing to do with each other."
    )

# %%
# What averaging brings
# ---------------------
# The best single network, by validation loss, beside the ensemble: on the same patients, so that the
# interval of the difference is a paired one. Five networks cost five times as much as one.
from murakit import compare

best = evaluate(members[chosen[0]], valid.data, valid.target)
comparison = compare({f"best ({chosen[0]})": best, f"mean of {n_kept}": evaluation})
print(f"\n{comparison}")

# %%
# Files
# -----
# The networks are safetensors files, from which the ensemble is put together again without training, as
# ``--resume`` does.
print(f"\nNetworks: {(args.output_dir / 'models').resolve()}")
