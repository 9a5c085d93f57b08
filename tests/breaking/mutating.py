"""Input as it should not be: one change to a good document, drawn from a seed."""

from __future__ import annotations

import copy
import csv
import io
import json
import random
import struct
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

DEEP = 100_000
"""Brackets within brackets, beyond what any parser that calls itself follows."""

HOSTILE: list[Any] = [
    *(None, True, False, 0, -1, 1, 3, 2**31, 2**63, 2**64, 10**30, -(10**18), 0.5, 1e308, float("nan"), float("inf")),
    *("", "F32", "BF16", "I64", "F8_E4M3", "../../etc/passwd", "/dev/zero", "a" * 5000, "\x00", "\ud800"),
    *("(a+)+$", "(", [], [[]], [0], [-1, 5], [2**62, 2**62], ["q_proj"]),
    *({}, {"a": {"b": []}}, {"q_proj": "x"}, {"": 1}, {".*": 2}),
]
"""What a value may be turned into."""
NUMBERS = ("1e999", "1_0", "0x10", "٣", "½", "-", "1,5", '"', "\n", "=1+1", "inf", " 1 ")
"""What is no number, or hardly one."""
KEYS = ("x", "base_model.model.x.lora_A.weight", "use_dora", "bias", "\x1b[0m")
"""What a key may be turned into."""


def mutate_json(content: Any, rng: random.Random, keys: Sequence[str] = KEYS, values: Sequence[Any] = HOSTILE) -> Any:
    """Change, remove or rename one value somewhere in a JSON document."""
    content = copy.deepcopy(content)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in list(items):
            places.append((node, key))
            walk(value)

    walk(content)
    node, key = rng.choice(places)
    action = rng.randrange(4)
    if action == 0:
        del node[key]
    elif action == 1 and isinstance(node, dict):
        node[rng.choice(keys)] = node.pop(key)
    elif action == 2 and isinstance(node[key], int):
        node[key] += rng.choice([-1, 1, 4, 1 << 20, -(1 << 40), 1 << 62])
    else:
        node[key] = copy.deepcopy(rng.choice(values))
    return content


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flip, cut, insert, double or overwrite bytes."""
    data, at = bytearray(content), rng.randrange(len(content))
    action = rng.randrange(6)
    if action == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif action == 1:
        del data[at:]
    elif action == 2:
        data[at:at] = rng.randbytes(rng.randrange(1, 20))
    elif action == 3:
        del data[at : at + rng.randrange(1, 40)]
    elif action == 4:
        data[at : at + 8] = struct.pack("<d", rng.choice([float("nan"), float("inf"), 1e300]))
    else:
        data[: rng.randrange(1, 9)] = rng.randbytes(8)
    return bytes(data)


def mutate_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Change the bytes anywhere, or the JSON of the header; keys may come twice."""
    if rng.random() < 0.4:
        return mutate_bytes(content, rng)
    length = struct.unpack("<Q", content[:8])[0]
    header = mutate_json(json.loads(content[8 : 8 + length]), rng)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    if rng.random() < 0.1 and text.endswith(b"}}"):
        text = text[:-1] + b"," + text[1:]
    padding = b" " * rng.choice([0, 0, -len(text) % 8, 64])
    return struct.pack("<Q", len(text + padding)) + text + padding + content[8 + length :]


def mutate_text(content: bytes, rng: random.Random) -> bytes:
    """Change the bytes or the values of a JSON file, or nest it deeper than anything reads."""
    if rng.random() < 0.3:
        return mutate_bytes(content, rng)
    if rng.random() < 0.03:
        return b"[" * DEEP
    return as_json(mutate_json(json.loads(content), rng))


def as_json(content: Any) -> bytes:
    """Write JSON, half a pair of surrogates too."""
    return json.dumps(content).encode("utf-8", "surrogatepass")


def mutate_lines(rows: Sequence[Any], rng: random.Random, keys: Sequence[str] = KEYS) -> bytes:
    """Write rows as JSON Lines with a change in some of them, in the bytes, or in the lines themselves."""
    lines = [as_json(row) for row in rows]
    action, at = rng.randrange(6), rng.randrange(len(lines))
    if action == 0:
        lines[at] = lines[at][: rng.randrange(len(lines[at]))]
    elif action == 1:
        lines[at] = rng.choice([b"", b"[" * DEEP, b"null", b"1", b"[]", b"NaN", b'"text"', b"\xff\xfe", b"1" * 5000])
    elif action == 2:
        lines[at : at + 1] = [lines[at]] * 2
    elif action == 3:
        return mutate_bytes(b"\n".join(lines), rng)
    else:
        for row in range(at, len(rows)) if action == 4 else [at]:
            lines[row] = as_json(mutate_json(rows[row], rng, keys))
    return rng.choice([b"\n", b"\n", b"\r\n"]).join(lines)


def mutate_table(rows: Sequence[dict[str, Any]], rng: random.Random, delimiter: str = ",") -> bytes:
    """Write rows of cells as CSV with a change in a cell, in the header, or in the bytes."""
    header = list(rows[0])
    cells = [header, *([str(row[name]) for name in header] for row in rows)]
    action, line = rng.randrange(5), rng.randrange(len(cells))
    at = rng.randrange(len(header))
    if action == 0:
        cells[line][at] = str(rng.choice([*HOSTILE, *NUMBERS]))
    elif action == 1:
        cells[line] = cells[line][:at] if rng.random() < 0.5 else [*cells[line], "x"]
    elif action == 2:
        cells[0][at] = rng.choice(["", "id", "x" * 3000, "score:", "weight:", "mu:", "lambda", *header])
    elif action == 3:
        cells = [[*row[:at], *row[at + 1 :]] for row in cells]
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(cells)
    text = out.getvalue().encode("utf-8", "surrogatepass")
    return mutate_bytes(text, rng) if action == 4 else text


def mutate_parquet(table: pa.Table, rng: random.Random) -> bytes:
    """Write a table as Parquet with a change in a value, in a column, or in the bytes."""
    names, at = list(table.column_names), rng.randrange(table.num_columns)
    action = rng.randrange(6)
    values = table.column(at).to_pylist()
    if action == 0:
        table = table.drop_columns([names[at]])
    elif action == 1:
        names[at] = rng.choice([*names, "", "x" * 3000, "column:", "score:"])
        table = table.rename_columns(names)
    elif action == 2:
        table = table.slice(rng.randrange(table.num_rows), rng.randrange(1, table.num_rows + 1))
    elif action == 3:
        row = rng.randrange(len(values))
        fitting = [own for own in CELLS if own is None or isinstance(own, type(values[row]))]
        values[row] = rng.choice(fitting)
        table = table.set_column(at, names[at], pa.array(values, table.schema.types[at]))
    elif action == 4:
        kind = rng.choice([pa.string(), pa.binary(), pa.list_(pa.int64()), pa.null(), pa.date32(), pa.decimal128(5, 2)])
        column = pa.nulls(len(values), kind)
        table = table.set_column(at, names[at], column)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    content: bytes = sink.getvalue().to_pybytes()
    return mutate_bytes(content, rng) if action == 5 else content


CELLS = [None, -1, 0, 1e308, float("nan"), float("inf"), "", "\x00", "a" * 5000]
"""What a cell of a column may be turned into."""
YAML_LINES = [
    *("&a [*a]", "&a {b: *a}", "<<: 5", "<<: [*x]", "? [a]", "!!python/object:os.system x", "!!binary x", "!!int x"),
    *("2023-99-99", "date: 2023-02-30", "!!timestamp 2023-13-01", "0o9", "0b", "_", "1:99", ".inf", "!!float _"),
    *("\t- x", "x: |", "x: >-", "%YAML 9.9", "---", "...", "*none", "!!set {a}", "!!omap [a]", "!!pairs [a]"),
    *("= : =", "\x00", "\ufeff", "[" * 2000, "{" * 2000),
]
"""What makes trouble in YAML wherever it stands."""


def mutate_yaml(content: Any, rng: random.Random, keys: Sequence[str], values: Sequence[Any]) -> bytes:
    """Write a recipe as YAML with a change in its values or keys, in its lines, or in its bytes."""
    action = rng.randrange(10)
    if action < 7:
        changed = mutate_json(content, rng, keys, values)
        text = yaml.safe_dump(changed, allow_unicode=False) if rng.random() < 0.9 else json.dumps(changed)
        return text.encode("utf-8", "surrogatepass")
    lines = yaml.safe_dump(content).splitlines()
    at = rng.randrange(len(lines))
    if action == 7:
        return mutate_bytes("\n".join(lines).encode(), rng)
    odd = rng.choice(YAML_LINES)
    if action == 8:
        key, colon, _ = lines[at].partition(":")
        lines[at] = f"{key}{colon} {odd}"
    else:
        lines.insert(at, rng.choice([odd, lines[rng.randrange(len(lines))], "  " * rng.randrange(4) + odd]))
    return "\n".join(lines).encode("utf-8", "surrogatepass")
