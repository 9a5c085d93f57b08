"""What of a recipe travels to a machine that has it not."""

from __future__ import annotations

from pathlib import Path

from rsoup.recipe_file import parse_recipe
from rsoup.stages.inputs import inputs_of


def test_a_functions_file_travels_with_the_files_that_it_imports(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    (folder / "parts").mkdir(parents=True)
    texts = {"score.py": "import helper\n", "helper.py": "from parts import one\n", "parts/one.py": "", "other.py": "x"}
    for name, text in texts.items():
        (folder / name).write_text(text)
    word = f"{folder / 'score.py'}"
    content = {"model": {"base": "none"}, "task": {"name": "reviews"}, "rewards": {"f": {"function": f"{word}:f"}}}
    found = inputs_of(parse_recipe(content, "test"))[word]
    assert found.is_here()
    assert set(found.files) == {"score.py", "helper.py", "parts/one.py"}
    assert dict(found.chunks()) == {name: texts[name].encode() for name in found.files}
    (folder / "parts" / "one.py").write_text("changed")
    assert not found.is_here()
