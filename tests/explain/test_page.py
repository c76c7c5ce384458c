"""The page holds all that was gathered, loads nothing, and takes no title for a program."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from rec.config.tree import LearnedRelations
from rec.explain.gather import gather
from rec.explain.page import page
from rec.explain.related import triangle
from rec.explain.shown import shown
from tests.explain.trained import EVIL, corpus, person, trained
from tests.small import soft_token


class Reader(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script" and data.strip():
            self.scripts.append(data)


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], Reader]:
    """A person whose history begins with the item of the evil title."""
    folder = tmp_path_factory.mktemp("page")
    dataset = corpus(folder / "data")
    opened = trained(dataset, folder / "runs", soft_token(relations=LearnedRelations()))
    someone = person(dataset, 4)
    found = gather(opened, someone._replace(items=["i1", *someone.items[-5:]], times=[0, *someone.times[-5:]]), 5)
    return found, Reader(page(found))


def test_the_page_holds_what_was_gathered(explained: tuple[dict[str, object], Reader]) -> None:
    found, reader = explained
    data, program = reader.scripts
    assert json.loads(data) == json.loads(json.dumps(found))
    assert "JSON.parse" in program


def test_no_title_is_taken_for_a_program(explained: tuple[dict[str, object], Reader]) -> None:
    _, reader = explained
    assert json.loads(reader.scripts[0])["tokens"][1]["title"] == EVIL
    assert [tag for tag, _ in reader.elements].count("script") == 2
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|Function\(", reader.scripts[1])


def test_the_page_loads_nothing(explained: tuple[dict[str, object], Reader]) -> None:
    _, reader = explained
    policies = [
        given["content"] for tag, given in reader.elements if given.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"]
    assert not [given for _, given in reader.elements if {"src", "href"} & given.keys()]
    assert not re.search(r"https?:|fetch\(|XMLHttp|import\(", reader.scripts[1])


def test_every_control_has_a_name_and_every_picture_the_keyboard(explained: tuple[dict[str, object], Reader]) -> None:
    _, reader = explained
    tags = [tag for tag, _ in reader.elements]
    assert [tags[place - 1] for place, tag in enumerate(tags) if tag == "select"] == ["label"] * tags.count("select")
    program = reader.scripts[1]
    assert re.search(r'make\("canvas", \{[^}]*tabindex: 0, role: "img", "aria-label"', program)
    assert '"keydown"' in program


def test_a_number_that_is_none_does_not_make_a_page() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        page({"score": float("nan")})


def test_the_page_is_shipped_with_the_package() -> None:
    settings = (Path(__file__).parents[2] / "setup.cfg").read_text()
    assert re.search(r"\[options\.package_data\]\nrec\.explain = \*\.html\n", settings)


def test_a_page_of_a_large_backbone_stays_small_enough_to_send() -> None:
    weights_LHTT = torch.rand(28, 16, 51, 51)
    sent = [triangle(of_HTT) for of_HTT in shown(weights_LHTT, 27)]
    assert sum(map(len, sent)) == 27 + 16
    assert len(page({"weights": {"with": sent, "without": sent}})) < 1e6
