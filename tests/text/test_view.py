"""Which documents a step reads: those of the training interactions and no others, written when they are asked for."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from rec.config.graph_llm import GraphLlm, Template
from rec.config.tree import Data
from rec.data.batch import NOTHING, Prompts
from rec.data.dataset import TRAIN_STOP, Dataset
from rec.data.feed import Feed
from rec.errors import ConfigError
from rec.ranks import Ranks
from rec.text.prompts import Document
from rec.text.tokenizer import Tokenizer
from rec.text.view import TextView
from tests.text.test_prompts import shown
from tests.words import AMAZON, BRANDS, byte_tokenizer, graph_llm, reviews


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> str:
    return byte_tokenizer(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return reviews(tmp_path_factory.mktemp("reviews"))


def view(dataset: Dataset, config: GraphLlm, **data: int) -> TextView:
    tokenizer = Tokenizer.open(str(config.tokenizer))
    return TextView(dataset, Data(**{"global_batch": 8, "micro_batch": 8, **data}), config, tokenizer, seed=1)


def steps(seen: TextView, count: int, ranks: Ranks | None = None) -> list[list[Prompts]]:
    feed = Feed(seen, seen.data, seed=1, ranks=ranks or Ranks())
    try:
        return [feed.step(step).batches for step in range(count)]
    finally:
        feed.close()


def texts(batch: Prompts) -> list[str]:
    """The documents, and whatever is asked of them at the places where it is asked."""
    found = []
    for row, last in enumerate(batch.last_B.tolist()):
        kinds = (batch.token_BL, batch.user_BL, batch.item_BL)
        asked = (batch.next_token_BL[row] != NOTHING) | (batch.next_item_BL[row] > 0)
        main = int(torch.nonzero(asked)[0]) + 1 if asked.any() else last + 1
        found.append(shown(Document(*(kind[row, : last + 1].numpy() for kind in kinds), main)))
        assert not any(kind[row, last + 1 :].any() for kind in kinds)
    return found


def test_an_epoch_reads_each_history_once_and_every_content_as_often_as_any_other(dataset: Dataset, words: str) -> None:
    seen = view(dataset, graph_llm(words, content_share=0.4))
    trained = int(dataset.bounds[:, TRAIN_STOP].sum())
    assert len(seen.contents) == trained + dataset.items + len(BRANDS)  # reviews, titles, brands
    assert (len(seen.histories), seen.quota) == (dataset.users, round(dataset.users * 0.4 / 0.6))
    counts: Counter[int] = Counter()
    for epoch in range(40):
        numbers = seen.epoch(epoch).number
        assert len(numbers) == dataset.users + seen.quota  # one content twice where a round ends and another begins
        assert set(seen.histories) <= set(numbers)
        counts.update(numbers)
    often = [counts[number] for number in seen.contents]
    assert max(often) - min(often) <= 1
    assert not np.array_equal(seen.epoch(0).number, seen.epoch(1).number)


def test_every_step_mixes_contents_and_histories_in_their_share(dataset: Dataset, words: str) -> None:
    seen = view(dataset, graph_llm(words, content_share=0.5), global_batch=14, micro_batch=7)
    shares = [torch.cat([batch.content_B for batch in batches]).float().mean().item() for batches in steps(seen, 12)]
    assert min(shares) >= 0.25
    assert max(shares) <= 0.75
    assert np.mean(shares) == pytest.approx(0.5, abs=0.02)


def test_documents_say_what_the_dataset_says(dataset: Dataset, words: str) -> None:
    batches = [batch for step in steps(view(dataset, graph_llm(words, content_share=0.7)), 30) for batch in step]
    found = {text for batch in batches for text in texts(batch)}
    users, items = dataset.user_ids, dataset.item_ids
    pairs = [(user, item) for user in range(1, dataset.users + 1) for item in dataset.train_items(user)]
    expected = {f"<{user}> wrote of[{item}]:| {users[user]} on {items[item]}" for user, item in pairs}
    titles = {f"Title of[{row}]:| Thing {item[1:]}" for row, item in enumerate(items) if row}
    assert titles <= found
    assert len(expected & found) > 0.9 * len(expected)
    brands = {text.split("|")[1] for text in found if text.startswith("Of one brand")}
    assert brands == {brand.casefold() for brand in BRANDS}
    histories = [text for text in found if " has|" in text]
    assert len(found) == len(expected & found) + len(titles) + len(histories) + sum("brand" in text for text in found)
    for text in histories:
        user = int(text[1:].split(">")[0])
        listed = [int(item) for item in text.split("[")[1:] for item in [item.rstrip("]")]]
        assert sorted(listed) == sorted(dataset.train_items(user).tolist())
    assert len(histories) > dataset.users  # shuffled anew whenever they are read


def test_what_follows_is_asked_from_the_last_token_of_the_prompt_on(dataset: Dataset, words: str) -> None:
    for batch in (batch for step in steps(view(dataset, graph_llm(words)), 4) for batch in step):
        following = [torch.cat([kind[:, 1:], kind[:, :1] * 0], 1) for kind in (batch.token_BL, batch.item_BL)]
        asked_token, asked_item = batch.next_token_BL != NOTHING, batch.next_item_BL > 0
        assert torch.equal(batch.next_token_BL[asked_token], following[0][asked_token])
        assert torch.equal(batch.next_item_BL[asked_item], following[1][asked_item])
        assert torch.equal(asked_token.any(1), batch.content_B)
        assert torch.equal(asked_item.any(1), ~batch.content_B)
        for asked, last in zip(asked_token | asked_item, batch.last_B.tolist(), strict=True):
            places = torch.nonzero(asked)[:, 0].tolist()
            assert places == list(range(places[0], last))


def test_the_predictive_stage_holds_a_fifth_out_of_the_prompt(dataset: Dataset, words: str) -> None:
    batches = [batch for step in steps(view(dataset, graph_llm(words, stage="predictive")), 20) for batch in step]
    held: dict[int, set[tuple[int, ...]]] = {}
    for batch in batches:
        assert not (batch.next_item_BL > 0).any()
        assert (batch.next_token_BL == NOTHING).all()
        for user, items, out in zip(batch.user_B.tolist(), batch.item_BL, batch.held_BM, strict=True):
            prompt, held_out = set(items[items > 0].tolist()), tuple(out[out > 0].tolist())
            mine = set(dataset.train_items(user).tolist())
            assert prompt | set(held_out) == mine
            assert not prompt & set(held_out)
            assert len(held_out) == max(1, int(0.2 * len(mine)))
            held.setdefault(user, set()).add(held_out)
    assert max(map(len, held.values())) > 5  # others each time
    everything = view(dataset, graph_llm(words, stage="predictive", likelihood="upstream_all"))
    for batch in steps(everything, 1)[0]:
        for user, out in zip(batch.user_B.tolist(), batch.held_BM, strict=True):
            assert sorted(out[out > 0].tolist()) == sorted(dataset.train_items(user).tolist())


def test_a_list_has_no_more_items_than_a_query(dataset: Dataset, words: str) -> None:
    for batches in steps(view(dataset, graph_llm(words), max_items=2), 5):
        assert all(int((batch.item_BL > 0).sum(1).max()) <= 2 for batch in batches)


@pytest.mark.parametrize("options", [{}, {"stage": "predictive"}])
def test_ranks_divide_the_documents_of_one_process(dataset: Dataset, words: str, options: Any) -> None:
    config = graph_llm(words, **options)
    whole = steps(view(dataset, config), 3)
    shared = [steps(view(dataset, config, micro_batch=2), 3, Ranks(rank, 2, rank)) for rank in range(2)]
    for step in range(3):
        one = sorted(zip(whole[step][0].key_B.tolist(), texts(whole[step][0]), strict=True))
        parts = [batch for rank in shared for batch in rank[step]]
        keys = [key for batch in parts for key in batch.key_B.tolist()]
        assert sorted(zip(keys, [text for batch in parts for text in texts(batch)], strict=True)) == one
        assert all(torch.equal(batch.step_users_S, whole[step][0].step_users_S) for batch in parts)
        assert {int(batch.step_documents) for batch in parts} == {8}


def poisoned(dataset: Dataset, root: Path) -> Dataset:
    """The dataset with other items and other reviews in everything that is held out."""
    shutil.copytree(dataset.root, root)
    held = np.flatnonzero(~dataset.train_positions())
    items = np.array(dataset.item_rows)
    items[held] = items[held] % dataset.items + 1
    np.save(root / "sequences/items.npy", items)
    letters, offsets = np.load(root / "texts/review.npy"), np.load(root / "texts/review_offsets.npy")
    for place in held:
        letters[offsets[place] : offsets[place + 1]] = ord("X")
    np.save(root / "texts/review.npy", letters)
    return Dataset.open(root)


@pytest.mark.parametrize("stage", ["pretrain", "predictive"])
def test_nothing_held_out_reaches_a_batch(dataset: Dataset, words: str, tmp_path: Path, stage: Any) -> None:
    config = graph_llm(words, stage=stage, content_share=0.7)
    other = poisoned(dataset, tmp_path / "poisoned")
    assert len(np.flatnonzero(~dataset.train_positions())) >= 2 * dataset.users
    for clean, ill in zip(steps(view(dataset, config), 20), steps(view(other, config), 20), strict=True):
        for one, another in zip(clean, ill, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, another, strict=True))


def test_texts_are_tokenised_when_they_are_read_and_not_before(
    dataset: Dataset, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    encode = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, text: read.append(text) or encode(self, text))
    seen = view(dataset, graph_llm(words, content_share=0.7))
    fragments = [text for name in ("review", "title", "same_brand", "interaction") for text, _ in AMAZON[name].given]
    assert read == [text.rstrip() for text in fragments if text.strip()]
    read.clear()
    epoch = seen.epoch(0)
    assert not read
    batch = seen.batch(0, epoch.take(slice(0, 30)), epoch)
    assert len(read) == int(batch.content_B.sum()) > 5


@pytest.mark.parametrize(
    ("templates", "options", "message"),
    [
        ({"reason": Template(prompt="{user} {item} why", main="{reason}")}, {},
         r"model.prompts.reason asks for 'reason', which .* has not \(there: review\); prepare it with --keep-text"),
        ({"it": Template(prompt="{item} is", main="{titel}")}, {}, "asks for 'titel', .* did you mean 'title'"),
        ({"it": Template(prompt="{items} are", main="{colour}")}, {},
         "asks for 'colour', .* prepare it with --items FILE, or add 'it' to model.leave_out"),
        ({"it": Template(prompt="{user} {item}", main="{reveiw}")}, {}, "did you mean 'review'"),
        ({"same": Template(prompt="{items} are", main="{title}")}, {},
         "model.prompts.same finds no 'title' in .*; add 'same' to model.leave_out"),
    ],
)  # fmt: skip
def test_a_template_without_its_text_is_refused(
    dataset: Dataset, words: str, templates: dict[str, Template], options: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        view(dataset, graph_llm(words, prompts={**AMAZON, **templates}, **options))
    view(dataset, graph_llm(words, prompts={**AMAZON, **templates}, leave_out=tuple(templates), **options))


def test_brands_and_categories_are_found_under_the_names_that_shops_give_them(
    dataset: Dataset, words: str, tmp_path: Path
) -> None:
    shutil.copytree(dataset.root, tmp_path / "shop")
    file = tmp_path / "shop/items.parquet"
    table = pq.read_table(file)
    pq.write_table(table.rename_columns([{"brand": "store"}.get(name, name) for name in table.column_names]), file)
    shop = Dataset.open(tmp_path / "shop")
    for one, other in zip(
        steps(view(dataset, graph_llm(words)), 4), steps(view(shop, graph_llm(words)), 4), strict=True
    ):
        assert [texts(batch) for batch in one] == [texts(batch) for batch in other]


def test_the_size_of_texts_sorts_them_before_they_are_tokenised(dataset: Dataset, words: str) -> None:
    seen = view(dataset, graph_llm(words))
    of_content = seen.all.take(seen.contents)
    assert (np.diff(of_content.length[np.argsort(of_content.alike, kind="stable")]) >= 0).all()
    assert of_content.alike.max() < 1
