"""Kindling: recommenders on large language models.

>>> import rec
>>> model = rec.load("runs/demo")                          # doctest: +SKIP
>>> model.recommend([["50", "181"]], k=3)                  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rec.recommend import TrainedModel, load

__all__ = ["TrainedModel", "load"]


def __getattr__(name: str) -> Any:
    """`rec.load` brings in torch; `import rec` alone does not, so that every command starts at once."""
    if name in __all__:
        import rec.recommend

        return getattr(rec.recommend, name)
    raise AttributeError(f"module 'rec' has no attribute '{name}'")
