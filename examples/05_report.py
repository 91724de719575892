"""Write a report of a trained model, with a threshold chosen beforehand.

The model is that of ``01_train_and_evaluate.py``. A threshold is chosen on the patients that its training
held out, the model is judged with it on those of ``valid``, and everything a reader would ask for goes
into one file that opens without a network: intervals, curves, the worst mistakes with heat maps, and what
the model could cheat with.

Run example 01 before, with the same ``--data``, ``--region``, ``--seed`` and ``--quick``. For research
only: no result of it may decide about a patient.
"""

# %%
# The flags (``--help`` lists them). The output folder is that of example 01: its model is read, the report
# is written beside it.
from _common import data_folder, example_parser, load, parse

parser = example_parser(
    __doc__,
    "05_report",
    epochs=10,
    image_size=96,
    n_patients=260,
    batch_size=32,
    folder="01_train_and_evaluate",
)
args = parse(parser)
if args.resume:
    parser.error("--resume: there is nothing to go on from; 01_train_and_evaluate.py resumes")
model_path = args.output_dir / "model.joblib"
if not model_path.is_file():
    raise SystemExit(f"There is no {model_path} yet: run 01_train_and_evaluate.py first, with the same flags")
root = data_folder(args)

# %%
# The model, and the data that it was trained on. Like every pickle, load it only if you trust where it is
# from.
import joblib
import numpy as np

clf = joblib.load(model_path)
train, valid = load(args, root, "train"), load(args, root, "valid")
if {*clf.train_patients_, *clf.validation_patients_} != set(train.patients):
    raise SystemExit("The model was trained on other data; pass the flags that it was trained with")

# %%
# A threshold
# -----------
# Half of the abnormal studies have to be found whatever it costs? Nine of ten? That is for the reader to
# say. The threshold is chosen on the patients who were held out in training, never on those of ``valid``.
from murakit import threshold_at

held = np.isin(train.patients, clf.validation_patients_)
proba = clf.predict_proba(train.data[held])
threshold = threshold_at(train.target[held], proba, sensitivity=0.8, studies=train.studies[held])
clf.set_params(decision_threshold=threshold)
print(
    f"Abnormal from {threshold:.2f} on: that finds 80 % of the abnormal studies of {held.sum()} held-out images"
)

# %%
# Judge
# -----
from murakit import evaluate

evaluation = evaluate(clf, valid.data, valid.target)
print(evaluation)

# %%
# Could it cheat?
# ---------------
# If image sizes or file modes told normal from abnormal, a network would find out, and the numbers above
# would say nothing about bones.
from murakit import audit_shortcuts

n_splits = 2 if args.quick else 5
audit = audit_shortcuts(train.data, train.target, n_splits=n_splits)
print(audit)

# %%
# Predictions
# -----------
# One line an image, one line a study, and the two columns of the MURA competition.
from murakit import predict_frame, write_mura_csv

predict_frame(clf, valid.data).to_csv(args.output_dir / "valid_images.csv", index=False)
by_study = predict_frame(clf, valid.data, level="study")
by_study.to_csv(args.output_dir / "valid_studies.csv", index=False)
if set(clf.classes_) == {0, 1}:
    write_mura_csv(by_study, args.output_dir / "competition.csv", root=root)

# %%
# Pictures
# --------
# Each is a Display as scikit-learn has them: draw into axes of your own with ``ax=``, or change ``ax_`` and
# ``figure_`` afterwards. In a paper's column width, and readable without colour.
from murakit import inspection, plotting

plotting.OperatingPointDisplay.from_evaluation(evaluation).figure_.savefig(args.output_dir / "roc.png")
abnormal = valid.data[valid.target == 1][:8]
inspection.grad_cam(clf, abnormal).plot().savefig(args.output_dir / "heat_maps.png")

# %%
# The report
# ----------
# Open it in a browser, send it to a colleague, print it.
from murakit import write_report

report = write_report(
    evaluation,
    args.output_dir / "report.html",
    estimator=clf,
    data={"train": train, "valid": valid},
    audit=audit,
    title="Abnormal radiographs: " + ("synthetic data" if args.data is None else str(args.data)),
)
print(f"Report: {report}")
