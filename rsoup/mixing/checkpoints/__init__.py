"""Whole models as ingredients, with numpy alone: read in chunks, mixed in float32, cast once.

    from rsoup.mixing import checkpoints

    mixture = checkpoints.mix_models(["models/instruct", "models/thinking"], [0.7, 0.3])
    checkpoints.write_model(mixture, "models/between")       # shard by shard, in little memory
    checkpoints.check_models(mixture)                        # how the models, or what they add to a base, lie
    checkpoints.extract("models/thinking", "models/base", "thinking-lora", rank=64)    # a difference as an adapter

The methods, each with its formula and source, are in ``RULES``.
"""

from rsoup.mixing.checkpoints.checking import ModelsReport, check_models
from rsoup.mixing.checkpoints.extracting import Extraction, extract
from rsoup.mixing.checkpoints.mixture import Mixture, mix_models
from rsoup.mixing.checkpoints.models import Model, are_models, kind_of, read_model
from rsoup.mixing.checkpoints.rules import RULES
from rsoup.mixing.checkpoints.writing import ModelGrid, write_model, write_model_grid

__all__ = [
    "RULES",
    "Extraction",
    "Mixture",
    "Model",
    "ModelGrid",
    "ModelsReport",
    "are_models",
    "check_models",
    "extract",
    "kind_of",
    "mix_models",
    "read_model",
    "write_model",
    "write_model_grid",
]
