"""The language model's own tokenizer: texts to rows of its token table. It adds no tokens of its own."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rec.hub import from_source


class Tokenizer:
    """What the rest of the house sees of a tokenizer of Transformers'."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def open(cls, source: str, key: str = "model.tokenizer") -> "Tokenizer":
        """From a hub name or a folder, in which a single GGUF file will do.

        Args:
            source: its name.
            key: of the configuration, which names it.

        Raises:
            ConfigError: if there is none.
        """
        packed = sorted(Path(source).glob("*.gguf"))
        arguments = {"gguf_file": packed[0].name} if packed and not (Path(source) / "tokenizer.json").is_file() else {}
        remedy = (
            "set model.tokenizer to a hub name that can be reached or a folder with a tokenizer, such as "
            "`python -m benchmarks.tokenizer DATASET FOLDER` makes"
        )
        return cls(from_source(AutoTokenizer.from_pretrained, source, key=key, remedy=remedy, **arguments))

    def __len__(self) -> int:
        """One more than its largest token."""
        return len(self.tokenizer)

    def encode(self, text: str) -> tuple[int, ...]:
        """The tokens of a text, and no others."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False, truncation=False, verbose=False))

    def decode(self, tokens: list[int]) -> str:
        """The text of some tokens."""
        return str(self.tokenizer.decode(tokens))

    def save(self, folder: Path) -> None:
        """Writes all of it."""
        self.tokenizer.save_pretrained(folder)

    def same(self, other: "Tokenizer") -> bool:
        """Whether both cut texts into the same tokens: the same vocabulary says so for all practical purposes."""
        return bool(self.tokenizer.get_vocab() == other.tokenizer.get_vocab())
