"""A model and its settings, ready for any number of videos."""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from emavos.clicks import Clicked, ClickHead, SeenFrame
from emavos.clicks.seen import Looker, Prompter
from emavos.frames.mask_files import names_its_frames, read_masks
from emavos.frames.preprocess import WorkingFrame, check_given, to_working
from emavos.io import FrameSource, ahead, open_frames, read_ahead, read_mask
from emavos.io.addresses import absent
from emavos.io.ahead import has_spare_core
from emavos.machine import adapt_freed_memory, one_thread_after_fork
from emavos.memory import MemoryPolicy, choose_backend
from emavos.models import PRESETS, STCN, compiled, folded, weights_sha256
from emavos.session import Result, Session
from emavos.session.both_ways import Direction, check_direction, propagate_backward, propagate_both
from emavos.session.frame import EncodedFrame, computing, features_of
from emavos.settings import Settings, Shortcuts, check_network
from emavos.weights.card import ModelCard
from emavos.weights.click_head import LazyHead
from emavos.weights.load import (
    choose_device,
    choose_dtype,
    float_of,
    load_model,
    push_model,
    refuse_other_names,
    save_model,
)


class Predictor:
    """Predicts the masks of objects in every frame of a video from their masks in one frame.

    A predictor keeps no state of a video: use one predictor for many videos, in turn or in threads.

    model: in evaluation mode, on the device that should process frames.
    policy: which frames the memory stores and evicts; None: the defaults.
    size: short side of the working frame, in pixels; None keeps the size of the frames. Results always have
        the size of the frames.
    shortcuts: work to skip; None skips nothing.
    dtype: of the network, such as torch.bfloat16 or "bfloat16"; defaults to the dtype of the model.
    compile: whether to compile the key encoder. The first frame of each size waits for the compiler; see
        `emavos.models.compiled`.
    resize_ahead: whether frames from files are resized in the thread that reads them, ahead of the step.
        None: on a CPU, if the process has a core to spare for each thread of torch. Pass False when other
        processes use those.
    clicks: the head that predicts masks from clicks; None: no head.
    prompter: another tool instead of `clicks`: a function of a frame (H, W, 3) uint8 and an
        `emavos.clicks.Prompt` that returns a mask (H, W) of bool or of probabilities.

    Inference runs on `self.network`, a copy of `model` with batch norms folded (and compiled, if asked): see
    `emavos.models.folded`. Later changes to the weights of `model` do not reach the copy.

    >>> predictor = Predictor.from_pretrained()
    >>> for result in predictor.propagate("video/", "first.png"):
    ...     print(result.index, result.ids, result.mask.shape)
    """

    def __init__(
        self,
        model: STCN,
        policy: MemoryPolicy | None = None,
        size: int | None = 480,
        shortcuts: Shortcuts | None = None,
        dtype: torch.dtype | str | None = None,
        compile: bool = False,
        *,
        resize_ahead: bool | None = None,
        clicks: ClickHead | None = None,
        prompter: Prompter | None = None,
    ) -> None:
        one_thread_after_fork()
        adapt_freed_memory()
        check_network(model)
        dtype = None if dtype is None else float_of(dtype)
        self.model = model
        self.network = compiled(folded(model, dtype)) if compile else folded(model, dtype)
        self.settings = Settings.of(self.network, policy, size, shortcuts, resize_ahead)
        self._decided: dict[torch.device, Settings] = {}
        self._decide()  # raises before the first frame if the backend cannot run
        self._looker = Looker(self.network, clicks, prompter)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] | None = None,
        *,
        device: str | torch.device = "auto",
        dtype: torch.dtype | str = torch.float32,
        policy: MemoryPolicy | None = None,
        size: int | None = 480,
        shortcuts: Shortcuts | None = None,
        compile: bool = False,
        resize_ahead: bool | None = None,
        prompter: Prompter | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        subfolder: str | None = None,
        force_download: bool = False,
        **others: Any,
    ) -> Predictor:
        """A predictor with trained weights.

        name_or_path: "tiny" (also None) or "base", the models in this package; a folder with `config.json`
            and `model.safetensors`; or a repository of the Hugging Face Hub, "user/name". If your folder is
            called tiny, pass "./tiny". Clicks with "base" use the head and the encoder of "tiny", which a
            warning says once.
        device: "auto" uses an accelerator if torch has one, otherwise the CPU.
        dtype: of the network, torch.bfloat16 or "bfloat16"; affinity and probabilities are always float32.
            "auto" picks the fastest dtype for this model and device that costs less than 0.1 points of J&F;
            `predictor.dtype` says which: see `emavos.weights.choose_dtype`. Not float16 on a CPU.
        prompter: another tool than the model's click head: see the class.
        revision, cache_dir, token, local_files_only, force_download: of the Hub.
        subfolder: of the model, in the folder or repository.

        Raises as `emavos.weights.load_model` does.
        """
        refuse_other_names(others)
        hub: dict[str, Any] = {
            "revision": revision,
            "cache_dir": cache_dir,
            "token": token,
            "local_files_only": local_files_only,
            "subfolder": subfolder,
            "force_download": force_download,
        }
        place = choose_device(device)
        asked = None if dtype == "auto" else float_of(dtype)
        _check_half(place, asked)
        wide = torch.float64 if asked == torch.float64 else torch.float32  # rounded after folding
        model = load_model(name_or_path, device=place, dtype=wide, **hub)
        chosen = choose_dtype(place, model.config) if asked is None else asked
        predictor = cls(model, policy, size, shortcuts, chosen, compile, resize_ahead=resize_ahead)
        head = LazyHead(predictor.network, name_or_path, **hub)
        predictor._looker = Looker(predictor.network, head, prompter)
        model.to(chosen)
        return predictor

    def propagate(
        self,
        frames: str | os.PathLike[str] | int | Iterable[Any],
        mask: Any = None,
        *,
        masks: Mapping[int, Any] | None = None,
        direction: Direction = "forward",
        session: Session | None = None,
    ) -> Iterator[Result]:
        """Yield the masks of each frame in turn.

        Between frames, only the memory bank is kept, plus a few frames prefetched from files.

        frames: a folder of images; a video file (extra `video`); a camera, "camera:0"; or any iterable of PIL
            images, arrays (H, W, 3) of uint8 or tensors (3, H, W).
        mask: of the first frame, (H, W) of ids, 0 for the background: a path, a PIL image, an array or a
            tensor. Pass a dict {frame index: mask} to annotate several frames: new objects are introduced
            there, and tracked objects are corrected. A folder of masks named like their frames, or a file of
            an annotation tool (docs/masks.md), can annotate several frames too. Files are checked before the
            first frame, and images are read again at their frame. Masks inside the folder of frames are not
            used as frames.
        masks: the dict, as a named argument instead of `mask`.
        direction: "forward" propagates each mask to later frames, "backward" to earlier frames, "both" to
            both. If "both" finds an object annotated on both sides of a frame, the two predictions are fused
            by distance and confidence. Results are always in the order of the frames. "backward" and "both"
            need frames that can be read again (a folder, a video file or a list), and spool the backward pass
            to disk: see docs/editing.md.
        session: a session to continue, such as a saved one, or one with a reference: pass the whole video,
            whose frames before the session's index are skipped. No mask is needed. Only for "forward".
            None: a new session.

        Raises ValueError as `Session.step` does, if the direction needs frames that cannot be read again, if
        a mask is for a frame that does not exist ("forward" raises this at the end of a stream, because the
        frame might still come), and if something else steps the session between two frames.
        """
        if direction != "forward":
            check_direction(direction)
        _check_session(session, self.model, direction)
        if masks is not None and (mask is not None or not isinstance(masks, Mapping)):
            raise ValueError("give either mask, or masks as a dict {frame index: mask}")
        mask = mask if masks is None else masks
        if isinstance(mask, (str, os.PathLike)) and names_its_frames(mask):
            frames = open_frames(frames)
            mask = read_masks(mask, frames)
        by_frame = _by_frame(mask, optional=session is not None)
        source = open_frames(frames, but=[m for m in by_frame.values() if isinstance(m, (str, os.PathLike))])
        _check_sizes(by_frame, source)
        if direction == "forward":
            results = self._forward(source, by_frame, session)
        else:
            arrays = {index: _read(m) for index, m in by_frame.items()}

            def begin(order: Sequence[int]) -> Session:
                return self.session(order=order)

            if direction == "backward":
                results = propagate_backward(begin, source, arrays)
            else:
                results = propagate_both(begin, source, arrays, stop=self.settings.cuts == "stop")
        return _repeated_at_damage(results, source, {*by_frame}) if source.holds else results

    def _forward(
        self, frames: FrameSource, masks: dict[int, Any], session: Session | None
    ) -> Iterator[Result]:
        """Step through the frames. masks: by frame, taken out as their frames are reached."""
        session = self.session() if session is None else session
        first = session.index
        if frames.exact and frames.count is not None and frames.count < first:
            raise ValueError(
                f"the session is at frame {first}, and the video has {frames.count} frames; pass the whole "
                "video, whose frames before the session's are skipped"
            )
        for index, frame in enumerate(self._read_ahead(session, frames), first):
            if session.index != index:
                raise ValueError(
                    f"frame {index} comes next here, but the session is at frame {session.index}, because it "
                    "was stepped elsewhere meanwhile; step a session from one place at a time"
                )
            yield session.step(frame, _read(masks.pop(index, None)))
        if unused := [index for index in masks if index >= first]:
            raise ValueError(
                f"a mask is given for frame {min(unused)} but the video has {session.index} frames"
            )

    def _read_ahead(self, session: Session, frames: FrameSource) -> Iterator[Any]:
        """The frames from the next step on, prefetched from files, and resized there if a core is free."""
        resize_ahead = self.settings.resize_ahead
        if resize_ahead is None:  # a GPU resizes by itself
            resize_ahead = self.device.type == "cpu" and has_spare_core(torch.get_num_threads())
        if resize_ahead and frames.stored:
            return ahead(_preprocessed(session, frames, session.index))
        return islice(read_ahead(frames), session.index, None)

    def session(
        self,
        saved: str | os.PathLike[str] | None = None,
        *,
        start: int = 0,
        order: Sequence[int] | None = None,
    ) -> Session:
        """A session for a new video, to step through frame by frame; or a saved session, to continue.

        saved: file written by `Session.save`. A saved session brings its own policy, size, shortcuts and
            index.
        start: index of the first frame of a new video.
        order: video frame of each step of a new video, if the steps are not in the order of the video. Errors
            use these numbers.

        Raises ValueError as `Session.load` does.
        """
        if saved is not None:
            return Session.load(saved, self.model, self.network, self._looker.look)
        return Session(
            self.model,
            network=self.network,
            settings=self._decide(),
            start=start,
            order=order,
            look=self._looker.look,
        )

    def encode(self, frame: Any) -> EncodedFrame:
        """A frame with its features, for `look` and for the `step` of a session of this predictor.

        The frame is then encoded once, however often you look at it. You may call this in a second thread,
        ahead of `step`. The masks are the same.

        frame: as for `Session.step`.

        Raises ValueError as `Session.step` does.
        """
        with computing(self.network) as device:
            working = frame if isinstance(frame, WorkingFrame) else to_working(frame, self.size, device)
            return EncodedFrame.of(self.network, working)

    @property
    def shares_features(self) -> bool:
        """Whether clicks read the features that tracking reads, so that `look` gains from `encode`.

        Raises ValueError if the model has no click head.
        """
        return self._looker.shares_features

    def look(self, frame: Any) -> SeenFrame:
        """A frame to click on. The network encodes the frame once, so each click is fast.

        frame: as for `Session.step`, or the result of `encode`. A `prompter` gets an encoded frame at working
            size.

        Raises ValueError as `Session.step` does, and if the model has no click head.
        """
        if isinstance(frame, EncodedFrame):
            return self._looker.look(frame, features_of(self.network, frame))
        return self._looker.look(to_working(frame, self.size, self.device), frame=frame)

    def click(
        self,
        frame: Any,
        points: Any = None,
        labels: Any = None,
        *,
        box: Any = None,
        scribbles: Any = None,
        scribble_labels: Any = None,
        mask: Any = None,
    ) -> Clicked:
        """The mask of one object of a frame, from clicks, scribbles, a box or an earlier mask.

        For several clicks on one frame, call `look` once. Arguments and errors: see
        `emavos.clicks.SeenFrame.click`.

        >>> result = predictor.click(frame, points=[(420, 210), (80, 40)], labels=[1, 0])
        >>> result.mask.shape, result.score
        """
        return self.look(frame).click(
            points, labels, box=box, scribbles=scribbles, scribble_labels=scribble_labels, mask=mask
        )

    @property
    def device(self) -> torch.device:
        """The device that processes frames."""
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the network."""
        return self.settings.dtype

    @property
    def policy(self) -> MemoryPolicy:
        """Which frames the memory stores and evicts, and the backend of the readout, as asked for."""
        return self.settings.policy

    @property
    def size(self) -> int | None:
        """Short side of the working frame, in pixels; None keeps the size of the frames."""
        return self.settings.size

    @property
    def shortcuts(self) -> Shortcuts:
        """Work to skip."""
        return self.settings.shortcuts

    @property
    def prompter(self) -> Prompter | None:
        """The tool that predicts masks from clicks instead of a click head."""
        return self._looker.prompter

    def facts(self) -> dict[str, Any]:
        """Digest of the weights, and the settings of a session that begins now, as JSON values.

        A backend "auto" is replaced by the choice for this device (see `emavos.memory.choose_backend`), which
        a predictor makes once. On one machine, equal facts mean equal masks.
        """
        return {"weights": weights_sha256(self.model), **self._decide().facts()}

    def with_settings(self, **changes: Any) -> Predictor:
        """A predictor with the same network and other settings: `predictor.with_settings(size=None)`.

        changes: fields of `Settings`.

        Raises ValueError for dtype and compile, which need another network, and for invalid values,
        TypeError if a field does not exist, and RuntimeError if the policy's backend cannot run here.
        """
        if fixed := {"dtype", "compile"} & changes.keys():
            raise ValueError(f"{min(fixed)} needs another network; make a new Predictor")
        other = copy.copy(self)
        other.settings = replace(self.settings, **changes)
        if other.policy.backend != self.policy.backend:
            other.settings = replace(other.settings, auto_backend=False)
        other._decided = {}
        other._decide()
        return other

    def continuing(self, facts: Mapping[str, Any] | None) -> Predictor:
        """A predictor to continue a run, or to begin one. Its "auto" is the backend that the run began with.

        facts: of the begun run, from `facts`; None if it begins now. See
            `emavos.settings.Settings.continuing`.

        Raises ValueError if the run was begun with "native", and "native" cannot run on this CPU.
        """
        other = copy.copy(self)
        begun = self.settings.continuing(facts or {}, self.network)
        other.settings = self._decide() if begun is self.settings else begun
        other._decided = {}
        return other

    def _decide(self) -> Settings:
        """The settings of sessions, with a backend that is decided once for each device of the network."""
        device = self.device
        if device not in self._decided:
            self._decided[device] = self.settings.decided(self.network)
        return self._decided[device]

    def to(self, device: str | torch.device) -> Predictor:
        """Move the model to a device; returns the predictor, like `to` of a torch module.

        device: "auto", or a device of torch.

        Running sessions use the same network, so begin new sessions afterwards.

        Raises ValueError if torch cannot use the device, or for a dtype, because a dtype needs another
        network, and RuntimeError if the policy's backend cannot run on the device. Then nothing is moved.
        """
        if isinstance(device, torch.dtype):
            raise ValueError(
                f"another dtype needs another network: from_pretrained(..., dtype={str(device)[6:]!r})"
            )
        place = choose_device(device)
        _check_half(place, self.dtype)
        settings = self.settings.asked()
        policy = settings.policy
        choose_backend(policy.backend, place, self.dtype, policy.top_k or self.network.config.top_k)
        self.model.to(place)
        self.network.to(place)
        self.settings, self._decided = settings, {}
        return self

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        dtype: torch.dtype | str | None = None,
        card: ModelCard | None = None,
    ) -> None:
        """Write the model to a folder: see `emavos.weights.save_model`."""
        save_model(self.model, folder, dtype, card)

    def push_to_hub(
        self,
        repository: str,
        *,
        card: ModelCard | None = None,
        dtype: torch.dtype | str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
    ) -> str:
        """Upload the model and a generated card to the Hub: see `emavos.weights.push_model`."""
        return push_model(
            self.model, repository, card=card, dtype=dtype, revision=revision, private=private, token=token
        )

    def __repr__(self) -> str:
        config = self.model.config
        name = next((name for name, preset in PRESETS.items() if preset == config), config.trunk)
        size = "source" if self.size is None else self.size
        dtype = str(self.dtype).removeprefix("torch.")
        millions = sum(p.numel() for p in self.model.parameters()) / 1e6
        return (
            f"Predictor({name}, {millions:.1f} million parameters, "
            f"device={self.device}, dtype={dtype}, size={size}, policy={self.policy})"
        )


def _repeated_at_damage(
    results: Iterator[Result], source: FrameSource, annotated: Collection[int]
) -> Iterator[Result]:
    """The results, each repeated for the damaged frames that its frame stands in for.

    annotated: indices of the frames with masks of the user, whose results are never replaced.
    """
    last: Result | None = None
    for result in results:
        if last is not None and source.stands_in(result.index) and result.index not in annotated:
            result = replace(last, index=result.index)
        last = replace(result, prob=result.prob.clone())  # the user may change the tensor
        yield result


def _check_half(place: torch.device, dtype: torch.dtype | None) -> None:
    """Raise ValueError if the device cannot compute in this dtype."""
    if place.type == "cpu" and dtype == torch.float16:
        raise ValueError("a CPU cannot compute in float16; use float32, or bfloat16 if the CPU has it")


def _preprocessed(session: Session, frames: FrameSource, first: int) -> Iterator[WorkingFrame]:
    """The frames from index `first` on, preprocessed for the steps of the session."""
    for index, frame in islice(enumerate(frames), first, None):
        yield session.preprocess(frame, index)


def _check_session(session: Session | None, model: STCN, direction: Direction) -> None:
    """Raise ValueError unless a session can be continued in this direction with this model."""
    if session is not None and direction != "forward":
        raise ValueError(f"a session tracks forward, not {direction!r}; leave out session or direction")
    if session is not None and session.model is not model:
        raise ValueError("the session is of another predictor; make it with the session() of this one")


def _by_frame(mask: Any, optional: bool) -> dict[int, Any]:
    """{frame index: mask}, from a dict of them or the mask of the first frame.

    optional: whether there may be no mask.

    Raises ValueError if a frame is not an index, and as `_existing` does.
    """
    masks = mask if isinstance(mask, Mapping) else {} if mask is None and optional else {0: mask}
    no_index = [index for index in masks if not isinstance(index, (int, np.integer)) or index < 0]
    if no_index or not (masks or optional):
        problem = f"a mask is given for frame {no_index[0]!r}" if no_index else "no mask is given"
        raise ValueError(f"{problem}; give one or more, by the index of their frame, counted from 0")
    return {int(index): _existing(each) for index, each in masks.items()}


def _check_sizes(masks: Mapping[int, Any], source: FrameSource) -> None:
    """Raise ValueError if a mask does not fit the frames, before the first step rather than at its frame."""
    if not any(masks) and not isinstance(masks.get(0), (str, os.PathLike)):
        return  # the first step compares the sizes
    size = source.size()
    for index, mask in masks.items():
        name = f"{os.fspath(mask)}, " if isinstance(mask, (str, os.PathLike)) else ""
        shape = check_given(_read(mask), size, f"{name}the mask of frame {index}")
        size = size or shape


def _read(mask: Any) -> Any:
    """The ids of a mask that is a file; any other mask unchanged."""
    return read_mask(mask) if isinstance(mask, (str, os.PathLike)) else mask


def _existing(mask: Any) -> Any:
    """The mask. Raises ValueError if it is None, and FileNotFoundError if its file does not exist."""
    if mask is None:
        raise ValueError("mask is None; give the mask of the first frame, or a dict {frame index: mask}")
    if isinstance(mask, (str, os.PathLike)) and not os.path.exists(mask):
        raise absent(mask)
    return mask
