"""The recommenders, and the one place that knows them all."""

from transformers import PreTrainedConfig

from rec.config.tree import SoftToken as SoftTokenConfig
from rec.models.base import Recommender
from rec.models.soft_token import SoftToken


def build(
    config: SoftTokenConfig, *, users: int, items: int, backbone_config: PreTrainedConfig, weights: bool = True
) -> Recommender:
    """The recommender that a configuration describes, on the CPU, in fp32.

    Args:
        config: the `model` group of a run.
        users: number of users, without padding.
        items: number of items, without padding.
        backbone_config: from `rec.nn.backbone.configuration`, or a saved one.
        weights: whether pretrained backbone weights are wanted; false where saved ones are loaded right after.
    """
    match config:
        case SoftTokenConfig():
            return SoftToken(config, users=users, items=items, backbone_config=backbone_config, weights=weights)
