"""``rsoup serve``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from rsoup.cli.completion import complete_adapter, complete_base, complete_run
from rsoup.cli.display import out, say
from rsoup.errors import MissingPackageError, RecipeError
from rsoup.installing import pip_line

if TYPE_CHECKING:
    from rsoup.serving.source import Source

PACKAGES = ("starlette", "uvicorn", "prometheus_client")
"""What the extra [serve] brings."""
MODELS, LIMITS = "What is served", "Limits"
QUEUE, MAX_TOKENS, GRACE = 256, 512, 30.0

RunArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]",
        help="Folder of a run, or the recipe of one.",
        show_default=False,
        autocompletion=complete_run,
    ),
]
BaseOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Base model: bundled name, folder or hub id.",
        show_default=False,
        autocompletion=complete_base,
        rich_help_panel=MODELS,
    ),
]
AdaptersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--adapters",
        metavar="A B ...",
        help="Adapter folders, or NAME=FOLDER. Default: those of the run.",
        show_default=False,
        autocompletion=complete_adapter,
        rich_help_panel=MODELS,
    ),
]
MethodOption = Annotated[
    Literal["factors", "cat"] | None,
    typer.Option(
        "--method",
        help="How adapters are mixed. Default: as the run was evaluated.",
        show_default=False,
        rich_help_panel=MODELS,
    ),
]
DtypeOption = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"] | None,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="Of the weights: auto, float32 (on a CPU the default), bfloat16 or float16.",
        show_default=False,
        rich_help_panel=MODELS,
    ),
]
StartsOption = Annotated[
    bool,
    typer.Option(
        "--allow-different-starts",
        help="Mix adapters that began elsewhere.",
        rich_help_panel=MODELS,
        show_default=False,
    ),
]
ExtrapolateOption = Annotated[
    bool,
    typer.Option(
        "--allow-extrapolation",
        help="Take weights that are negative or do not sum to 1.",
        rich_help_panel=MODELS,
        show_default=False,
    ),
]
BatchOption = Annotated[
    int | None,
    typer.Option(
        "--batch",
        min=1,
        help="Answers computed at once (default 64, on a GPU 256).",
        show_default=False,
        rich_help_panel=LIMITS,
    ),
]
CacheOption = Annotated[
    int | None,
    typer.Option(
        "--cache-tokens",
        min=1,
        help="Tokens held for all answers together (default: half of the free memory).",
        show_default=False,
        rich_help_panel=LIMITS,
    ),
]


def serve(
    run: RunArgument = None,
    model: BaseOption = None,
    adapters: AdaptersOption = None,
    method: MethodOption = None,
    dtype: DtypeOption = None,
    allow_extrapolation: ExtrapolateOption = False,
    allow_different_starts: StartsOption = False,
    host: Annotated[str, typer.Option("--host", help="Address to listen at; this machine alone by default.")] = (
        "127.0.0.1"
    ),
    engine: Annotated[
        Literal["rsoup", "vllm"],
        typer.Option(
            "--engine",
            help="rsoup mixes row by row; vllm takes each mix as an adapter of its own, its weights rounded.",
        ),
    ] = "rsoup",
    vllm_args: Annotated[
        str,
        typer.Option(
            "--vllm-args", metavar="TEXT", help="More arguments of vLLM's server, quoted as one.", show_default=False
        ),
    ] = "",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8000,
    api_key_env: Annotated[
        str | None,
        typer.Option(
            "--api-key-env", metavar="NAME", help="Environment variable with the key to ask for.", show_default=False
        ),
    ] = None,
    batch: BatchOption = None,
    cache_tokens: CacheOption = None,
    queue: Annotated[
        int, typer.Option("--queue", min=1, help="Requests that may wait.", rich_help_panel=LIMITS)
    ] = QUEUE,
    max_tokens: Annotated[
        int,
        typer.Option("--max-tokens", min=1, help="Of an answer that does not say.", rich_help_panel=LIMITS),
    ] = MAX_TOKENS,
    grace: Annotated[
        float,
        typer.Option("--grace", min=0, help="Seconds that answers have to end when stopped.", rich_help_panel=LIMITS),
    ] = GRACE,
) -> None:
    """An OpenAI-compatible server: any trade-off per request, all in one batch."""
    check_packages("rsoup serve")
    from rsoup.serving.binding import bound, key_of
    from rsoup.serving.source import Source, check_source

    source = Source(run, model, adapters or (), method, dtype, allow_different_starts)
    if engine == "vllm":
        _refuse(
            "--engine vllm",
            {
                "--model": model,
                "--adapters": adapters,
                "--allow-extrapolation": allow_extrapolation,
                "--batch": batch,
                "--cache-tokens": cache_tokens,
                "--queue": queue != QUEUE,
                "--max-tokens": max_tokens != MAX_TOKENS,
                "--grace": grace != GRACE,
            },
        )
        _serve_with_vllm(source, shlex.split(vllm_args), host=host, port=port, api_key_env=api_key_env)
    _refuse("--engine rsoup", {"--vllm-args": vllm_args})
    key = key_of(api_key_env)
    with bound(host, port) as listener:
        check_source(source)
        from rsoup.serving.server import Settings
        from rsoup.serving.server import serve as run_server

        settings = Settings(
            host=host,
            rows=batch,
            cache_tokens=cache_tokens,
            queue=queue,
            max_tokens=max_tokens,
            grace=grace,
            extrapolate=allow_extrapolation,
        )
        run_server(source, settings, lambda url: out.print(url, soft_wrap=True), say, listener=listener, key=key)


def _refuse(engine: str, given: Mapping[str, object]) -> None:
    """Refuse flags that an engine would not heed."""
    for flag, value in given.items():
        if value:
            raise RecipeError(f"{flag} says nothing to {engine}.", f"Leave {flag} out, or take the other engine.")


def _serve_with_vllm(source: Source, more: list[str], *, host: str, port: int, api_key_env: str | None) -> NoReturn:
    """Become vLLM's server of a run."""
    from rsoup.models.vllm import require_vllm
    from rsoup.serving.binding import key_of
    from rsoup.serving.vllm_server import launch, replace_by

    require_vllm()
    if source.run is None or not Path(source.run).is_dir():
        raise RecipeError("--engine vllm serves the folder of a run, and none is given.", "Give RUN.")
    folder = Path(source.run) / "soups"
    made = launch(source, host=host, port=port, api_key=key_of(api_key_env), more=more, folder=folder)
    say(f"Weights are rounded to steps of 1/{made.steps}; mixes are written to {folder} when first asked for.")
    replace_by(made)


def check_packages(command: str) -> None:
    """Say what to install if a package is missing that the extra [serve] brings."""
    missing = next((name for name in PACKAGES if find_spec(name) is None), None)
    if missing is not None:
        raise MissingPackageError(missing, command, pip_line("serve"))
