"""Ask a small server on this machine for models and data sets that it answers with every kind of trouble.

Prints what rsoup says as JSON: {case: {what: [message, hint]}}. The case "whole" is what the server does hand out, and
what came of it, in words that tell one from another: {what: words}. A process of its own, since the hub's address and
offline mode are read from the environment when its client is imported.
"""

from __future__ import annotations

import hashlib
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


NAMES = ("a-model", "an-adapter", "a-judge", "judge-adapter", "some-rows")
SHELF: dict[str, Path] = {}
"""The folders of the repositories that are handed out."""
COMMIT = "0" * 40


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers a path that names a case with its status."""

    def _answer(self) -> None:
        repository = next((name for name in SHELF if f"/{name}" in self.path), None)
        if repository is not None:
            self._hand_out(repository, SHELF[repository])
            return
        body = b""
        status, headers = next(
            (answer for case, answer in ANSWERS.items() if f"someone/{case}" in self.path), (404, {})
        )
        if "/code/" in self.path and self.path.endswith("config.json"):
            status, headers, body = 200, {"ETag": '"a"', "X-Repo-Commit": COMMIT}, json.dumps(CONFIG).encode()
        self._send(status, headers, body)

    def _hand_out(self, repository: str, folder: Path) -> None:
        """Send a file of a repository, or what the hub tells about its files."""
        path = folder / self.path.rpartition("/")[2]
        if self.path.startswith("/api/"):
            body = json.dumps(self._told(repository, {file.name: file.stat().st_size for file in folder.iterdir()}))
            self._send(200, {"Content-Type": "application/json"}, body.encode())
        elif path.is_file():
            body_of = path.read_bytes()
            self._send(200, {"ETag": f'"{hashlib.sha256(body_of).hexdigest()}"', "X-Repo-Commit": COMMIT}, body_of)
        else:
            self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b"")

    def _told(self, repository: str, sizes: dict[str, int]) -> object:
        files = [{"type": "file", "path": name, "size": size, "oid": name} for name, size in sorted(sizes.items())]
        if "/tree/" in self.path:
            return [] if "additional_chat_templates" in self.path else files
        if "/paths-info/" in self.path:
            asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
            return [file for file in files if str(file["path"]) in asked]
        return {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in sorted(sizes)]}

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
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
    fill_shelf(Path(cache))
    answers = {case: ask(case) for case in (*ANSWERS, "code")} | {"whole": fetch()}
    print(json.dumps(answers | {"unreachable": stopped(server)}))


def fill_shelf(folder: Path) -> None:
    """Make the model, the adapter, the reward model and the data set that are handed out."""
    from tiny import build_adapter, build_classifier, build_judge_adapter, build_tiny_model

    SHELF.update({f"someone/{name}": folder / name for name in NAMES})
    build_tiny_model(SHELF["someone/a-model"], 0)
    build_adapter(SHELF["someone/an-adapter"], SHELF["someone/a-model"], 0)
    build_classifier(SHELF["someone/a-judge"])
    build_judge_adapter(SHELF["someone/judge-adapter"], SHELF["someone/a-judge"], "someone/a-judge")
    rows = [json.dumps({"post": f"This is post {number}."}) for number in range(4)]
    SHELF["someone/some-rows"].mkdir()
    (SHELF["someone/some-rows"] / "train.jsonl").write_text("\n".join(rows))


def fetch() -> dict[str, list[str]]:
    """Return what came of each repository and of the folder that it is a copy of."""
    from rsoup.adapters import read_adapter
    from rsoup.mixing.checkpoints import kind_of, read_model
    from rsoup.models.load import load_language_model
    from rsoup.recipe import RewardSection
    from rsoup.rewards import reward_identity
    from rsoup.rewards.samples import plain_samples
    from rsoup.rewards.scoring import make_scorer
    from rsoup.tasks import Task
    from rsoup.tasks.loading import read_rows

    def model(source: str) -> list[str]:
        loaded = load_language_model(source, revision=None, dtype="float32").model
        return [f"{key} {value.double().sum():.12e}" for key, value in loaded.state_dict().items()]

    def scores(source: str) -> list[str]:
        scorer = make_scorer("judge", RewardSection(model=source, template="text"))
        return list(map(str, scorer(plain_samples(["a"], ["b c"]))))

    def rows(source: str) -> list[str]:
        return [row.post for row in read_rows(Task("t", source, column="post", eval_data=source), "train").rows]

    readers: dict[str, Callable[[str], list[str]]] = {
        "a-model": model,
        "an-adapter": lambda source: [str(read_adapter(source).sha256)],
        "a-judge": scores,
        "judge-adapter": scores,
        "some-rows": rows,
    }
    found = {}
    for name, read in readers.items():
        found[name], found[f"{name}'s folder"] = read(f"someone/{name}"), read(str(SHELF[f"someone/{name}"]))
    model_folder = str(SHELF["someone/a-model"])
    found["weights"], found["weights's folder"] = ([read_model(n).sha256] for n in ("someone/a-model", model_folder))
    found["kinds"] = [str(kind_of(f"someone/{name}")) for name in ("a-model", "an-adapter")]
    found["commit"] = [reward_identity("judge", RewardSection(model="someone/a-judge"))["revision"]]
    return found


def stopped(server: http.server.HTTPServer) -> dict[str, list[str]]:
    """Ask once more when nobody answers."""
    server.shutdown()
    server.server_close()
    return ask("unreachable")


def ask(case: str) -> dict[str, list[str]]:
    """Return what rsoup says of a base model, a reward model, a data set and an adapter."""
    from rsoup.adapters import read_adapter
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
        "adapter": lambda: read_adapter(name),
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
