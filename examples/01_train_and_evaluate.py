"""Train a model on radiographs, and judge it per study and per region.

The whole way from a folder of radiographs to a saved model: check the data, train on the patients
of ``train``, judge on those of ``valid`` by what a radiology paper reports, save, load again, and
predict for a single image and a single study.

Without ``--data`` the radiographs are synthetic, drawings of bones in MURA's layout, so that this
runs everywhere within minutes; what is learnt from them is of no use on real films. With
``--data MURA-v1.1`` the same lines train on MURA. Either way this is for research, and no medical
device: no result of it may decide about a patient.
"""

# %%
# The flags (``--help`` lists them), and the folder that they name.
from _common import classifier, data_folder, example_parser, load, parse

args = parse(
    example_parser(__doc__, "01_train_and_evaluate", epochs=10, image_size=96, n_patients=260, batch_size=32)
)
root = data_folder(args)

# %%
# Is the data sound?
# ------------------
# ``check_mura`` reads every image and compares folders with CSVs. It also finds patients who are in
# both subsets, and images that two patients share: either would make the scores below too good.
from murakit import check_disjoint, check_mura

problems = check_mura(root, verbose=0)
print(f"check_mura: {len(problems)} problems" + (":" if len(problems) else ""))
for problem, found in problems.groupby("problem"):
    print(f"  {len(found)} × {problem}, such as {found['path'].iloc[0]}")
if (problems["problem"] == "unreadable image").any():
    raise SystemExit("Restore the unreadable images, or move them away, before training.")

# %%
# A sample is an image; its label is that of its study, as a radiologist read it. The patients of
# ``valid`` are others than those of ``train``; if they were not, ``check_disjoint`` would raise.
train, valid = load(args, root, "train"), load(args, root, "valid")
check_disjoint(train, valid)
for name, part in (("train", train), ("valid", valid)):
    print(
        f"{name}: {len(part.data)} images, {len(set(part.studies))} studies, "
        f"{len(set(part.patients))} patients, {part.target.mean():.0%} of the images of abnormal studies"
    )

# %%
# Train
# -----
# ``fit`` holds some patients of ``train`` out and keeps the epoch that is best on them; ``valid`` plays
# no part in it. With ``--resume``, training goes on from the saved model: same data, same patients held
# out, for whoever has been trained on can no longer tell how good the model is.
import joblib

model_path = args.output_dir / "model.joblib"
if args.resume:
    if not model_path.is_file():
        raise SystemExit(f"--resume: there is no {model_path} yet; train once without --resume")
    clf = joblib.load(model_path).set_params(warm_start=True, verbose=1)
    if {*clf.train_patients_, *clf.validation_patients_} != set(
        train.patients
    ) or clf.random_state != args.seed:
        raise SystemExit(
            "--resume: the model was trained on other data; pass its --data, --region and --seed"
        )
    for flag in args.given & {"backbone", "image_size"}:
        if getattr(args, flag) != getattr(clf, flag):
            raise SystemExit(f"--resume: the model has {flag}={getattr(clf, flag)}; train anew to change it")
    flags = {"epochs": "max_epochs", "batch_size": "batch_size", "lr": "lr", "unfreeze": "unfreeze"}
    clf.set_params(**{param: getattr(args, flag) for flag, param in flags.items() if flag in args.given})
else:
    clf = classifier(args, verbose=1)

clf.fit(train.data, train.target)
print(
    f"Kept epoch {clf.best_epoch_} of {clf.n_epochs_}: loss {clf.validation_score_:.3f} on "
    f"{len(clf.validation_patients_)} patients held out of {len(set(train.patients))}"
)

# %%
# Judge
# -----
# What counts is the study, for that is what is reported on: its probability is the mean over its
# images. Scores of images would count a study with four views four times.
#
# The area under the ROC curve (AUROC) asks whether abnormal studies get higher probabilities than
# normal ones; Cohen's kappa is the agreement with the label beyond chance; sensitivity and
# specificity are the shares of abnormal and of normal studies that are called so at 0.5. Few studies
# make all of them uncertain, which is what the intervals say: they come from drawing the patients anew,
# for two studies of one patient are no two cases. ``evaluate`` would raise if the model knew a patient.
from murakit import evaluate

evaluation = evaluate(clf, valid.data, valid.target)

# %%
# Save and load
# -------------
# The file holds the weights and the history, no images; it loads in another process, and on a machine
# without a GPU. Like every pickle, load it only if you trust where it is from.
joblib.dump(clf, model_path)
loaded = joblib.load(model_path)
assert (loaded.predict_proba(valid.data[:8]) == clf.predict_proba(valid.data[:8])).all()
print("Loaded again, the model predicts the same.")

# %%
# Predict
# -------
# For one image, and for the folder of a study, which stands for all of its images.
from pathlib import Path

image = valid.data[0]
study = str(Path(image).parent)
p_image, p_study = loaded.predict_proba([image, study])[:, 1]
print(f"One image: P(abnormal) = {p_image:.2f}  {image}")
print(f"Its study: P(abnormal) = {p_study:.2f}  mean over {len(list(Path(study).glob('*.png')))} images")

# %%
# The result
# ----------
evaluation.to_frame().to_csv(args.output_dir / "valid_by_region.csv")
source = "synthetic radiographs" if args.data is None else str(args.data)
print(f"\nStudies of valid, by region ({source}):")
print(evaluation)
print(f"Saved model: {model_path.resolve()}")
