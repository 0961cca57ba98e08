"""Nothing that was made at the page is lost: undo and redo of edits, drafts, outdated masks."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from emavos.ui import Project, history
from emavos.ui.downloads import write_masks
from emavos.ui.importing import import_video
from emavos.ui.tracking import track_forward


def facts(project):
    """All that a person sees of a project."""
    kinds = [project.kind(i) for i in range(project.count)]
    return project.given, project.confidence, kinds, [project.mask(i).tobytes() for i in range(project.count)]


@pytest.fixture
def tracked(project, predictor, clip):
    project.give(0, clip[1][0])
    list(track_forward(project, predictor))
    return project


def mend(project, index):
    mask = project.mask(index)
    mask[:20, :30] = 1
    project.give(index, mask)


EDITS = {
    "mask given": lambda p: mend(p, 4),
    "another mask given": lambda p: mend(p, 0),
    "mask taken back": lambda p: p.take_back(0),
    "object removed": lambda p: p.remove(2),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_is_undone_and_redone_with_all_tracking_also_after_a_restart(tracked, predictor, edit):
    before = facts(tracked)
    EDITS[edit](tracked)
    edited = facts(tracked)
    assert edited != before
    again = Project.open(tracked.folder)
    again.sweep()
    again.undo()
    assert facts(again) == before
    again = Project.open(tracked.folder)
    again.sweep()
    assert facts(again) == before
    assert not again.can_undo or again.step == 1
    again.redo()
    assert facts(again) == edited
    if again.given:
        list(track_forward(again, predictor))
        retracked = facts(again)
        again.undo()
        assert facts(again) == before
        again.redo()
        assert facts(again) == retracked


def test_edits_are_undone_back_to_the_beginning_and_a_new_edit_forgets_those_undone(tracked, predictor):
    states = [facts(tracked)]
    for index in (6, 3, 5):
        mend(tracked, index)
        list(track_forward(tracked, predictor))
        states.append(facts(tracked))
    for state in states[-2::-1]:
        tracked.undo()
        assert facts(tracked) == state
    tracked.undo()
    assert not tracked.given
    with pytest.raises(ValueError, match="nothing to undo"):
        tracked.undo()
    for state in states[:2]:
        tracked.redo()
        assert facts(tracked) == state
    mend(tracked, 2)
    with pytest.raises(ValueError, match="nothing to redo"):
        tracked.redo()
    tracked.undo()
    assert facts(tracked) == states[1]


def test_tracking_after_undo_equals_tracking_that_was_never_interrupted(tracked, predictor):
    before = facts(tracked)
    mend(tracked, 4)
    list(track_forward(tracked, predictor, until=6))
    tracked.undo()
    assert facts(tracked) == before
    mend(tracked, 4)
    list(track_forward(tracked, predictor))
    expected = facts(tracked)
    tracked.undo()
    tracked.redo()
    assert facts(tracked) == expected


def test_a_damaged_or_missing_file_of_the_history_stops_undo_and_changes_nothing(tracked):
    mend(tracked, 4)
    before = facts(tracked)
    (tracked.folder / "history" / "000001.json").write_text('{"given": {"0": [999]}}')
    with pytest.raises(ValueError, match="is damaged, so this is not possible"):
        tracked.undo()
    assert facts(tracked) == facts(Project.open(tracked.folder)) == before


def test_old_states_are_forgotten_with_their_masks(project, clip, monkeypatch):
    monkeypatch.setattr("emavos.ui.record.MOST", 3)
    assert history.MOST > 3
    for edit in range(8):
        mask = np.zeros(project.size, np.int32)
        mask[: edit + 1] = 1
        project.give(0, mask)
    assert len([*(project.folder / "history").iterdir()]) == 3
    assert len([*(project.folder / "given").iterdir()]) == 4
    for _ in range(3):
        project.undo()
    assert not project.can_undo
    assert np.count_nonzero(project.mask(0)) == 5 * project.size[1]


def test_strokes_that_were_not_kept_survive_a_restart_and_changes_of_the_mask_below(tracked, predictor):
    draft = tracked.mask(5)
    draft[:10, :10] = 7
    tracked.save_draft(5, draft)
    assert tracked.reached == 8  # a draft drops no tracking
    again = Project.open(tracked.folder)
    again.sweep()
    np.testing.assert_array_equal(again.draft(5), draft)
    mend(again, 3)
    list(track_forward(again, predictor))
    expected = again.mask(5)
    expected[:10, :10] = 7
    np.testing.assert_array_equal(again.draft(5), expected)
    again.give(5, again.draft(5))
    assert again.draft(5) is None
    assert not Project.open(tracked.folder).drafts
    again.save_draft(2, np.where(again.mask(2) == 1, 0, again.mask(2)))  # erased strokes are strokes
    assert 1 not in again.draft(2)
    again.save_draft(2, None)
    assert again.draft(2) is None


def test_outdated_masks_are_downloaded_when_asked_for(tracked, tmp_path):
    mend(tracked, 5)
    assert [tracked.kind(i) for i in (4, 5, 6, 7)] == ["tracked", "given", "outdated", "outdated"]
    for outdated, more in (
        (False, []),
        (True, ["outdated/shot8.png", "outdated/shot9.png", "outdated/shot10.png"]),
    ):
        list(write_masks(tracked, tmp_path / "masks.zip", outdated))
        with zipfile.ZipFile(tmp_path / "masks.zip") as archive:
            assert archive.namelist() == [f"shot{i + 3}.png" for i in range(5)] + more


def test_a_project_of_the_first_format_opens_and_is_edited(tracked):
    file = tracked.folder / "project.json"
    old = file.read_text().replace('"format": 2', '"format": 1')
    for name in ("hidden", "generation", "step", "origin"):
        old = old.replace(f'"{name}"', f'"_{name}"')
    file.write_text(old)
    again = Project.open(tracked.folder)
    assert facts(again) == facts(tracked)
    mend(again, 4)
    again.undo()
    assert facts(again) == facts(tracked)


def test_an_import_needs_no_history(tmp_path, video):
    from emavos.io import open_frames

    list(import_video(tmp_path / "new", open_frames(video), "clip"))
    project = Project.open(tmp_path / "new")
    assert (project.can_undo, project.can_redo, project.drafts) == (False, False, set())
