"""Make a report of 1,000 points, 3 rewards and 200 samples each, with 2,000 bootstrap draws."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from measure import run_python  # noqa: E402
from tables import show  # noqa: E402

from report.synthetic import write_triangle  # noqa: E402

LIMIT_SECONDS = 10.0
REPORT = """
import sys
from pathlib import Path
from rsoup.report import Options, make_report
make_report([Path(sys.argv[1])], Path(sys.argv[2]), Options(draws=2000, knee=True))
"""


def main() -> int:
    """Print the cost of the whole process and the size of the page; fail beyond the limit."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_triangle(folder, prompts=200, steps=43)
        cost = run_python(REPORT, path, folder / "report")
        size = (folder / "report" / "index.html").stat().st_size
    show(["points", "process", "page", "limit"], [[991, cost, f"{size / 1e6:.1f} MB", f"{LIMIT_SECONDS:.0f} s"]])
    return int(cost.seconds > LIMIT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
