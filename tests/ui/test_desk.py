"""What the page may do to folders that are not its own."""

from __future__ import annotations

import pytest

from emavos.io import write_video
from emavos.ui import Desk


def test_a_folder_with_files_of_the_user_is_refused_and_left_as_it_is(tmp_path, predictor, video):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(ValueError, match="thesis is not empty"):
        Desk(predictor, tmp_path / "thesis", keeps=True)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


def test_files_that_came_after_the_start_are_left_as_they_are(tmp_path, predictor, video):
    desk = Desk(predictor, tmp_path / "work", keeps=True)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "chapter.tex").write_text("years of work")
    with pytest.raises(ValueError, match="work is not empty"):
        desk.open_video(video, "clip")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["chapter.tex"]


def test_a_video_that_was_sent_leaves_no_folder(tmp_path, predictor, clip):
    pytest.importorskip("av")
    (tmp_path / "sent").mkdir()
    write_video(tmp_path / "sent" / "clip.mp4", clip[0], fps=10)
    desk = Desk(predictor, tmp_path / "work", keeps=True)
    desk.open_video(tmp_path / "sent" / "clip.mp4", "clip.mp4", sent=True)
    desk.job.join()
    assert desk.job.error is None
    assert desk.the_project().count == 8
    assert not (tmp_path / "sent").exists()


def test_a_new_video_replaces_the_one_before_it_where_none_is_kept(tmp_path, predictor, video):
    desk = Desk(predictor, tmp_path / "work", keeps=False)
    for _ in range(2):
        desk.open_video(video, "clip")
        desk.job.join()
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["002"]
