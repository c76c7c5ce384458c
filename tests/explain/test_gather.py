"""What a page is told: against eager attention, the bias itself, the graph's own look-ups, and the model's scores."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel

from rec.config.tree import Following, LearnedRelations, LightGcn, LightGcnPart, PaperRelations, Sasrec
from rec.data.dataset import Dataset
from rec.errors import ConfigError
from rec.explain.gather import gather
from rec.explain.kinds import names
from rec.explain.summands import summands
from rec.graph.hops import FAR
from rec.models.relations import Learned
from rec.models.soft_token import SoftToken
from rec.nn.attention import causal, recorded
from rec.nn.relations import LEVELS, NODE, POSITION, TIME
from rec.recommend import TrainedModel
from tests.explain.trained import corpus, person, trained
from tests.small import graph_for, soft_token

LEARNED, PAPER = LearnedRelations(per_layer=True), PaperRelations()
VARIANTS = {
    "learned": ("qwen3", LEARNED, True),
    "shared": ("gpt2", LearnedRelations(), False),
    "paper": ("llama", PAPER, True),
    "paper, no users": ("gpt2", PAPER, False),
    "none": ("qwen2", None, True),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return corpus(tmp_path_factory.mktemp("explained") / "data")


def model_of(variant: str, dataset: Dataset, out: Path, **more: Any) -> tuple[TrainedModel, SoftToken]:
    architecture, relations, user_token = VARIANTS[variant]
    config = soft_token(architecture, relations=relations, user_token=user_token, **more)
    made = trained(dataset, out, config)
    assert isinstance(made.model, SoftToken)
    return made, made.model


def eager(model: SoftToken, inputs: Tensor, bias: Tensor | tuple[Tensor, ...] | None) -> list[Tensor]:
    """Weights of each layer under Transformers' own eager attention, one layer's bias at a time in its mask."""
    reference = AutoModel.from_config(model.shape, attn_implementation="eager")
    reference.load_state_dict(model.backbone.state_dict())
    length = inputs.shape[1]
    biases = bias if isinstance(bias, tuple) else (torch.zeros(1, 1, length, length) if bias is None else bias,) * 2
    masks = [causal(one) for one in biases]

    def hand_over(layer: int) -> Any:
        return lambda module, args, kwargs: (args, {**kwargs, "attention_mask": masks[layer]})

    attentions = [
        module
        for module in reference.modules()
        if hasattr(module, "layer_idx") and "Attention" in type(module).__name__
    ]
    for layer, module in enumerate(attentions):
        module.register_forward_pre_hook(hand_over(layer), with_kwargs=True)
    with torch.no_grad():
        return list(reference.eval()(inputs_embeds=inputs, output_attentions=True).attentions)


def inputs_of(model: SoftToken, queries: Any) -> Tensor:
    """(1, 1 + T, H) vectors as the module's text says them: P_u e_u, P_i e_1, ..."""
    vectors = model.heads.item_in(model.tables.item.weight[queries.history_BT])
    if model.heads.user_in is None:
        return vectors
    assert model.tables.user is not None
    return torch.cat([model.heads.user_in(model.tables.user.weight[queries.user_B - 1])[:, None], vectors], 1)


def lower(rows: list[list[float]]) -> Tensor:
    whole = torch.zeros(len(rows), len(rows))
    for place, row in enumerate(rows):
        assert len(row) == place + 1
        whole[place, : place + 1] = torch.tensor(row)
    return whole


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_are_those_of_eager_attention_with_and_without_the_bias(variant: str, dataset: Dataset, tmp_path: Path):
    opened, model = model_of(variant, dataset, tmp_path)
    someone = person(dataset, 4)
    found = gather(opened, someone, 5)
    queries = opened.queries([someone.items], [someone.user], [someone.times])
    shown = queries.user_B if model.heads.user_in is not None else None
    with torch.no_grad():
        inputs = inputs_of(model, queries)
        bias = None if model.relations is None else model.relations(queries, shown)
    expected = {"with": eager(model, inputs, bias), "without": eager(model, inputs, None)}
    assert set(found["weights"]) == ({"with"} if model.relations is None else {"with", "without"})
    for which, layers in found["weights"].items():
        assert len(layers) == 2
        for layer, heads in zip(expected[which], layers, strict=True):
            ours = torch.stack([lower(head) for head in heads])
            torch.testing.assert_close(ours, layer[0], rtol=0, atol=6e-5)  # rounded to four decimals
            torch.testing.assert_close(ours.sum(-1), torch.ones(ours.shape[:2]), rtol=0, atol=6e-4)


@pytest.mark.parametrize("variant", ["learned", "none"])
def test_recorded_weights_reproduce_what_the_layers_put_out(variant: str, dataset: Dataset, tmp_path: Path):
    """Weights x values through the output projection are what the attention of each layer returns."""
    opened, model = model_of(variant, dataset, tmp_path)
    values, outputs = [], []
    attentions = [module for module in model.backbone.modules() if hasattr(module, "v_proj")]
    for module in attentions:
        module.v_proj.register_forward_hook(lambda _, __, output: values.append(output))
        module.register_forward_hook(lambda _, __, output: outputs.append(output[0]))
    own = model.backbone.config._attn_implementation
    someone = person(dataset, 6)
    with torch.no_grad(), recorded(model.backbone) as weights:
        model(opened.queries([someone.items], [someone.user], [someone.times]))
        for layer, module in enumerate(attentions):
            heads = weights[layer].shape[1]
            value = values[layer].unflatten(-1, (2, -1)).transpose(1, 2).repeat_interleave(heads // 2, 1)
            mixed = (weights[layer] @ value).transpose(1, 2).flatten(2)
            torch.testing.assert_close(module.o_proj(mixed), outputs[layer], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(weights[layer].sum(-1), torch.ones(weights[layer].shape[:3]))
    assert len(attentions) == len(weights) == 2
    assert model.backbone.config._attn_implementation == own


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "none"])
def test_what_the_relations_add_sums_up_to_the_bias(variant: str, dataset: Dataset, tmp_path: Path):
    opened, model = model_of(variant, dataset, tmp_path)
    someone = person(dataset, 4)
    relations = gather(opened, someone, 5)["relations"]
    queries = opened.queries([someone.items], [someone.user], [someone.times])
    assert model.relations is not None
    with torch.no_grad():
        bias = model.relations(queries, queries.user_B if model.heads.user_in is not None else None)
    heads = model.shape.get_text_config().num_attention_heads
    for layer in range(2):
        whole = (bias[layer] if isinstance(bias, tuple) else bias)[0].expand(heads, -1, -1)
        for head in range(heads):
            summed = sum(
                lower([[relation["bias"][layer][head][id] for id in row] for row in relation["ids"]])
                for relation in relations
            )
            torch.testing.assert_close(summed, whole[head].tril(), rtol=0, atol=1e-3)


def test_relations_are_those_that_the_graph_looks_up_for_a_stranger(dataset: Dataset, tmp_path: Path):
    opened, _ = model_of("shared", dataset, tmp_path)
    someone = person(dataset, 4)._replace(user=None)
    relations = {relation["name"]: relation for relation in gather(opened, someone, 5)["relations"]}
    graph, rows = graph_for(dataset), [opened.item_rows[item] for item in someone.items[-8:]]
    assert set(relations) == {"node", "together", "following", "followed", "time", "position"}
    for t, reader in enumerate(rows):
        for s, other in enumerate(rows[: t + 1]):
            assert relations["together"]["ids"][t][s] == graph.together.buckets(reader, other)
            assert relations["following"]["ids"][t][s] == graph.following.buckets(other, reader)
            assert relations["followed"]["ids"][t][s] == graph.following.buckets(reader, other)
            assert relations["node"]["names"][relations["node"]["ids"][t][s]] == (
                "the same item" if s == t else "two different items"
            )
            assert relations["position"]["ids"][t][s] == t - s


def test_hops_are_one_to_ones_own_items_and_two_between_them(dataset: Dataset, tmp_path: Path):
    opened, _ = model_of("paper", dataset, tmp_path)
    (hops,) = gather(opened, person(dataset, 10), 5)["relations"]
    train = int(dataset.bounds[10, 1])
    own = hops["ids"][train]  # the last item of training reads the user, and the items before it
    assert [hops["names"][id] for id in own] == ["1 hop away", *["2 hops away"] * (train - 1), "the same"]
    stranger = gather(opened, person(dataset, 10)._replace(user="somebody"), 5)
    (hidden,) = stranger["relations"]
    assert {row[0] for row in hidden["ids"]} == {FAR}
    assert stranger["tokens"][0] == {"title": "a stranger's token", "id": "", "time": ""}


@pytest.mark.parametrize("user", [2, 3, 4])
def test_tokens_are_the_user_and_the_last_items_whatever_their_number(user: int, dataset: Dataset, tmp_path: Path):
    opened, _ = model_of("learned", dataset, tmp_path)
    someone = person(dataset, user)
    found = gather(opened, someone, 5)
    assert [token["id"] for token in found["tokens"]] == [someone.user, *someone.items[-8:]]
    assert found["history"] == len(someone.items)
    assert found["tokens"][1]["time"] == ("1972-09-27" if len(someone.items) <= 8 else "1972-10-06")
    assert found["tokens"][-1]["title"] == opened.saved.titles[opened.item_rows[someone.items[-1]]]


def test_lists_are_what_the_model_recommends_and_without_relations_are_those_of_its_tables_at_zero(
    dataset: Dataset, tmp_path: Path
):
    opened, model = model_of("learned", dataset, tmp_path)
    someone = person(dataset, 4)
    found = gather(opened, someone, 5)

    def shown() -> list[tuple[str, float]]:
        (best,) = opened.recommend([someone.items], 5, users=[someone.user], times=[someone.times])
        return [(item.item, pytest.approx(item.score, abs=1e-6)) for item in best]

    assert [(item["id"], item["score"]) for item in found["listed"]["with"]] == shown()
    assert isinstance(model.relations, Learned)
    with torch.no_grad():
        for table in model.relations.bias.tables.values():
            table.zero_()
    assert [(item["id"], item["score"]) for item in found["listed"]["without"]] == shown()
    assert found["listed"]["with"] != found["listed"]["without"]


@pytest.mark.parametrize("variant", ["learned", "none"])
def test_the_parts_of_a_score_sum_up_to_it(variant: str, dataset: Dataset, tmp_path: Path):
    more = {"gnn": LightGcnPart(), "following": Following()}
    opened, model = model_of(variant, dataset, tmp_path, **more)
    someone = person(dataset, 4)
    found = gather(opened, someone, 5)
    assert [part["name"] for part in found["parts"]] == ["reading", "gnn", "following"]
    for item in (*found["listed"]["with"], *found["listed"].get("without", ())):
        assert sum(item["parts"]) == pytest.approx(item["score"], abs=1e-5)
    queries = opened.queries([someone.items], [someone.user], [someone.times])
    with torch.no_grad():
        parts = summands(model, queries)
        torch.testing.assert_close(sum(parts.values()), model(queries), rtol=1e-5, atol=1e-6)
        whole, model.gnn.gate[:] = parts, 0  # type: ignore[union-attr, index]
        assert not summands(model, queries)["gnn"].any()
    assert all(part.any() for part in whole.values())


def test_a_model_without_relations_is_explained_without_them(dataset: Dataset, tmp_path: Path):
    opened, _ = model_of("none", dataset, tmp_path)
    found = gather(opened, person(dataset, 4), 5)
    assert found["relations"] == []
    assert set(found["weights"]) == set(found["listed"]) == {"with"}
    assert [part["name"] for part in found["parts"]] == ["reading"]


@pytest.mark.parametrize("kind", ["sasrec", "lightgcn"])
def test_a_model_of_another_kind_is_refused(kind: str, dataset: Dataset, tmp_path: Path):
    opened = trained(dataset, tmp_path, {"sasrec": Sasrec(), "lightgcn": LightGcn()}[kind])
    with pytest.raises(ConfigError, match=rf"of kind {kind}, which cannot be explained; give a run of kind soft_token"):
        gather(opened, person(dataset, 4), 5)


def test_a_person_whose_items_are_all_unknown_is_refused(dataset: Dataset, tmp_path: Path):
    opened, _ = model_of("none", dataset, tmp_path)
    with pytest.raises(ConfigError, match="knows no item of the history of 'u4'; choose somebody else"):
        gather(opened, person(dataset, 4)._replace(items=["x", "y"], times=[0, 0]), 5)


def test_every_id_of_every_kind_has_a_name_of_its_own():
    sizes = {
        "node": NODE,
        "together": LEVELS,
        "following": LEVELS,
        "followed": LEVELS,
        "time": TIME,
        "position": POSITION,
    }
    for kind, size in {**sizes, "brand": 2, "hops": FAR + 1}.items():
        assert len(set(names(kind))) == size, kind
    assert names("time")[5] == "up to 31 minutes apart"
    assert names("position")[8:10] == ["8 to 15 places back", "16 to 31 places back"]
    assert names("position")[-1] == "1024 places back or more"
    assert names("time")[-1] == "16 years apart or more"


@pytest.mark.parametrize("layer", [None, 1])
def test_of_a_large_backbone_one_layer_shows_its_heads_and_the_others_their_mean(
    layer: int | None, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, _ = model_of("learned", dataset, tmp_path)
    whole = gather(opened, person(dataset, 4), 3)
    monkeypatch.setattr("rec.explain.shown.MOST", 7)  # of 2 layers x 4 heads
    found = gather(opened, person(dataset, 4), 3, layer)
    heads_of = 1 if layer is None else 0
    pairs = [(whole["weights"][which], found["weights"][which]) for which in ("with", "without")]
    pairs += [(one["bias"], other["bias"]) for one, other in zip(whole["relations"], found["relations"], strict=True)]
    for every, kept in pairs:
        assert [len(heads) for heads in kept] == ([1, 4] if heads_of else [4, 1])
        assert kept[heads_of] == every[heads_of]
        for row, *of_heads in zip(kept[1 - heads_of][0], *every[1 - heads_of], strict=True):
            mean = torch.tensor(of_heads).mean(0)
            torch.testing.assert_close(torch.tensor(row), mean, atol=2e-4, rtol=0)
