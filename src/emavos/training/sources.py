"""Open the data sets named in a config, and draw samples from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from torch.utils.data import Dataset

from emavos.data import (
    BL30K,
    Clips,
    ClipSamples,
    Davis,
    Joined,
    MixedSamples,
    Remembered,
    Sample,
    StaticImages,
    Videos,
    VideoSamples,
    YouTubeVOS,
)
from emavos.training.config import TrainConfig

# By name: the folder in the data, and the reader of clips (None for still images).
SOURCES: Mapping[str, tuple[str, Callable[..., Clips] | None]] = {
    "static": ("static", None),
    "clips": ("clips", Clips),
    "more-static": ("more/static", None),
    "more-clips": ("more/clips", Clips),
    "BL30K": ("BL30K", BL30K),
    "DAVIS": ("DAVIS", Davis),
    "YouTubeVOS": ("YouTubeVOS", YouTubeVOS),
    "own": ("", Clips),
}
_REPEATS = {"DAVIS": 5}  # balances 60 sequences against the 3471 of YouTube-VOS, as in STCN


def open_samples(data: Path, config: TrainConfig) -> Dataset[Sample]:
    """The samples of a run. Sample i depends only on the config and i.

    data: folder with the data sets.
    config: config with sources, sampling and seed.

    Raises ValueError if the data or a source does not exist, or does not suit the config's sampling.
    """
    count = config.iterations * config.batch
    if config.sampling == "videos":
        sets = [_open(data, name, config) for name in config.sources]
        return VideoSamples(
            Joined(sets, [_REPEATS.get(name, 1) for name in config.sources]),
            count=count,
            size=config.size,
            frames=config.frames,
            objects=config.objects,
            gaps=config.gaps or ((0.0, config.max_gap),),
            still=1 - config.real,
            zoom=config.zoom,
            seed=config.seed,
        )
    if config.sampling == "mixed":
        samples = open_mixed(open_sets(data, config), config)
        return replace(samples, stills=Remembered(samples.stills), clips=Remembered(samples.clips))
    if config.sources != ("static", "clips"):
        raise ValueError(f"composed samples are made of static and clips, not {', '.join(config.sources)}")
    return ClipSamples(
        StaticImages(data / "static"),
        Clips(data / "clips", config.leave_out),
        count=count,
        batch=config.batch,
        size=config.size,
        frames=config.frames,
        max_gap=config.max_gap,
        real=config.real,
        two_objects=config.two_objects,
        occluder=config.occluder,
        lookalike=config.lookalike,
        blur=config.blur,
        zoom=config.zoom,
        seed=config.seed,
    )


def open_mixed(sets: Mapping[str, Videos], config: TrainConfig) -> MixedSamples:
    """The mixed samples of a run.

    sets: each of `config.sources`, by name.
    config: config of the run.

    Raises ValueError if there are no still images or no clips among the sets.
    """
    repeats = config.repeats or (1,) * len(config.sources)
    names = [name for name, times in zip(config.sources, repeats, strict=True) for _ in range(times)]
    stills = [sets[name] for name in names if _place(name)[1] is None]
    clips = [sets[name] for name in names if _place(name)[1] is not None]
    if not stills or not clips:
        raise ValueError(
            f"mixed samples are made of stills and clips, not of {', '.join(config.sources)} only"
        )
    return MixedSamples(
        Joined(stills),
        Joined(clips),
        count=config.iterations * config.largest_batch,
        batch=config.largest_batch,
        size=config.size,
        frames=config.frames,
        max_gap=config.max_gap,
        real=config.real,
        objects=config.several,
        occluder=config.occluder,
        lookalike=config.lookalike,
        under=config.under,
        blur=config.blur,
        zoom=config.zoom,
        seed=config.seed,
    )


def open_sets(data: Path, config: TrainConfig) -> dict[str, Clips | StaticImages]:
    """The data sets of `config.sources` by name, without the sequences of `config.leave_out`."""
    return {name: _open(data, name, config) for name in config.sources}


def open_held_out(data: Path, config: TrainConfig) -> list[Clips]:
    """The sequences of `config.leave_out`, one set for each source that contains some."""
    held_out = []
    for name in config.sources:
        folder, opened = _place(name)
        if opened is None:
            continue
        everything = opened(data / folder)
        if names := [sequence for sequence in everything.names if sequence in config.leave_out]:
            everything.names = names
            held_out.append(everything)
    return held_out


def _open(data: Path, name: str, config: TrainConfig) -> Clips | StaticImages:
    folder, opened = _place(name)
    return StaticImages(data / folder) if opened is None else opened(data / folder, config.leave_out)


def _place(name: str) -> tuple[str, Callable[..., Clips] | None]:
    if name not in SOURCES:
        raise ValueError(f"there is no source {name}; they are {', '.join(SOURCES)}")
    return SOURCES[name]
