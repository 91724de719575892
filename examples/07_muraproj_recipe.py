"""Train a ResNet-50 in two phases, interrupt it, and let it go on.

The recipe is that of the project yinkev/muraproj: the head alone at first, then all layers at a tenth of
its learning rate, on 85 % of the patients; the other 15 % (seed 42) say when to lower the rate and which
epoch to keep, by AUROC. The project resumes from checkpoints, and so does this: stop it whenever you like,
by Ctrl-C or by pulling the plug, and run it again with ``--resume``.

Without ``--data`` a small network learns from synthetic radiographs, drawings of bones, whose scores mean
nothing for real ones. With ``--data MURA-v1.1`` the recipe is muraproj's own. For research only.
"""

# %%
# The flags (``--help`` lists them). ``--stop-after 4`` interrupts the training after four epochs, to see
# how it goes on.
from _common import classifier, data_folder, example_parser, load, parse, positive, trained, whole_number

parser = example_parser(
    __doc__,
    "07_muraproj_recipe",
    epochs=16,
    image_size=64,
    n_patients=260,
    lr=1e-3,
    backbone="small",
    published="muraproj",
    quick_epochs=3,
)
parser.add_argument(
    "--head-epochs",
    type=whole_number(0),
    help="epochs, of --epochs, in which only the head learns (default: 3 on synthetic data, else 15)",
)
parser.add_argument(
    "--head-lr",
    type=positive,
    help="learning rate in these epochs (default: 10 times --lr, as in the recipe)",
)
parser.add_argument("--stop-after", metavar="N", type=whole_number(1), help="interrupt after so many epochs")
args = parse(parser)
if args.stop_after is not None and args.stop_after >= args.epochs:
    parser.error(f"--stop-after: the training ends after {args.epochs} epochs; pass fewer, or more --epochs")
root = data_folder(args)

# %%
# ``train`` is parted into 85 % and 15 % of the patients inside ``fit``; ``valid`` waits for the end.
from murakit import check_disjoint

train, valid = load(args, root, "train"), load(args, root, "valid")
check_disjoint(train, valid)
print(
    f"train: {len(train.data)} images, {len(set(train.patients))} patients; valid: {len(valid.data)} images"
)

# %%
# The recipe
# ----------
# In muraproj the head begins at 1e-4, and all layers go on at 1e-5: small steps, for ImageNet's weights are
# to be kept. The random weights of the small network need larger ones, and little is learnt by a head on
# top of them.
from murakit import recipe

head_epochs = recipe("muraproj")["head_epochs"] if args.data else 3
if args.quick:
    head_epochs = 1
if args.head_epochs is not None:
    head_epochs = args.head_epochs
clf = classifier(args, head_epochs=head_epochs, head_lr=args.head_lr or 10 * args.lr, verbose=1)
print(
    f"{clf.backbone}: the head alone at {clf.head_lr:g} up to epoch {clf.head_epochs} of {clf.max_epochs}, then "
    f"all layers at {clf.lr:g}; seed {clf.random_state}"
)

# %%
# Interrupted
# -----------
# With ``checkpoint=FOLDER``, `MuraClassifier` writes the whole state of the training after each epoch:
# weights, optimizer, learning rate, random numbers. A fit that is begun again with the same data and
# parameters goes on from there, and ends in the very weights that it would have had without the
# interruption.
#
# Ctrl-C raises ``KeyboardInterrupt``, here a callback does. States of callbacks are not kept, and a
# callback does not decide whether a training is the same.
from skorch.callbacks import Callback


class StopAfter(Callback):
    """Interrupt a training after a number of epochs."""

    def __init__(self, n_epochs):
        self.n_epochs = n_epochs

    def on_epoch_begin(self, net, **kwargs):
        """Raise once the next epoch begins; the state of the last one is on the disk by then."""
        if len(net.history) > self.n_epochs:
            raise KeyboardInterrupt


if args.stop_after is not None:
    clf.set_params(callbacks=[StopAfter(args.stop_after)])
clf = trained(args, "two_phases", clf, train)

# %%
# The whole history is there, also of the epochs before an interruption. ``stage`` is the first stage that
# was trained in an epoch.
columns = ["epoch", "stage", "lr", "train_loss", "valid_loss", "valid_roc_auc", "best"]
print(f"\n{clf.history_[columns].to_string(index=False, float_format='{:.4g}'.format)}")
clf.history_.to_csv(args.output_dir / "history.csv", index=False)
print(f"Kept epoch {clf.best_epoch_} of {clf.n_epochs_}: AUROC {clf.validation_score_:.3f}")

# %%
# The figures that muraproj reports
# ---------------------------------
# AUROC, accuracy, abnormal recall and confusion matrix, image by image, on the 15 % that were held out.
# These are validation figures: of all epochs, the one was kept that was best on these very images. They tend
# to be too good, though with few patients chance can outweigh that. ``evaluate`` refuses such patients, unless
# it is told.
import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from murakit import evaluate, published_results

held = np.isin(train.patients, clf.validation_patients_)
X_held, y_held = train.data[held], train.target[held]
validation = evaluate(clf, X_held, y_held, level="image", allow_known_patients=True)
counts = pd.DataFrame(
    confusion_matrix(y_held, clf.predict(X_held)),
    index=["normal", "abnormal"],
    columns=["called normal", "called abnormal"],
)
theirs = published_results(group="all")
theirs = theirs[theirs["source"] == "yinkev/muraproj"].set_index("metric")["value"]
print(f"\nImages of the {len(clf.validation_patients_)} held-out patients, who chose the epoch:")
for metric, name in (("auroc", "AUROC"), ("accuracy", "accuracy"), ("sensitivity", "abnormal recall")):
    print(f"  {name:16} {validation.get(metric)}; muraproj on MURA {theirs[metric]:.3f}")
print(counts.to_string())

# %%
# The figures to believe
# ----------------------
# Study by study, on the patients of ``valid``, who had no say in anything.
evaluation = evaluate(clf, valid.data, valid.target)
evaluation.to_frame().to_csv(args.output_dir / "valid_by_region.csv")
print("\nStudies of valid: " + ("synthetic radiographs" if args.data is None else str(args.data)))
print(evaluation)

# %%
# The file to hand on
# -------------------
# Weights, parameters, history and figures in one file that runs no code. The patients are in it as hashes:
# `evaluate` still refuses them, and nobody reads their names.
from murakit import model_info, save_model

model_path = args.output_dir / "model.safetensors"
save_model(clf, model_path, metrics=evaluation, overwrite=True)
info = model_info(model_path)
[network] = info["models"]
print(f"\nSaved model: {model_path.resolve()}")
print(f"  {info['kind']} of murakit {info['versions']['murakit']}, {network['network']['backbone']}")
print(f"  classes: {network['classes']['values']}")
print(f"  kept epoch {network['training']['best_epoch']} of {network['training']['n_epochs']}")
print(f"  kappa on valid: {info['metrics']['groups']['all']['kappa']:.3f}")
