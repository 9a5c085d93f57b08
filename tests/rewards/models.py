"""Tiny random reward models of many architectures, with tokenizers made in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

TEXT = "the kettle boils fast but lid broke a week and handle gets hot good bad it is fine not user assistant , . ?"
WORDS = TEXT.split()
PIECES = [(f"▁{word}", -1.0 - index / 9) for index, word in enumerate(WORDS)] + [("▁", -9.0)]
CHAT = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start>' + message.role + ' ' + message.content | trim + '<end>' }}{% endfor %}"
)
SHAPE: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
GPT: dict[str, Any] = {"n_embd": 16, "n_layer": 2, "n_head": 2}
SPECIAL: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "num_labels": 1}


def word_tokenizer(*, bos: bool = True, chat: str | None = None, **settings: Any) -> Any:
    """Return a tokenizer of whole words that begins every text with <s>, as those of language models do."""
    special = ["<pad>", "<s>", "</s>", "<unk>", "<start>", "<end>"]
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate([*special, *WORDS])}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
        )
    tokenizer.add_special_tokens(special)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", **settings}
    made = hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    made.chat_template = chat
    return made


def piece_tokenizer(kind: Any, before: list[str], after: list[str] | None = None, **settings: Any) -> Any:
    """Return a sentencepiece tokenizer with special tokens before and behind its pieces."""
    vocabulary = [*((token, 0.0) for token in before), *PIECES, *((token, 0.0) for token in after or ())]
    return kind(vocab=vocabulary, **settings)


def bert_words(kind: Any = None, **settings: Any) -> Any:
    """Return the tokenizer of a BERT."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    return (kind or hf.BertTokenizer)(vocab=vocabulary, **settings)


def byte_letters(kind: Any) -> Any:
    """Return the tokenizer of a RoBERTa or BART, without merges."""
    letters = [*["<s>", "<pad>", "</s>", "<unk>", "<mask>"], *sorted(pre_tokenizers.ByteLevel.alphabet())]
    return kind(vocab={letter: index for index, letter in enumerate(letters)}, merges=[])


def strong(model: Any) -> Any:
    """Return a model with weights so large that every token counts."""
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if weight.ndim >= 2:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.3
    return model.eval()


def save(folder: Path, model: Any, tokenizer: Any) -> Path:
    """Save a model with its tokenizer."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def decoder(name: str, tokenizer: Any, **settings: Any) -> Any:
    """Return a causal model with one score, by the prefix of its classes."""
    return encoder(name, tokenizer, **{**SPECIAL, **settings})


def encoder(name: str, tokenizer: Any, **settings: Any) -> Any:
    """Return an encoder with one score, by the prefix of its classes."""
    settings = {"vocab_size": len(tokenizer), "num_labels": 1, **settings}
    return strong(getattr(hf, f"{name}ForSequenceClassification")(getattr(hf, f"{name}Config")(**settings)))


def _chat(name: str, side: str = "right", **settings: Any) -> Callable[[], tuple[Any, Any]]:
    def make() -> tuple[Any, Any]:
        tokenizer = word_tokenizer(chat=CHAT, padding_side=side)
        return decoder(name, tokenizer, **settings), tokenizer

    return make


def _text(name: str, side: str = "left", **settings: Any) -> Callable[[], tuple[Any, Any]]:
    def make() -> tuple[Any, Any]:
        tokenizer = word_tokenizer(padding_side=side)
        return decoder(name, tokenizer, **settings), tokenizer

    return make


def _no_padding() -> tuple[Any, Any]:
    tokenizer = word_tokenizer(pad_token=None)
    return decoder("GPT2", tokenizer, pad_token_id=None, **GPT), tokenizer


def _ends_as_padding() -> tuple[Any, Any]:
    tokenizer = word_tokenizer(pad_token="</s>", chat=CHAT)
    return decoder(
        "Qwen3", tokenizer, **{**SHAPE, "head_dim": 8, "num_key_value_heads": 1, "pad_token_id": 2}
    ), tokenizer


def _pair(name: str, make_tokenizer: Callable[[], Any], **settings: Any) -> Callable[[], tuple[Any, Any]]:
    def make() -> tuple[Any, Any]:
        tokenizer = make_tokenizer()
        return encoder(name, tokenizer, **settings), tokenizer

    return make


GROUPED = {**SHAPE, "num_key_value_heads": 1}
CHATS = {
    "llama": _chat("Llama", **GROUPED),
    "qwen3 left": _chat("Qwen3", "left", head_dim=8, **GROUPED),
    "qwen3 pads with its end": _ends_as_padding,
    "gemma": _chat("Gemma", head_dim=8, **GROUPED),
    "gemma3 left": _chat("Gemma3Text", "left", head_dim=8, sliding_window=4, **GROUPED),
    "mistral": _chat("Mistral", sliding_window=5, **GROUPED),
}
"""Models that have a chat template."""
TEXTS = {
    "gpt2 left": _text("GPT2", **GPT),
    "gpt2 without padding": _no_padding,
    "gpt-neo left": _text(
        "GPTNeo", hidden_size=16, num_layers=2, num_heads=2, attention_types=[[["global", "local"], 1]], window_size=4
    ),
    "gpt-bigcode left": _text("GPTBigCode", **GPT),
    "biogpt left": _text("BioGpt", **SHAPE),
    "gpt-neox": _text("GPTNeoX", "right", **SHAPE),
    "opt left": _text(
        "OPT", hidden_size=16, word_embed_proj_dim=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2
    ),
    "falcon left": _text("Falcon", hidden_size=16, num_hidden_layers=2, num_attention_heads=2, alibi=True),
}
"""Models that read what a template makes."""
BERTLIKE = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
PAIRS = {
    "bert left": _pair("Bert", lambda: bert_words(padding_side="left"), **SHAPE),
    "electra": _pair("Electra", lambda: bert_words(hf.ElectraTokenizer), embedding_size=16, **SHAPE),
    "modernbert": _pair("ModernBert", bert_words, local_attention=4, global_attn_every_n_layers=2, **BERTLIKE, **SHAPE),
    "albert": _pair(
        "Albert",
        lambda: piece_tokenizer(hf.AlbertTokenizer, ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]),
        embedding_size=16,
        pad_token_id=0,
        **SHAPE,
    ),
    "xlnet": _pair(
        "XLNet",
        lambda: piece_tokenizer(hf.XLNetTokenizer, ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>"]),
        d_model=16, n_layer=2, n_head=2, d_inner=24, pad_token_id=5,
    ),
    "deberta-v3": _pair(
        "DebertaV2",
        lambda: piece_tokenizer(hf.DebertaV2Tokenizer, ["[PAD]", "[CLS]", "[SEP]", "[UNK]"], ["[MASK]"], unk_id=3),
        type_vocab_size=0, position_biased_input=False, relative_attention=True, pos_att_type=["p2c", "c2p"],
        position_buckets=256, share_att_key=True, pooler_hidden_size=16, **SHAPE,
    ),
    "roberta": _pair(
        "Roberta", lambda: byte_letters(hf.RobertaTokenizer), max_position_embeddings=200, type_vocab_size=1, **SHAPE
    ),
    "bart": _pair(
        "Bart",
        lambda: byte_letters(hf.BartTokenizer),
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=8, decoder_ffn_dim=8, max_position_embeddings=200,
    ),
    "t5": _pair(
        "T5",
        lambda: piece_tokenizer(hf.T5Tokenizer, ["<pad>", "</s>", "<unk>"], extra_ids=0),
        d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, pad_token_id=0, eos_token_id=1,
        decoder_start_token_id=0,
    ),
}  # fmt: skip
"""Models whose tokenizer joins two texts."""
