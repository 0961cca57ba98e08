from __future__ import annotations

import re
from pathlib import Path

import huggingface_hub
import pytest
import torch

import emavos
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


def checked(text):
    """The header of a card, as huggingface_hub reads it without leaving anything out."""
    return huggingface_hub.ModelCard(text, ignore_metadata_errors=False).data


def test_the_hub_reads_data_sets_base_models_and_results_of_a_card(model):
    card = ModelCard(
        name='Fish: "large" # 2',
        license="mit",
        scores={
            "DAVIS 2017 val, J&F": 0.85,
            "DAVIS 2017 val, J": 0.8,
            "own clips, tanks, J&F": 1,
            "speed": 20.0,
        },
        datasets=["user/fish", "davis-2017"],
        base_model="user/whale",
    )
    data = checked(card.text(model))
    assert (data.license, data.library_name, data.datasets) == ("mit", "emavos", ["user/fish", "davis-2017"])
    assert data.base_model == ["user/whale"]
    assert data.model_name == 'Fish: "large" # 2'
    found = [
        (r.dataset_name, r.dataset_type, r.metric_name, r.metric_type, r.metric_value)
        for r in data.eval_results
    ]
    assert found == [
        ("DAVIS 2017 val", "davis-2017-val", "J&F", "j-f", 0.85),
        ("DAVIS 2017 val", "davis-2017-val", "J", "j", 0.8),
        ("own clips, tanks", "own-clips-tanks", "J&F", "j-f", 1.0),
    ]
    assert "| speed | 20 |" in card.text(model)


@pytest.mark.parametrize("name", ["2017", "no", "1e3", "null", "0x10", "1_0.5"])
def test_names_that_yaml_would_read_as_other_values_stay_names(model, name):
    data = checked(ModelCard(datasets=[name], base_model=name).text(model))
    assert (data.datasets, data.base_model) == ([name], [name])


def test_a_card_without_facts_has_a_header_that_the_hub_reads(model):
    data = checked(ModelCard().text(model))
    assert data.eval_results is None
    assert data.datasets is data.base_model is None


@pytest.mark.parametrize(
    "facts",
    [
        {"datasets": "davis"},
        {"datasets": ["a: b"]},
        {"datasets": ["a\nlicense: mit"]},
        {"datasets": [3]},
        {"base_model": "a/b/c"},
        {"base_model": ["user/a", ""]},
    ],
)
def test_names_that_the_hub_cannot_have_are_refused(facts):
    with pytest.raises(ValueError, match=f"{next(iter(facts))} (are names|is a list of names)"):
        ModelCard(**facts)


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_the_cards_in_the_package_pass_the_hub_and_have_the_scores_of_their_tables(name):
    text = (Path(emavos.__file__).parent / "weights" / name / "README.md").read_text()
    data = checked(text)
    assert data.library_name == "emavos"
    assert data.model_name == name
    table = dict(
        zip(
            ("J", "F", "J&F"),
            map(float, re.findall(r"^\| this model \|(.*)", text, re.M)[0].strip(" |").split("|")),
            strict=True,
        )
    )
    assert {r.metric_name: r.metric_value for r in data.eval_results} == table


def test_the_page_of_the_cards_begins_after_their_titles():
    page = (Path(__file__).parents[1] / "docs/model-cards.md").read_text()
    for path, line in re.findall(r'"(src/[^":]+):(\d+):"', page):
        lines = (Path(__file__).parents[1] / path).read_text().splitlines()
        assert lines[int(line) - 3].startswith("# Model card")
