from __future__ import annotations

import pytest
import torch

from emavos import ModelCard, Predictor
from emavos.models import PRESETS, STCN, STCNConfig


@pytest.fixture(scope="module")
def model():
    return STCN(PRESETS["stcn-tiny"])


def test_a_card_says_what_the_model_is_and_what_was_said_of_it(model):
    card = ModelCard(
        name="Fish",
        license="cc-by-nc-4.0",
        data="400 clips, our own.",
        training="600 iterations.",
        limits="Shoals.",
        scores={"held-out clips, J&F": 0.8345, "DAVIS 2016 val, J": 0.81},
        repository="user/fish",
    )
    text = card.text(model)
    header, _, body = text.removeprefix("---\n").partition("\n---\n")
    assert header.splitlines()[:3] == [
        "license: cc-by-nc-4.0",
        "library_name: emavos",
        "pipeline_tag: image-segmentation",
    ]
    assert "# Fish" in body
    assert "| Architecture | STCN, preset `stcn-tiny` |" in body
    assert "| Attention on the key encoder | external |" in body
    assert "| Attention on the value encoder | external |" in body
    assert f"| Parameters | {sum(p.numel() for p in model.parameters()) / 1e6:.1f} million |" in body
    assert 'Predictor.from_pretrained("user/fish")' in body
    for heading, content in (
        ("Training data and its terms", "400 clips, our own."),
        ("Training", "600 iterations."),
        ("Limits", "Shoals."),
    ):
        assert f"## {heading}\n\n{content}\n" in body
    assert "| held-out clips, J&F | 0.8345 |\n| DAVIS 2016 val, J | 0.81 |" in body


def test_what_is_not_said_is_shown_as_not_said(model):
    text = ModelCard().text(model)
    assert text.count("Not stated.") == 4
    assert "license:" not in text
    assert 'Predictor.from_pretrained("folder/")' in text


def test_a_config_of_no_preset_is_described_by_its_parts():
    config = STCNConfig(trunk="efficientnet-lite0", key_attention="self", decoder_channels=(32, 32, 16))
    text = ModelCard().text(STCN(config))
    assert "| Architecture | STCN |" in text
    assert "| Trunks | EfficientNet-Lite0 |" in text
    assert "| Attention on the key encoder | self |" in text
    assert "| Attention on the value encoder | none |" in text


@pytest.mark.parametrize("license", ["CC BY", "mit\nlibrary_name: other", "", "[a]"])
def test_a_license_that_would_break_the_header_is_refused(license):
    with pytest.raises(ValueError, match="license is an identifier"):
        ModelCard(license=license)


def test_a_name_of_two_lines_is_refused():
    with pytest.raises(ValueError, match="one line"):
        ModelCard(name="a\n---\nb")


def test_a_card_is_written_beside_the_model_and_the_folder_loads(tmp_path, model):
    predictor = Predictor(model.eval())
    predictor.save_pretrained(tmp_path / "fish", card=ModelCard(name="Fish"), dtype=torch.float16)
    assert sorted(path.name for path in (tmp_path / "fish").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert "# Fish" in (tmp_path / "fish" / "README.md").read_text()
    assert Predictor.from_pretrained(tmp_path / "fish").model.config == model.config
