"""How many heads a page shows one by one: attention of a large backbone would make it too large to send."""

from torch import Tensor

from rec.errors import ConfigError

MOST = 64
"""Matrices of attention on a page that are all shown; each is some 10 kB of a history of 50 items, twice."""


def chosen(layer: int | None, layers: int) -> int:
    """The layer, from 0, whose heads are shown in any case: the last one, unless another is asked for, from 1.

    Raises:
        ConfigError: there is no such layer.
    """
    if layer is not None and not 1 <= layer <= layers:
        raise ConfigError(f"--layer is {layer}, but the backbone has {layers} layers; choose from 1 to {layers}")
    return (layer or layers) - 1


def shown(values_LH: Tensor, layer: int) -> list[Tensor]:
    """(L, H, ...) of all heads -> for each layer (H, ...), or (1, ...) of their mean where there are too many.

    Args:
        values_LH: what is to be shown.
        layer: from 0, the one whose heads are shown all the same.
    """
    layers, heads = values_LH.shape[:2]
    if layers * heads <= MOST:
        return list(values_LH)
    return [of_H if place == layer else of_H.mean(0, keepdim=True) for place, of_H in enumerate(values_LH)]
