"""GRPO and RLOO through TRL: the gradient they promise, on the prompts, rewards and files of PPO."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from rsoup.errors import ModelError, RecipeError, RewardError, RsoupError
from rsoup.files import sha256_file
from rsoup.models.language_model import masked_tokens
from rsoup.models.load import load_language_model
from rsoup.progress import Silent
from rsoup.recipe import GenerationSection, LoraSection, PPOSection, Recipe, TrainingSection
from rsoup.recipe_file import load_recipe
from rsoup.tasks.loading import Example
from rsoup.training.expert import adapter_folder, train_adapter
from rsoup.training.loop import Objective
from rsoup.training.policy import Policy, fresh_config
from rsoup.training.rollout import pick_examples
from rsoup.training.team import Team
from rsoup.training.trl_backend import tokenizer_for, train_with_trl
from rsoup.training.trl_settings import check_trl, trainer_settings
from tiny import POSTS, build_adapter, recipe_content, write_recipe

WEIGHTS = "adapter_model.safetensors"
ALGOS = ("grpo", "rloo")
PROMPTS, GROUP = 2, 3
GENERATION = GenerationSection(max_new_tokens=6, temperature=0.8)


def length(prompts: list[str], completions: list[str]) -> list[float]:
    return [float(len(completion)) for completion in completions]


def one_step(algo: str, **settings: Any) -> TrainingSection:
    settings = {"ppo": PPOSection(epochs=1, kl_coef=0.1), "steps": 1, "learning_rate": 0.01, **settings}
    return TrainingSection(algo=algo, prompts_per_step=PROMPTS, completions_per_prompt=GROUP, **settings)  # type: ignore[arg-type]


def make_policy(model: Path) -> Policy:
    loaded = load_language_model(str(model), revision=None, dtype="float32")
    torch.manual_seed(0)
    policy = Policy(loaded, fresh_config(LoraSection(r=2, alpha=4), loaded))
    policy.remember_start()
    return policy


def make_examples(policy: Policy) -> list[Example]:
    tokenizer = policy.language_model.tokenizer
    return [Example(str(i), post, f"{post} :", tuple(tokenizer(f"{post} :").input_ids)) for i, post in enumerate(POSTS)]


def train_directly(
    policy: Policy, folder: Path, training: TrainingSection, scorers: dict[str, Any], weights: dict[str, float]
) -> None:
    train_with_trl(
        policy,
        make_examples(policy),
        Objective(scorers, weights),
        training,
        GENERATION,
        seed=0,
        folder=folder,
        fingerprint="",
        progress=Silent(),
        team=Team(),
    )


def gradients(folder: Path) -> list[Tensor]:
    """Return the gradients of a training's only step: Adam's first moment is a tenth of them."""
    tensors = load_file(folder / "step-000001.safetensors")
    count = sum(name.endswith("/exp_avg") for name in tensors)
    return [tensors[f"optimizer/{index}/exp_avg"] / 0.1 for index in range(count)]


def watch_inputs(policy: Policy) -> list[Tensor]:
    """Return a list that collects the token ids that the model is given."""
    seen: list[Tensor] = []
    embeddings = policy.language_model.model.get_input_embeddings()
    embeddings.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].clone()))
    return seen


def expected_gradients(policy: Policy, algo: str, rows: Tensor, width: int) -> list[Tensor]:
    """Return the clipped gradients of -A log p by rsoup's own forward pass, from rows of prompt and completion.

    At the first step the ratio is 1 and the KL divergence is 0 and has no slope. RLOO: A is the score less the mean
    of the others', log p that of a completion. GRPO: A is the deviation from the group's mean in units of its
    standard deviation, log p that of a token, averaged over all tokens.
    """
    model = policy.language_model
    rows = torch.stack(sorted(rows, key=lambda row: row[:width].tolist()))  # completions of a prompt side by side
    prompts, ids = rows[::GROUP, :width], rows[:, width:]
    assert all((rows[index, :width] == prompts[index // GROUP]).all() for index in range(len(rows)))
    mask = torch.cat([torch.ones_like(ids[:, :1]), (ids[:, :-1] != model.stop_ids[0]).long().cumprod(-1)], -1).bool()
    scores = torch.tensor(
        length([], model.tokenizer.batch_decode(masked_tokens(ids, mask), skip_special_tokens=True))
    ).view(PROMPTS, GROUP)
    if algo == "rloo":
        advantages = scores - (scores.sum(1, keepdim=True) - scores) / (GROUP - 1)
        shares = mask / len(rows)
    else:
        advantages = (scores - scores.mean(1, keepdim=True)) / (scores.std(1, keepdim=True) + 1e-4)
        shares = mask / mask.sum()
    thoughts = policy.think(prompts, prompts != model.pad_id, ids.view(PROMPTS, GROUP, -1), GENERATION.temperature)
    loss = -(advantages.flatten()[:, None] * thoughts.logprobs.flatten(0, 1) * shares).sum()
    loss.backward()
    factors = [parameter for parameter in policy.peft.parameters() if parameter.requires_grad]
    torch.nn.utils.clip_grad_norm_(factors, 1.0)
    return [parameter.grad for parameter in factors if parameter.grad is not None]


@pytest.mark.parametrize("settings", [{}, {"prompts_per_pass": 1}, {"gradient_checkpointing": True}])
@pytest.mark.parametrize("algo", ALGOS)
def test_the_first_gradient_is_the_one_of_the_algorithm(
    tmp_path: Path, tiny_model: Path, algo: str, settings: dict[str, Any]
) -> None:
    trained, untouched = make_policy(tiny_model), make_policy(tiny_model)
    seen = watch_inputs(trained)
    train_directly(trained, tmp_path, one_step(algo, **settings), {"length": length}, {"length": 1.0})
    width = max(len(example.tokens) for example in pick_examples(make_examples(trained), PROMPTS, 0, 0))
    rows = torch.cat(
        seen[-PROMPTS if "prompts_per_pass" in settings else -1 :]
    )  # the last passes are those that gradients are taken of
    assert len(rows) == PROMPTS * GROUP
    for found, expected in zip(gradients(tmp_path), expected_gradients(untouched, algo, rows, width), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("algo", ALGOS)
def test_the_model_reads_the_prompts_of_ppo_token_by_token(tmp_path: Path, tiny_model: Path, algo: str) -> None:
    policy = make_policy(tiny_model)
    seen = watch_inputs(policy)
    train_directly(policy, tmp_path, one_step(algo, steps=2), {"length": length}, {"length": 1.0})
    widest = [rows for rows in seen if rows.shape[1] > 1]
    firsts = [widest[0], next(rows for rows in widest[1:] if rows.shape[1] != widest[1].shape[1])]
    for step, rows in enumerate(firsts):
        examples = pick_examples(make_examples(policy), PROMPTS, step, 0)
        ids, _ = policy.language_model.pad([example.tokens for example in examples for _ in range(GROUP)])
        assert torch.equal(rows, ids)


def test_a_tokenizer_that_begins_every_text_does_not_begin_a_templated_prompt_twice(language_model: Any) -> None:
    tokenizer = language_model.tokenizer
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<eos> $A", special_tokens=[("<eos>", tokenizer.eos_token_id)]
    )
    tokens = tuple(tokenizer("<eos> the lid", add_special_tokens=False).input_ids)
    example = Example("1", "the lid", "<eos> the lid", tokens)
    assert tokenizer("<eos> the lid").input_ids == [tokens[0], *tokens]
    twin = tokenizer_for(language_model, [example])
    assert twin(text=["<eos> the lid"] * 2)["input_ids"] == [list(tokens)] * 2
    assert twin.batch_decode([[4, 5]]) == tokenizer.batch_decode([[4, 5]])
    assert tokenizer("<eos> the lid").input_ids == [tokens[0], *tokens]  # the model's own one stays as it is


@pytest.mark.parametrize("algo", ALGOS)
def test_rewards_read_posts_and_completions(tmp_path: Path, tiny_model: Path, algo: str) -> None:
    policy = make_policy(tiny_model)
    calls: list[tuple[list[str], list[str]]] = []

    def recorded(prompts: list[str], completions: list[str]) -> list[float]:
        calls.append((prompts, completions))
        return length(prompts, completions)

    scorers = {"length": length, "recorded": recorded}
    train_directly(policy, tmp_path, one_step(algo, steps=2), scorers, {"length": 1.0})
    assert len(calls) == 2  # a reward without weight is scored too, once a step
    for step, (posts, completions) in enumerate(calls):
        examples = pick_examples(make_examples(policy), PROMPTS, step, 0)
        assert posts == [example.post for example in examples for _ in range(GROUP)]
        assert all(text == text.strip() and "<eos>" not in text for text in completions)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["scores"]["recorded"] for line in lines] == [np.mean(length(*call)) for call in calls]
    assert [line["reward"] for line in lines] == [line["scores"]["length"] for line in lines]
    assert [line["completion"] for line in lines] == [completions[0] for _, completions in calls]


def trained(
    tmp_path: Path, model: Path, name: str, algo: str, weights: dict[str, float], scale: float = 1.0, **settings: Any
) -> list[Tensor]:
    """Return the gradients of the first step of a training on two rewards, the second one scaled."""
    scorers = {"length": length, "early": lambda _p, texts: [scale * (text < "l") for text in texts]}
    train_directly(make_policy(model), tmp_path / name, one_step(algo, **settings), scorers, weights)
    return gradients(tmp_path / name)


def test_the_weighted_sum_of_scores_is_divided_by_the_sum_of_weights(tmp_path: Path, tiny_model: Path) -> None:
    """RLOO does not scale rewards, so weights that are not divided would show."""
    weights = {"length": 1.0, "early": 3.0}
    settings = {"max_grad_norm": 1e9}
    one = trained(tmp_path, tiny_model, "one", "rloo", weights, **settings)
    tenfold = trained(
        tmp_path, tiny_model, "tenfold", "rloo", {name: 10 * w for name, w in weights.items()}, **settings
    )
    assert all(torch.equal(*pair) for pair in zip(one, tenfold, strict=True))
    halves = [trained(tmp_path, tiny_model, name, "rloo", {name: 1.0}, **settings) for name in ("length", "early")]
    for mixed, first, second in zip(one, *halves, strict=True):
        torch.testing.assert_close(mixed, (first + 3 * second) / 4, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("algo", ALGOS)
def test_normalised_scores_do_not_depend_on_their_scale(tmp_path: Path, tiny_model: Path, algo: str) -> None:
    weights = {"length": 1.0, "early": 1.0}
    for scaling, alike in (("normalize_then_sum", True), ("raw", False)):
        small, large = (
            trained(tmp_path, tiny_model, f"{scaling}-{scale}", algo, weights, scale, score_scaling=scaling)
            for scale in (1e2, 1e4)
        )
        close = all(torch.allclose(*pair, rtol=1e-2, atol=1e-3) for pair in zip(small, large, strict=True))
        assert close == alike


COUNTED = '''
import os
from pathlib import Path

def brief(prompts, completions):
    """Score brevity until the countdown in the file beside this one is over; then do what the file says."""
    counter = Path(__file__).with_name("countdown")
    left, end = counter.read_text().split(maxsplit=1)
    if left == "0":
        if end == "nan":
            return [float("nan")] * len(completions)
        os.kill(os.getpid(), int(end))
    counter.write_text(f"{int(left) - 1} {end}")
    return [-float(len(completion.split())) for completion in completions]
'''


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """Let SIGINT interrupt, also where a shell started the tests in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def countdown_recipe(folder: Path, model: Path, algo: str, left: int, end: str = f"{signal.SIGINT:d}") -> Recipe:
    """Return a recipe whose reward sends a signal, or returns nan, when its countdown is over."""
    folder.mkdir(exist_ok=True)
    content = recipe_content(folder, model)
    (folder / "counted.py").write_text(COUNTED)
    (folder / "countdown").write_text(f"{left} {end}")
    content["rewards"] = {"brief": {"function": f"{folder / 'counted.py'}:brief"}}
    content["training"] |= {"algo": algo, "ppo": {"epochs": 2, "mini_batches": 2, "kl_coef": 0.05}}
    content["morl"] = []
    return load_recipe(write_recipe(folder / "r.yaml", content))


def train_brief(recipe: Recipe) -> Path:
    return train_adapter(recipe, "brief", {"brief": 1.0}, "expert", Silent())


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the metrics of a training without the times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.mark.parametrize("algo", ALGOS)
def test_an_interrupted_training_goes_on_bit_for_bit(tmp_path: Path, tiny_model: Path, algo: str) -> None:
    whole = train_brief(countdown_recipe(tmp_path / "whole", tiny_model, algo, left=100))
    for step in (0, 2):
        with pytest.raises(KeyboardInterrupt):
            train_brief(countdown_recipe(tmp_path / str(step), tiny_model, algo, left=step))
        assert not (tmp_path / str(step) / "run/adapters/brief").exists()
        folder = train_brief(countdown_recipe(tmp_path / str(step), tiny_model, algo, left=3 - step))
        assert sha256_file(folder / WEIGHTS) == sha256_file(whole / WEIGHTS)
        assert metrics(folder) == metrics(whole)


def test_a_training_killed_in_the_middle_of_a_step_goes_on_bit_for_bit(tmp_path: Path, tiny_model: Path) -> None:
    whole = train_brief(countdown_recipe(tmp_path / "whole", tiny_model, "rloo", left=100))
    countdown_recipe(tmp_path / "killed", tiny_model, "rloo", left=2, end=f"{signal.SIGKILL:d}")
    words = [sys.executable, "-m", "rsoup", "train", str(tmp_path / "killed/r.yaml"), "--reward", "brief"]
    killed = subprocess.run(words, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    talk = [line for line in killed.stderr.splitlines() if "/3" not in line and line.strip()]
    assert len(talk) == 2, talk  # the shared start, and a completion of the first step: TRL says nothing
    folder = train_brief(countdown_recipe(tmp_path / "killed", tiny_model, "rloo", left=1))
    assert sha256_file(folder / WEIGHTS) == sha256_file(whole / WEIGHTS)
    assert metrics(folder) == metrics(whole)


def test_two_processes_share_the_completions_of_a_step(tmp_path: Path, tiny_model: Path) -> None:
    alone = train_brief(countdown_recipe(tmp_path / "alone", tiny_model, "grpo", left=100))
    content = recipe_content(tmp_path / "two", tiny_model)
    content["training"] |= {"algo": "grpo", "steps": 2, "ppo": {"epochs": 2, "kl_coef": 0.05}}
    recipe = write_recipe(tmp_path / "two/r.yaml", content)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    words = [*launcher, "-m", "rsoup", "train", str(recipe), "--reward", "brief"]
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, "ACCELERATE_USE_CPU": "true"})
    folder = tmp_path / "two/run/adapters/brief"
    found = json.loads((folder / "rsoup.json").read_text())
    assert (found["processes"], found["score_statistics"]["brief"]["count"]) == (2, 2 * 2 * 3)
    assert [line["prompt"] for line in metrics(folder)] == [line["prompt"] for line in metrics(alone)[:2]]
    assert metrics(folder)[0]["kl"] == 0.0
    assert metrics(folder)[1]["kl"] != 0.0


@pytest.mark.parametrize("algo", ALGOS)
def test_the_kl_reference_is_the_given_start(tmp_path: Path, tiny_model: Path, algo: str) -> None:
    given = build_adapter(tmp_path / "given", tiny_model, seed=1, lora_dropout=0.1)
    content = recipe_content(tmp_path, tiny_model)
    content["model"] |= {"start": str(given)}
    content["training"] |= {"algo": algo, "save_every": 2}
    del content["model"]["lora"]
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
    folder = train_adapter(recipe, "brief", {"brief": 1.0}, "expert", Silent())
    assert [line["step"] for line in metrics(folder)] == [1, 2, 3]
    assert metrics(folder)[0]["kl"] == 0.0
    assert metrics(folder)[2]["kl"] != 0.0
    start, end = (load_file(adapter_folder(recipe, name) / WEIGHTS) for name in ("init", "brief"))
    assert start.keys() == end.keys()
    assert any(not torch.equal(start[name], end[name]) for name in start)
    for adapter in (folder, tmp_path / "run/trajectory/brief/step-000002"):
        files = {WEIGHTS, "adapter_config.json", "README.md", "rsoup.json", "metrics.jsonl"}
        assert {path.name for path in adapter.iterdir()} == files  # and no copy of the reference
    assert json.loads((folder / "adapter_config.json").read_text())["lora_dropout"] == 0.1
    assert "trained with GRPO" in (folder / "README.md").read_text() or algo == "rloo"
    found = json.loads((folder / "rsoup.json").read_text())
    assert (found["algo"], found["steps"]) == (algo, 3)
    assert "trl" in found["versions"]


@pytest.mark.parametrize("algo", ALGOS)
def test_a_learnable_reward_goes_up_and_nothing_is_printed(
    tmp_path: Path, tiny_model: Path, algo: str, capfd: pytest.CaptureFixture[str]
) -> None:
    policy = make_policy(tiny_model)
    training = TrainingSection(
        algo=algo,  # type: ignore[arg-type]
        steps=10,
        prompts_per_step=4,
        completions_per_prompt=8,
        learning_rate=0.02,
        ppo=PPOSection(epochs=2, kl_coef=0.0),
    )
    train_directly(policy, tmp_path, training, {"e": lambda _p, texts: [text.count("e") for text in texts]}, {"e": 1.0})
    lines = metrics(tmp_path)
    scores = [line["scores"]["e"] for line in lines]
    assert np.mean(scores[-3:]) > 1.2 * np.mean(scores[:3])
    assert [line["kl"] for line in lines] == [None] * 10  # TRL does not compute it without a coefficient
    assert capfd.readouterr() == ("", "")
    assert list(policy.peft.peft_config) == ["default"]
    assert not policy.peft.training


@pytest.mark.parametrize("algo", ALGOS)
def test_a_reward_that_fails_keeps_the_last_step(tmp_path: Path, tiny_model: Path, algo: str) -> None:
    recipe = countdown_recipe(tmp_path, tiny_model, algo, left=2, end="nan")
    with pytest.raises(RewardError, match="returned nan for the completion"):
        train_brief(recipe)
    assert {path.name for path in (tmp_path / "run/adapters").iterdir()} == {"init"}
    assert (tmp_path / "run/checkpoints/brief/step-000002.safetensors").is_file()


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_training_that_diverges_says_so(tmp_path: Path, tiny_model: Path, epochs: int) -> None:
    """With one pass a step it shows while sampling, with two in the gradient."""
    training = one_step("rloo", steps=3, learning_rate=1e30, ppo=PPOSection(epochs=epochs, kl_coef=0.0))
    with pytest.raises(RsoupError, match="Training has diverged: the gradient is not finite"):
        train_directly(make_policy(tiny_model), tmp_path, training, {"length": length}, {"length": 1.0})


PLAIN = TrainingSection(completions_per_prompt=4)


@pytest.mark.parametrize(
    ("algo", "training", "generation", "message"),
    [
        ("grpo", {"ppo": PPOSection(vf_coef=0.2)}, {}, "training.ppo.vf_coef is for PPO: GRPO has no value function."),
        ("rloo", {"ppo": PPOSection(gamma=0.9)}, {}, "training.ppo.gamma is for PPO: RLOO has no value function."),
        ("rloo", {"ppo": PPOSection(kl_target=3.0)}, {}, "training.ppo.kl_target is for PPO"),
        ("rloo", {"ppo": PPOSection(entropy_coef=0.1)}, {}, "TRL's RLOO has no entropy bonus."),
        ("grpo", {"completions_per_prompt": 1}, {}, "training.completions_per_prompt is 1"),
        ("grpo", {}, {"min_new_tokens": 3}, "generation.min_new_tokens is for PPO"),
        ("grpo", {}, {"stop_at_eos": False}, "generation.stop_at_eos is off"),
        ("grpo", {"score_scaling": "normalize_then_sum", "score_clip": 1.0}, {}, "cannot change scores"),
    ],
)
def test_what_trl_cannot_do_is_refused(
    algo: str, training: dict[str, Any], generation: dict[str, Any], message: str
) -> None:
    section = PLAIN.model_copy(update={"algo": algo, **training})
    with pytest.raises(RecipeError) as caught:
        check_trl(section, GenerationSection(**generation))
    assert message in caught.value.message
    check_trl(section.model_copy(update={"algo": "ppo"}), GenerationSection(**generation))
    check_trl(PLAIN.model_copy(update={"algo": algo}), GenerationSection())


def test_nothing_is_written_before_the_settings_are_checked(tmp_path: Path, tiny_model: Path) -> None:
    content = recipe_content(tmp_path, tiny_model)
    content["training"] |= {"algo": "grpo", "completions_per_prompt": 1}
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
    with pytest.raises(RecipeError):
        train_brief(recipe)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("processes", "per_pass", "expected"),
    [(1, None, (24, 1, 2)), (1, 2, (8, 3, 6)), (1, 4, (12, 2, 4)), (2, None, (12, 1, 2)), (3, 1, (4, 2, 4))],
)
def test_samples_of_a_step_are_split_into_equal_passes(
    processes: int, per_pass: int | None, expected: tuple[int, int, int]
) -> None:
    """12 prompts of 4 completions in 2 mini-batches: rows of a pass, passes of an optimiser step, passes of a round."""
    training = TrainingSection(
        algo="grpo",
        prompts_per_step=12,
        completions_per_prompt=4,
        prompts_per_pass=per_pass,
        ppo=PPOSection(mini_batches=2, epochs=3, cliprange=0.3, kl_coef=0.07),
    )
    settings = trainer_settings(training, GENERATION, processes)
    keys = ("per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation")
    assert tuple(settings[key] for key in keys) == expected
    assert math.prod(expected[::2]) * processes == 12 * 4
    assert (settings["num_iterations"], settings["epsilon"], settings["beta"]) == (3, 0.3, 0.07)


def test_several_gpus_without_a_launcher_are_refused(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    policy = make_policy(tiny_model)
    with pytest.raises(ModelError, match="one process sees 2 GPUs"):
        train_directly(policy, tmp_path, one_step("grpo"), {"length": length}, {"length": 1.0})
    assert not list(tmp_path.glob("step-*"))


def test_ppo_does_not_load_trl() -> None:
    code = "import sys, rsoup.training.expert; sys.exit('trl' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
