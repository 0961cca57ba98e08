"""The model card: what users must know about weights before they use them, in the Hub's format."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from emavos.models import PRESETS, STCN

_UNKNOWN = "Not stated."
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)


@dataclass(frozen=True)
class ModelCard:
    """Facts about a model beyond its config. All are optional; the card marks missing facts as not stated.

    name: heading of the card, one line.
    license: an identifier of the Hub, such as "mit", "apache-2.0", "cc-by-nc-4.0" or "other".
    data: training data and its terms, in Markdown.
    training: recipe, time, seeds, in Markdown.
    limits: known failures, in Markdown.
    scores: {measure: value}, such as {"DAVIS 2017 val, J&F": 85.6}. Measures named "DATASET, METRIC" are
        also results of `model-index` in the header, from which the Hub makes its table.
    repository: "user/name", for the loading example; `push_to_hub` fills it in.
    datasets: the training data sets, as the Hub names them: "name" or "user/name".
    base_model: the model or models from which training started, as the Hub names them.
    """

    name: str = "emavos model"
    license: str | None = None
    data: str = _UNKNOWN
    training: str = _UNKNOWN
    limits: str = _UNKNOWN
    scores: Mapping[str, float] = field(default_factory=dict)
    repository: str | None = None
    datasets: Sequence[str] = ()
    base_model: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", self.license):
            raise ValueError(
                f"license is an identifier of the Hub such as mit or other, not {self.license!r}"
            )
        if "\n" in self.name:
            raise ValueError("the name of a model card is one line")
        for what, names in (("datasets", self.datasets), ("base_model", self._bases())):
            if isinstance(names, str):
                raise ValueError(f"{what} is a list of names, not the text {names!r:.60}")
            for name in names:
                if not isinstance(name, str) or not _HUB_NAME.fullmatch(name):
                    raise ValueError(f"{what} are names of the Hub, name or user/name, not {name!r:.60}")

    def text(self, model: STCN) -> str:
        """The card of this model as Markdown, with the header that the Hub expects."""
        scores = [f"| {measure} | {value:g} |" for measure, value in self.scores.items()]
        return "\n".join(
            [
                "---",
                *self._header(),
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

    def _bases(self) -> Sequence[str]:
        """The base models as a list."""
        if self.base_model is None:
            return ()
        return (self.base_model,) if isinstance(self.base_model, str) else self.base_model

    def _header(self) -> Iterator[str]:
        """The lines of YAML that the Hub reads."""
        if self.license is not None:
            yield f"license: {self.license}"
        yield from ("library_name: emavos", "pipeline_tag: image-segmentation", "tags:")
        yield from ("- video-object-segmentation", "- semi-supervised", "- stcn", "- external-attention")
        for what, names in (("datasets", self.datasets), ("base_model", self._bases())):
            if names:
                yield f"{what}:"
                yield from (f"- {_quoted(name)}" for name in names)  # YAML would read 2017 or no as no text
        yield from self._model_index()

    def _model_index(self) -> Iterator[str]:
        """The scores as the Hub's `model-index`, one result per data set."""
        results: dict[str, list[tuple[str, float]]] = {}
        for measure, value in self.scores.items():
            data, comma, metric = measure.rpartition(", ")
            if comma and math.isfinite(value):
                results.setdefault(data, []).append((metric, value))
        if results:
            yield from ("model-index:", f"- name: {_quoted(self.name)}", "  results:")
        for data, metrics in results.items():
            yield from (
                "  - task:",
                "      type: image-segmentation",
                "      name: Video object segmentation",
            )
            yield from ("    dataset:", f"      name: {_quoted(data)}", f"      type: {_slug(data)}")
            yield "    metrics:"
            for metric, value in metrics:
                yield from (f"    - name: {_quoted(metric)}", f"      type: {_slug(metric)}")
                yield f"      value: {float(value)!r}"


def _quoted(text: str) -> str:
    """A text as YAML: JSON is part of YAML."""
    return json.dumps(text, ensure_ascii=False)


def _slug(text: str) -> str:
    """A name of small letters, digits and hyphens, quoted."""
    return _quoted(re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "other")


def _architecture(model: STCN) -> list[str]:
    config = model.config
    preset = next((name for name, other in PRESETS.items() if other == config), None)
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
