"""The model card: what users must know about weights before they use them, in the Hub's format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from emavos.models import PRESETS, STCN

_UNKNOWN = "Not stated."


@dataclass(frozen=True)
class ModelCard:
    """Facts about a model beyond its config. All are optional; the card marks missing facts as not stated.

    name: heading of the card, one line.
    license: an identifier of the Hub, such as "mit", "apache-2.0", "cc-by-nc-4.0" or "other".
    data: training data and its terms, in Markdown.
    training: recipe, time, seeds, in Markdown.
    limits: known failures, in Markdown.
    scores: {measure: value}, such as {"DAVIS 2017 val, J&F": 85.6}.
    repository: "user/name", for the loading example; `push_to_hub` fills it in.
    """

    name: str = "emavos model"
    license: str | None = None
    data: str = _UNKNOWN
    training: str = _UNKNOWN
    limits: str = _UNKNOWN
    scores: Mapping[str, float] = field(default_factory=dict)
    repository: str | None = None

    def __post_init__(self) -> None:
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", self.license):
            raise ValueError(
                f"license is an identifier of the Hub such as mit or other, not {self.license!r}"
            )
        if "\n" in self.name:
            raise ValueError("the name of a model card is one line")

    def text(self, model: STCN) -> str:
        """The card of this model as Markdown, with the header that the Hub expects."""
        header = ["library_name: emavos", "pipeline_tag: image-segmentation", "tags:"]
        header += ["- video-object-segmentation", "- semi-supervised", "- stcn", "- external-attention"]
        if self.license is not None:
            header.insert(0, f"license: {self.license}")
        scores = [f"| {measure} | {value:g} |" for measure, value in self.scores.items()]
        return "\n".join(
            [
                "---",
                *header,
                "---",
                "",
                f"# {self.name}",
                "",
                "Semi-supervised video object segmentation: the masks of all frames from the mask of one.",
                "",
                *_architecture(model),
                "",
                "## How to load",
                "",
                "```python",
                "from emavos import Predictor",
                "",
                f"predictor = Predictor.from_pretrained({(self.repository or 'folder/')!r})".replace(
                    "'", '"'
                ),
                "for result in predictor.propagate(frames, first_mask):",
                "    result.mask  # (H, W) of ids",
                "```",
                "",
                "## Training data and its terms",
                "",
                self.data,
                "",
                "## Training",
                "",
                self.training,
                "",
                "## Scores",
                "",
                *(["| measure | value |", "| --- | --- |", *scores] if scores else [_UNKNOWN]),
                "",
                "## Limits",
                "",
                self.limits,
                "",
            ]
        )


def _architecture(model: STCN) -> list[str]:
    config = model.config
    preset = next((name for name, known in PRESETS.items() if known == config), None)
    trunks = {
        "resnet": "ResNet-50 for keys, ResNet-18 for values",
        "efficientnet-lite0": "EfficientNet-Lite0",
    }
    trunk = trunks[config.trunk]
    if config.vit != "none":
        trunk += f", with the first {config.vit_depth} blocks of DINOv2 ViT-S/14 beside that for keys"
    rows = {
        "Architecture": "STCN" if preset is None else f"STCN, preset `{preset}`",
        "Trunks": trunk,
        "Attention on the key encoder": config.key_attention,
        "Attention on the value encoder": config.value_attention,
        "Parameters": f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} million",
    }
    return ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]
