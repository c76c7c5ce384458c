"""What `prepare` can be asked for: one field for each option of the command line and each key of a recipe."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rec.errors import ConfigError

Duplicates = Literal["all", "first", "last"]
SplitKind = Literal["leave-one-out", "ratio", "random", "time", "held-out", "given"]


@dataclass(frozen=True, kw_only=True)
class Options:
    format: str | None = None
    """One of `rec.data.raw.formats.FORMATS`; None where the log itself is evidence."""
    user_column: str | None = None
    """Name of the column with the user's id."""
    item_column: str | None = None
    """Name of the column with the item's id."""
    time_column: str | None = None
    """Name of the column with the time."""
    rating_column: str | None = None
    """Name of the column with the rating."""
    text_column: str | None = None
    """Name of the column with the review, whose words `min_words` counts, and which `keep_text` keeps."""
    reason_column: str | None = None
    """Name of the column with the reason for the interaction, a text that is kept."""
    split_column: str | None = None
    """Name of the column with train, valid or test."""
    time_unit: Literal["s", "ms"] | None = None
    """Unit of numeric times, where neither the format nor their size tells."""
    keep_text: bool = False
    """Whether reviews are kept, for recommenders that read texts."""
    on_bad_line: Literal["error", "skip"] = "error"
    """What to do with a line that cannot be used."""
    items: Path | None = None
    """File with attributes of items."""
    users: Path | None = None
    """File with attributes of users."""
    min_rating: float | None = None
    """Interactions below this rating are left out."""
    since: str | None = None
    """First moment kept: a date (UTC), or seconds or milliseconds since 1970."""
    until: str | None = None
    """First moment no longer kept."""
    min_words: int | None = None
    """Interactions whose review has fewer words are left out."""
    duplicates: Duplicates = "all"
    """Which of a user's interactions with the same item are kept."""
    core_users: int | None = None
    """Users with fewer interactions are left out."""
    core_items: int | None = None
    """Items with fewer interactions are left out; with `core_users`, both to a fixed point."""
    last: int | None = None
    """Interactions kept of each user: the last ones."""
    sample: int | None = None
    """Users kept, drawn by `seed`."""
    seed: int = 0
    """Draws the sample, the held-out users and the random split."""
    split: SplitKind | None = None
    """How interactions are divided; `given` where there is a split column, else `leave-one-out`."""
    split_at: str | None = None
    """Where valid and test begin: two fractions (0.8,0.9 unless said), or two moments for `time`."""

    def __post_init__(self) -> None:
        for name in ("core_users", "core_items", "last", "sample", "min_words"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')} is {value}; choose 1 or more, or leave it out")
        if self.split_at is not None and self.split in (None, "leave-one-out", "given"):
            raise ConfigError("--split-at goes with --split ratio, random, time or held-out; add one of them")
