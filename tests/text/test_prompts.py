"""Templates become tokens as anybody can spell them out: every token of these tests is a byte."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.config.graph_llm import Template
from rec.errors import ConfigError
from rec.text.prompts import ROOM, Document, Writer
from rec.text.tokenizer import Tokenizer
from tests.words import AMAZON, byte_tokenizer


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.open(byte_tokenizer(tmp_path_factory.mktemp("words")))


def shown(document: Document) -> str:
    """Text as it is, users as <1>, items as [2], and | where the main part begins."""
    parts = [
        f"<{user}>" if user else f"[{item}]" if item else chr(token)
        for token, user, item in zip(*document[:3], strict=True)
    ]
    return "".join([*parts[: document.main], "|", *parts[document.main :]])


def write(template: Template, words: Tokenizer, user: int, items: list[int], text: str = "", most: int = 99) -> str:
    return shown(Writer(template, words, most).write(user, items, text))


@pytest.mark.parametrize(
    ("name", "user", "items", "text", "expected"),
    [
        ("review", 3, [7], "Good.", "<3> wrote of[7]:| Good."),
        ("title", 0, [7], "Thing 7", "Title of[7]:| Thing 7"),
        ("same_brand", 0, [4, 9, 2], "Ash", "Of one brand:[4][9][2]:|Ash"),
        ("interaction", 3, [4, 9], "", "<3> has|[4][9]"),
        ("predictive", 3, [4, 9], "", "<3> has[4][9], and will:|"),
        ("predictive", 3, [], "", "<3> has, and will:|"),
    ],
)  # fmt: skip
def test_each_use_is_written_token_by_token(
    words: Tokenizer, name: str, user: int, items: list[int], text: str, expected: str
) -> None:
    assert write(AMAZON[name], words, user, items, text) == expected


def test_the_tokens_are_rows_of_the_vocabulary_and_each_place_has_one_kind(words: Tokenizer) -> None:
    document = Writer(AMAZON["review"], words, 99).write(3, [7], "ok")
    assert document.token_L.tolist() == [0, *b" wrote of", 0, *b": ok"]
    assert document.user_L.tolist() == [3, *[0] * 14]
    assert document.item_L.tolist() == [*[0] * 10, 7, *[0] * 4]
    assert document.main == 12


def test_text_around_the_field_of_the_main_part_is_predicted_with_it(words: Tokenizer) -> None:
    template = Template(prompt="{item}:", main="({title}!)")
    assert write(template, words, 0, [5], "A B") == "[5]:|(A B!)"


def test_texts_of_any_script_are_read(words: Tokenizer) -> None:
    document = Writer(AMAZON["title"], words, 99).write(0, [1], "Füße 靴")
    assert bytes(document.token_L[document.main :].tolist()).decode() == " Füße 靴"


def test_a_text_that_is_too_long_loses_its_end(words: Tokenizer) -> None:
    assert write(AMAZON["review"], words, 3, [7], "0123456789", 20) == "<3> wrote of[7]:| 0123456"


def test_a_list_that_is_too_long_loses_its_first_items(words: Tokenizer) -> None:
    items = [1, 2, 3, 4, 5]
    assert write(AMAZON["interaction"], words, 3, items, most=8) == "<3> has|[3][4][5]"
    assert write(AMAZON["predictive"], words, 3, items, most=19) == "<3> has[3][4][5], and will:|"
    room = len("Of one brand:[][]:") - 2 + ROOM
    assert write(AMAZON["same_brand"], words, 0, items, "a long brand", room) == "Of one brand:[4][5]:|a long b"


@given(items=st.lists(st.integers(1, 50), max_size=40), text=st.text(max_size=60), most=st.integers(24, 60))
def test_no_document_is_longer_than_it_may_be_and_what_is_cut_is_a_piece_of_the_whole(
    words: Tokenizer, items: list[int], text: str, most: int
) -> None:
    for name, template in AMAZON.items():
        mine = items if template.use not in ("interaction", "item") else [7]
        cut = Writer(template, words, most).write(3, mine, text)
        whole = Writer(template, words, 10_000).write(3, mine, text)
        assert len(cut.token_L) <= most, name
        kept = cut.item_L[cut.item_L > 0]
        assert kept.tolist() == whole.item_L[whole.item_L > 0].tolist()[len(mine) - len(kept) :]
        tail = whole.token_L[whole.main :][: len(cut.token_L) - cut.main]
        assert template.field == "items" or np.array_equal(cut.token_L[cut.main :], tail)


@pytest.mark.parametrize(("name", "least"), [("review", 20), ("title", 18), ("same_brand", 23), ("predictive", 17)])
def test_a_document_that_cannot_hold_its_prompt_is_refused_with_the_size_that_will_do(
    words: Tokenizer, name: str, least: int
) -> None:
    with pytest.raises(
        ConfigError, match=f"has {least} tokens at least, and model.max_tokens is {least - 1}; set it to"
    ):
        Writer(AMAZON[name], words, least - 1)
    Writer(AMAZON[name], words, least)


@pytest.mark.parametrize(
    ("prompt", "main", "message"),
    [
        ("{user} wrote", "{review}", "is no template; give {user} and {item}"),
        ("{user} {item}", "{items}", "is no template"),
        ("{item} {text}", "{brand}", r"'\{item\} \{text\}' has the field '\{text\}'; a prompt has \{user\}"),
        ("{itme} is", "{brand}", r"has the field '\{itme\}'; did you mean '\{item\}'\? Else a prompt has"),
        ("{user} has", "{itmes}", r"is no template; did you mean '\{items\}'\? Else give"),
        ("{user} likes {items}", "{items}", "is no template"),
        ("{items} {items}", "{brand}", "is no template"),
        ("{user} {items} {items}", "", "is no template"),
        ("{user} {item", "{review}", "is not complete .*; write fields as {user}"),
        ("{user} {item!r}", "{review}", "write a name alone in braces"),
        ("{user} {}", "{review}", "write a name alone in braces"),
    ],
)  # fmt: skip
def test_what_is_no_template_is_refused(prompt: str, main: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Template(prompt=prompt, main=main)


def test_the_published_templates_are_of_every_use(tmp_path: Path) -> None:
    from rec.config.load import load

    (tmp_path / "run.yaml").write_text(
        "dataset: d\nmodel: {kind: graph_llm, tokenizer: t, prompts: configs/prompts/amazon.yaml}\n"
    )
    uses = {name: template.use for name, template in load(tmp_path / "run.yaml").model.prompts.items()}  # type: ignore[union-attr]
    assert uses == {
        "review": "interaction", "reason": "interaction", "title": "item", "brand": "item", "category": "item",
        "description": "item", "same_brand": "group", "same_category": "group", "interaction": "history",
        "predictive": "predictive",
    }  # fmt: skip


def test_a_tokenizer_that_is_not_there_is_told_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be loaded .*; set model.tokenizer to"):
        Tokenizer.open(str(tmp_path))
