"""The notebooks are made from their .py files, and run from top to bottom."""

import functools
import json
import pathlib
import re

import pytest

COLAB = pathlib.Path(__file__).parent.parent / "colab"
NOTEBOOKS = sorted(COLAB.glob("*.ipynb"))


def cells(text):
    """Reads the percent format: (cell type, source) of each cell."""
    parts = re.split(r"^# %%(.*)\n", text, flags=re.M)[1:]
    for kind, source in zip(parts[::2], parts[1::2], strict=True):
        if "markdown" in kind:
            yield "markdown", re.sub("^# ?", "", source, flags=re.M).strip()
        else:
            yield "code", source.strip()


def test_there_are_notebooks():
    names = ["data_and_augmentation", "normalization", "optimizers", "quickstart"]
    assert [path.stem for path in NOTEBOOKS] == names


@pytest.mark.fast
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_made_from_its_source(path):
    notebook = json.loads(path.read_text())
    made = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert made == list(cells(path.with_suffix(".py").read_text())), "run python colab/build.py"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert ids == [f"{path.stem}-{i}" for i in range(len(ids))]


def run(path, folder, *, smoke):
    """Runs a notebook as a user would, in a folder; returns what each code cell printed."""
    import nbclient
    import nbformat

    client = nbclient.NotebookClient(
        nbformat.read(path, as_version=4),
        timeout=300 if smoke else 1800,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXTRAIN_SMOKE", str(int(smoke)))
        client.execute()
    return [
        "".join(output.get("text", "") for output in cell.outputs)
        for cell in client.nb.cells
        if cell.cell_type == "code"
    ]


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Runs a notebook in smoke size, once for all tests."""
    return functools.cache(
        lambda name: run(COLAB / f"{name}.ipynb", tmp_path_factory.mktemp(name), smoke=True)
    )


@pytest.mark.nightly
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_full_size(path, tmp_path):
    assert any(run(path, tmp_path, smoke=False))


def test_quickstart_resumes_with_the_same_params(printed):
    text = "\n".join(printed("quickstart"))
    assert "devices: cpu" in text
    # The resumed run repeats the last epoch in the same programs, on the same devices.
    assert "largest difference between the params: 0.0\n" in text


def test_quickstart_sees_the_losses_of_one_device_on_eight(printed):
    rows = re.findall(r"(\w+) on (\d) devices: loss (.*)", printed("quickstart")[-1])
    assert [(how, n) for how, n, _ in rows] == [
        ("single", "1"), ("jit", "8"), ("pmap", "8"), ("shard_map", "8"),
    ]  # fmt: skip
    one, *others = [[float(value) for value in values.split()] for *_, values in rows]
    # In float32 1e-7 grows over the 23 steps; other masks or statistics change the second digit.
    assert all(values == pytest.approx(one, abs=1e-4) for values in others), rows


def test_optimizers_prints_what_its_text_says(printed):
    text = "\n".join(printed("optimizers"))
    # The first step is (1 - b1) / sqrt(1 - b2) and the longest that of the lectures.
    assert "corrected: first step 1.000, longest 1.000" in text
    assert "not corrected: first step 3.162, longest 6.569 at 12" in text
    none, linear = (float(x) for x in re.findall(r"warm-up \w+: (\S+) after", text))
    assert linear < 1 and not none < 1
    assert "gradients: wrong" in text
    lbfgs, momentum = (float(x) for x in re.findall(r"evaluations, value (\S+)", text))
    assert lbfgs < momentum


def test_normalization_prints_what_its_text_says(printed):
    text = "\n".join(printed("normalization"))
    std = dict(re.findall(r"(.*): std (\S+) after ten layers", text))
    # tanh: 0.01 randn shrinks by 0.01 sqrt(500) = 0.22 a layer, and 1.0 randn saturates.
    assert float(std["0.01 randn"]) < 1e-5 and float(std["1.0 randn"]) > 0.95
    assert 0.1 < float(std["lecun_normal"]) < float(std["he_normal"]) < 0.95
    assert "train mode: mean -0.00, std 1.00" in text or "train mode: mean 0.00, std 1.00" in text
    assert "state unchanged: True" in text
    # 5 (1 - 0.9^20) = 4.39, and noise of 2 / sqrt(64 * 3 * 19) = 0.03.
    assert float(re.search(r"after 20 batches: (\S+) of 5", text)[1]) == pytest.approx(
        4.39, abs=0.2
    )
    rows = re.findall(r"batches of +(\d+): eval mode (\S+) %, train mode (\S+) %", text)
    evals, trains = zip(*((float(a), float(b)) for _, a, b in rows), strict=True)
    assert min(evals) == max(evals) > 85
    assert trains[0] < 20 < 85 < trains[-1]
    forgotten, recomputed = (
        float(re.search(rf"{name}: (\S+) %", text)[1]) for name in ("state of init", "recomputed")
    )
    assert forgotten < recomputed and recomputed > 85
    planes = re.findall(r"(\d+) of 54 planes", text)
    assert planes == ["6", "9", "3", "1"]
    assert (
        "after:  flatten0, dense0, relu0, dense1, relu1, dense2 - state {} - not folded []" in text
    )
    assert float(re.search(r"largest difference: (\S+) of the", text)[1]) < 1e-5
    digit, upside_down, _ = (float(v) for v in re.findall(r"standard deviation (\S+)", text))
    assert digit < upside_down
    assert "same masks in two halves: True" in text


def test_data_and_augmentation_prints_what_its_text_says(printed):
    text = "\n".join(printed("data_and_augmentation"))

    def numbers(pattern):
        return [float(value) for value in re.findall(pattern, text)]

    assert re.findall(r"(\d+) of 65 features", text) == ["0", "1"]
    all_writers, others = numbers(r"(?:stratified|writers): test accuracy (\S+) %")
    assert all_writers - others > 3 and others > 80
    assert "DataError - prepare: held_out[0] must be without the images of the training" in text
    off, standardized, ten, zca = numbers(r"inverted to within (\S+)")
    assert max(off, standardized, zca) < 1e-5 < 0.1 < ten
    kept = numbers(r"components: +\S+ % of the variance, +(\S+) % of the test")
    assert kept == sorted(kept) and kept[3] > 60 and kept[-1] == 100
    assert "copy found: True - found as the only one: True" in text
    assert "negative the furthest out: True" in text and "wrong label doubted: True" in text
    assert "1437 examples after all checks, 1435 after a decision" in text
    assert "mixup: each label sums to 1.0000 or more" in text
    # Of 360 test images; runs of other seeds differ by some 5 of them.
    plain, affine = numbers(r"test accuracy (\S+) %, \d+ microseconds")
    assert affine > plain + 1 and plain > 80
    rows = re.findall(r"(.*) - (.*): accuracy (\S+) %, loss", text)
    seen = {(trained, views): float(value) for trained, views, value in rows}
    for trained in "as they are", "affine":
        assert abs(seen[trained, "shifts"] - seen[trained, "one view"]) < 3
        assert seen[trained, "mirror images"] < seen[trained, "one view"]
    l2, gradient, proximal = re.findall(r"error (\S+) at \S+, (\d+) weights are zero", text)
    assert float(proximal[0]) < float(l2[0])
    assert int(l2[1]) == int(gradient[1]) == 0 and int(proximal[1]) > 5
    # 20 batches of 32, of which 5 come again, and what is read to know the data.
    whole, rest = numbers(r"(\d+) files read")
    assert 640 <= whole < 740 and 160 <= rest < 260
    assert "largest difference between the params: 0.0\n" in text
