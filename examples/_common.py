"""What the numbered examples share: the command line, the data, the classifier, what is trained already.

Nothing here is needed to use murakit; it only lets every example run on synthetic radiographs and,
with ``--data``, on real ones.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

# Before PyTorch is imported, which reads it then: threads that wait for a core that another program uses
# would spin, and take ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Few images, small ones, one epoch: enough to run every line of an example.
QUICK = {"epochs": 1, "image_size": 32, "batch_size": 16}
QUICK_PATIENTS = 40

# Defaults on real data, where no recipe says otherwise. None leaves it to the backbone: the size that its
# ImageNet weights were trained on, and the later half of its stages.
REAL = {
    "epochs": 30,
    "image_size": None,
    "batch_size": 32,
    "lr": 1e-3,
    "backbone": "resnet18",
    "unfreeze": None,
}

# Parameters that do not decide what a training ends in.
_NO_MATTER = ("cache", "cache_limit", "checkpoint", "callbacks", "device", "estimator", "n_jobs", "verbose")


def example_parser(
    doc,
    name,
    *,
    epochs,
    image_size,
    n_patients,
    regions=("wrist", "elbow"),
    batch_size=16,
    lr=1e-3,
    backbone="resnet18",
    published=None,
    real_backbone=None,
    quick_epochs=1,
    folder=None,
):
    """Return the parser of an example's command line, to which the example may add its own flags.

    Parameters
    ----------
    doc : str
        The example's docstring; its first line is shown by ``--help``.
    name : str
        The example's name.
    epochs, image_size, n_patients, batch_size, lr, backbone
        The defaults on synthetic data.
    regions : list of str or None
        The regions that are drawn; None: all seven.
    published : str or None
        The recipe, as `murakit.recipe` knows it, that the example is about: its settings are the
        defaults on real data.
    real_backbone : str or None
        The default on real data; None: the recipe's, or a ResNet-18.
    quick_epochs : int
        Epochs with ``--quick``.
    folder : str or None
        Its folder in ``runs``, where that is not named as the example is.
    """
    settings = _recipe(published)
    flags = {"epochs": "max_epochs", **{flag: flag for flag in REAL if flag != "epochs"}}
    real = REAL | {flag: settings[param] for flag, param in flags.items() if param in settings}
    real["backbone"] = real_backbone or real["backbone"]
    synthetic = {
        "epochs": epochs,
        "image_size": image_size,
        "batch_size": batch_size,
        "lr": lr,
        "backbone": backbone,
    }
    # What --help says of each.
    default = {
        flag: f"(default: {synthetic[flag]} on synthetic data, else {real[flag]})" for flag in synthetic
    }
    for flag in synthetic:
        if synthetic[flag] == real[flag]:
            default[flag] = f"(default: {real[flag]})"
    size = real["image_size"] or "the backbone's own, such as 224"
    parser = argparse.ArgumentParser(
        prog=f"{name}.py",
        allow_abbrev=False,
        description=f"{doc.strip().splitlines()[0]} Without --data, on synthetic radiographs.",
    )
    add = parser.add_argument
    add(
        "--data",
        metavar="PATH",
        type=Path,
        help="folder in MURA's layout, or the ZIP archive of one; by default, synthetic data is made",
    )
    add("--quick", action="store_true", help="run every line on tiny data; the scores mean nothing")
    add("--region", metavar="NAME", nargs="+", help='regions to use, such as "wrist elbow" (default: all)')
    add("--epochs", type=whole_number(1), help=f"epochs at the most {default['epochs']}")
    add("--batch-size", type=whole_number(1), help=f"images a step {default['batch_size']}")
    add("--lr", type=positive, help=f"learning rate of the last layer {default['lr']}")
    stage = f'"{real["unfreeze"]}"'
    if real["unfreeze"] is None:
        stage = 'that of the later half, and "all" where the weights are random: there is nothing to keep'
    add(
        "--unfreeze",
        metavar="STAGE",
        help='first stage to train, such as "layer3" of a ResNet, "head" or "all"; list_backbones names the '
        f"stages (default: {stage})",
    )
    add(
        "--weights",
        metavar="WEIGHTS",
        help='"imagenet" (downloaded once), "none" for random ones, or the file of a state dict (default: '
        '"imagenet" with --data, else "none")',
    )
    add(
        "--image-size",
        type=whole_number(32),
        help=f"side of the square that images are scaled to (default: {image_size} on synthetic data, else {size})",
    )
    add("--backbone", help=f"a name of murakit.list_backbones(), or timm/NAME {default['backbone']}")
    add(
        "--seed",
        type=whole_number(0),
        default=settings.get("random_state", 0),
        help="of data, weights and splits (default: %(default)s)",
    )
    add(
        "--output-dir",
        metavar="PATH",
        type=Path,
        default=Path("runs") / (folder or name),
        help="where results, and synthetic data, are written (default: %(default)s)",
    )
    add("--resume", action="store_true", help="go on from what the last run left in the output folder")
    parser.set_defaults(
        synthetic=synthetic,
        real=real,
        n_patients=n_patients,
        regions=regions,
        published=published,
        quick_epochs=quick_epochs,
    )
    return parser


def parse(parser, argv=None):
    """Parse the command line, and fill in what depends on other flags.

    Returns
    -------
    args : argparse.Namespace
        With all of the flags, and ``given``: the names of those that were on the command line.
    """
    if argv is None:
        # In a notebook, the command line is the kernel's.
        argv = [] if "ipykernel.kernelapp" in sys.modules else sys.argv[1:]
    args = parser.parse_args(argv)
    args.given = {flag.split("=")[0].lstrip("-").replace("-", "_") for flag in argv if flag.startswith("--")}
    if args.data is not None and not args.data.is_dir() and args.data.suffix.lower() != ".zip":
        parser.error(
            f"--data: {args.data} is no folder; pass the one that holds train and valid, or its ZIP archive"
        )
    args.weights = _weights(parser, args)
    if args.unfreeze is None and args.weights is None:
        args.unfreeze = "all"
    quick = QUICK | {"epochs": args.quick_epochs} if args.quick else {}
    for key, value in {**(args.real if args.data else args.synthetic), **quick}.items():
        if getattr(args, key, None) is None:
            setattr(args, key, value)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    return args


def data_folder(args):
    """Return the folder of ``--data``, or that of synthetic radiographs, made on first use."""
    if args.data is not None:
        return args.data
    from murakit import make_mura

    regions = args.region or args.regions
    n_patients = QUICK_PATIENTS if args.quick else args.n_patients
    # Twice the size that the network sees, so that scaling down does what it does on real films.
    size = 2 * args.image_size
    # The name says all that the images depend on: what is there already is what would be made.
    drawn = "-".join(regions or ["all-regions"])
    name = f"synthetic-{drawn}-{n_patients}-patients-{size}-px-seed-{args.seed}"
    root = args.output_dir / name
    if root.is_dir():
        print(f"Synthetic radiographs of an earlier run: {root}")
        return root
    try:
        make_mura(
            root,
            n_patients=n_patients,
            regions=regions,
            image_size=size,
            valid_fraction=0.3,
            random_state=args.seed,
        )
    except ValueError as error:
        raise SystemExit(f"--region: {error}") from None
    print(f"Made synthetic radiographs of {n_patients} patients, drawings of bones: {root}")
    return root


def load(args, root, subset, *, level="image", target="abnormal"):
    """Load a subset, of the asked regions; with ``--quick``, few patients of a real data set."""
    from murakit import PatientShuffleSplit, load_mura

    try:
        mura = load_mura(root, subset=subset, regions=args.region, level=level, target=target)
    except (ValueError, OSError) as error:
        raise SystemExit(f"{root} cannot be loaded: {error}") from None
    n_patients = len(set(mura.patients))
    if args.quick and n_patients > QUICK_PATIENTS:
        few = PatientShuffleSplit(1, test_size=QUICK_PATIENTS / n_patients, random_state=args.seed)
        # The same patients, whatever the target is.
        labels = load_mura(root, subset=subset, regions=args.region, level=level).target
        _, rows = next(few.split(mura.data, labels))
        for key in ("data", "target", "patients", "studies", "regions"):
            mura[key] = mura[key][rows]
        mura.frame = mura.frame.iloc[rows].reset_index(drop=True)
    return mura


def classifier(args, **params):
    """Return the unfitted `MuraClassifier` that the flags, and the example's recipe, describe.

    Parameters
    ----------
    **params : dict
        What the example decides, whatever the flags.
    """
    from murakit import MuraClassifier

    backbone = params.pop("backbone", args.backbone)
    # There are no ImageNet weights of the small network.
    from_scratch = args.weights is None or (args.weights == "imagenet" and backbone == "small")
    settings = {
        # Pretrained stages need small steps. Random ones have as much to learn as the head.
        "backbone_lr_factor": 1.0 if from_scratch else 0.1,
        **_recipe(args.published),
        "weights": None if from_scratch else args.weights,
        "unfreeze": args.unfreeze or ("all" if from_scratch else None),
        "image_size": args.image_size,
        "batch_size": args.batch_size,
        "max_epochs": args.epochs,
        "lr": args.lr,
        "random_state": args.seed,
        # Images are decoded once, for all folds, trials and runs.
        "cache": args.output_dir / "cache",
    }
    return MuraClassifier(**{**settings, **params, "backbone": backbone})


def trained(args, name, estimator, mura):
    """Fit an estimator and save it; with ``--resume``, load it, or go on from its last epoch.

    Parameters
    ----------
    name : str
        Of the model, which names its file in the folder ``models`` of the output folder.
    estimator : MuraClassifier or PerRegionClassifier
        Unfitted.
    mura : Bunch
        What to train on, as `load` returns it.
    """
    from murakit import load_model, save_model

    file = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
    path = args.output_dir / "models" / f"{file}.safetensors"
    checkpoints = args.output_dir / "checkpoints" / file
    if args.resume and path.is_file():
        model = load_model(path)
        _require_same(path, model, estimator, mura)
        print(f"{name}: done in an earlier run, loaded from {path}", flush=True)
        return model
    if not args.resume:
        # Without --resume everything begins anew.
        shutil.rmtree(checkpoints, ignore_errors=True)
        path.unlink(missing_ok=True)
    elif any(checkpoints.glob("*.pt")):
        print(f"{name}: goes on after the last epoch that was finished", flush=True)
    key = "checkpoint" if "checkpoint" in estimator.get_params() else "estimator__checkpoint"
    estimator.set_params(**{key: checkpoints})
    try:
        estimator.fit(mura.data, mura.target)
    except KeyboardInterrupt:
        raise SystemExit(f"{name}: interrupted. The same command with --resume goes on.") from None
    path.parent.mkdir(exist_ok=True)
    # By name, so that --resume can tell whether the data are the same. To hand a model on, leave the
    # default, which keeps hashes.
    save_model(estimator, path, patients="keep", overwrite=True)
    return estimator


def _require_same(path, model, estimator, mura):
    """End the program where a saved model is not the one that this run would train."""
    ours, theirs = estimator.get_params(), model.get_params()
    # The path of a weight file is not kept, so that it cannot be compared.
    not_kept = {name for name in ours if name.endswith("weights") and ours[name] not in (None, "imagenet")}
    names = [name for name in ours if name.rpartition("__")[2] not in _NO_MATTER]
    other = [name for name in names if ours[name] != theirs[name] and name not in not_kept]
    if other:
        raise SystemExit(
            f"--resume: {path} was trained with {other[0]}={theirs[other[0]]!r}, not {ours[other[0]]!r}; pass the "
            "flags that it was trained with, or train anew without --resume"
        )
    parts = getattr(model, "estimators_", [model])
    groups = [group for part in parts for group in (part.train_patients_, part.validation_patients_)]
    known = {name for group in groups if group is not None for name in group}
    if known != set(mura.patients):
        raise SystemExit(
            f"--resume: {path} was trained on other patients; pass the --data, --region and --seed that it was "
            "trained with, or train anew without --resume"
        )


def _recipe(name):
    if name is None:
        return {}
    from murakit import recipe

    return recipe(name)


def whole_number(least):
    """Return a type for flags: whole numbers from `least` on."""

    def number(text):
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    # argparse names the type in its error.
    number.__name__ = "whole number"
    return number


def positive(text):
    """Type for flags: a number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no positive number")
    return value


def share(text):
    """Type for flags: a number between 0 and 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _weights(parser, args):
    if args.weights is None:
        return "imagenet" if args.data is not None else None
    if args.weights.lower() in ("imagenet", "none"):
        return None if args.weights.lower() == "none" else "imagenet"
    if not Path(args.weights).expanduser().is_file():
        parser.error(f'--weights: there is no file {args.weights}; pass a file, "imagenet" or "none"')
    return args.weights


positive.__name__ = "number"
share.__name__ = "share"
