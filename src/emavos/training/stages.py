"""The stages of training: for the embedded models, for STCN and the paper, and for your own clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from emavos.training.config import TrainConfig

DAVIS_HELD_OUT = ("breakdance-flare", "drift-turn", "horsejump-low", "mallard-water")  # of DAVIS 2016 train
HELD_OUT = (  # all clips of docs/measure/quality/suite.py, used to choose checkpoints
    *DAVIS_HELD_OUT,
    "davis17_schoolgirls",
    "sbi_IBMtest2_0002",
    "sbi_IBMtest2_0050",
    "segtrack_girl",
    "spbstu_table",
    "ucsd_birds_0000",
    "ucsd_birds_0048",
    "ucsd_surfers_0000",
    "ytvos_003234408d",
)

_TINY_SATURATED: Mapping[str, TrainConfig] = {  # each stage starts from the result of the previous one
    "tiny-1": TrainConfig(
        iterations=1600,
        decay_from=1600,
        all_pixels_until=200,
        hardest_from=1600,
        leave_out=DAVIS_HELD_OUT,
    ),
    "tiny-2": TrainConfig(
        iterations=600,
        decay_from=60,
        warmup=30,
        size=288,
        max_gap=20,
        real=0.65,
        zoom=(0.5, 1.0),
        all_pixels_until=0,
        hardest_from=0,
        leave_out=DAVIS_HELD_OUT,
        seed=1,
    ),
    "tiny-3": TrainConfig(
        iterations=2700,
        decay_from=1500,
        warmup=100,
        lr=3e-4,
        trunk_lr=1e-4,
        size=256,
        frames=4,
        max_gap=20,
        real=0.65,
        occluder=0.5,
        lookalike=0.35,
        blur=0.2,
        zoom=(0.4, 1.0),
        all_pixels_until=0,
        hardest_from=0,
        ema=0.998,
        precision="bfloat16",
        leave_out=DAVIS_HELD_OUT,
        seed=2,
    ),
}

_MIXED = TrainConfig(  # starts from the result of tiny-3, whose keys had not learned
    sources=("static", "clips", "more-static"),
    sampling="mixed",
    iterations=100_000,  # or as many as you have time for: the next stage starts from any checkpoint
    decay_from=100_000,
    lr=3e-4,
    trunk_lr=1e-4,
    size=224,
    frames=4,
    max_gap=20,
    real=0.55,
    occluder=0.4,
    lookalike=0.4,
    blur=0.2,
    zoom=(0.4, 1.0),
    several=(0.6, 0.3, 0.1),
    all_pixels_until=0,
    hardest_from=0,
    least_fraction=0.2,
    matching=0.3,
    ema=0.998,
    leave_out=HELD_OUT,
    seed=3,
)
_FIRST_BLOCKS = tuple(f"value_encoder.trunk.{part}." for part in ("stem", "blocks.0", "blocks.1", "blocks.2"))
_LAST: Mapping[str, Any] = {"decay_from": 0, "warmup": 10, "size": 256, "ema": 0.99}  # the rate falls
_LARGE: Mapping[str, Any] = {**_LAST, "batch": 2, "size": 384, "frames": 3, "lr": 2e-4, "trunk_lr": 7e-5}
_MINUTES_OF_GPU: Mapping[str, Any] = {**_LARGE, "frames": 4, "batch": 24, "lr": 4e-4, "trunk_lr": 1.3e-4}
_MORE_OF_GPU: Mapping[str, Any] = {
    **_MINUTES_OF_GPU,
    "warmup": 30,
    "batch": 28,
    "phases": ((0.62, 6, 16),),
    "real": 0.45,
    "several": (0.45, 0.37, 0.18),
    "precision": "bfloat16",
}
_UNIT = replace(
    _MIXED,
    preset="stcn-tiny-unit",
    several=(0.55, 0.33, 0.12),
    frozen=(
        *(f"key_encoder.trunk.{part}." for part in ("stem", "blocks.0", "blocks.1")),
        *_FIRST_BLOCKS,
    ),
)
_TINY_7 = replace(  # the click head reads the maps of the frozen trunk
    _UNIT,
    preset="stcn-tiny-fine",
    iterations=600,
    **_LAST,
    frozen=("key_encoder.trunk.", "key_encoder.attention.", *_FIRST_BLOCKS),
    seed=41,
)
TINY: Mapping[str, TrainConfig] = {
    **_TINY_SATURATED,
    "tiny-4": _UNIT,
    "tiny-5": replace(_UNIT, iterations=350, **_LAST, seed=4),
    "tiny-6": replace(_UNIT, preset="stcn-tiny-position", iterations=350, **_LAST, seed=5),
    "tiny-7": _TINY_7,
    "tiny-8": replace(_TINY_7, top_k=6, seed=51),
    "tiny-9": replace(_TINY_7, preset="stcn-tiny-scene", iterations=380, **_LARGE, top_k=6, seed=53),
    "tiny-10": replace(
        _TINY_7, preset="stcn-tiny-scene", iterations=2481, **_MINUTES_OF_GPU, top_k=6, seed=71
    ),
    "tiny-11": replace(  # the key trunk learns again
        _UNIT,
        preset="stcn-tiny-scene",
        iterations=2770,
        **{**_MORE_OF_GPU, "decay_from": 831},
        top_k=6,
        seed=81,
    ),
}

_BASE = replace(
    _MIXED,
    preset="stcn-base",
    several=(0.55, 0.33, 0.12),
    warmup=30,
    frozen=("key_encoder.vit.", "key_encoder.trunk.", *_FIRST_BLOCKS),
    seed=11,
)
BASE: Mapping[str, TrainConfig] = {
    "base-1": _BASE,
    "base-2": replace(_BASE, preset="stcn-base-position", warmup=15, ema=0.99, seed=12),
    "base-3": replace(_BASE, preset="stcn-base-position", iterations=210, **_LAST, seed=13),
    "base-4": replace(_BASE, preset="stcn-base-parts", iterations=380, **_LAST, seed=43),
    "base-5": replace(_BASE, preset="stcn-base-parts", iterations=300, **_LARGE, seed=61),
    "base-6": replace(_BASE, preset="stcn-base-parts", iterations=827, **_MINUTES_OF_GPU, seed=72),
    "base-7": replace(
        _BASE,
        preset="stcn-base-wide",
        iterations=2377,
        **{**_MORE_OF_GPU, "decay_from": 713, "lr": 3e-4, "trunk_lr": 1e-4, "vit_lr": 2e-5},
        frozen=(
            *(f"key_encoder.trunk.{part}." for part in ("stem", "blocks.0", "blocks.1")),
            *_FIRST_BLOCKS,
            *(f"key_encoder.vit.{part}" for part in ("patch.", "class_", "positions")),
            *(f"key_encoder.vit.blocks.{number}." for number in range(6)),
        ),
        top_k=20,
        seed=82,
    ),
}

# Cheng et al., NeurIPS 2021, whose recipe Kim and Hong keep. Each stage continues the last: 0, 1, 2 or 0, 3.
# STCN's scripts set the batch per process, for two processes; here, batch counts both processes.
_STILLS = TrainConfig(
    preset="stcn-external-both",
    sources=("static",),
    sampling="videos",
    objects=1,
    real=0.0,
    iterations=300_000,
    decay_from=150_000,
    batch=16,
    size=384,
    zoom=(0.6, 1.0),
    optimiser="adam",
    lr=1e-5,
    trunk_lr=1e-5,
    weight_decay=1e-7,
    clip_grad=0.0,
    warmup=0,
    decay="step",
    all_pixels_until=20_000,
    hardest_from=70_000,
    dice=0.0,
)
GROWING = ((0.0, 5), (0.1, 10), (0.2, 15), (0.3, 20), (0.4, 25))  # frames, by fraction of the run
_MAIN = replace(
    _STILLS,
    sources=("DAVIS", "YouTubeVOS"),
    objects=2,
    real=1.0,
    iterations=300_000,
    decay_from=250_000,
    batch=8,
    gaps=(*GROWING, (0.9, 5)),
    seed=2,
)

PAPER: Mapping[str, TrainConfig] = {
    "0": _STILLS,
    "1": replace(
        _MAIN,
        sources=("BL30K",),
        iterations=500_000,
        decay_from=400_000,
        gaps=(*GROWING, (0.8, 5)),
        zoom=(0.5, 1.0),
        seed=1,
    ),
    "2": _MAIN,
    "3": replace(_MAIN, iterations=150_000, decay_from=125_000, seed=3),
    "paper-pretrained": _MAIN,  # Kim and Hong's protocols: after STCN's stages 0 and 1,
    "paper-alone": _MAIN,  # and from ImageNet trunks, on these data only
}

OWN: Mapping[str, TrainConfig] = {
    "finetune": TrainConfig(  # from a trained model, on a few annotated clips
        preset="stcn-tiny-scene",  # that of the default model
        sources=("own",),
        sampling="videos",
        real=0.5,
        iterations=40,
        decay_from=20,
        batch=2,
        size=224,
        max_gap=10,
        zoom=(0.6, 1.0),
        lr=1e-4,
        trunk_lr=3e-5,
        warmup=5,
        all_pixels_until=0,
        hardest_from=30,
        ema=0.9,
    ),
    "mini": TrainConfig(  # of the comparison of attentions: docs/measure/quality/variants.py
        iterations=600,
        decay_from=300,
        size=192,
        warmup=50,
        all_pixels_until=100,
        hardest_from=500,
        leave_out=DAVIS_HELD_OUT,
    ),
}

STAGES: Mapping[str, TrainConfig] = {**TINY, **BASE, **PAPER, **OWN}
