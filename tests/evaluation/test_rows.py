"""Ways to turn a resident base into base plus adapter: they compute the same, and leave the base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.test_rowwise import PROMPTS, build, experts_of, logits
from rsoup.evaluation.applying import applied
from rsoup.evaluation.rows import applied_in_passing


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
def test_folding_one_layer_at_a_time_is_folding_all(tmp_path: Path, kind: str) -> None:
    """Bit for bit, with linear layers, Conv1D and embeddings; also when the pass fails in between."""
    model = build(tmp_path, kind)
    adapter = experts_of(tmp_path, kind)[0]
    base = logits(model, PROMPTS)
    with applied(model, adapter):
        expected = logits(model, PROMPTS)
    with applied_in_passing(model, adapter):
        assert torch.equal(logits(model, PROMPTS), expected)
        assert torch.equal(logits(model, PROMPTS), expected)
    assert not torch.equal(expected, base)
    with applied_in_passing(model, adapter), pytest.raises(IndexError):
        logits(model, [[10**6]])
    with applied_in_passing(model, None):
        assert torch.equal(logits(model, PROMPTS), base)
