"""What a tokenizer does by itself: the marks it adds, how it joins two texts; and texts made shorter by tokens."""

from __future__ import annotations

from typing import Any


def joins_pairs(tokenizer: Any, config: Any) -> bool:
    """Tell whether a tokenizer tells two texts apart by itself: a mark between them, or segments that the model reads.

    Encoder-decoders take their end token for such a mark.
    """
    single, pair = tokenizer("a"), tokenizer("a", "a")
    marks = {getattr(tokenizer, "sep_token_id", None), tokenizer.eos_token_id if config.is_encoder_decoder else None}
    if any(pair["input_ids"].count(mark) > single["input_ids"].count(mark) for mark in marks - {None}):
        return True
    kinds = getattr(config, "type_vocab_size", None)
    return isinstance(kinds, int) and kinds > 1 and len(set(pair.get("token_type_ids") or ())) > 1


def runs_together(tokenizer: Any) -> bool:
    """Tell whether nothing shows where the second of two texts begins."""
    pair, bare = tokenizer("a", "a"), tokenizer("a", add_special_tokens=False)["input_ids"]
    ids: list[int] = pair["input_ids"]
    joined = any(ids[start : start + 2 * len(bare)] == bare * 2 for start in range(len(ids)))
    return joined and len(set(pair.get("token_type_ids") or ())) < 2


def added_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the tokens that a tokenizer puts before and behind every text."""
    whole, bare = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return [], []


def named_tokens(tokenizer: Any) -> dict[str, str]:
    """Return the special tokens that a template may name."""
    tokens = {key: getattr(tokenizer, f"{key}_token", None) for key in ("bos", "eos", "sep", "cls")}
    return {key: token for key, token in tokens.items() if token is not None}


def offered_tokens(tokenizer: Any) -> str:
    """Return the special tokens that a template may name, and those that every text gets anyway."""
    tokens = named_tokens(tokenizer)
    given = {tokenizer.convert_ids_to_tokens(number) for side in added_tokens(tokenizer) for number in side}
    free = [f"{{{key}}}" for key, token in tokens.items() if token not in given or key in ("sep", "eos")]
    own = " ".join(key for key in sorted(given))
    return (", ".join(free) or "no special tokens to name") + (f", and adds {own} by itself" if own else "")


def stand_in(tokenizer: Any) -> int:
    """Return the token that stands for an empty text."""
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id)
    return next((int(token) for token in known if token is not None), 0)


def without(tokenizer: Any, text: str, count: int, *, front: bool) -> str:
    """Return a text without its first or last ``count`` tokens."""
    if not getattr(tokenizer, "is_fast", False):
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        left: str = tokenizer.decode(ids[count:] if front else ids[: max(len(ids) - count, 0)])
        return left
    places = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    if count >= len(places):
        return ""
    return text[places[count][0] :] if front else text[: places[len(places) - count - 1][1]]
