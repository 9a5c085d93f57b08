"""The address and the key of a server, before a model is loaded in vain."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from rsoup.errors import RecipeError, RsoupError


def key_of(name: str | None) -> str | None:
    """Return the key that an environment variable holds; RecipeError if it holds none."""
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        raise RecipeError(f"--api-key-env: the variable {name} is empty or not set.", f"export {name}=...")
    return key


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a socket with the address; RsoupError if it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, OverflowError) as problem:
        raise RsoupError(f"--host {host}: is no address here ({problem}).", "Give another --host.") from problem
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except (OSError, OverflowError) as problem:
            raise RsoupError(
                f"{host}:{port} cannot be bound ({getattr(problem, 'strerror', problem)}).",
                "Give another --port (0 takes a free one) or --host.",
            ) from problem
        yield listener
