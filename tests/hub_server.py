"""Ask a small server on this machine for models and data sets that it answers with every kind of trouble.

Prints what rsoup says as JSON: {case: {what: [message, hint]}}. A process of its own, since the hub's address and
offline mode are read from the environment when its client is imported.
"""

from __future__ import annotations

import http.server
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

CONFIG = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoTokenizer": ["own.Own", None]}}
ANSWERS = {
    "gated": (403, {"X-Error-Code": "GatedRepo"}),
    "closed": (401, {"X-Error-Code": "GatedRepo"}),
    "absent": (401, {"X-Error-Code": "RepoNotFound"}),
    "nowhere": (404, {}),
    "revision": (404, {"X-Error-Code": "RevisionNotFound"}),
    "forbidden": (403, {}),
    "broken": (500, {}),
}


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers a path that names a case with its status."""

    def _answer(self) -> None:
        body = b""
        status, headers = next((answer for case, answer in ANSWERS.items() if f"/{case}" in self.path), (404, {}))
        if "/code/" in self.path and self.path.endswith("config.json"):
            status, headers, body = 200, {"ETag": '"a"', "X-Repo-Commit": "0" * 40}, json.dumps(CONFIG).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = _answer

    def log_message(self, *words: object) -> None:
        """Say nothing."""


def main(cache: str) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
    os.environ["HF_HOME"] = cache
    os.environ.pop("HF_HUB_OFFLINE", None)
    time.sleep = lambda seconds: None  # the hub's client waits between its attempts
    print(json.dumps({case: ask(case) for case in (*ANSWERS, "code")} | {"unreachable": stopped(server)}))


def stopped(server: http.server.HTTPServer) -> dict[str, list[str]]:
    """Ask once more when nobody answers."""
    server.shutdown()
    server.server_close()
    return ask("unreachable")


def ask(case: str) -> dict[str, list[str]]:
    """Return what rsoup says of a base model, a reward model and a data set."""
    from rsoup.errors import RsoupError
    from rsoup.models.load import load_tokenizer
    from rsoup.recipe import RewardSection
    from rsoup.rewards.scoring import make_scorer
    from rsoup.tasks import Task
    from rsoup.tasks.loading import read_rows

    name = f"someone/{case}"
    asked: dict[str, Callable[[], object]] = {
        "model": lambda: load_tokenizer(name, None),
        "reward": lambda: make_scorer("judge", RewardSection(model=name)),
        "data": lambda: read_rows(Task("t", name, eval_data=name), "train"),
    }
    said = {}
    for what, call in asked.items():
        try:
            call()
        except RsoupError as problem:
            said[what] = [problem.message, problem.hint]
    return said


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main(sys.argv[1])
