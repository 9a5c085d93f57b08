"""Tokenizers for the tests of prompts and answers."""

from __future__ import annotations

from typing import Any


def tokenizer_with(template: str | None = None, *, begins: tuple[str, ...] = ("<s>",), ends: bool = False) -> Any:
    """Return a byte-level tokenizer that puts tokens before (and one after) every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "</s>", "<pad>", "<sop>", "<|user|>", "<|assistant|>", "<|system|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate([*special, *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(special)
    if begins or ends:
        single = " ".join([*begins, "$A", *(["</s>"] if ends else [])])
        inner.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[(token, vocabulary[token]) for token in special]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>", extra_special_tokens=special[3:]
    )
    tokenizer.chat_template = template
    return tokenizer
