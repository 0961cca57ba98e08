"""Names of objects, and the files that are downloaded."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from emavos.bridges import CocoWriter
from emavos.ui import Desk, Project
from emavos.ui.downloads import DOWNLOADS, steps_of
from emavos.ui.switches import Switches
from emavos.ui.tracking import track_forward

NO_SWITCHES = {"hidden": [], "locked": [], "alone": None}


@pytest.fixture
def given(project, clip):
    project.give(0, clip[1][0])
    return project


def test_the_name_of_a_removed_object_comes_back_only_with_the_object(given, clip):
    given.rename(1, "horse")
    given.rename(2, "rider")
    given.remove(2)
    assert Project.open(given.folder).labels == {1: "horse"}
    given = Project.open(given.folder)
    given.undo()
    assert Project.open(given.folder).labels == {1: "horse", 2: "rider"}
    given.redo()
    assert Project.open(given.folder).labels == {1: "horse"}
    given.undo()
    assert given.labels[2] == "rider"
    given.redo()
    given.give(3, clip[1][3])  # another object of this id
    assert given.ids == (1, 2)
    assert 2 not in given.labels


def test_names_of_objects_are_kept_and_taken_away(given):
    given.rename(1, "  grey \t horse ")
    given.rename(2, "rider/\n")
    assert Project.open(given.folder).labels == {1: "grey horse", 2: "rider_"}
    given.rename(2, "")
    assert Project.open(given.folder).labels == {1: "grey horse"}
    for id, label, words in ((0, "x", "objects 1 to 255"), (256, "x", "255"), (1, "x" * 61, "at most 60")):
        with pytest.raises(ValueError, match=words):
            given.rename(id, label)


def test_a_damaged_name_is_refused_or_made_harmless(given):
    given.rename(1, "horse")
    file = given.folder / "project.json"
    whole = file.read_text()
    file.write_text(whole.replace('"horse"', json.dumps("a/b\x00" + "c" * 100)))
    assert Project.open(given.folder).labels[1].startswith("a_b_c")
    assert len(Project.open(given.folder).labels[1]) == 60
    for wrong in ("7", "[]", '{"a": 1}'):
        file.write_text(whole.replace('"horse"', wrong))
        with pytest.raises(ValueError, match="damaged"):
            Project.open(given.folder)


def test_names_are_categories_of_coco(tmp_path):
    mask = np.array([[1, 2, 3, 4]])
    with CocoWriter(tmp_path / "a.json", {1: "horse", 2: "rider", 4: "horse"}) as coco:
        coco.write("0", mask)
    content = json.loads((tmp_path / "a.json").read_text())
    names = {one["id"]: one["name"] for one in content["categories"]}
    assert [names[one["category_id"]] for one in content["annotations"]] == [
        "horse",
        "rider",
        "object",
        "horse",
    ]


@pytest.mark.parametrize("name", DOWNLOADS)
def test_every_download_is_written_from_a_frame_with_a_given_mask(given, tmp_path, name):
    if name.endswith((".mp4", ".mov")):
        pytest.importorskip("av")
    given.rename(1, "horse")
    steps = [*DOWNLOADS[name](given, tmp_path / name, False)]
    assert steps == [*range(1, steps_of(given, name, False) + 1)]
    content = (tmp_path / name).read_bytes()
    if name in ("masks.json", "youtube-vis.json"):
        assert "horse" in {one["name"] for one in json.loads(content)["categories"]}
    if name == "yolo.zip":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.read("classes.txt") == b"horse\n2\n"
            assert "labels/shot3.txt" in archive.namelist()
    if name.startswith("preview"):
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.size == (160, 96)


def test_mattes_of_tracked_frames_have_soft_edges(given, predictor, tmp_path):
    list(track_forward(given, predictor, 2))
    hard, soft = given.matte(0), given.matte(1)
    assert {*np.unique(hard)} == {0, 1}
    assert ((soft > 0.02) & (soft < 0.98)).any()
    inside = given.mask(1) > 0
    assert soft[inside].mean() > 0.8
    assert soft[~inside].mean() < 0.1
    list(DOWNLOADS["cutout.zip"](given, tmp_path / "cutout.zip", False))
    with zipfile.ZipFile(tmp_path / "cutout.zip") as archive:
        assert archive.namelist() == ["shot3.png", "shot4.png"]
        with Image.open(io.BytesIO(archive.read("shot4.png"))) as picture:
            assert picture.mode == "RGBA"
            np.testing.assert_array_equal(np.asarray(picture)[..., 3], np.rint(soft * 255))
    (given.folder / "soft" / "00001.png").unlink()  # as in a project of an earlier version
    np.testing.assert_array_equal(given.matte(1), inside)


def test_a_name_is_given_through_the_page(given, predictor):
    pytest.importorskip("starlette")
    pytest.importorskip("httpx")
    from starlette.testclient import TestClient

    from emavos.ui.server.app import make_app

    desk = Desk(predictor, given.folder, keeps=True)
    client = TestClient(make_app(desk, "secret"), base_url="http://127.0.0.1:8321")
    client.get("/?token=secret")
    assert client.put("/api/objects/1", content=b"x").status_code == 428
    client.headers["x-project"] = desk.key
    assert client.put("/api/objects/1", content="Frölich".encode()).status_code == 200
    assert client.get("/api/state").json()["project"]["labels"] == {"1": "Frölich"}
    assert "at most 60" in client.put("/api/objects/1", content=b"x" * 61).json()["error"]
    assert client.put("/api/objects/1", content=b"x" * 1001).status_code == 413
    desk.close()


def test_hidden_and_locked_objects_are_so_again_after_a_restart(given, predictor):
    pytest.importorskip("starlette")
    pytest.importorskip("httpx")
    from starlette.testclient import TestClient

    from emavos.ui.server.app import make_app

    asked = {"hidden": [2], "locked": [1, 2], "alone": 1}
    desk = Desk(predictor, given.folder, keeps=True)
    client = TestClient(make_app(desk, "secret"), base_url="http://127.0.0.1:8321")
    client.get("/?token=secret")
    assert client.get("/api/state").json()["project"]["switches"] == NO_SWITCHES
    assert client.put("/api/switches", json=asked).status_code == 428
    client.headers["x-project"] = desk.key
    with desk.holding.using(given.folder):  # as a job that tracks
        assert client.put("/api/switches", json=asked).status_code == 200
    odd = ({"hidden": [0]}, {"alone": "1"}, {"locked": [256]}, {"locked": 1}, {"hidden": [[1]]})
    for wrong in ([], {}, "", None, *(asked | one for one in odd)):
        refused = client.put("/api/switches", json=wrong)
        assert (refused.status_code, "not switches" in refused.json()["error"]) == (400, True), wrong
    assert client.put("/api/switches", content=b"[" * 9000).status_code == 400
    client.headers["x-project"] = "another"
    assert client.put("/api/switches", json=asked).status_code == 409
    desk.close()
    again = Desk(predictor, given.folder, keeps=True)
    assert again.state()["project"]["switches"] == {"hidden": (2,), "locked": (1, 2), "alone": 1}
    again.close()
    (given.folder / "switches.json").write_bytes(b'{"hidden": [999]')
    assert Project.open(given.folder).switches == Switches()


def test_the_switches_of_a_removed_object_are_off_and_those_of_others_stay(given):
    given.switch(Switches(hidden=(1, 2), locked=(2,), alone=2))
    given.remove(2)
    assert given.switches == Project.open(given.folder).switches == Switches(hidden=(1,))
    given.undo()  # the object is seen, and can be painted
    assert given.ids == (1, 2)
    assert Project.open(given.folder).switches == Switches(hidden=(1,))


def test_a_draft_of_another_size_is_refused_as_such_and_stores_nothing(given):
    for wrong, words in ((np.ones((4, 4), np.int32), "mask is 4x4"), (np.full(given.size, 256), "not 256")):
        with pytest.raises(ValueError, match=words):
            given.save_draft(1, wrong)
    assert not given.drafts
