"""External ids <-> codes 0, 1, ... in order of first appearance: the only thing whose memory grows with a log."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from rec.data.dataset import IntArray


class Ids:
    """A growing table of texts. Codes never change once given, so a table can be continued by a later log."""

    def __init__(self, known: Iterable[str] = ()):
        self._codes = {text: code for code, text in enumerate(known)}

    def __len__(self) -> int:
        return len(self._codes)

    def encode(self, column: pa.DictionaryArray) -> IntArray:
        """(rows) int32 codes; texts not seen before are added in the order of the column's dictionary."""
        codes = self._codes
        places = np.array([codes.setdefault(text, len(codes)) for text in column.dictionary.to_pylist()], np.int32)
        return places[column.indices.to_numpy()] if len(places) else np.empty(0, np.int32)

    def texts(self) -> pa.StringArray:
        """All texts, by code."""
        return pa.array(self._codes, pa.string())


class Marks:
    """Which codes were seen: a growing set of small whole numbers."""

    def __init__(self) -> None:
        self._seen = np.zeros(1024, np.bool_)

    def add(self, codes: IntArray, size: int) -> None:
        """Marks codes below `size`."""
        if size > len(self._seen):
            self._seen = np.concatenate([self._seen, np.zeros(2 * size - len(self._seen), np.bool_)])
        self._seen[codes] = True

    def __len__(self) -> int:
        return int(self._seen.sum())
