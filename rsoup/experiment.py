"""The whole experiment: experts, baselines, evaluation, report; it continues where it stopped."""

from __future__ import annotations

from pathlib import Path

from rsoup.errors import AdapterError
from rsoup.evaluation.sweep import RESULTS, evaluate
from rsoup.files import write_text
from rsoup.models.load import load_tokenizer
from rsoup.progress import Progress
from rsoup.recipe import Recipe
from rsoup.recipe_file import dump_recipe
from rsoup.report import Options, Report, make_report
from rsoup.rewards.scoring import make_scorers
from rsoup.tasks import resolve_task
from rsoup.tasks.loading import posts_sha256
from rsoup.training.expert import adapter_folder, is_trained, morl_name, train_adapter


def run(recipe: Recipe, progress: Progress, *, overwrite: bool = False) -> Report:
    """Make everything a recipe describes and return the report; stages that are done are not repeated."""
    experts = {reward: {reward: 1.0} for reward in recipe.rewards}
    baselines = {morl_name(weights, recipe.rewards): weights for weights in recipe.morl}
    check_inputs(recipe)
    if not overwrite:
        for name, weights in {**experts, **baselines}.items():
            is_trained(recipe, name, weights)  # refuses what was made from other inputs
    write_text(recipe.folder / "recipe.yaml", dump_recipe(recipe))
    for name, weights in experts.items():
        train_adapter(recipe, name, weights, "expert", progress, overwrite=overwrite)
    for name, weights in baselines.items():
        train_adapter(recipe, name, weights, "morl", progress, overwrite=overwrite)
    evaluation = recipe.folder / "eval"
    evaluate(recipe, adapters_of(recipe), evaluation, progress)
    progress.start("report", 1)
    report = make_report([evaluation / RESULTS], recipe.folder / "report", Options(seed=recipe.seed))
    progress.advance()
    progress.finish()
    return report


def check_inputs(recipe: Recipe) -> None:
    """Raise RsoupError, before anything is written, if a run would later miss its model, its data or a reward."""
    load_tokenizer(recipe.model.base, recipe.model.revision)
    task = resolve_task(recipe.task)
    for split in ("train", "test"):
        posts_sha256(task, split)
    make_scorers(recipe.rewards)


def adapters_of(recipe: Recipe) -> list[Path]:
    """Return the folders of a recipe's experts and baselines that are trained; AdapterError if none is."""
    names = [*recipe.rewards, *(morl_name(weights, recipe.rewards) for weights in recipe.morl)]
    folders = [adapter_folder(recipe, name) for name in names]
    trained = [folder for folder in folders if folder.is_dir()]
    if not trained:
        raise AdapterError(f"{recipe.folder}: holds no trained adapter.", "Train them first, or give --adapters A B.")
    return trained
