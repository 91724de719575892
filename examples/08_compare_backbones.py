"""Compare backbones by region, also 14 classes at once and a model per region.

Which network should it be, and one for all regions or one for each? The project aandrovitsanea/cnn_mura
asks this with five backbones, a model per region, and a model that tells region and abnormality at once
(14 classes). Here every model learns from the same patients and is judged on the same others, with
intervals, and the best two are compared patient by patient.

Without ``--data`` small networks learn from synthetic radiographs, drawings of bones: which of them wins
there says nothing about real ones. With ``--data MURA-v1.1`` the backbones are cnn_mura's (for its own small
network, murakit's), and a GPU is needed. For research only.
"""

# %%
# The flags (``--help`` lists them). ``--backbones`` are trained on all regions; ``--backbone`` is that of the
# other two models.
from importlib.util import find_spec

from _common import classifier, data_folder, example_parser, load, parse, trained

parser = example_parser(
    __doc__,
    "08_compare_backbones",
    epochs=16,
    image_size=64,
    n_patients=700,
    regions=None,
    batch_size=32,
    lr=3e-3,
    backbone="small",
    real_backbone="densenet121",
)
parser.add_argument(
    "--backbones",
    metavar="NAME",
    nargs="+",
    help="to compare (default: small, resnet18 and mobilenet_v3_small on synthetic data, else those of cnn_mura)",
)
args = parse(parser)
if args.quick and args.region is None:
    # Few patients of seven regions would leave some without normal or without abnormal studies.
    args.region = ["wrist", "elbow"]

if args.backbones is not None:
    backbones = args.backbones
elif args.quick:
    backbones = ["small", "resnet18"]
elif args.data is not None:
    backbones = ["densenet121", "resnet152", "inception_v3", "small"]
    if find_spec("timm"):
        # Xception is not among torchvision's models.
        backbones.insert(3, "timm/legacy_xception")
else:
    backbones = ["small", "resnet18", "mobilenet_v3_small"]

# %%
# All models get the images of the same patients. For the 14 classes, the target is region and label in one,
# such as "wrist_abnormal".
from murakit import check_disjoint

root = data_folder(args)
train, valid = load(args, root, "train"), load(args, root, "valid")
train_classes = load(args, root, "train", target="region_abnormal")
valid_classes = load(args, root, "valid", target="region_abnormal")
check_disjoint(train, valid)
for name, mura in (("train", train), ("valid", valid)):
    print(
        f"{name}: {len(mura.data)} images, {len(set(mura.studies))} studies, "
        f"{len(set(mura.patients))} patients, {len(set(mura.regions))} regions"
    )

# %%
# The models
# ----------
# All train for the same epochs, the learning rate falls to zero along a cosine, and the last epoch is kept.
# Holding patients out for early stopping would take too many from the smallest region. What differs is the
# network, and what comes with its ImageNet weights: the image size, and small steps in the stages before the
# head.
#
# A `PerRegionClassifier` fits a classifier for each region on the images of that region alone. It sees as
# many images as the others, but each of its networks sees a seventh of them.
import sys

from murakit import PerRegionClassifier

settings = {
    "early_stopping": False,
    "lr_schedule": "cosine",
    "warmup_epochs": 1 if args.epochs > 1 else 0,
    # Epoch by epoch where somebody watches, or has to wait for hours.
    "verbose": int(args.data is not None or sys.stderr.isatty()),
}
estimators = {name: classifier(args, backbone=name, **settings) for name in backbones}
classes_name, per_region_name = f"{args.backbone}, 14 classes", f"{args.backbone}, per region"
estimators[classes_name] = classifier(args, **settings)
estimators[per_region_name] = PerRegionClassifier(classifier(args, **settings))

# %%
# Train
# -----
# With ``--resume``, models that are done are loaded from their files, and an interrupted one goes on after
# its last epoch. (Of the model per region, the region that was being trained goes on; those before it are
# trained again, for its file is written when all are done.) The cache holds each image once for all of them.
import time

models = {}
for number, (name, estimator) in enumerate(estimators.items(), start=1):
    print(f"[{number}/{len(estimators)}] {name}", flush=True)
    started = time.monotonic()
    models[name] = trained(args, name, estimator, train_classes if name == classes_name else train)
    print(f"[{number}/{len(estimators)}] {name}: {time.monotonic() - started:.0f} s", flush=True)

# %%
# Judge
# -----
# Each model is asked for the probability that a radiograph is abnormal; of 14 classes, that is the sum of
# seven. Studies count, as everywhere in murakit. cnn_mura counts images, so that they are counted as well.
from murakit import evaluate_predictions, predict_abnormal

by_study, by_image = {}, {}
for name, model in models.items():
    proba = predict_abnormal(model, valid.data)
    for level, evaluations in (("study", by_study), ("image", by_image)):
        evaluations[name] = evaluate_predictions(
            valid.target,
            proba,
            patients=valid.patients,
            studies=valid.studies,
            regions=valid.regions,
            images=valid.data,
            level=level,
        )

# %%
# The table
# ---------
# One line a model, one column a region. Where two intervals overlap widely, the table does not say which
# model is better; small regions have wide ones.
import pandas as pd


def table_of(evaluations, metric):
    """Return a metric with its interval, "0.71 (0.62–0.79)", by model and region."""
    groups = ["all", *sorted(set(valid.regions))]
    cells = {
        name: ["{:.2f} ({:.2f}–{:.2f})".format(*evaluation.get(metric, group)) for group in groups]
        for name, evaluation in evaluations.items()
    }
    return pd.DataFrame.from_dict(cells, orient="index", columns=groups).rename_axis("model")


source = "synthetic radiographs" if args.data is None else str(args.data)
for title, evaluations, metric, file in (
    ("Cohen's kappa, studies", by_study, "kappa", "kappa.csv"),
    ("Accuracy, studies", by_study, "accuracy", "accuracy.csv"),
    ("Accuracy, images", by_image, "accuracy", "accuracy_of_images.csv"),
):
    table = table_of(evaluations, metric)
    table.to_csv(args.output_dir / file)
    print(f"\n{title} of valid ({source}), with 95 % intervals:")
    print(table.to_string())

numbers = pd.concat({name: evaluation.to_frame() for name, evaluation in by_study.items()}, names=["model"])
numbers.to_csv(args.output_dir / "all_metrics.csv")

# %%
# What cnn_mura reports, images of MURA's ``valid``: the best of five backbones in each region, trained on
# that region alone. The best of five on the patients who are also judged on is a little too good.
from murakit import published_results

theirs = published_results("accuracy")
theirs = theirs[theirs["source"] == "aandrovitsanea/cnn_mura"]
print("\ncnn_mura on MURA: " + ", ".join(f"{row.group} {row.value:.3f}" for row in theirs.itertuples()))

# %%
# Region and abnormality at once
# ------------------------------
# The model of 14 classes also tells the region. The table counts which is taken for which; being right
# about all 14 classes is harder than about either.
from murakit import predict_region, region_confusion

of_classes = models[classes_name]
confusion = region_confusion(of_classes, valid.data, regions=valid.regions)
confusion.to_csv(args.output_dir / "region_confusion.csv")
region_accuracy = (predict_region(of_classes, valid.data) == valid.regions).mean()
class_accuracy = (of_classes.predict(valid_classes.data) == valid_classes.target).mean()
print(f"\n{classes_name}: images of valid, true regions by row, predicted ones by column")
print(confusion.to_string())
print(
    f"Region right: {region_accuracy:.3f} of the images; region and abnormality right: {class_accuracy:.3f}"
)

# %%
# The best two
# ------------
# For both, the same patients are drawn in each resample: the interval of the difference is narrower than the
# two intervals of the table suggest. The first of several is a little too good on the very patients by whom
# it was chosen; to report its figures, choose by cross-validation on ``train`` (example 02) instead.
from murakit import compare

best, second = sorted(by_study, key=lambda name: by_study[name].get("kappa").value, reverse=True)[:2]
comparison = compare({second: by_study[second], best: by_study[best]})
comparison.to_frame().to_csv(args.output_dir / "best_two.csv")
print(f"\n{comparison}")
difference = comparison.difference(best, "kappa")
if difference.low > 0:
    print(f"{best} is better than {second} on these patients, beyond what chance explains.")
else:
    print(f"Whether {best} or {second} is better cannot be told from {len(set(valid.patients))} patients.")
