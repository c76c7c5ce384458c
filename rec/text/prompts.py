"""Templates and values -> documents of text, user and item tokens, no longer than they may be.

What stands between two user or item tokens of a prompt is encoded in one piece, with the blank before it and without
the one behind it (after arXiv 2402.09617). {items} are their tokens, with nothing in between. What is too long is cut:

    1. a list of items loses its first ones, which are the oldest where it is in order of time; in a prompt it leaves
       room for `ROOM` tokens of text
    2. a text loses its end
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rec.config.graph_llm import CONTENT, Piece, Template
from rec.data.dataset import IntArray
from rec.errors import ConfigError
from rec.text.tokenizer import Tokenizer

ROOM = 8
"""Tokens of a text that its prompt leaves room for."""
Part = tuple[int, ...] | str
"""Tokens of text, or the name of a field."""


class Document(NamedTuple):
    """Tokens in three rows of equal length: of text, of users, of items; each 0 where it is none of these."""

    token_L: IntArray
    user_L: IntArray
    item_L: IntArray
    main: int
    """Place of the first token that is predicted; the length where none is."""


class Writer:
    """Writes the documents of one template.

    Args:
        template: what to write.
        words: the tokens of texts.
        max_tokens: of a document.

    Raises:
        ConfigError: if not even one item or `ROOM` tokens of text fit in.
    """

    def __init__(self, template: Template, words: Tokenizer, max_tokens: int) -> None:
        self.template, self.words, self.max_tokens = template, words, max_tokens
        self.given = _parts(template.given, words)
        lists = "items" in self.given or template.field == "items"
        fixed = sum(len(part) if isinstance(part, tuple) else part != "items" for part in self.given)
        needed = fixed + lists + ROOM * (template.use in CONTENT)
        if needed > max_tokens:
            raise ConfigError(
                f"a document of '{template.prompt}' has {needed} tokens at least, and model.max_tokens is "
                f"{max_tokens}; set it to {needed} or more"
            )
        self.room = max_tokens - needed + lists
        """Items of a list that fit in."""

    def write(self, user: int, items: Sequence[int], text: str = "") -> Document:
        """The document of a user, of items and of a text: of whichever of these the template has."""
        shown = items[max(0, len(items) - self.room) :] if self.template.use in LISTS else items
        rows = [row for part in self.given for row in _rows(part, user, shown)]
        main = len(rows)
        if self.template.field == "items":
            rows += _rows("items", user, shown)
        elif self.template.field:
            (before, _), *after = self.template.asked
            whole = before + text + "".join(more for more, _ in after)
            rows += _rows(self.words.encode(whole)[: self.max_tokens - main], user, shown)
        token_L, user_L, item_L = np.array(rows, np.int64).reshape(-1, 3).T
        return Document(token_L, user_L, item_L, main)


LISTS = ("group", "history", "predictive")
"""Uses whose templates have {items}."""


def _parts(pieces: Sequence[Piece], words: Tokenizer) -> list[Part]:
    parts: list[Part] = []
    for text, name in pieces:
        parts += [words.encode(text.rstrip(" "))] if text.rstrip(" ") else []
        parts += [name] if name else []
    return parts


def _rows(part: Part, user: int, items: Sequence[int]) -> list[tuple[int, int, int]]:
    """(token, user, item) of each place of a part."""
    if isinstance(part, tuple):
        return [(token, 0, 0) for token in part]
    return [(0, user, 0)] if part == "user" else [(0, 0, item) for item in items]
