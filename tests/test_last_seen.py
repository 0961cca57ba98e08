"""Where objects were last seen, and that an object is less likely far from there."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from emavos import Predictor
from emavos.cli import main
from emavos.memory import MemoryPolicy
from emavos.models import PRESETS, STCN
from emavos.session import frame as frame_module
from emavos.session.memory import LastSeen, distances

HEIGHT, WIDTH = 192, 320
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]


@pytest.fixture(scope="module")
def predictor():
    return Predictor.from_pretrained(device="cpu", dtype=torch.float32, size=None)


def disc(row, column):
    return (ROWS - row) ** 2 + (COLUMNS - column) ** 2 < 24**2


def picture(*discs):
    """Striped discs, all alike, before noise."""
    noise = np.random.default_rng(3).normal(90, 12, (HEIGHT, WIDTH, 3)).clip(0, 255).astype(np.uint8)
    for row, column in discs:
        stripes = 60 + (COLUMNS - column) // 8 % 2 * 80
        colours = np.stack([np.full_like(stripes, 220), stripes, np.full_like(stripes, 40)], axis=-1)
        noise = np.where(disc(row, column)[..., None], colours.astype(np.uint8), noise)
    return noise


def right_half(results):
    return [int(result.mask[:, WIDTH // 2 :].astype(bool).sum()) for result in results]


def a_twin_appears(by):
    """A disc moves by so many pixels a frame. From the fifth frame on, a second one stands at the right."""
    return [picture((100, 70 + by * t), *[(90, 280)] * (t >= 4)) for t in range(7)]


def test_a_look_alike_that_appears_elsewhere_is_not_the_object(predictor):
    frames, mask = a_twin_appears(by=3), disc(100, 70).astype(np.uint8)
    far = predictor.with_settings(locality=False).propagate(frames, mask)
    assert max(right_half(far)) > 1000
    near = [*predictor.propagate(frames, mask)]
    assert right_half(near) == [0] * 7
    for time, result in enumerate(near):
        overlap = result.mask.astype(bool) & disc(100, 70 + 3 * time)
        assert overlap.sum() > 0.9 * disc(100, 70).sum()


def test_an_object_that_moves_far_between_frames_is_followed(predictor):
    places = [(40, 40), (150, 130), (60, 220), (140, 290), (50, 200), (150, 100)]
    results = [*predictor.propagate([picture(place) for place in places], disc(*places[0]).astype(np.uint8))]
    for place, result in zip(places, results, strict=True):
        assert (result.mask.astype(bool) & disc(*place)).sum() > 0.9 * disc(*place).sum()


@pytest.mark.parametrize("every", [2, 5])
def test_no_frame_is_stored_while_its_distance_hides_an_object(predictor, every):
    still, jumped = picture((100, 70)), picture((90, 280))
    session = predictor.with_settings(policy=MemoryPolicy(every=every)).session()
    session.step(still, disc(100, 70).astype(np.uint8))
    for _ in range(2):
        session.step(still)
    hidden = []
    while not session.step(jumped).mask.any():
        hidden.append(session.index - 1)
        assert session._now.hidden == {1}
    assert len(hidden) >= 3, "or this tests nothing"
    assert not {*hidden} & {*session.groups[0].bank.frame_keys}
    for _ in range(3):
        found = session.step(jumped).mask.astype(bool)
    assert (found & disc(90, 280)).sum() > 0.9 * disc(90, 280).sum()


def test_frames_are_stored_at_last_if_an_object_stays_hidden(predictor, monkeypatch):
    monkeypatch.setattr(frame_module, "_HIDDEN", 2)  # even if no pixel is lost
    session = predictor.session()
    session.step(picture((100, 70)), disc(100, 70).astype(np.uint8))
    for _ in range(30):
        assert session.step(picture((100, 70))).mask.any()
        assert session._now.hidden == {1}
    assert [*session.groups[0].bank.frame_keys] == [0, 20]


def test_an_object_that_is_hidden_and_annotated_is_stored(predictor):
    session = predictor.session()
    session.step(picture((100, 70)), disc(100, 70).astype(np.uint8))
    for _ in range(2):
        session.step(picture((100, 70)))
    session.step(picture((90, 280)))
    assert session._now.hidden == {1}, "or this tests nothing"
    session.correct({1: disc(90, 280)})
    assert not session._now.hidden
    assert session.index - 1 in session.groups[0].bank.frame_keys


def test_a_correction_of_another_object_does_not_hide_an_object_for_good(predictor):
    box = np.zeros((HEIGHT, WIDTH), bool)
    box[140:180, 130:190] = True

    def with_box(place):
        return np.where(box[..., None], np.uint8([20, 30, 200]), picture(place))

    session = predictor.session()
    session.step(with_box((100, 70)), np.where(disc(100, 70), 2, box).astype(np.uint8))
    for _ in range(2):
        session.step(with_box((100, 70)))
    session.step(with_box((90, 280)))
    assert session._now.hidden == {2}, "or this tests nothing"
    session.correct({1: box})
    for _ in range(7):
        found = session.step(with_box((90, 280))).mask == 2
    assert (found & disc(90, 280)).sum() > 0.9 * disc(90, 280).sum()


def test_after_a_scene_without_masks_an_object_may_be_anywhere(predictor):
    session = predictor.with_settings(cuts="stop").session()
    for time in range(3):
        session.step(picture((100, 70 + 3 * time)), disc(100, 70).astype(np.uint8) if time == 0 else None)
    assert session._now.before.penalty((HEIGHT, WIDTH)).max() == 4
    other = np.random.default_rng(5).integers(0, 256, (6, 10, 3), dtype=np.uint8).repeat(32, 0).repeat(32, 1)
    assert session.step(other).cut
    assert session._last_seen.penalty((HEIGHT, WIDTH)).max() == 0


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (9, 4), (1, 13), (2, 600)])
def test_distances_are_those_to_the_nearest_cell(size):
    generator = torch.Generator().manual_seed(sum(size))
    cells = torch.rand(4, *size, generator=generator) < 0.2
    cells[0, -1, 0] = True
    cells[1] = False
    found = distances(cells)
    grid = torch.stack(torch.meshgrid(*map(torch.arange, size), indexing="ij"), dim=-1).float()
    for own, expected_of in zip(found, cells, strict=True):
        if not expected_of.any():
            assert own.isinf().all()
            continue
        apart = torch.cdist(grid.flatten(0, 1), grid[expected_of])
        torch.testing.assert_close(own, apart.amin(dim=1).reshape(size))


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any function returned."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        returned = function(*args, **(kwargs or {}))
        for x in returned if isinstance(returned, (list, tuple)) else [returned]:
            self.elements = max(self.elements, x.untyped_storage().nbytes() // x.itemsize)
        return returned


@pytest.mark.parametrize("size", [(30, 54), (1, 3000), (2000, 1)])
def test_the_penalty_needs_no_tensor_larger_than_the_logits(size):
    seen = LastSeen.unseen(2, size, torch.device("cpu"))
    with LargestTensor() as largest:
        penalty = seen.penalty((16 * size[0], 16 * size[1]))
    assert largest.elements <= penalty.numel()


def seen_at(*columns, size=(96, 320)):
    """An object of one cell, seen in these columns of cells; None: not seen."""
    seen = LastSeen.unseen(1, (size[0] // 16, size[1] // 16), torch.device("cpu"))
    for column in columns:
        prob = torch.zeros(1, *size)
        if column is not None:
            prob[:, 32:48, 16 * column : 16 * column + 16] = 0.9
        seen = seen.after(prob, torch.zeros(1, 4), (False,))
    return seen


def test_the_penalty_begins_beyond_what_an_object_moves_and_has_a_bound():
    def row(seen):
        return seen.penalty((96, 320))[0, 40, 8::16]  # between the centers of a row's cells

    assert row(LastSeen.unseen(1, (6, 20), torch.device("cpu"))).eq(0).all()
    assert row(seen_at(2)).eq(0).all(), "the motion is not known yet"
    still = row(seen_at(2, 2))
    assert still[2] < 1e-3  # and so are the cells beside it, up to a twentieth of 20 cells away
    assert still[12:].eq(4).all()
    assert (still[2:].diff() >= 0).all()
    fast, absent = row(seen_at(0, 2)), row(seen_at(2, 2, None))
    assert (fast <= still).all()
    assert (absent <= still).all()
    assert fast[6] < 1e-3
    assert fast[-1] == 4, "two cells a frame are a tenth of the frame: three of ten are free"
    assert (row(seen_at(2, 2, *[None] * 9)) < 1e-3).all()
    assert row(seen_at(0, 2, 2, 2, 2, 2, 2, 2, 2)).sum() < still.sum(), "the speed fades within some frames"
    assert row(seen_at(2, 2).anywhere()).eq(0).all()


def test_an_object_has_the_same_penalty_alone_and_among_others():
    probabilities = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(1))
    signs, size = torch.rand(3, 4), (4, 6)
    together = LastSeen.unseen(3, size, torch.device("cpu"))
    alone = [LastSeen.unseen(1, size, torch.device("cpu")) for _ in range(3)]
    for frame in (probabilities, probabilities.roll(16, dims=2) * 0.52, probabilities.roll(32, dims=2)):
        together = together.after(frame, signs, (False, True, False))
        alone = [seen.after(frame[i : i + 1], signs[i : i + 1], (i == 1,)) for i, seen in enumerate(alone)]
    for i, seen in enumerate(alone):
        assert torch.equal(together.penalty((64, 96))[i : i + 1], seen.penalty((64, 96)))
        for field in dataclasses.fields(LastSeen):
            own = getattr(together.only([i]), field.name)
            assert torch.equal(own, getattr(seen, field.name)), field.name


def test_what_is_forgotten_is_no_place(predictor):
    session = predictor.session()
    for time in range(3):
        session.step(picture((100, 70 + 3 * time)), disc(100, 70).astype(np.uint8) if time == 0 else None)
    place = session._last_seen.cells
    assert not place.all()
    session.forget(since=2)
    assert session._last_seen.cells.all()
    session.undo()
    assert torch.equal(session._last_seen.cells, place)
    session.forget(since=1)
    session.correct({1: disc(100, 76)})
    assert not session._last_seen.cells.all(), "the user's mask is a place"


def test_wrong_masks_leave_neither_a_place_nor_a_speed(predictor):
    session = predictor.session()
    for time in range(4):
        session.step(picture((100, 70 + 3 * time)), disc(100, 70).astype(np.uint8) if time == 0 else None)
    before = session._last_seen
    assert before.speed.isfinite().all()
    session.forget(since=2)
    assert session._last_seen.cells.all()
    assert session._last_seen.speed.isinf().all()
    session.undo()
    assert torch.equal(session._last_seen.speed, before.speed)
    session.correct({1: np.zeros((HEIGHT, WIDTH), bool)})
    assert torch.equal(session._last_seen.cells, session._now.before.cells), "where the object was before"
    session.undo()
    session.correct({1: np.zeros((HEIGHT, WIDTH), bool)}, since=2)
    assert session._last_seen.cells.all(), "the masks before were wrong too"
    assert session._last_seen.penalty((HEIGHT, WIDTH)).eq(0).all()
    session.undo()
    session.correct({1: disc(100, 79)}, since=2)
    assert session._last_seen.speed.isinf().all(), "nothing is known of its motion but one place"
    assert session._last_seen.cells.sum() < 40


def test_an_object_is_found_where_a_remembered_mask_of_the_frame_shows_it(predictor):
    still, jumped = picture((100, 70)), picture((90, 280))
    session = predictor.session()
    session.step(still, disc(100, 70).astype(np.uint8))
    session.remember(jumped, disc(90, 280).astype(np.uint8), 4)
    for _ in range(3):
        session.step(still)
    found = session.step(jumped).mask.astype(bool)
    assert (found & disc(90, 280)).sum() > 0.9 * disc(90, 280).sum()


def test_a_mask_that_is_remembered_of_the_current_frame_says_that_the_predicted_one_was_wrong(predictor):
    session = predictor.session()
    session.step(picture((100, 70)), disc(100, 70).astype(np.uint8))
    for _ in range(2):
        session.step(picture((100, 70)))
    lost = session.step(picture((90, 280))).mask.astype(bool)
    assert (lost & disc(90, 280)).sum() < 0.5 * disc(90, 280).sum(), "or this tests nothing"
    session.remember(picture((90, 280)), disc(90, 280).astype(np.uint8), 3)
    found = session.step(picture((92, 278))).mask.astype(bool)
    assert (found & disc(92, 278)).sum() > 0.9 * disc(92, 278).sum()


def test_a_session_saved_without_places_goes_on_as_it_began(predictor, tmp_path):
    session = predictor.with_settings(locality=False).session()
    frames = a_twin_appears(by=3)
    for time in range(4):
        session.step(frames[time], disc(100, 70).astype(np.uint8) if time == 0 else None)
    session.save(tmp_path / "saved")
    with safe_open(tmp_path / "saved", "pt") as file:
        facts = json.loads(file.metadata()["session"])
        tensors = {name: file.get_tensor(name) for name in file.keys() if not name.startswith("seen.")}  # noqa: SIM118
    assert "locality" not in facts["settings"]
    save_file(tensors, tmp_path / "older", {"session": json.dumps(facts)})
    older = predictor.session(tmp_path / "older")
    assert older.settings.locality is False
    assert torch.equal(older.step(frames[4]).prob, session.step(frames[4]).prob)


def test_the_model_decides_unless_the_settings_say_otherwise(predictor):
    assert predictor.settings.locality is None
    assert predictor.facts()["locality"] is True
    assert "locality" not in predictor.with_settings(locality=False).facts()
    plain = Predictor(STCN(PRESETS["stcn"]), size=None)
    assert "locality" not in plain.facts()
    assert plain.with_settings(locality=True).facts()["locality"] is True
    with pytest.raises(ValueError, match=r"locality is one of \(True, False, None\), not 'yes'"):
        predictor.with_settings(locality="yes")


def test_the_command_can_switch_it_off(tmp_path, capsys):
    (tmp_path / "frames").mkdir()
    from emavos.io import write_image, write_mask

    for time, frame in enumerate(a_twin_appears(by=3)):
        write_image(tmp_path / "frames" / f"{time}.png", frame)
    write_mask(tmp_path / "mask.png", disc(100, 70).astype(np.int32))
    found = {}
    for option in ("--locality", "--no-locality"):
        out = tmp_path / option
        arguments = ["segment", tmp_path / "frames", "--mask", tmp_path / "mask.png", "--out", out]
        assert main([*map(str, arguments), "--size", "0", "--quiet", option]) in (0, None)
        from emavos.io import read_mask

        found[option] = int((read_mask(out / "6.png")[:, WIDTH // 2 :] > 0).sum())
    assert found["--locality"] == 0
    assert found["--no-locality"] > 1000
