"""Cross-validate by patient, and see what a split by images would have claimed.

A patient's images resemble each other: the same bones, the same machine, and very often the same
finding. A split by images puts some of them on each side, and the model then recognises the patient
instead of finding the fracture. Here one and the same model is cross-validated three times: with
`PatientKFold`, with scikit-learn's `GroupKFold`, and image by image, the wrong way.

Without ``--data`` the radiographs are synthetic, and so are the scores. For research only.
"""

# %%
# The flags (``--help`` lists them), and the training images that they name. The subset ``valid`` is
# not touched: cross-validation compares models without using it up.
from _common import classifier, data_folder, example_parser, load, parse, whole_number

parser = example_parser(__doc__, "02_cross_validate_by_patient", epochs=15, image_size=48, n_patients=60)
parser.add_argument("--folds", type=whole_number(2), default=3, help="number of folds (default: %(default)s)")
args = parse(parser)
if args.resume:
    parser.error("--resume: there is nothing to go on from, for every fold starts anew")
root = data_folder(args)
mura = load(args, root, "train")
print(f"{len(mura.data)} images, {len(set(mura.studies))} studies, {len(set(mura.patients))} patients")

# %%
# Three ways to split
# -------------------
# ``PatientKFold`` reads the patient from each path and keeps labels and regions in proportion. It needs
# no ``groups``, so that it also works where scikit-learn has no way to hand them on. ``GroupKFold`` with
# ``groups=mura.patients`` parts no patient either. ``KFold`` knows nothing of patients.
from sklearn.model_selection import GroupKFold, KFold

from murakit import PatientKFold

splitters = {
    "PatientKFold": PatientKFold(args.folds, shuffle=True, random_state=args.seed),
    "GroupKFold": GroupKFold(args.folds, shuffle=True, random_state=args.seed),
    "KFold, by image": KFold(args.folds, shuffle=True, random_state=args.seed),
}

print("\nPatients of whom the model has seen other images in training, fold by fold:")
for name, cv in splitters.items():
    shared = []
    groups = mura.patients if name == "GroupKFold" else None
    for fit, test in cv.split(mura.data, mura.target, groups):
        tested = set(mura.patients[test])
        shared.append(f"{len(tested & set(mura.patients[fit]))} of {len(tested)}")
    print(f"  {name:16} {', '.join(shared)}")

# %%
# The same model, scored three times
# ----------------------------------
# Two scores side by side: the AUROC of the images, and with ``study_scorer`` that of the studies, whose
# probability is the mean over their images. The latter is what a paper reports.
#
# All folds train for the same number of epochs, without early stopping, so that nothing but the split
# differs; and without augmentation. Few patients, many epochs and images that never change are what makes
# a network learn patients by heart; with more data and augmentation the gap is smaller, not gone.
import pandas as pd
from sklearn.model_selection import cross_validate

from murakit import study_scorer

clf = classifier(args, early_stopping=False, augment=False)
scoring = {"image": "roc_auc", "study": study_scorer("roc_auc")}
lines = []
for name, cv in splitters.items():
    groups = mura.patients if name == "GroupKFold" else None
    scores = cross_validate(clf, mura.data, mura.target, groups=groups, cv=cv, scoring=scoring)
    lines.append(
        {
            "split": name,
            "AUROC image": scores["test_image"].mean(),
            "AUROC study": scores["test_study"].mean(),
            "lowest fold": scores["test_study"].min(),
            "highest fold": scores["test_study"].max(),
        }
    )
table = pd.DataFrame(lines).set_index("split")
table.to_csv(args.output_dir / "splits.csv")

# %%
# What the wrong split claimed
# ----------------------------
# Only the first two lines say what to expect of a patient who comes in tomorrow. (They differ a little
# from each other, because they deal out the patients differently.)
print(f"\nMean of {args.folds} folds, trained for {clf.max_epochs} epochs each:")
print(table.to_string(float_format="{:.3f}".format))

honest, groups, claimed = table["AUROC study"]
print(f"\nBy patient {honest:.3f}, image by image {claimed:.3f}: a difference of {claimed - honest:+.3f}.")
if args.quick:
    print("With --quick nothing is learnt, and the difference means nothing.")
elif claimed - max(honest, groups) > 0.02:
    print(
        "The split by images claims more because its test images show patients that the model was trained on:\n"
        "it remembers them and their label. On new patients that is worth nothing."
    )
else:
    print(
        "That is too little to tell from chance here: this model has not learnt its patients by heart, or few\n"
        "of them have several images. Only a split by patient makes sure."
    )
