"""The numbered examples: their form, their command line, and the data that they make."""

import ast
import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest
from helpers import same_state, state_of

from murakit import PerRegionClassifier, recipe

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("[0-9]*.py"))
DEFAULTS = {"epochs": 7, "image_size": 48, "n_patients": 8, "regions": ["wrist"]}


@pytest.fixture
def common(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import _common

    return _common


@pytest.fixture
def parse(common, tmp_path):
    """Return what an example would make of some flags."""

    def parse(*argv, **defaults):
        parser = common.example_parser("A title.\n\nMore.", "00_none", **{**DEFAULTS, **defaults})
        return common.parse(parser, ["--output-dir", str(tmp_path / "out"), *map(str, argv)])

    return parse


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run an example in its quick form, and return what it prints."""
    monkeypatch.syspath_prepend(FOLDER)

    def run(number, *flags, folder="out"):
        [path] = FOLDER.glob(f"{number}_*.py")
        argv = [path.name, "--quick", "--output-dir", tmp_path / folder, *flags]
        monkeypatch.setattr(sys, "argv", [str(part) for part in argv])
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out

    return run


def refusal(capsys, call, *argv):
    with pytest.raises(SystemExit) as error:
        call(*argv)
    return f"{error.value} {capsys.readouterr().err}"


def test_there_are_the_eight_examples():
    assert [path.name[:2] for path in EXAMPLES] == [f"{number:02}" for number in range(1, 9)]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_a_story_in_cells(path):
    source = path.read_text(encoding="utf-8")
    title, rest = ast.get_docstring(ast.parse(source)).split("\n", 1)
    assert title.endswith(".") and len(title) < 80
    assert rest.startswith("\n"), "a blank line parts the title from what the reader will see"
    cells = source.split("\n# %%\n")[1:]
    assert len(cells) >= 4
    assert all(cell.startswith("# ") for cell in cells), "each cell begins with prose"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_uses_the_public_api_only(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module != "_common":
            assert not any(part.startswith("_") for part in node.module.split("."))
            assert not node.module.startswith("murakit.")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_explains_its_flags(path, common, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [path.name, "--quick", "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(path), run_name="__main__")
    assert end.value.code == 0
    shown = capsys.readouterr().out
    flags = (
        "data quick region epochs batch-size lr unfreeze weights image-size backbone seed output-dir resume"
    )
    assert [flag for flag in flags.split() if f"--{flag}" not in shown] == []
    assert path.stem in shown


def test_synthetic_data_starts_from_random_weights_and_trains_all(parse, common):
    args = parse()
    assert (args.weights, args.unfreeze, args.epochs, args.image_size) == (None, "all", 7, 48)
    clf = common.classifier(args, early_stopping=False)
    assert clf.get_params()["backbone_lr_factor"] == 1.0
    assert (clf.max_epochs, clf.random_state, clf.early_stopping) == (7, 0, False)


def test_real_data_starts_from_imagenet_and_leaves_the_rest_to_the_backbone(parse, common, tmp_path):
    args = parse("--data", tmp_path)
    assert (args.weights, args.unfreeze, args.epochs, args.image_size) == ("imagenet", None, 30, None)
    clf = common.classifier(args)
    assert (clf.backbone_lr_factor, clf.unfreeze, clf.image_size) == (0.1, None, None)


def test_the_small_network_has_no_weights_to_start_from(parse, common, tmp_path):
    clf = common.classifier(parse("--data", tmp_path), backbone="small")
    assert (clf.weights, clf.unfreeze, clf.backbone_lr_factor) == (None, "all", 1.0)


@pytest.mark.parametrize("name", ["paper", "muraproj"])
def test_a_recipe_says_what_real_data_are_trained_with(parse, common, tmp_path, name):
    args = parse("--data", tmp_path, published=name)
    clf = common.classifier(args)
    assert recipe(name).items() <= clf.get_params().items()
    assert common.classifier(parse("--data", tmp_path, "--lr", 0.5, published=name)).lr == 0.5


def test_a_recipe_on_synthetic_data_takes_the_sizes_of_the_example(parse, common):
    params = common.classifier(parse(published="paper", backbone="small", lr=0.25)).get_params()
    sizes = {"backbone": "small", "image_size": 48, "lr": 0.25, "batch_size": 16, "max_epochs": 7}
    assert sizes.items() <= params.items()
    assert {**recipe("paper"), **sizes}.items() <= params.items()


def test_weights_can_be_none_or_a_file(parse, tmp_path):
    file = tmp_path / "weights.pth"
    file.touch()
    assert parse("--data", tmp_path, "--weights", "none").weights is None
    assert parse("--data", tmp_path, "--weights", "none").unfreeze == "all"
    assert parse("--weights", file).weights == str(file)
    assert parse("--weights", "ImageNet").weights == "imagenet"


def test_quick_is_tiny_and_flags_go_before_it(parse, tmp_path):
    args = parse("--quick", "--data", tmp_path)
    assert (args.epochs, args.image_size) == (1, 32)
    args = parse("--quick", "--epochs", 3, "--batch-size=5")
    assert (args.epochs, args.image_size, args.batch_size) == (3, 32, 5)
    assert {"epochs", "batch_size", "quick"} <= args.given
    assert "image_size" not in args.given


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--data", "nowhere"], "nowhere is no folder"),
        (["--weights", "nowhere.pth"], "there is no file nowhere.pth"),
        (["--epochs", "0"], "0 is less than 1"),
        (["--epochs", "many"], "invalid whole number value"),
        (["--image-size", "16"], "16 is less than 32"),
        (["--lr", "-1"], "-1 is no positive number"),
        (["--lr", "nan"], "nan is no positive number"),
    ],
)
def test_wrong_flags_are_refused(parse, capsys, flags, says):
    assert says in refusal(capsys, parse, *flags)


def test_share_is_between_zero_and_one(common):
    assert common.share("0.9") == 0.9
    for text in ("0", "1", "90"):
        with pytest.raises(Exception, match="is not between 0 and 1"):
            common.share(text)


def test_in_a_notebook_the_command_line_is_the_kernels(common, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ipykernel.kernelapp", object())
    monkeypatch.setattr(sys, "argv", ["kernel", "-f", "connection.json"])
    args = common.parse(common.example_parser("A title.", "00_none", **DEFAULTS))
    assert args.output_dir == Path("runs/00_none") and not args.quick


def test_synthetic_data_is_made_once(parse, common, capsys):
    root = common.data_folder(parse("--quick"))
    made = root.stat().st_mtime_ns
    assert "Made synthetic radiographs" in capsys.readouterr().out
    assert common.data_folder(parse("--quick")) == root
    assert root.stat().st_mtime_ns == made
    assert "of an earlier run" in capsys.readouterr().out
    train, valid = (common.load(parse("--quick"), root, subset) for subset in ("train", "valid"))
    assert set(train.regions) == set(valid.regions) == {"wrist"}
    assert set(train.target) == set(valid.target) == {0, 1}


def test_other_flags_make_other_data(parse, common):
    folders = {common.data_folder(parse(*flags)) for flags in ([], ["--seed", 1], ["--region", "hand"])}
    assert len(folders) == 3


def test_unknown_regions_are_refused(parse, common, capsys, small_mura):
    assert "XR_SKULL" in refusal(capsys, common.data_folder, parse("--region", "XR_SKULL"))
    args = parse("--data", small_mura, "--region", "skull")
    assert "it has elbow, wrist" in refusal(capsys, common.load, args, small_mura, "train")


def test_quick_takes_few_patients_of_real_data(parse, common, monkeypatch, small_mura):
    monkeypatch.setattr(common, "QUICK_PATIENTS", 10)
    args = parse("--data", small_mura, "--quick")
    assert common.data_folder(args) == small_mura
    mura = common.load(args, small_mura, "train")
    assert 5 <= len(set(mura.patients)) <= 15
    assert len(mura.data) == len(mura.target) == len(mura.frame) == len(mura.studies)
    assert set(mura.target) == {0, 1}
    assert mura.frame["path"].tolist() == mura.data.tolist()
    classes = common.load(args, small_mura, "train", target="region_abnormal")
    assert classes.data.tolist() == mura.data.tolist()


@pytest.fixture
def train(parse, common, small_mura):
    """Train, or load, a model of some flags as an example does."""

    def train(*flags, name="a model", make=lambda clf: clf):
        args = parse("--data", small_mura, "--quick", "--backbone", "tiny", "--weights", "none", *flags)
        return common.trained(
            args, name, make(common.classifier(args)), common.load(args, small_mura, "train")
        )

    return train


@pytest.mark.parametrize("make", [lambda clf: clf, PerRegionClassifier], ids=["one model", "per region"])
def test_a_model_that_is_done_is_loaded(train, capsys, make):
    first = train(make=make)
    assert "loaded" not in capsys.readouterr().out
    again = train("--resume", make=make)
    assert "a model: done in an earlier run" in capsys.readouterr().out
    for one, other in zip(getattr(first, "estimators_", [first]), getattr(again, "estimators_", [again])):
        assert same_state(state_of(one), state_of(other))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--lr", "0.5"], "was trained with lr=0.001, not 0.5"),
        (["--region", "wrist"], "was trained on other patients"),
    ],
)
def test_a_model_of_other_flags_is_not_taken_for_this_one(train, capsys, flags, says):
    train()
    assert says in refusal(capsys, train, "--resume", *flags)


def test_without_resume_a_model_is_trained_anew(train, capsys):
    train()
    train("--lr", "0.5")
    assert "was trained with lr=0.5" in refusal(capsys, train, "--resume")


@pytest.mark.slow
def test_two_phases_go_on_where_they_were_interrupted(run, tmp_path, capsys):
    whole = run("07", folder="whole")
    assert "interrupted" in refusal(capsys, lambda: run("07", "--stop-after", 2))
    resumed = run("07", "--resume")
    assert "goes on" in resumed and "goes on" not in whole
    assert "epoch 3 " in resumed and "epoch 2 " not in resumed.split("Kept")[0].split("\n\n")[0]
    histories = [pd.read_csv(tmp_path / folder / "history.csv") for folder in ("whole", "out")]
    pd.testing.assert_frame_equal(*(history.drop(columns="dur") for history in histories))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "flags", "table"),
    [("06", [], "table.csv"), ("08", ["--backbones", "small"], "kappa.csv")],
    ids=["06", "08"],
)
def test_models_are_kept_for_the_next_run(run, tmp_path, number, flags, table):
    assert "loaded from" not in run(number, *flags)
    before = (tmp_path / "out" / table).read_text()
    again = run(number, "--resume", *flags)
    assert again.count("loaded from") == len(list((tmp_path / "out" / "models").iterdir())) > 2
    assert (tmp_path / "out" / table).read_text() == before
