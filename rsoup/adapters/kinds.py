"""Which adapters cannot be mixed, each with its reason; which settings are known, and which do not matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rsoup.errors import AdapterError

# Settings that make the update something other than scale * B @ A on the base's own weights.
_REFUSED = {
    "use_dora": "DoRA (use_dora): its update depends on the norms of the base's weights, which a mix does not read",
    "lora_bias": "a LoRA bias (lora_bias): it updates biases beside B @ A, which rsoup does not mix",
    "use_qalora": "QALoRA (use_qalora): its update pools groups of inputs",
    "use_bdlora": "BD-LoRA (use_bdlora): its factors are block-diagonal",
    "alora_invocation_tokens": "an activated LoRA (alora_invocation_tokens): its update applies to some tokens only",
    "layer_replication": "replicated layers (layer_replication): its modules are not the base's",
    "megatron_config": "Megatron layers (megatron_config)",
    "kasa_config": "KaSA (kasa_config): its update is not B @ A",
    "monteclora_config": "MonteCLoRA (monteclora_config): its factors are sampled",
    "arrow_config": "Arrow routing (arrow_config): its update depends on the input",
    "enable_lora": "the merged projections of PEFT before 0.3 (enable_lora)",
}
# What other kinds of adapters do; those that are not here are refused by their name alone.
_OTHER_KINDS = {
    "IA3": "it rescales activations, which is no sum of updates",
    "VERA": "its vectors rescale random matrices that all layers share",
    "LOHA": "its update is an elementwise product of two low-rank matrices",
    "LOKR": "its update is a Kronecker product",
    "ADALORA": "its update is P diag(E) Q with ranks of their own",
    "OFT": "it rotates the base's weights",
    "BOFT": "it rotates the base's weights",
    "LN_TUNING": "it replaces the base's normalisation weights",
    "XLORA": "its update depends on the input",
    "PREFIX_TUNING": "it adds tokens, not an update of weights",
    "PROMPT_TUNING": "it adds tokens, not an update of weights",
    "P_TUNING": "it adds tokens, not an update of weights",
    "TRAINABLE_TOKENS": "it replaces rows of the base's embeddings",
    "BONE": "its update is made of blocks of the base's weights",
    "MISS": "its update repeats one small matrix, or is made of the base's weights",
    "HRA": "it reflects the base's weights",
    "HIRA": "its update multiplies the base's weights",
    "OSF": "it trains a part of the base's own weights",
    "PSOFT": "it rotates the base's weights",
    "ROAD": "it rotates activations",
    "FOURIERFT": "its update is a Fourier transform of a few coefficients",
    "WAVEFT": "its update is a wavelet transform of a few coefficients",
    "C3A": "its update is made of circular convolutions",
    "RANDLORA": "its update is a sum of scaled random matrices",
    "VBLORA": "its factors are put together from one bank of vectors",
    "SHIRA": "its update is a sparse matrix",
    "DELORA": "its update is normalised",
    "GRALORA": "its update has factors for each block of the weights",
    "POLY": "it routes between several adapters",
    "MULTITASK_PROMPT_TUNING": "it adds tokens, not an update of weights",
    "ADAPTION_PROMPT": "it adds tokens, not an update of weights",
    "CPT": "it adds tokens, not an update of weights",
    "CARTRIDGE": "it adds keys and values, not an update of weights",
}
_MLX = ("lora_parameters", "fine_tune_type", "lora_layers")
# Initialisations that leave the base as it is, and those that subtract from it.
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica")
_CHANGING_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga")
_CONVERT_START = (
    "Convert it first: PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=INITIAL) "
    "writes an adapter for the original base."
)
_KNOWN = frozenset(_REFUSED) | {
    *("alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying"),
    *("eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern"),
    *("layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout", "lora_ga_config", "megatron_core"),
    *("merge_weights", "modules_to_save", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern"),
    *("revision", "runtime_config", "target_modules", "target_parameters", "task_type", "trainable_token_indices"),
    *("use_rslora", "velora_config"),
}
# Words in settings of trainers that speak of how training ran, not of what the update is.
_HARMLESS = ("checkpointing", "cache", "reentrant", "flash", "fp16", "bf16", "unsloth", "liger", "compile")


def refuse_other_kinds(path: Path, raw: dict[str, Any]) -> None:
    """Raise AdapterError if a configuration is not that of updates scale * B @ A."""
    kind = raw.get("peft_type")
    if kind is None and any(key in raw for key in _MLX):
        raise AdapterError(
            f"{path}: is an adapter of MLX, and has no peft_type.", "Convert it to PEFT's files and names first."
        )
    if kind != "LORA":
        reason = _OTHER_KINDS.get(kind, "") if isinstance(kind, str) else ""
        raise AdapterError(
            f"{path}: peft_type is {kind!r:.40}{reason and f' ({reason})'}; rsoup mixes LoRA updates alone.",
            "Give LoRA adapters.",
        )
    for key, reason in _REFUSED.items():
        if raw.get(key):
            raise AdapterError(f"{path}: uses {reason}.", "Train with plain LoRA instead.")
    start = raw.get("init_lora_weights", True)
    if start is None or isinstance(start, bool) or (isinstance(start, str) and start.lower() in _PLAIN_STARTS):
        return
    if isinstance(start, str) and start.lower().startswith(_CHANGING_STARTS):
        raise AdapterError(f"{path}: init_lora_weights={start!r:.40} changed the base's weights.", _CONVERT_START)
    raise AdapterError(
        f"{path}: init_lora_weights={start!r:.40} is not known to rsoup; it may have changed the base's weights.",
        "Train with init_lora_weights=True, or try a newer version of rsoup.",
    )


def refuse_other_folders(folder: Path) -> None:
    """Raise AdapterError if a folder without an adapter's configuration holds what can be called by its name."""
    inner = [path.parent.name for path in sorted(folder.glob("*/adapter_config.json"))]
    if inner:
        more = ", ..." if len(inner) > 3 else ""
        raise AdapterError(
            f"{folder}: is no adapter itself; its folders are ({', '.join(inner[:3])}{more}).",
            f"Give one of them: {folder / inner[0]}.",
        )
    if any(folder.glob("*.gguf")):
        raise AdapterError(
            f"{folder}: holds a GGUF file, which is llama.cpp's; rsoup reads safetensors.",
            "Give the adapter or model that it was converted from.",
        )


def unknown_settings(path: Path, raw: dict[str, Any]) -> tuple[str, ...]:
    """Return a warning for each setting that is not known; AdapterError if one switches on an unknown variant."""
    unknown = [key for key, value in raw.items() if key not in _KNOWN and value]
    harmless = [key for key in unknown if any(word in key.lower() for word in _HARMLESS)]
    variants = [key for key in unknown if key.startswith("use_") and key not in harmless]
    if variants:
        raise AdapterError(
            f"{path}: {variants[0]!r:.60} switches on a variant of LoRA that rsoup does not know.",
            "Train with plain or rank-stabilised LoRA, or try a newer version of rsoup.",
        )
    others = (key for key in unknown if key not in harmless)
    return tuple(f"{path}: the setting {key!r:.60} is not known and was not considered." for key in others)
