"""Load reward models: sequence classifiers, and LoRA adapters on their base. One that is in use is not loaded twice."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

import torch
from peft import PeftModel, get_peft_model_state_dict, load_peft_weights
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from rsoup.errors import RewardError, RsoupError, first_line
from rsoup.hub import hub_trouble
from rsoup.models.load import DTYPES, TOKENIZER_FILES, load_weights, pick_device
from rsoup.recipe import RewardSection
from rsoup.rewards import judge_dtype
from rsoup.rewards.resident import Resident
from rsoup.rewards.sources import ModelSource, find_source

HEADS = ("out_proj.weight", "score.weight", "classifier.weight", "logits_proj.weight")
"""How the weights that give the logits end, in the order they are looked for."""
SCORING = ("score", "classifier", "classification_head", "v_head", "value_head", "reward_head", "regression_head")
"""What modules that make a score are called."""
CLASSIFIERS = "AutoModelForSequenceClassification"

_RESIDENTS: WeakValueDictionary[tuple[Any, ...], Resident] = WeakValueDictionary()


def load_resident(what: str, section: RewardSection) -> Resident:
    """Return the model and the tokenizer of a reward; rewards of one model, in one dtype, get the same."""
    assert section.model is not None
    source = find_source(what, section.model, section.revision)
    dtype = judge_dtype(section.dtype, pick_device().type)
    key = (source, _stamp(source), dtype, section.trust_remote_code)
    found = _RESIDENTS.get(key)
    if found is None:
        found = _RESIDENTS[key] = _load(what, source, dtype, trust=section.trust_remote_code)
    return found


def _stamp(source: ModelSource | None) -> tuple[Any, ...]:
    """Return what changes when a folder is written anew."""
    if source is None or source.folder is None:
        return ()
    files = [(path.name, path.stat()) for path in sorted(source.folder.iterdir()) if path.is_file()]
    return (*((name, stat.st_size, stat.st_mtime_ns) for name, stat in files), _stamp(source.base))


def _load(what: str, source: ModelSource, dtype: str, *, trust: bool) -> Resident:
    options: dict[str, Any] = {"trust_remote_code": trust}
    weights = {**options, "dtype": DTYPES.get(dtype, "auto")}
    base = source.base or source
    config: Any = None
    try:
        tokenizer = _load_tokenizer(what, source, options)
        config = AutoConfig.from_pretrained(base.location, revision=base.revision, **options)
        _check_kind(what, config, is_adapter=source.base is not None)
        if source.base is None:
            loader = AutoModelForSequenceClassification
            model = load_weights(loader, source.location, source.revision, whole=SCORING, **weights)
        else:
            model = _load_adapter(source, source.base, config, weights)
    except RsoupError:
        raise
    except Exception as problem:  # of a damaged file, transformers and tokenizers raise anything
        told = _explain(what, problem, config, trust=trust)
        raise RewardError(*(hub_trouble(problem, what, "reward model") or told)) from problem
    return Resident(f"The reward model {source.location}", model.to(pick_device()).eval(), tokenizer)


def _load_tokenizer(what: str, source: ModelSource, options: Mapping[str, Any]) -> Any:
    """Load the tokenizer; an adapter without one has that of its base."""
    folder = source.folder
    if folder is not None and not any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES):
        if source.base is not None:
            return _load_tokenizer(what, source.base, options)
        raise RewardError(f"{what}: the folder has no tokenizer.", "Copy that of the model it was made from into it.")
    try:
        return AutoTokenizer.from_pretrained(source.location, revision=source.revision, **options)
    except Exception:
        if folder is None and source.base is not None:
            return _load_tokenizer(what, source.base, options)
        raise


def _check_kind(what: str, config: Any, *, is_adapter: bool) -> None:
    """Refuse what would load as a classifier of texts and is none."""
    for name in getattr(config, "architectures", None) or ():
        if name.endswith("ForTokenClassification") and not is_adapter:
            raise RewardError(
                f"{what} is a {name}: it scores every token, not the text as a whole.", "Give a sequence classifier."
            )


def _explain(what: str, problem: BaseException, config: Any, *, trust: bool) -> tuple[str, str]:
    """Return what is wrong with a model that cannot be loaded, and what to do."""
    reason = first_line(problem)
    kinds = [str(name) for name in getattr(config, "architectures", None) or ()]
    other = "lacks the weights" in reason or "has no place for" in reason
    if other and not trust and CLASSIFIERS in (getattr(config, "auto_map", None) or {}):
        return (
            f"{what} needs code from its repository ({kinds[0] if kinds else 'auto_map'}), and rsoup does not run that "
            "by itself.",
            "Read that code; if you trust it, set trust_remote_code: true for this reward.",
        )
    if "has no place for" in reason:
        return (
            f"{what} cannot be loaded: {reason}, and its scores would not be those it was trained to give.",
            "Score with it in a function of yours (README, reward functions), as the code that it came with does.",
        )
    if "lacks the weights" in reason and any("ForSequenceClassification" not in name for name in kinds):
        return (
            f"{what} cannot be loaded: {reason}. It is a {kinds[0]}, which was not trained to give a score.",
            "Give a sequence classifier. A language model that judges in words is no reward by itself: ask it in a "
            "function of yours.",
        )
    return (
        f"{what} cannot be loaded: {reason}.",
        "Check the name, the network and your access; it has to be a sequence classifier.",
    )


def _load_adapter(adapter: ModelSource, base: ModelSource, config: Any, options: Mapping[str, Any]) -> Any:
    """Load an adapter onto its base; ValueError where weights of either are missing or left over."""
    saved = load_peft_weights(adapter.location, device="cpu", revision=adapter.revision)
    options = dict(options)
    width = _width(saved)
    if width is not None and width != config.num_labels:
        options |= {"num_labels": width, "ignore_mismatched_sizes": True}  # the adapter brings the head
    given = {_plain(key) for key in saved}
    model = load_weights(AutoModelForSequenceClassification, base.location, base.revision, given=given, **options)
    _widen_vocabulary(model, saved)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            adapted = PeftModel.from_pretrained(model, adapter.location, revision=adapter.revision)
        except Exception as problem:
            raise ValueError(f"the adapter does not fit its base model {base.location}: {problem}") from problem
    lacking = [str(note.message) for note in told if "missing adapter keys" in str(note.message)]
    if lacking:
        raise ValueError(lacking[0])
    unknown = set(saved) - set(get_peft_model_state_dict(adapted, save_embedding_layers=True))
    if unknown:
        raise ValueError(f"the base model has no place for the adapter's {min(unknown)}")
    return adapted


def _plain(key: str) -> str:
    """Return the name that a weight which an adapter holds whole has in the base."""
    return key.removeprefix("base_model.model.")


def _width(saved: Mapping[str, torch.Tensor]) -> int | None:
    """Return the number of logits of the head that an adapter holds, None if it holds none."""
    heads = [(ending, key) for ending in HEADS for key in saved if key.endswith(ending) and "lora_" not in key]
    return int(saved[heads[0][1]].shape[0]) if heads else None


def _widen_vocabulary(model: Any, saved: Mapping[str, torch.Tensor]) -> None:
    """Make room for tokens that were added while the adapter was trained, if it holds their embeddings."""
    embeddings = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is embeddings)
    rows = [
        len(value) for key, value in saved.items() if _plain(key) in {f"{name}.weight", f"{name}.base_layer.weight"}
    ]
    if rows and rows[0] != len(embeddings.weight):
        model.resize_token_embeddings(rows[0], mean_resizing=False)
