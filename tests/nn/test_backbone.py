"""Any decoder, fed with vectors."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

from rec.config.tree import Backbone
from rec.errors import ConfigError
from rec.nn import backbone
from rec.nn.dropout import Keys, hang
from tests.small import SHAPES, WIDTH, decoder

FAMILIES = sorted(SHAPES)


def _build(source: Backbone, dropout: float = 0.0, weights: bool = True) -> torch.nn.Module:
    return backbone.build(source, backbone.configuration(source), dropout=dropout, keys=Keys(), weights=weights)


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A saved pretrained model, of each family in turn."""
    torch.manual_seed(5)
    config = backbone.configuration(decoder(request.param))
    AutoModel.from_config(config).save_pretrained(tmp_path / "pretrained")
    return tmp_path / "pretrained"


def test_the_weights_of_a_folder_are_really_loaded(folder: Path):
    torch.manual_seed(6)
    loaded = _build(Backbone(source=str(folder))).state_dict()
    expected = AutoModel.from_pretrained(folder).state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    assert all(value.dtype == torch.float32 for value in loaded.values())


@pytest.mark.parametrize("how", [{"pretrained": False}, {"weights": False}])
def test_the_shape_of_a_folder_can_be_had_with_random_weights(folder: Path, how: dict[str, bool]):
    torch.manual_seed(6)
    pretrained, weights = how.get("pretrained", True), how.get("weights", True)
    loaded = _build(Backbone(source=str(folder), pretrained=pretrained), weights=weights).state_dict()
    expected = AutoModel.from_pretrained(folder).state_dict()
    assert {name: value.shape for name, value in loaded.items()} == {n: v.shape for n, v in expected.items()}
    assert any(not torch.equal(loaded[name], expected[name]) for name in expected)


def test_states_are_those_of_the_library(folder: Path):
    vectors = torch.randn(2, 5, WIDTH)
    ours, theirs = _build(Backbone(source=str(folder))).eval(), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = theirs(inputs_embeds=vectors, attention_mask=torch.ones(2, 5)).last_hidden_state
        torch.testing.assert_close(backbone.hidden_states(ours, vectors), expected, rtol=1e-5, atol=1e-5)


def test_a_saved_configuration_is_read_back(folder: Path):
    source = Backbone(source=str(folder))
    assert backbone.saved_configuration(folder).to_dict().keys() >= {"model_type"}
    assert backbone.configuration(source).hidden_size == WIDTH


def test_fewer_layers_than_the_folder_has_are_its_first_ones(folder: Path):
    pretrained = AutoModel.from_pretrained(folder)
    loaded = _build(Backbone(source=str(folder), config={"num_hidden_layers": 1}))
    expected = pretrained.state_dict()
    assert 0 < len(loaded.state_dict()) < len(expected)
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("architecture", FAMILIES)
def test_the_libraries_own_dropouts_are_off_and_ours_are_on(architecture: str):
    keys = Keys()
    shape = backbone.configuration(decoder(architecture))
    model = backbone.build(decoder(architecture), shape, dropout=0.5, keys=keys, weights=False)
    assert not [m for m in model.modules() if isinstance(m, torch.nn.Dropout) and m.p]
    vectors = torch.randn(2, 4, WIDTH)
    keys.key_B = torch.tensor([1, 2])
    one, again = backbone.hidden_states(model, vectors), backbone.hidden_states(model, vectors)
    keys.key_B = torch.tensor([3, 2])
    other = backbone.hidden_states(model, vectors)
    assert torch.equal(one, again)
    assert not torch.equal(one[0], other[0])
    torch.testing.assert_close(one[1], other[1])
    model.eval()
    keys.key_B = None
    assert torch.isfinite(backbone.hidden_states(model, vectors)).all()


@pytest.mark.parametrize("architecture", FAMILIES)
def test_only_the_token_table_is_not_trained(architecture: str):
    model = _build(decoder(architecture))
    still = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert still == ["wte.weight" if architecture == "gpt2" else "embed_tokens.weight"]


def test_an_architecture_whose_blocks_are_unknown_refuses_dropout_instead_of_leaving_it_out():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    with pytest.raises(ConfigError, match=r"model\.dropout: the blocks of Sequential are not known"):
        hang(model, 0.1, Keys())


def test_values_reach_what_is_derived_from_them():
    llama = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 40, "vocab_size": 8}
    shape = backbone.configuration(Backbone(architecture="llama", config=llama))
    assert (shape.head_dim, shape.num_key_value_heads) == (16, 4)
    qwen = backbone.configuration(Backbone(architecture="qwen3", config={"num_hidden_layers": 40}))
    assert len(qwen.layer_types) == 40


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"architecture": "gtp2"}, "architecture is 'gtp2', which Transformers does not know; choose for example gpt2"),
        (
            {"config": {"n_leyer": 2}},
            r"unknown key 'model\.backbone\.config\.n_leyer' for gpt2; did you mean 'n_layer'",
        ),
        ({"config": {"n_layer": "two"}}, "does not fit gpt2: TypeError: Field 'n_layer' expected int"),
        ({"config": {"n_embd": 30, "n_head": 4}}, "does not make a gpt2: .* must be divisible"),
        ({"source": "/nowhere/at/all"}, "source is '/nowhere/at/all', a folder that is not there; give"),
    ],
)
def test_what_cannot_be_built_is_the_users_error(options: dict[str, Any], told: str):
    with pytest.raises(ConfigError, match=told):
        _build(Backbone(**options))


def test_a_window_longer_than_the_places_of_the_backbone_is_refused():
    shape = backbone.configuration(decoder("gpt2"))
    backbone.require_room(shape, 64)
    with pytest.raises(ConfigError, match=r"65 vectors but gpt2 has only 64 places; set data.max_items to at most 63"):
        backbone.require_room(shape, 65)
