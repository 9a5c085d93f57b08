"""Rewards from sentence embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from rsoup.models.bundled import bundled_folder
from rsoup.models.load import load_weights, pick_device
from rsoup.recipe import RewardSection
from rsoup.rewards.samples import Sample

MAX_TOKENS = 256
"""What the embedding model was trained to read."""


class Similarity:
    """Cosine similarity of post and completion under all-MiniLM-L6-v2 (mean pooling), in [-1, 1]."""

    def __init__(self, section: RewardSection) -> None:
        folder = bundled_folder("all-minilm-l6-v2")
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = load_weights(AutoModel, str(folder), None, dtype=torch.float32).to(pick_device()).eval()
        self._batch_size = section.batch_size
        self._posts: dict[str, Tensor] = {}

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """Return the cosine of each completion with its post.

        Posts come back at every step and mix, and are embedded once; each by itself, so that a run that was stopped
        and has other posts to embed again rounds none of them differently.
        """
        for sample in samples:
            if sample.post not in self._posts:
                self._posts[sample.post] = self._embed([sample.post])[0]
        posts = torch.stack([self._posts[sample.post] for sample in samples])
        answers = self._embed([sample.completion for sample in samples])
        cosines: np.ndarray = (posts * answers).sum(-1).cpu().double().numpy()
        return cosines

    @torch.no_grad()
    def _embed(self, texts: Sequence[str]) -> Tensor:
        """Return unit vectors (n, 384); texts of similar length share a batch."""
        vectors: list[Tensor] = [torch.empty(0)] * len(texts)
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            inputs = self._tokenizer(
                [texts[index] for index in batch],
                padding=True,
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="pt",
            ).to(self._model.device)
            states = self._model(**inputs).last_hidden_state  # (b, tokens, 384)
            mask = inputs["attention_mask"][..., None]
            pooled = (states * mask).sum(1) / mask.sum(1)
            for index, vector in zip(batch, torch.nn.functional.normalize(pooled, dim=-1), strict=True):
                vectors[index] = vector
        return torch.stack(vectors)
