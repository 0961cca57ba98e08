import argparse
import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from emavos import __version__
from emavos.cli import arguments, main
from emavos.cli import evaluate as evaluate_command
from emavos.cli.datasets import named_folders
from emavos.evaluation import PROTOCOLS, score_folder
from emavos.io import read_frame, read_mask, write_mask
from emavos.models import PRESETS, STCN
from emavos.weights import load_model, save_model
from trees import davis_tree, youtube_tree


@pytest.fixture
def davis(tmp_path, monkeypatch):
    """A tree of two sequences in `davis`, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return davis_tree(tmp_path / "davis", {"one": 4, "two": 3}, (64, 80))


def evaluate(*more, data="davis"):
    shared = ["--out", "out", "--processes", "1", "--device", "cpu", "--pictures", "0", "--quiet"]
    return main(["evaluate", "--data", data, *shared, *more])


def tiny(*more):
    return evaluate("--size", "64", *more)


def refused(capsys, *words):
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def rows(text):
    return [line.split() for line in text.splitlines() if line]


def test_models_and_results_of_others_stand_in_one_table(davis, capsys):
    shutil.copytree("davis/Annotations/480p", "theirs")
    assert (
        tiny("--model", "tiny", "--model", "copy-first-mask", "--results", "best=theirs", "--pictures", "1")
        == 0
    )
    table = rows(capsys.readouterr().out)
    score = score_folder("davis", "out/masks/tiny+size=64", PROTOCOLS["davis-like"])
    assert table[0] == ["davis-like,", "2", "sequences"]
    assert table[2] == ["sequence", "best", "tiny+size=64", "copy-first-mask"]
    lines = {line[0]: line[1:] for line in table[6:] if line[0] != "fps:"}
    assert lines["best"] == ["1.000"] * 3 + ["-"] * 3
    assert lines["tiny+size=64"][:3] == [f"{value:.3f}" for value in (score.JF, score.J.mean, score.F.mean)]
    assert float(lines["tiny+size=64"][3]) > 0
    assert lines["tiny+size=64"][5] == f"{sum(p.numel() for p in load_model().parameters()):,}"
    assert lines["copy-first-mask"][3:] == ["-"] * 3
    out = davis.parent / "out"
    assert [line.split(",")[0] for line in (out / "overview.csv").read_text().splitlines()[1:]] == [*lines]
    assert json.loads((out / "overview.json").read_text())["methods"][1]["J&F"] == score.JF
    assert json.loads((out / "scores/best/scores.json").read_text())["J&F"] == 1
    assert "data:image/" in (out / "report.html").read_text()


def test_a_run_goes_on_where_it_was_stopped_and_tells_the_same(davis, capsys):
    assert tiny() == 0
    whole = capsys.readouterr().out
    kept = davis.parent / "out/masks/tiny+size=64/one/00002.png"
    before = kept.stat().st_mtime_ns
    shutil.rmtree("out/masks/tiny+size=64/two")
    assert tiny() == 0
    assert [line[:4] for line in rows(capsys.readouterr().out)] == [line[:4] for line in rows(whole)]
    assert kept.stat().st_mtime_ns == before


def test_other_weights_of_the_same_name_are_not_taken_for_these(davis, capsys):
    save_model(STCN(PRESETS["stcn-tiny"]), "model")
    assert tiny("--model", "model", "--sequence", "one") == 0
    save_model(STCN(PRESETS["stcn-tiny"]), "model")
    capsys.readouterr()
    assert tiny("--model", "model", "--sequence", "one") == 1
    refused(capsys, "holds masks made with other settings (weights differ)")


def test_each_choice_of_options_has_masks_of_its_own(davis):
    options = ["--flip", "--scales", "1,1.5", "--every", "2", "--include-last", "--decode-near"]
    assert tiny("--sequence", "one", *options) == 0
    folder = davis.parent / "out/masks/tiny+size=64+every=2+scales=1,1.5+include-last+flip+decode-near"
    record = json.loads((folder / "run.json").read_text())
    settings = record["settings"]
    assert record["version"] == __version__
    assert (settings["every"], settings["scales"], settings["flip"]) == (2, [1.0, 1.5], True)
    assert (settings["decode_near"], settings["encode_near"], settings["still"]) == (True, False, 0.0)
    assert not (folder / "two").exists()
    assert tiny("--sequence", "one", "--every", "5") == 0  # the protocol's own
    assert (davis.parent / "out/masks/tiny+size=64").exists()


OTHER_VALUES = {
    "dtype": "bfloat16",
    "size": "64",
    "scales": "1,1.5",
    "every": "2",
    "top_k": "7",
    "max_frames": "5",
    "max_cells": "60",
    "eviction": "oldest",
    "still": "1",
    "backend": "blocks",
}


def test_each_option_of_a_model_is_in_the_name_of_the_method():
    parser = argparse.ArgumentParser()
    evaluate_command.add(parser.add_subparsers())

    def name(*options):
        args = parser.parse_args(["evaluate", *options])
        return evaluate_command._method_name("tiny", args, PROTOCOLS["davis-like"])

    assert name() == "tiny"
    names = {"tiny", name("--no-locality")}
    for option in (option for option in arguments._OF_A_MODEL if option != "model"):
        value = [OTHER_VALUES[option]] if option in OTHER_VALUES else []
        names.add(name("--" + option.replace("_", "-"), *value))
    assert len(names) == len(arguments._OF_A_MODEL) + 1


def test_policies_of_the_memory_have_masks_of_their_own_and_stand_in_one_table(davis, capsys):
    shared = ["--sequence", "one", "--every", "1", "--max-frames", "2"]
    assert tiny(*shared, "--eviction", "oldest") == 0
    assert tiny(*shared, "--eviction", "consolidate", "--max-cells", "60") == 0
    names = [
        "tiny+size=64+every=1+max-frames=2+eviction=oldest",
        "tiny+size=64+every=1+max-frames=2+max-cells=60+eviction=consolidate",
    ]
    settings = json.loads((davis.parent / f"out/masks/{names[1]}/run.json").read_text())["settings"]
    assert (settings["max_frames"], settings["max_cells"], settings["eviction"]) == (2, 60, "consolidate")
    capsys.readouterr()
    results = [word for name in names for word in ("--results", f"out/masks/{name}")]
    assert evaluate("--sequence", "one", *results) == 0
    assert rows(capsys.readouterr().out)[2] == ["sequence", *names]


def test_an_eviction_that_can_never_happen_is_refused(davis, capsys):
    assert tiny("--max-frames", "0", "--eviction", "oldest") == 1
    refused(capsys, "--eviction oldest changes nothing", "give --max-frames or --max-cells")
    assert not (davis.parent / "out").exists()
    assert tiny("--sequence", "one", "--max-frames", "0", "--max-cells", "60", "--eviction", "oldest") == 0


def test_youtube_is_written_scored_and_packed_as_its_server_wants_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    youtube_tree(tmp_path / "yt", truth=True)
    arguments = ["--protocol", "youtube-vos-2018-all-frames", "--zip", "--model", "copy-first-mask"]
    assert evaluate(*arguments, data="yt") == 0
    out = capsys.readouterr().out
    assert rows(out)[5][:6] == ["method", "G", "J&F", "J", "F", "J"]
    with zipfile.ZipFile("out/copy-first-mask.zip") as archive:
        assert archive.namelist()[0] == "Annotations/ab/00000.png"


def test_data_without_truth_gives_masks_and_no_score(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    youtube_tree(tmp_path / "yt")
    assert evaluate("--protocol", "youtube-vos-2018", "--model", "copy-first-mask", data="yt") == 0
    out = capsys.readouterr().out
    assert "not scored: the data holds no truth but the masks that are given" in out
    assert not (tmp_path / "out/scores").exists()
    assert (tmp_path / "out/report.html").exists()


def test_the_papers_table_stands_beside_what_is_measured(davis, capsys):
    assert main(["evaluate", "--table", "3"]) == 0
    assert "external, value encoder" in capsys.readouterr().out
    assert tiny("--table", "2", "--sequence", "one") == 0
    out = capsys.readouterr().out
    assert "measured:  davis-like, 1 sequence;" in out
    assert "tiny+size=64 (efficientnet-lite0)" in out
    assert "never measured here" in out


def test_what_cannot_be_measured_is_said_in_one_line(davis, capsys):
    assert main(["evaluate"]) == 1
    refused(capsys, "name a data set with --data")
    assert evaluate(data="nowhere") == 1
    refused(capsys, "nowhere does not exist")
    assert evaluate(data="davis/Annotations/480p/one/00000.png") == 1
    refused(capsys, "00000.png is a file; name the folder of a data set")
    assert evaluate("--protocol", "davis") == 1
    refused(capsys, "there is no protocol davis", "davis-2017-val")
    assert evaluate("--split", "2017/val") == 1
    refused(capsys, "2017/val.txt is not a file")
    assert evaluate("--results", "nowhere") == 1
    refused(capsys, "nowhere is not a folder of results")
    for options in (["--results", "davis"], ["--model", "copy-first-mask"]):
        assert evaluate(*options, "--flip") == 1
        refused(capsys, "--flip changes nothing: no model is run")
    assert evaluate("--results", "a=davis", "--results", "a=davis") == 1
    refused(capsys, "two results are called a")
    assert evaluate("--scales", "one") == 2
    refused(capsys, "'one' is not numbers")
    for folder in ("Annotations/480p/x", "Annotations", "JPEGImages/480p"):
        for command in (["evaluate"], ["compare", "a=davis", "--force"]):
            assert main([*command, "--data", "davis", "--out", f"davis/{folder}"]) == 1
            refused(capsys, "is inside the data")
    assert main(["evaluate", "--data", "davis", "--out", "davis/Annotations/480p/one/00000.png"]) == 1
    refused(capsys, "00000.png is a file, not a folder")
    assert not (davis.parent / "out").exists()


def test_masks_begin_where_the_truth_begins(davis):
    (davis / "Annotations/480p/one/00000.png").unlink()
    assert tiny("--sequence", "one") == 0
    out = davis.parent / "out/masks/tiny+size=64/one"
    assert not read_mask(out / "00000.png").any()
    np.testing.assert_array_equal(
        read_mask(out / "00001.png"), read_mask(davis / "Annotations/480p/one/00001.png")
    )


def test_void_is_background_and_255_the_object_where_told(davis, capsys):
    for path in (davis / "Annotations").rglob("*.png"):
        mask = read_mask(path)
        write_mask(path, np.where(mask == 1, 255, mask))
    assert evaluate("--model", "copy-first-mask") == 0
    assert 255 not in read_mask("out/masks/copy-first-mask/one/00000.png")
    for path in (davis / "Annotations").rglob("*.png"):
        write_mask(path, np.where(read_mask(path) > 0, 255, 0))
    shutil.rmtree("out")
    capsys.readouterr()
    assert evaluate("--model", "copy-first-mask") == 1
    refused(capsys, "use --binary")
    assert evaluate("--model", "copy-first-mask", "--binary") == 0
    assert {*np.unique(read_mask("out/masks/copy-first-mask/one/00002.png"))} == {0, 1}


def test_masks_that_no_one_asked_for_are_named_on_stderr(davis, capsys):
    shutil.copytree("davis/Annotations/480p", "theirs")
    shutil.copy("theirs/one/00001.png", "theirs/one/00009.png")
    assert evaluate("--results", "theirs") == 0
    assert (
        capsys.readouterr().err
        == "emavos: theirs: not scored, because this benchmark does not want them: one/00009.png\n"
    )


def test_masks_of_other_data_are_made_again(davis, capsys):
    assert tiny("--sequence", "two") == 0
    before = read_mask("out/masks/tiny+size=64/two/00002.png")
    for path in (davis / "Annotations/480p/two").iterdir():
        write_mask(path, np.where(read_mask(path) == 1, 1, 0))
    assert tiny("--sequence", "two") == 0
    after = read_mask("out/masks/tiny+size=64/two/00002.png")
    assert before.max() > 1
    assert after.max() == 1


def test_a_benchmark_whose_truth_is_not_whole_has_no_score(davis, capsys):
    (davis / "ImageSets/2017").mkdir(parents=True)
    (davis / "ImageSets/2017/val.txt").write_text("one\ntwo\n")
    (davis / "Annotations/480p/one/00002.png").unlink()
    assert evaluate("--model", "copy-first-mask", "--protocol", "davis-2017-val") == 1
    refused(capsys, "the truth is incomplete", "lacks one/00002", "use davis-like")


def test_sequences_without_a_truth_are_named_and_the_others_scored(davis, capsys):
    for name in ("00001", "00002"):
        (davis / f"Annotations/480p/two/{name}.png").unlink()
    assert evaluate("--model", "copy-first-mask", "--zip", "--pictures", "2") == 0
    output = capsys.readouterr()
    assert "all: not scored, because there is no truth: two" in output.err
    assert (davis.parent / "out/copy-first-mask.zip").is_file()
    assert main(["compare", "--data", "davis", "out/masks/copy-first-mask", "--out", "shown", "--quiet"]) == 0


def test_methods_that_would_share_a_folder_are_refused(davis, capsys):
    shutil.copytree("davis/Annotations/480p", "theirs")
    assert evaluate("--results", "x y=theirs", "--results", "x--y=theirs") == 1
    refused(capsys, "would be written to one folder")


def test_frames_without_a_truth_are_named_on_stderr(davis, capsys):
    shutil.copytree("davis/Annotations/480p", "theirs")
    (davis / "Annotations/480p/one/00002.png").unlink()
    assert evaluate("--results", "theirs") == 0
    assert "theirs: not scored, because there is no truth: one/00002" in capsys.readouterr().err
    assert (
        main(["compare", "--data", "davis", "--processes", "1", "theirs", "--out", "shown", "--quiet"]) == 0
    )
    assert "theirs: not scored, because there is no truth: one/00002" in capsys.readouterr().err
    assert score_folder("davis", "theirs", PROTOCOLS["davis-like"]).untold == ("one/00002",)


def test_a_submission_that_is_refused_leaves_no_older_one(davis, capsys):
    shutil.copytree("davis/Annotations/480p", "theirs")
    assert evaluate("--results", "theirs", "--zip") == 0
    assert (davis.parent / "out/theirs.zip").is_file()
    Image.fromarray(read_mask("theirs/one/00001.png").astype(np.uint8)).save("theirs/one/00001.png")
    capsys.readouterr()
    assert evaluate("--results", "theirs", "--zip") == 1
    assert "nothing was packed" in capsys.readouterr().err
    assert not (davis.parent / "out/theirs.zip").exists()


def test_compare_draws_each_sequence_and_a_page_of_all(davis, capsys):
    shutil.copytree("davis/Annotations/480p", "theirs")
    assert evaluate("--model", "copy-first-mask") == 0
    command = ["compare", "--data", "davis", "--processes", "1", "theirs", "copied=out/masks/copy-first-mask"]
    assert main([*command, "--out", "shown", "--sequence", "two", "--frames", "3"]) == 0
    found = sorted(path.name for path in (davis.parent / "shown").iterdir())
    pictures = ["two-curves.png", "two-grid.png", "two-worst-copied.png", "two-worst-theirs.png"]
    assert found == ["report.html", *pictures]
    assert read_frame("shown/two-grid.png").shape[1] == 1600
    assert main([*command, "--out", "shown"]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert main([*command, "--out", "named", "--sequence", "one", "--frames", "00003"]) == 0
    assert main([*command, "--out", "wrong", "--frames", "00077"]) == 1
    assert "one has no frame 00077" in capsys.readouterr().err
    assert not (davis.parent / "wrong").exists()


def test_results_are_named_by_their_folder_or_as_told_whatever_signs_they_have(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("tiny+every=3", "plain"):
        (tmp_path / name).mkdir()
    given = ["tiny+every=3", "plain", "mine=tiny+every=3"]
    assert {name: str(path) for name, path in named_folders(given).items()} == {
        "tiny+every=3": "tiny+every=3",
        "plain": "plain",
        "mine": "tiny+every=3",
    }
