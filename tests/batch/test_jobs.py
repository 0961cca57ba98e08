from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emavos.batch import Job, find_jobs, shard
from emavos.io import InputWarning, write_image, write_mask, write_video
from trees import davis_tree

FRAME = np.zeros((16, 16, 3), np.uint8)


def test_lines_are_jobs_with_paths_that_begin_at_their_file(tmp_path):
    lines = [
        {"video": "a.mp4", "mask": "a.png"},
        {"video": "/far/b", "mask": {"00000": "b/0.png", "7": "/far/7.png"}, "name": "other"},
        {"video": "c.v2", "mask": "masks", "size": 240, "every": 3, "max_frames": None},
    ]
    path = tmp_path / "jobs.jsonl"
    path.write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    assert find_jobs(path) == [
        Job("a", tmp_path / "a.mp4", tmp_path / "a.png"),
        Job("other", Path("/far/b"), {"00000": tmp_path / "b/0.png", "7": Path("/far/7.png")}),
        Job("c.v2", tmp_path / "c.v2", tmp_path / "masks", {"size": 240, "every": 3, "max_frames": None}),
    ]


def test_what_lies_beside_a_mask_in_a_folder_is_a_job_or_is_told(tmp_path):
    for name in ("a.TS", "a.json", "b.wmv", "c.avif", "notes.txt"):
        (tmp_path / name).touch()
    for name in ("a", "b", "c"):
        write_mask(tmp_path / f"{name}.png", FRAME[..., 0])
    with pytest.warns(InputWarning, match=r"c\.avif lies beside a mask, but its ending is not that") as notes:
        assert [job.name for job in find_jobs(tmp_path)] == ["a", "b"]
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("beside", "mask"),
    [
        (["film.txt"], "film.png"),  # notes or subtitles; YOLO's texts are of images
        (["film.txt", "film.json"], "film.json"),
        (["film.npy", "film.xml"], "film.npy"),
        (["film.txt", "film.png", "film.npy"], "film.png"),
    ],
)
def test_the_mask_beside_a_video_is_an_image_arrays_or_annotations_and_never_a_text(tmp_path, beside, mask):
    for name in ("film.mp4", *beside):
        (tmp_path / name).write_text("Interview, second take")
    assert find_jobs(tmp_path) == [Job("film", tmp_path / "film.mp4", tmp_path / mask)]


def test_a_job_survives_its_line():
    pairs = (Path("a.jpg"), Path("a.png")), (Path("b.jpg"), Path("b.png"))
    for mask, references in (
        (Path("m.png"), ()),
        ({"00000": Path("a.png"), "x": Path("b.png")}, pairs[:1]),
        (None, pairs),
    ):
        job = Job("name", Path("video"), mask, {"top_k": 4}, references)
        assert Job.from_json(job.to_json()) == job


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2"),
        ("[]", "a job is an object"),
        ("{}", "no 'video'"),
        ('{"video": "a"}', "no 'mask'"),
        ('{"video": "a", "masks": "m"}', "no 'mask', only video, masks"),
        ('{"video": "a", "mask": {}}', "no 'mask'"),
        ('{"video": "a", "reference": []}', "no 'mask'"),
        ('{"video": "a", "reference": ["b", "c"]}', r"reference is a list of \[IMAGE, PNG\]"),
        ('{"video": "a", "reference": [["b", 3]]}', "3 is not a path"),
        ('{"video": 3, "mask": "m"}', "3 is not a path"),
        ('{"video": "a", "mask": {"0": null}}', "None is not a path"),
        ('{"video": "a\\u0000", "mask": "m"}', "is not a path"),
        ('{"video": "a", "mask": "m", "name": "../x"}', "cannot name outputs"),
        ('{"video": "a", "mask": "m", "name": 3}', "a name is a text"),
        ('{"video": "..", "mask": "m"}', "cannot name outputs"),
        ('{"video": "/", "mask": "m"}', "a name is a text"),
        ('{"video": "a", "mask": "m", "sise": 240}', "no option sise; the options are .*size"),
        ('{"video": "a", "mask": "m", "size": 3}', "from 16 to 8192"),
        ('{"video": "a", "mask": "m", "every": "5"}', "every is a whole number"),
        ('{"video": "v", "mask": "m", "name": "FIRST"}', "two videos called first"),
        ("[" * 100_000, "line 2"),
    ],
)
def test_a_line_that_is_no_job_is_named_before_anything_is_done(tmp_path, line, words):
    path = tmp_path / "jobs.jsonl"
    path.write_text('{"video": "first", "mask": "m.png"}\n' + line)
    with pytest.raises(ValueError, match=words):
        find_jobs(path)


@given(st.text(max_size=230))
def test_a_name_is_refused_or_is_that_of_one_file_in_its_folder(name):
    try:
        job = Job(name, Path("video"), Path("mask.png"))
    except ValueError:
        return
    place = Path("/out/masks") / job.name
    assert place.parent == Path("/out/masks")
    assert place.resolve() == place
    assert len(f".{job.name}.json.00000000.partial".encode()) <= 255


@pytest.mark.parametrize(
    "name", ["..", ".", "", "a/b", "a\\b", "/etc", "C:x", ".a", "a.", " a", "a\n", "\0", "x" * 201]
)
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(ValueError, match="name"):
        Job(name, Path("video"), Path("mask.png"))


def test_a_folder_as_of_davis_gives_the_first_mask_of_each(tmp_path):
    davis_tree(tmp_path, {"one": 3, "two": 2})
    (tmp_path / "JPEGImages" / "480p" / "bare").mkdir()
    masks = tmp_path / "Annotations" / "480p"
    assert [(job.name, job.mask) for job in find_jobs(tmp_path)] == [
        ("bare", masks / "bare"),
        ("one", {"00000": masks / "one" / "00000.png"}),
        ("two", {"00000": masks / "two" / "00000.png"}),
    ]


def test_a_folder_of_videos_beside_their_masks_is_a_batch(tmp_path):
    pytest.importorskip("av")
    write_video(tmp_path / "film.mp4", [FRAME], fps=5)
    for folder in ("frames", "late", "late.masks", "notes"):
        (tmp_path / folder).mkdir()
    write_image(tmp_path / "frames" / "0.png", FRAME)
    write_image(tmp_path / "late" / "0.png", FRAME)
    write_mask(tmp_path / "late.masks" / "0.png", FRAME[..., 0])
    (tmp_path / "film.nfo").write_text("not a video")
    assert find_jobs(tmp_path) == [
        Job("film", tmp_path / "film.mp4", tmp_path / "film.png"),
        Job("frames", tmp_path / "frames", tmp_path / "frames.png"),
        Job("late", tmp_path / "late", tmp_path / "late.masks"),
    ]


def test_where_there_are_no_jobs_it_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing does not exist"):
        find_jobs(tmp_path / "nothing")
    with pytest.raises(ValueError, match="holds no videos; a folder has them beside their masks"):
        find_jobs(tmp_path)
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"a\.jsonl is not a list of jobs: byte 0 is not UTF-8"):
        find_jobs(tmp_path / "a.jsonl")


@given(st.integers(0, 20), st.integers(1, 7))
def test_each_job_is_of_one_shard(count, shards):
    jobs = [Job(f"v{i}", Path("v"), Path("m")) for i in range(count)]
    parts = [shard(jobs, i, shards) for i in range(shards)]
    assert sorted(job.name for part in parts for job in part) == sorted(job.name for job in jobs)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    with pytest.raises(ValueError, match=f"no shard {shards}/{shards}; shards are 0/{shards} to"):
        shard(jobs, shards, shards)
