"""What the numbered examples share: the command line, the data, the classifier.

Nothing here is needed to use murakit; it only lets every example run on synthetic radiographs and,
with ``--data``, on real ones.
"""

import argparse
import os
import sys
from pathlib import Path

# Before PyTorch is imported, which reads it then: threads that wait for a core that another program uses
# would spin, and take ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Few images, small ones, one epoch: enough to run every line of an example.
QUICK = {"epochs": 1, "image_size": 32, "batch_size": 16}
QUICK_PATIENTS = 40


def example_parser(
    doc, name, *, epochs, image_size, n_patients, regions=("wrist", "elbow"), batch_size=16, folder=None
):
    """Return the parser of an example's command line, to which the example may add its own flags.

    Parameters
    ----------
    doc : str
        The example's docstring; its first line is shown by ``--help``.
    name : str
        The example's name.
    epochs, image_size, n_patients, batch_size : int
        The defaults on synthetic data.
    regions : list of str
        The regions that are drawn.
    folder : str or None
        Its folder in ``runs``, where that is not named as the example is.
    """
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
        help="folder in MURA's layout; by default, synthetic data is made",
    )
    add("--quick", action="store_true", help="run every line on tiny data; the scores mean nothing")
    add("--region", metavar="NAME", nargs="+", help='regions to use, such as "wrist elbow" (default: all)')
    add(
        "--epochs",
        type=whole_number(1),
        help=f"epochs at the most (default: {epochs} on synthetic data, else 30)",
    )
    add(
        "--batch-size",
        type=whole_number(1),
        help=f"images a step (default: {batch_size} on synthetic data, else 32)",
    )
    add("--lr", type=_positive, default=1e-3, help="learning rate of the last layer (default: %(default)s)")
    add(
        "--unfreeze",
        metavar="STAGE",
        help='first stage to train: "head", "layer4" ... "layer1", "stem" or "all" (default: "layer2", and '
        '"all" where the weights are random, for there is nothing in them to keep)',
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
        help=f"side of the square that images are scaled to (default: {image_size} on synthetic data, else 224)",
    )
    add("--backbone", default="resnet18", help='"resnet18" or "resnet50" (default: %(default)s)')
    add("--seed", type=whole_number(0), default=0, help="of data, weights and splits (default: %(default)s)")
    add(
        "--output-dir",
        metavar="PATH",
        type=Path,
        default=Path("runs") / (folder or name),
        help="where results, and synthetic data, are written (default: %(default)s)",
    )
    add("--resume", action="store_true", help="go on from what the last run left in the output folder")
    parser.set_defaults(
        synthetic={
            "epochs": epochs,
            "image_size": image_size,
            "batch_size": batch_size,
            "n_patients": n_patients,
            "regions": list(regions),
        }
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
        argv = [] if "ipykernel" in sys.modules else sys.argv[1:]
    args = parser.parse_args(argv)
    args.given = {flag.split("=")[0].lstrip("-").replace("-", "_") for flag in argv if flag.startswith("--")}
    if args.data is not None and not args.data.is_dir():
        parser.error(f"--data: {args.data} is no folder; pass the one that holds train and valid")
    args.weights = _weights(parser, args)
    if args.unfreeze is None:
        args.unfreeze = "all" if args.weights is None else "layer2"
    defaults = {"epochs": 30, "image_size": 224, "batch_size": 32} if args.data else args.synthetic
    for key, value in {**defaults, **(QUICK if args.quick else {})}.items():
        if getattr(args, key, None) is None:
            setattr(args, key, value)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    return args


def data_folder(args):
    """Return the folder of ``--data``, or that of synthetic radiographs, made on first use."""
    if args.data is not None:
        return args.data
    from murakit import make_mura

    regions = args.region or args.synthetic["regions"]
    n_patients = QUICK_PATIENTS if args.quick else args.synthetic["n_patients"]
    # Twice the size that the network sees, so that scaling down does what it does on real films.
    size = 2 * args.image_size
    # The name says all that the images depend on: what is there already is what would be made.
    name = f"synthetic-{'-'.join(regions)}-{n_patients}-patients-{size}-px-seed-{args.seed}"
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


def load(args, root, subset, *, level="image"):
    """Load a subset, of the asked regions; with ``--quick``, few patients of a real data set."""
    from murakit import PatientShuffleSplit, load_mura

    try:
        mura = load_mura(root, subset=subset, regions=args.region, level=level)
    except ValueError as error:
        raise SystemExit(f"{root} cannot be loaded: {error}") from None
    n_patients = len(set(mura.patients))
    if args.quick and n_patients > QUICK_PATIENTS:
        few = PatientShuffleSplit(1, test_size=QUICK_PATIENTS / n_patients, random_state=args.seed)
        _, rows = next(few.split(mura.data, mura.target))
        for key in ("data", "target", "patients", "studies", "regions"):
            mura[key] = mura[key][rows]
        mura.frame = mura.frame.iloc[rows].reset_index(drop=True)
    return mura


def classifier(args, **params):
    """Return the unfitted `MuraClassifier` that the flags describe.

    Parameters
    ----------
    **params : dict
        What the example decides, whatever the flags.
    """
    from murakit import MuraClassifier

    return MuraClassifier(
        args.backbone,
        weights=args.weights,
        unfreeze=args.unfreeze,
        image_size=args.image_size,
        batch_size=args.batch_size,
        max_epochs=args.epochs,
        lr=args.lr,
        # Pretrained stages need small steps. Random ones have as much to learn as the head.
        backbone_lr_factor=1.0 if args.weights is None else 0.1,
        random_state=args.seed,
        # Images are decoded once, for all folds, trials and runs.
        cache=args.output_dir / "cache",
        **params,
    )


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


def _positive(text):
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no positive number")
    return value


_positive.__name__ = "number"
share.__name__ = "share"
