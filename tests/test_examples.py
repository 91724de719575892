"""The numbered examples: their form, their command line, and the data that they make."""

import ast
import runpy
import sys
from pathlib import Path

import pytest

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

    def parse(*argv):
        parser = common.example_parser("A title.\n\nMore.", "00_none", **DEFAULTS)
        return common.parse(parser, ["--output-dir", str(tmp_path / "out"), *map(str, argv)])

    return parse


def refusal(capsys, call, *argv):
    with pytest.raises(SystemExit) as error:
        call(*argv)
    return f"{error.value} {capsys.readouterr().err}"


def test_there_are_the_five_examples():
    assert [path.name[:2] for path in EXAMPLES] == ["01", "02", "03", "04", "05"]


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


def test_real_data_starts_from_imagenet_and_keeps_the_first_stages(parse, common, tmp_path):
    args = parse("--data", tmp_path)
    assert (args.weights, args.unfreeze, args.epochs, args.image_size) == ("imagenet", "layer2", 30, 224)
    assert common.classifier(args).backbone_lr_factor == 0.1


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
    monkeypatch.setitem(sys.modules, "ipykernel", object())
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
