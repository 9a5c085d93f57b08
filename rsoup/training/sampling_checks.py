"""Whether vLLM can sample here for a training (``training.sampling`` vllm), and if not, why."""

from __future__ import annotations

import urllib.error
import urllib.request

import torch

from rsoup.errors import RecipeError
from rsoup.models.vllm import require_vllm
from rsoup.recipe import TrainingSection

PATIENCE = 5.0
"""Seconds a server has to answer."""
SERVE = """VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config '{"backend": "nccl"}' \
--logprobs-mode processed_logprobs"""


def check_sampling(training: TrainingSection, processes: int) -> None:
    """Raise RsoupError unless vLLM can sample for this training on this machine."""
    if training.sampling != "vllm":
        return
    require_vllm("training.sampling vllm")
    has_gpu = torch.cuda.is_available()
    if training.algo == "ppo" and processes > 1:
        raise RecipeError(
            f"training.sampling vllm: {processes} processes would each start an engine on the first GPU.",
            "Start rsoup without a launcher, or set training.algo to grpo or rloo.",
        )
    if training.vllm.sleep and not has_gpu:
        raise RecipeError("training.vllm.sleep: only engines on GPUs can sleep, and there is no GPU.", "Leave it out.")
    if training.algo == "ppo":
        return
    if not has_gpu:
        reason = "vLLM packs its weights on a CPU, and takes no others from TRL in their place"
        if training.vllm.mode == "server":
            reason = "TRL sends weights to the server over NCCL, which needs a GPU here"
        raise RecipeError(
            f"training.sampling vllm with algo {training.algo}: {reason}.",
            "Set training.algo to ppo, which works on a CPU, or training.sampling to transformers.",
        )
    if training.vllm.mode == "server":
        assert training.vllm.url is not None
        check_server(training.vllm.url)
    elif processes % training.vllm.tensor_parallel:
        raise RecipeError(
            f"training.vllm.tensor_parallel ({training.vllm.tensor_parallel}) does not divide the "
            f"{processes} processes there are.",
            "Set it to a divisor of their number.",
        )


def check_server(url: str) -> None:
    """Raise RecipeError unless a vLLM server that takes new weights answers at a URL."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/server_info?config_format=json", timeout=PATIENCE):
            return
    except urllib.error.HTTPError as problem:
        problem.close()
        if problem.code != 404:
            raise RecipeError(
                f"training.vllm.url {url}: answers {problem.code} when it is asked for its configuration.",
                f"Start it with: {SERVE}",
            ) from problem
        raise RecipeError(
            f"training.vllm.url {url}: the server takes no new weights: it does not run in vLLM's development mode.",
            f"Start it with: {SERVE}",
        ) from problem
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "reason", problem)
        raise RecipeError(
            f"training.vllm.url {url}: no server answers ({reason}).", f"Start one with: {SERVE}"
        ) from problem
