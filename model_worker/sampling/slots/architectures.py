"""Which checkpoints the slot engine can run, and why others are refused.

The engine keeps every token of a row and tells the model each row's positions. So every layer must attend to all
tokens before it, and what a token's position does must not depend on how long any row is.
"""

from typing import Any, Final

from transformers import PreTrainedConfig

from contract.checkpoint_files import SUPPORTED_ARCHITECTURES, CheckpointError

# Frequencies of these do not depend on the length of the text; "dynamic" and "longrope" change theirs as it grows.
STATIC_ROPE_TYPES: Final = frozenset({"default", "linear", "llama3", "yarn"})
_FULL_ATTENTION: Final = "full_attention"
_NEEDED: Final = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
)


def check_config(name: str, config: PreTrainedConfig) -> None:
    """Accept a decoder that the slot engine can run.

    Args:
        name: The checkpoint's, for the message.
        config: As transformers read it from ``config.json``.

    Raises:
        CheckpointError: It cannot; the message names the field of ``config.json``.

    """
    fault = _fault(config)
    if fault is not None:
        msg = f"{name}: config.json: {fault}"
        raise CheckpointError(msg)


def _fault(config: PreTrainedConfig) -> str | None:
    architecture = next(iter(config.architectures or ["none named"]))
    if config.is_encoder_decoder:
        return "is_encoder_decoder is set; only decoders can be sampled from."
    if architecture not in SUPPORTED_ARCHITECTURES:
        return f"architecture {architecture} is not supported; supported are {', '.join(SUPPORTED_ARCHITECTURES)}."
    for field in _NEEDED:
        if getattr(config, field, None) is None:
            return f"{field} is missing."
    return _attention_fault(config) or _rope_fault(config)


def _attention_fault(config: PreTrainedConfig) -> str | None:
    window = getattr(config, "sliding_window", None)
    if window is not None:
        return f"sliding_window is {window}; only full attention is supported."
    others = sorted({kind for kind in getattr(config, "layer_types", None) or () if kind != _FULL_ATTENTION})
    if others:
        return f"layer_types names {', '.join(others)}; only {_FULL_ATTENTION} is supported."
    heads, shared = config.num_attention_heads, config.num_key_value_heads
    if heads % shared:
        return f"num_attention_heads is {heads}, which is no multiple of num_key_value_heads, {shared}."
    return None


def _rope_fault(config: PreTrainedConfig) -> str | None:
    parameters: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    kind = parameters.get("rope_type", "default")
    if kind not in STATIC_ROPE_TYPES:
        allowed = ", ".join(sorted(STATIC_ROPE_TYPES))
        return (
            f"rope type {kind} is not supported, since its frequencies depend on the length of the text; "
            f"supported are {allowed}."
        )
    return None
