"""The command line: what it prints where, and how it goes on after an interruption."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from command import Command, assert_refused
from report.synthetic import write_triangle
from rsoup.cli.app import spread
from rsoup.cli.training import parse_weights
from rsoup.errors import RecipeError
from tiny import build_adapter, build_classifier, recipe_content, tree, write_recipe

PROGRAM = [sys.executable, "-m", "rsoup"]
LOADED = """
import sys
from rsoup.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = ("torch", "transformers", "peft", "datasets", "lm_eval")
print([name for name in heavy if name in sys.modules], file=sys.stderr)
"""


# What a process does


def test_help_is_quick() -> None:
    """It takes a processor no longer than twice the help of a program of one command, which does nothing else."""

    def seconds(command: list[str]) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    one_command = [sys.executable, "-c", "import typer; typer.run(lambda: None)"]
    own, least = (min(seconds(command) for _ in range(5)) for command in (PROGRAM, one_command))
    assert own < 2 * least


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "run --help",
        "rewards",
        "recipes",
        "recipes quickstart",
        "doctor --quick",
        "init reviews --model owner/model --reward brief --reward varied --yes --no-check -o {out}.yaml",
        "mix {run}/adapters/positive {run}/adapters/brief -w 0.5 -w 0.5 -o {out}",
        "mix {run}/adapters/positive {run}/adapters/brief --lambda 0.3 --into {model} -o {out}",
        "mix {run}/adapters/positive {run}/adapters/brief --grid 4 -o {out}",
        "mix {model} {model} --lambda 0.3 -o {out}",
        "pareto {run}/eval/results.json -o {out} --bootstrap 100",
    ],
)
def test_light_commands_leave_torch_alone(words: str, tiny_run: Path, tiny_model: Path, tmp_path: Path) -> None:
    filled = words.format(run=tiny_run / "run", model=tiny_model, out=tmp_path / "out").split()
    ended = subprocess.run([sys.executable, "-c", LOADED, *filled], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.splitlines()[-1] == "[]"


def test_wrong_usage_is_exit_code_2() -> None:
    for words in (["mix"], ["nonsense"], ["train", "--stepz", "3"], ["train", "--steps", "many"]):
        ended = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout) == (2, ""), words
        assert "Traceback" not in ended.stderr


def test_an_error_of_a_process_is_two_lines_on_stderr(tmp_path: Path) -> None:
    ended = subprocess.run([*PROGRAM, "run", "quikstart"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.splitlines() == [
        "error: quikstart: there is no such recipe.",
        "try:   Did you mean quickstart?",
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_cannot_be_imported_is_named(
    rsoup: Command, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("rsoup.training")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "peft", ModuleType("peft"))  # of a release that lacks what is asked of it
    called = rsoup("train", tiny_recipe, "--reward", "brief")
    assert_refused(called, "cannot be imported: cannot import name", "pip check")
    monkeypatch.setitem(sys.modules, "peft", None)
    assert_refused(rsoup("train", tiny_recipe, "--reward", "brief"), "needs the package peft", '[train]"')


def test_an_interrupted_training_goes_on_with_the_same_command(
    rsoup: Command, tmp_path: Path, tiny_model: Path
) -> None:
    content = recipe_content(tmp_path, tiny_model)
    slow = "import time\ndef slow(prompts, completions):\n    time.sleep(0.3)\n    return [1.0] * len(prompts)\n"
    (tmp_path / "own.py").write_text(slow)
    content["rewards"] = {"slow": {"function": f"{tmp_path / 'own.py'}:slow"}}
    content["training"]["steps"] = 6
    content["morl"] = []
    recipe = write_recipe(tmp_path / "r.yaml", content)
    words = ["train", str(recipe), "--reward", "slow"]
    metrics = tmp_path / "run/checkpoints/slow/metrics.jsonl"

    with subprocess.Popen([*PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (metrics.is_file() and len(metrics.read_text().splitlines()) >= 2):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert "The same command continues" in err
    assert not (tmp_path / "run/adapters/slow").exists()
    done = metrics.read_text().splitlines()
    kept = len(list(metrics.parent.glob("step-*")))
    assert kept > 0
    assert len(done) < 6

    assert rsoup(*words).lines == [str(tmp_path / "run/adapters/slow")]
    lines = (tmp_path / "run/adapters/slow/metrics.jsonl").read_text().splitlines()
    assert len(lines) == 6
    assert lines[0] == done[0]  # with its time: the first step was not made again


# What a user gets


def test_a_run_that_is_finished_is_not_repeated(rsoup: Command, run_copy: Path) -> None:
    watched = [*run_copy.parent.glob("run/adapters/*/*"), *run_copy.parent.glob("run/eval/points/*")]
    assert watched
    before = {path: path.stat().st_mtime_ns for path in watched}
    called = rsoup("run", run_copy)
    assert called.code == 0
    assert called.lines[-1] == str(run_copy.parent / "run/report/index.html")
    assert {path: path.stat().st_mtime_ns for path in watched} == before


def test_each_command_works_alone_and_run_finds_its_work_done(rsoup: Command, tmp_path: Path, tiny_model: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", recipe_content(tmp_path, tiny_model))
    run = tmp_path / "run"
    assert rsoup("train", recipe, "-r", "positive", "-r", "brief").lines == [
        str(run / "adapters/positive"),
        str(run / "adapters/brief"),
    ]
    assert rsoup("morl", recipe).lines == [str(run / "adapters/morl-0.50-0.50")]
    assert rsoup("morl", recipe, "-w", "positive=0.4,brief=0.6").lines == [str(run / "adapters/morl-0.40-0.60")]
    assert rsoup("eval", recipe).lines[-1] == str(run / "eval/results.json")
    report = rsoup("pareto", run / "eval/results.json", "-o", run / "report", "--bootstrap", "100")
    assert report.lines[-1] == str(run / "report/index.html")
    assert {"pareto.json", "front.png", "front.svg", "index.html"} <= tree(run / "report")
    mixed = rsoup("mix", run / "adapters/positive", run / "adapters/brief", "-w", 0.5, "-w", 0.5, "-o", tmp_path / "m")
    assert mixed.lines == [str(tmp_path / "m")]
    trained = {path: path.stat().st_mtime_ns for path in run.glob("adapters/*/*")}
    assert rsoup("run", recipe).code == 0
    assert {path: path.stat().st_mtime_ns for path in run.glob("adapters/*/*")} == trained


def test_training_needs_no_recipe(rsoup: Command, tmp_path: Path, tiny_model: Path) -> None:
    recipe_content(tmp_path, tiny_model)  # writes the posts
    judge = build_classifier(tmp_path / "judge")
    own = tmp_path / "own.py"
    own.write_text("def words(prompts, completions):\n    return [len(c.split()) for c in completions]\n")
    words = ["--model", tiny_model, "--data", tmp_path / "posts.jsonl", "-o", tmp_path / "out", "--steps", 1]
    words += ["--set", "training.prompts_per_step=2", "--set", "generation.max_new_tokens=4"]
    called = rsoup("train", *words, "--reward", judge, "--reward", f"{own}:words", "--reward", "brief")
    folders = [tmp_path / "out/adapters" / name for name in ("judge", "words", "brief")]
    assert called.lines == [str(folder) for folder in folders]
    notes = [json.loads((folder / "rsoup.json").read_text()) for folder in folders]
    assert [note["rewards"] for note in notes] == [{"judge": 1.0}, {"words": 1.0}, {"brief": 1.0}]
    assert len({note["init_sha256"] for note in notes}) == 1


def test_evaluating_needs_no_recipe(rsoup: Command, tmp_path: Path, tiny_model: Path, tiny_run: Path) -> None:
    recipe_content(tmp_path, tiny_model)
    adapters = tiny_run / "run/adapters"
    called = rsoup(
        "eval", "--adapters", adapters / "positive", adapters / "brief", "--model", tiny_model, "--json",
        "--data", tmp_path / "posts.jsonl", "--reward", "brief", "--lambdas", 2, "--prompts", 2, "-o", tmp_path / "out",
        "--set", "evaluation.max_new_tokens=4",
    )  # fmt: skip
    results = json.loads(called.out)
    assert [point["lambda"] for point in results["points"]] == [None, 0.0, 1.0]
    assert results["prompts"]["count"] == 2
    assert list(results["points"][0]["scores"]) == ["brief"]


def test_a_flag_beats_a_setting_and_a_setting_beats_the_recipe(
    rsoup: Command, tmp_path: Path, tiny_model: Path
) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", recipe_content(tmp_path, tiny_model))
    settings = ["--set", "training.steps=2", "--set", "training.prompts_per_step=1"]

    def steps(out: str, *words: object) -> int:
        folder = Path(rsoup("train", recipe, "-r", "brief", "-o", tmp_path / out, *words).lines[0])
        return len((folder / "metrics.jsonl").read_text().splitlines())

    assert steps("a") == 3
    assert steps("b", *settings) == 2
    assert steps("c", *settings, "--steps", 1) == 1


def test_data_for_programs_is_json_and_nothing_else(rsoup: Command, run_copy: Path) -> None:
    run = run_copy.parent / "run"
    assert json.loads(rsoup("eval", run_copy, "--json").out)["schema"] == 1
    report = json.loads(rsoup("pareto", run / "eval/results.json", "--json", "-o", run / "report").out)
    assert json.loads((run / "report/pareto.json").read_text())["points"] == report["points"]
    assert json.loads(rsoup("run", run_copy, "--json").out)["points"] == report["points"]
    check = rsoup("mix", run / "adapters/positive", run / "adapters/brief", "--check", "--json")
    assert json.loads(check.out)
    experts = [run / "adapters/positive", run / "adapters/brief"]
    cut = json.loads(
        rsoup("mix", *experts, "--lambda", 0.5, "--method=svd", "--rank=1", "--json", "-o", run / "cut").out
    )
    assert cut["path"] == str(run / "cut")
    assert all(0 < share < 1 for share in cut["discarded"].values())
    grid = json.loads(rsoup("mix", *experts, "--grid", 2, "--json", "-o", run / "grid").out)
    assert [Path(point).name for point in grid["points"]] == ["soup-1.00-0.00", "soup-0.50-0.50", "soup-0.00-1.00"]
    base = yaml.safe_load(run_copy.read_text())["model"]["base"]
    merged = json.loads(rsoup("mix", experts[0], "--into", base, "--json", "-o", run / "merged").out)
    assert (merged["path"], merged["warnings"]) == (str(run / "merged"), [])
    assert merged["changed"] > 0
    assert merged["rounding"] < 1e-6
    assert json.loads(rsoup("recipes", "--schema").out)["title"] == "Recipe"


def test_a_report_of_three_rewards_fits_the_terminal(rsoup: Command, tmp_path: Path) -> None:
    called = rsoup(
        "pareto", write_triangle(tmp_path, prompts=12), "--knee", "--bootstrap", 100, "-o", tmp_path / "report"
    )
    table = called.lines[: called.lines.index("")]
    assert table[0].split() == ["point", "positive", "±", "faithful", "±", "brief", "±", "front"]
    assert len(table) == 17  # a line for each point, whose names are whole
    assert all(len(line) <= 80 for line in table)
    assert any(line.startswith("soup-0.25-0.25-0.50 ") for line in table)
    words = called.lines[called.lines.index("chosen by knee") + 2]
    assert words.split(": ")[0].strip() in called.lines[called.lines.index("chosen by knee") + 3]


def test_the_table_of_a_line_shows_lambda_and_tells_its_points_apart(rsoup: Command, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("lambda,a,b\n0,5.21,0.8201\n0.5,5.22,0.8199\n1,5.23,0.8185\n")
    called = rsoup("pareto", tmp_path / "points.csv", "-o", tmp_path / "report")
    rows = [line.split() for line in called.lines[:4]]
    assert rows[0] == ["point", "lambda", "a", "b", "front"]
    assert rows[2][1:4] == ["0.5", "5.2200", "0.81990"]


def test_known_errors_stand_beside_the_scores_without_intervals(rsoup: Command, tmp_path: Path) -> None:
    text = "kind,lambda,a,a_stderr,b,b_stderr\nsoup,0,5,0.1,1,0.2\nensemble,,4,0.1,1,0.2\nsoup,1,1,0.1,5,0.2\n"
    (tmp_path / "points.csv").write_text(text)
    lines = rsoup("pareto", tmp_path / "points.csv", "-o", tmp_path / "report").lines
    assert "5.00 ± 0.10" in lines[1]
    assert any(line.startswith("  ensemble 0.0") for line in lines)


def test_volumes_of_rewards_with_a_tiny_range_are_not_printed_as_zeros(rsoup: Command, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("lambda,a,b\n0,1e-6,5e-7\n0.5,8e-7,8e-7\n1,3e-7,9e-7\n")
    called = rsoup("pareto", tmp_path / "points.csv", "-o", tmp_path / "report")
    assert ["soup", "1.5e-13"] in [line.split() for line in called.lines]


def test_an_evaluation_ends_with_a_table_of_every_lambda_and_reward(rsoup: Command, run_copy: Path) -> None:
    called = rsoup("eval", run_copy)
    results = json.loads((run_copy.parent / "run/eval/results.json").read_text())
    rows = {line.split()[-1]: line for line in called.lines[:-1]}
    assert called.lines[0].split()[:3] == ["lambda", "positive", "brief"]
    for point in results["points"]:
        for score in point["scores"].values():
            assert f"{score['mean']:.3f}" in rows[point["id"]]
        if point["lambda"] is not None:
            assert rows[point["id"]].startswith(f"{point['lambda']:.2f}")


def test_the_registry_says_what_a_reward_reads_and_scores_a_text(rsoup: Command, tmp_path: Path) -> None:
    listed = rsoup("rewards").out
    assert all(name in listed for name in ("positive", "faithful", "brief"))
    called = rsoup("rewards", "brief", "--prompt", "a [b] c", "--completion", "two [words]")
    assert "completion  two [words]" in called.lines
    assert called.lines[-1].split() == ["score", "-2.0000"]
    (tmp_path / "own.py").write_text("def same(prompts, completions):\n    return [float(prompts == completions)]\n")
    tried = rsoup("rewards", f"{tmp_path / 'own.py'}:same", "--prompt", "x", "--completion", "x")
    assert tried.lines[-1].split() == ["score", "1.0000"]


def test_a_bundled_recipe_is_printed_as_it_is(rsoup: Command, tmp_path: Path) -> None:
    assert any(line.startswith("  quickstart ") for line in rsoup("recipes").lines)
    text = rsoup("recipes", "quickstart").out
    (tmp_path / "mine.yaml").write_text(text)
    assert yaml.safe_load(text)["name"] == "quickstart"
    assert rsoup("recipes", tmp_path / "mine.yaml").out == text


def test_an_adapter_made_elsewhere_is_mixed_with_a_line_of_warning(
    rsoup: Command, tmp_path: Path, tiny_model: Path
) -> None:
    folders = [build_adapter(tmp_path / name, tiny_model, seed) for seed, name in enumerate("ab")]
    called = rsoup("mix", *folders, "--lambda", 0.5, "-o", tmp_path / "out")
    assert called.code == 0
    assert any("could not be verified" in line for line in called.err.splitlines())


def test_values_of_one_option_are_spread() -> None:
    assert spread("--adapters", ["eval", "--adapters", "a", "b", "--json"]) == [
        "eval", "--adapters", "a", "--adapters", "b", "--json",
    ]  # fmt: skip
    assert spread("--adapters", ["--adapters", "a", "--adapters", "b"]) == ["--adapters", "a", "--adapters", "b"]
    assert spread("--adapters", ["mix", "a", "b", "-w", "1"]) == ["mix", "a", "b", "-w", "1"]


def test_weights_are_read_by_name() -> None:
    assert parse_weights("positive=0.4, faithful=0.6") == {"positive": 0.4, "faithful": 0.6}
    for text in ("positive", "positive=x", "=1", "positive=1,,faithful=2"):
        with pytest.raises(RecipeError, match="is not NAME=WEIGHT"):
            parse_weights(text)


@pytest.mark.parametrize(
    ("flags", "engine"),
    [
        (["--vllm-args", "--max-model-len 64"], "rsoup"),
        (["--engine", "vllm", "--adapters", "a", "b"], "vllm"),
        (["--engine", "vllm", "--queue", "3"], "vllm"),
    ],
)
def test_flags_that_a_server_would_not_heed_are_refused(rsoup: Command, flags: list[str], engine: str) -> None:
    flag = next(flag for flag in flags if flag.startswith("--") and flag != "--engine")
    assert_refused(rsoup("serve", "run", *flags), f"{flag} says nothing to --engine {engine}", f"Leave {flag} out")
