"""Any Hugging Face decoder, fed with vectors. The only place that knows Transformers' models."""

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, masking_utils

from rec.config.tree import Backbone
from rec.errors import ConfigError
from rec.hub import from_source
from rec.nn import attention
from rec.nn.dropout import Keys, hang

Configuration = PreTrainedConfig
"""A language model's own configuration, under the name by which the rest of the house knows it."""

DROPOUTS = ("attn_pdrop", "resid_pdrop", "embd_pdrop", "attention_dropout", "hidden_dropout", "dropout")
"""Transformers' own dropout settings, switched off: `KeyedDropout` stands in for them."""

VOLATILE = ("transformers_version", "_name_or_path", "_commit_hash", "architectures", "dtype", "torch_dtype")
"""Of a language model's configuration: says who wrote it and how its weights are stored, not what it computes."""


def configuration(backbone: Backbone) -> Configuration:
    """The backbone's Hugging Face configuration: from the hub, a folder, or its architecture's defaults.

    Raises:
        ConfigError: for an unknown architecture, source or configuration key.
    """
    if backbone.source is None:
        try:
            config = AutoConfig.for_model(backbone.architecture)
        except ValueError:
            raise ConfigError(
                f"model.backbone.architecture is '{backbone.architecture}', which Transformers does not know; "
                "choose for example gpt2, qwen2, qwen3 or llama"
            ) from None
    else:
        config = _from_source(AutoConfig.from_pretrained, backbone)
    for key in backbone.config:
        if not hasattr(config, key):
            near = difflib.get_close_matches(key, vars(config), n=1)
            remedy = f"did you mean '{near[0]}'?" if near else "see Transformers' documentation of this architecture"
            raise ConfigError(f"unknown key 'model.backbone.config.{key}' for {config.model_type}; {remedy}")
    if backbone.config:
        try:
            config = _changed(config, backbone)
        except (ValueError, TypeError, StrictDataclassError) as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise ConfigError(f"model.backbone.config does not fit {config.model_type}: {reason}") from None
    for key in DROPOUTS:
        if hasattr(config, key):
            setattr(config, key, 0.0)
    config.use_cache = False
    return config


def values_at_source(backbone: Backbone) -> dict[str, Any]:
    """What a backbone's source, if it has one, says of the language model, word for word; ConfigError if nothing."""
    if backbone.source is None:
        return {}
    values: dict[str, Any] = _from_source(PreTrainedConfig.get_config_dict, backbone)[0]
    return {key: value for key, value in values.items() if key not in VOLATILE}


def saved_configuration(folder: Path) -> Configuration:
    """The configuration that a trained model was saved with."""
    return AutoConfig.from_pretrained(folder)


def require_room(config: Configuration, positions: int) -> None:
    """Raises ConfigError if the backbone has fewer places than a window has vectors."""
    places = getattr(config.get_text_config(), "max_position_embeddings", None)
    if places is not None and positions > places:
        raise ConfigError(
            f"a window of data.max_items has {positions} vectors but {config.model_type} has only {places} places; "
            f"set data.max_items to at most {places - 1}"
        )


def build(
    backbone: Backbone, config: Configuration, *, dropout: float, keys: Keys, weights: bool, biased: bool = False
) -> nn.Module:
    """The bare decoder, without its language-model head, in fp32.

    Its own token table is not read and not trained: it is fed with vectors.

    Args:
        dropout: probability for what the first layer reads and for the output of every attention and feed-forward
            block.
        keys: see `KeyedDropout`.
        weights: whether pretrained weights are wanted; false where saved ones are loaded right after.
        biased: whether `hidden_states` will be given a bias.
    """
    kernel = attention.BIASED if biased else attention.PLAIN
    if weights and backbone.source is not None and backbone.pretrained:
        given: dict[str, Any] = {"config": config, "attn_implementation": kernel, "dtype": torch.float32}
        model = _from_source(AutoModel.from_pretrained, backbone, **given)
        if getattr(model.config, "quantization_config", None) is not None:
            model = _plain(model, config, kernel)
    else:
        try:
            model = AutoModel.from_config(config, attn_implementation=kernel, dtype=torch.float32)
        except ValueError as error:
            raise ConfigError(f"model.backbone.config does not make a {config.model_type}: {error}") from None
    model.get_input_embeddings().requires_grad_(False)
    require_causal(model, config)
    if biased:
        text = config.get_text_config()
        attention.require_biased(model, text.hidden_size, text.num_hidden_layers)
    if backbone.gradient_checkpointing:
        # one method under two names: later versions of Transformers warn at the older
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    if dropout:
        hang(model, dropout, keys)
    return model


def hidden_states(backbone: nn.Module, inputs_BTH: Tensor, bias: attention.Bias | None = None) -> Tensor:
    """(B, T, H) vectors -> (B, T, H) final states, each a function of the vectors up to its own place.

    Sequences are padded on the right, so causality alone keeps padding out of every state that is used.

    Args:
        bias: added in the attention of a backbone that was built `biased`; see `rec.nn.attention`.
    """
    more: dict[str, Any] = {}
    if bias is not None:
        kernel: Any = backbone.config
        assert kernel._attn_implementation == attention.BIASED, "a backbone that was not built `biased` drops the bias"
        more["relation_bias"] = attention.causal(bias)
    token = _one_sequence.set(True)
    try:
        return backbone(inputs_embeds=inputs_BTH, **more).last_hidden_state
    finally:
        _one_sequence.reset(token)


_one_sequence: ContextVar[bool] = ContextVar("whether each row is known to be one sequence", default=False)


def _ask_no_device() -> None:
    """Has Transformers not look whether a row of `hidden_states` is several sequences, packed: it is one.

    It would wait for the device at the begin of each pass, to read one truth value. Whoever else calls it is answered
    as ever.
    """
    masks: Any = masking_utils
    look = masks.find_packed_sequence_indices
    masks.find_packed_sequence_indices = lambda places: None if _one_sequence.get() else look(places)


_ask_no_device()


@contextmanager
def without_data() -> Iterator[None]:
    """Has Transformers treat tensors that have a shape and no data as it treats real ones.

    It takes them for a sign that a graph is being traced, and then builds a mask where causality alone would do.
    """
    masks: Any = masking_utils
    asked, masks.is_tracing = masks.is_tracing, lambda *_: False
    try:
        yield
    finally:
        masks.is_tracing = asked


def _changed(config: Configuration, backbone: Backbone) -> Configuration:
    """The configuration with the run's values, made anew: a configuration derives some values from others.

    So the width of a head and the kinds of layers follow from the width and the number of layers that are asked for.
    """
    wanted: dict[str, Any] = dict(backbone.config)
    if "vocab_size" in wanted:  # no text is read, and the special tokens may lie outside a smaller vocabulary
        wanted = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None, **wanted}
    if backbone.source is None:
        return AutoConfig.for_model(backbone.architecture, **wanted)
    values = {**config.to_dict(), **wanted}
    layers, kinds = int(values.get("num_hidden_layers") or 0), values.get("layer_types")
    if kinds and "layer_types" not in backbone.config and layers != len(kinds):
        values["layer_types"] = kinds[:layers] if len(kinds) > layers else None
    return type(config).from_dict(values)


def require_causal(model: nn.Module, config: Configuration) -> None:
    """Raises ConfigError if a state depends on what comes after it: such a backbone would read its own targets."""
    width = config.get_text_config().hidden_size
    if next(model.parameters()).is_meta:
        return
    inputs_BTH = torch.linspace(-1, 1, 3 * width).view(1, 3, width)
    changed_BTH = inputs_BTH.clone()
    changed_BTH[:, 2] += 1
    mode = model.training
    with torch.no_grad():
        before, after = hidden_states(model.eval(), inputs_BTH), hidden_states(model, changed_BTH)
        model.train(mode)
    if not torch.equal(before[:, 0], after[:, 0]):
        raise ConfigError(
            f"{config.model_type} is no decoder: its states see what comes later; choose for example gpt2 or qwen3"
        )


def _from_source(read: Callable[..., Any], backbone: Backbone, **arguments: Any) -> Any:
    """What `read` makes of a hub name or a folder; a folder may hold a single GGUF file instead."""
    source = str(backbone.source)
    packed = sorted(Path(source).glob("*.gguf"))
    if packed and not (Path(source) / "config.json").is_file():
        arguments["gguf_file"] = packed[0].name
    remedy = "give a hub name that can be reached or a folder with config.json and weights"
    return from_source(read, source, key="model.backbone.source", remedy=remedy, **arguments)


def _plain(model: nn.Module, config: Configuration, kernel: str) -> nn.Module:
    """The same weights in a fresh model: what Transformers loads from GGUF is slow and cannot be saved."""
    fresh = AutoModel.from_config(config, attn_implementation=kernel, dtype=torch.float32)
    fresh.load_state_dict(model.state_dict())
    return fresh


def blocks(model: nn.Module) -> list[nn.Module]:
    """The decoder layers inside a model: what Transformers says must stay in one piece, gathered one at a time."""
    kinds = {kind for module in model.modules() for kind in getattr(module, "_no_split_modules", None) or ()}
    return [module for module in model.modules() if type(module).__name__ in kinds]
