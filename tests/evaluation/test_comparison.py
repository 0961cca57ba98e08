from __future__ import annotations

import pytest

from emavos import Predictor
from emavos.evaluation import PROTOCOLS
from emavos.evaluation.comparison import COPY, Model, compare
from trees import davis_tree

PROTOCOL = PROTOCOLS["davis-like"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return davis_tree(tmp_path_factory.mktemp("data"), {"one": 3}, size=(48, 64))


def test_models_and_folders_of_others_are_compared_in_one_call(data, tmp_path):
    predictor = Predictor.from_pretrained(device="cpu", size=None)
    loaded, reported = [], []

    def load():
        loaded.append(predictor)
        return predictor

    class Bar:
        def __init__(self, *facts):
            reported.append(facts)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self):
            reported.append("frame")

    models = {"ours": Model(load, "tiny"), COPY: Model(None, COPY)}
    truth = data / "Annotations" / "480p"
    others = {"truth": truth if truth.is_dir() else data / "Annotations"}
    done = compare(data, PROTOCOL, tmp_path / "out", models=models, results=others, progress=Bar)
    assert [method.name for method in done.methods] == ["truth", "ours", COPY]
    assert done.methods[0].score.JF == 1
    assert 0 < done.methods[1].score.JF <= 1
    assert len(loaded) == 1
    assert reported == [("ours", 0, 3), *3 * ["frame"], (COPY, 0, 3), *3 * ["frame"]]
    assert [row.name for row in done.measured()] == ["ours"]
    done.write(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"masks", "scores", "overview.csv", "overview.json", "report.html"}
    reported.clear()
    again = compare(data, PROTOCOL, tmp_path / "out", models=models, progress=Bar)
    assert again.methods[0].score.JF == done.methods[1].score.JF
    assert reported == [("ours", 3, 3), (COPY, 3, 3)]  # nothing is followed twice


def test_two_methods_of_one_name_or_folder_are_refused_before_any_is_run(data, tmp_path):
    def load():
        raise AssertionError("loaded")

    with pytest.raises(ValueError, match="two methods are called a"):
        compare(data, PROTOCOL, tmp_path, models={"a": Model(load, "a")}, results={"a": tmp_path})
    with pytest.raises(ValueError, match="would be written to one folder"):
        compare(data, PROTOCOL, tmp_path, models={"a/b": Model(load, "a"), "a b": Model(load, "b")})
