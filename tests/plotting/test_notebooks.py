"""Pictures and progress in a notebook: murakit leaves matplotlib as the user has it."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]

DISPLAY = """
from murakit.plotting import OperatingPointDisplay
display = OperatingPointDisplay.from_predictions(
    [0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], patients=list("abcd"), n_resamples=10
)
"""


@pytest.fixture
def executed(monkeypatch, tmp_path):
    """A function that executes cells in a new kernel and returns them with their outputs."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    # The kernel takes matplotlib's inline backend, unless another one is asked for.
    monkeypatch.delenv("MPLBACKEND", raising=False)

    def execute(*sources):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        client = NotebookClient(
            notebook, kernel_name="python3", timeout=240, resources={"metadata": {"path": str(ROOT)}}
        )
        return client.execute().cells

    return execute


def n_pictures(cell):
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def text(cell, stream):
    return "".join(output.text for output in cell.outputs if output.get("name") == stream)


def on_screen(written):
    """What a terminal shows of a text in which carriage returns write lines anew."""
    lines = []
    for line in written.split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return "\n".join(lines)


def test_a_users_picture_is_shown_after_one_of_murakit(executed):
    state = "import matplotlib; print(matplotlib.is_interactive(), matplotlib.get_backend())"
    alone = executed("from matplotlib import pyplot as plt; plt.plot([1, 2]);", state)
    ours, theirs, after = executed(DISPLAY, "from matplotlib import pyplot as plt; plt.plot([1, 2]);", state)
    assert n_pictures(alone[0]) == n_pictures(ours) == n_pictures(theirs) == 1
    assert text(after, "stdout") == text(alone[1], "stdout")
    assert text(after, "stdout").startswith("True ")


def test_the_users_style_of_a_notebook_is_kept(executed):
    style = "%config InlineBackend.rc = {'font.size': 13}"
    *_, after = executed(style, DISPLAY, "from matplotlib import rcParams; print(rcParams['font.size'])")
    assert text(after, "stdout") == "13.0\n"


def test_interactive_mode_stays_off_where_the_user_switched_it_off(executed):
    # After a figure: loading the backend of notebooks, which the first one does, switches it on.
    before = "from matplotlib import pyplot as plt; plt.close(plt.figure()); plt.ioff();"
    *_, after = executed(before, DISPLAY, "import matplotlib; print(matplotlib.is_interactive())")
    assert text(after, "stdout") == "False\n"


def test_the_progress_of_a_training_stays_in_an_executed_notebook(executed):
    training = """
import tempfile
from murakit import MuraClassifier, load_mura, make_mura
mura = load_mura(make_mura(tempfile.mkdtemp() + "/mura", n_patients=12, image_size=32, random_state=0))
clf = MuraClassifier("resnet18", weights=None, image_size=32, unfreeze="head", max_epochs=2, verbose=1, device="cpu")
clf = clf.fit(mura.data, mura.target)
"""
    (cell,) = executed(training)
    assert re.search(r"2/2.*train_loss=", on_screen(text(cell, "stderr")))
