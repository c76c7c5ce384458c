"""What the page's own script makes of what was gathered, where a browser is at hand."""

import copy
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rec.config.tree import LearnedRelations
from rec.explain.gather import gather
from rec.explain.page import page
from tests.explain.trained import corpus, person, trained
from tests.small import soft_token

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium here to draw the page")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("drawn")
    dataset = corpus(folder / "data")
    return gather(trained(dataset, folder, soft_token(relations=LearnedRelations())), person(dataset, 4), 3)


@pytest.fixture
def drawn(found: dict[str, Any], tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], object]], str]:
    def draw(change: Callable[[dict[str, Any]], object]) -> str:
        """The page as it stands in the browser, after a change of what was gathered."""
        mine = copy.deepcopy(found)
        change(mine)
        (tmp_path / "page.html").write_text(page(mine))
        words = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}"]
        ended = subprocess.run(
            [*words, "--dump-dom", (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=120
        )
        return re.sub(r"<script[^>]*>.*?</script>", "", ended.stdout.replace("&nbsp;", " "), flags=re.DOTALL)

    return draw


def last_reader(weights: list[float]) -> Callable[[dict[str, Any]], None]:
    def give(found: dict[str, Any]) -> None:
        for layers in found["weights"].values():
            for heads in layers:
                for head in heads:
                    head[-1] = weights

    return give


def test_the_headline_names_no_token_where_attention_is_flat(drawn: Any, found: dict[str, Any]) -> None:
    tokens = len(found["tokens"])
    assert tokens == 9
    flat = drawn(last_reader([1 / 9] * 8 + [1 / 9]))
    assert "It reads all 9 tokens about alike: none gets 1.5 times an equal share, which is 11.1 %." in flat
    steep = drawn(last_reader([0.5, 0.2, *[0.3 / 7] * 7]))
    (lead,) = re.findall(r'id="lead"[^>]*>(.*?)</p>', steep)
    assert re.sub("<[^>]*>", "", lead).startswith(
        f"What comes next is said by the last token. It reads most of the user's own token (50.0 %) and "
        f"{found['tokens'][1]['title']} (20.0 %). "
    )


def test_lists_that_are_equal_are_shown_once(drawn: Any) -> None:
    def same(found: dict[str, Any]) -> None:
        found["listed"]["without"] = copy.deepcopy(found["listed"]["with"])

    def other(found: dict[str, Any]) -> None:
        found["listed"]["without"] = found["listed"]["with"][::-1]

    assert [len(re.findall("<table", drawn(change).split('id="lists"')[1])) for change in (same, other)] == [1, 2]
    assert "The graph in attention changes no place of this list: it is shown once" in drawn(same)


def test_heads_that_are_not_there_are_not_offered(drawn: Any) -> None:
    def condense(found: dict[str, Any]) -> None:
        for lists in (*found["weights"].values(), *(relation["bias"] for relation in found["relations"])):
            lists[0] = lists[0][:1]

    text = drawn(condense)
    assert re.search(r'<select id="head" disabled="">\s*<option value="0">mean of all</option></select>', text)
    assert "the heads of layer 2 are here one by one, and of the others their mean; --layer chooses another." in text
