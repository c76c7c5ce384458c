"""Ranks that do not agree on what they train, or with what, end at the start and not on a curve of their own."""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

from rec.config.load import flatten, to_values
from rec.config.tree import Run
from rec.data.dataset import Dataset
from rec.errors import ConfigError
from rec.models import graph_of
from rec.ranks import Ranks, name_ranks

PACKAGES = ("torch", "transformers", "accelerate", "deepspeed", "cut-cross-entropy")
"""Whose versions have to be the same everywhere: their ranks talk to each other, or compute one loss together."""
HOUSE = Path(__file__).parents[2]
"""The folder that holds our packages."""


def facts(run: Run, dataset: Dataset) -> dict[str, object]:
    """Name -> value of what all ranks have to have in common.

    Where the dataset lies is not among it, since a node may read a copy of its own; what it holds is.
    """
    graph = graph_of(run, dataset)
    config = {key: value for key, value in flatten(to_values(run)).items() if key != "dataset"}
    return {
        **config,
        "the dataset's fingerprint": dataset.fingerprint,
        **({"the graph's fingerprint": graph.fingerprint} if graph else {}),
        "the code of Kindling": digest_of_code(HOUSE),
        **{f"the version of {package}": _version(package) for package in PACKAGES},
    }


def require_agreement(ranks: Ranks, facts: Mapping[str, object]) -> None:
    """Raises ConfigError on every rank, with who has what, unless all have the same facts."""
    everywhere = ranks.gather({name: str(value) for name, value in facts.items()})
    names = dict.fromkeys(name for one in everywhere for name in one)
    differing = {name: who for name in names if len(who := _holders(name, everywhere)) > 1}
    if differing:
        name, who = next(iter(differing.items()))
        details = ", ".join(f"{name_ranks(holders)} {value}" for value, holders in who.items())
        others = f" (nor on {', '.join(list(differing)[1:])})" if len(differing) > 1 else ""
        error = ConfigError(
            f"the ranks do not agree on {name}: {details}{others}; "
            "start all with the same command, and install the same packages on every machine"
        )
        ranks.together(lambda: _raise(error))


def digest_of_code(house: Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of all our sources, their names included."""
    digest = hashlib.sha256()
    for file in sorted(path for room in ("launch", "rec") for path in (house / room).rglob("*.py")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(house)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _holders(name: str, everywhere: list[dict[str, str]]) -> dict[str, list[int]]:
    """Value -> the ranks that have it."""
    who: dict[str, list[int]] = {}
    for rank, facts in enumerate(everywhere):
        who.setdefault(facts.get(name, "nothing"), []).append(rank)
    return who


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _raise(error: Exception) -> None:
    raise error
