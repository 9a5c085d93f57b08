"""The forms of data files: each gives the same rows, and what is broken is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rsoup.errors import DataError
from rsoup.tasks.forms import reader_of

ROWS = [{"prompt": "What, exactly?", "answer": "this"}, {"prompt": "Why é", "answer": "so"}]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def packed(content: bytes) -> bytes:
    """Return a content as gzip has it, without the time, which would be part of a test's name."""
    return gzip.compress(content, mtime=0)


def zstd(text: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(text.encode())
    return sink.getvalue().to_pybytes()


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def rows_of(folder: Path, name: str, content: str | bytes) -> list[Any]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    reader = reader_of(path)
    assert reader is not None
    return list(reader(path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", JSONL),
        ("a.ndjson", JSONL),
        ("A.JSONL", JSONL),
        ("a.jsonl", JSONL.replace("\n", "\r\n")),
        ("a.jsonl", "\ufeff" + JSONL),
        ("a.jsonl", "\n" + JSONL.rstrip()),
        ("a.json", json.dumps(ROWS)),
        ("a.json", "\ufeff" + json.dumps(ROWS, indent=1)),
        ("a.json", json.dumps({"version": 1, "data": ROWS})),
        ("a.json", JSONL),
        ("a.csv", 'prompt,answer\n"What, exactly?",this\nWhy é,so\n'),
        ("a.csv", "\ufeffprompt;answer\r\nWhat, exactly?;this\r\nWhy é;so\r\n"),
        ("a.csv", "sep=;\nprompt;answer\nWhat, exactly?;this\nWhy é;so\n"),
        ("a.csv", 'prompt, answer\n"What, exactly?", "this"\nWhy é, so\n'),
        ("a.tsv", "prompt\tanswer\nWhat, exactly?\tthis\nWhy é\tso\n"),
        ("a.v2.csv", "prompt\tanswer\nWhat, exactly?\tthis\nWhy é\tso\n"),
        ("a.jsonl.gz", packed(JSONL.encode())),
        ("a.json.gz", packed(json.dumps(ROWS).encode())),
        ("a.csv.gz", packed(b'prompt,answer\n"What, exactly?",this\n' + "Why é,so\n".encode())),
        ("a.jsonl.gz", packed(JSONL[:20].encode()) + packed(JSONL[20:].encode())),
        ("a.jsonl.zst", zstd(JSONL)),
        ("a.json.zst", zstd(json.dumps(ROWS))),
    ],
)
def test_every_form_gives_the_same_rows(tmp_path: Path, name: str, content: str | bytes) -> None:
    assert rows_of(tmp_path, name, content) == ROWS


def test_a_long_compressed_file_is_read_whole(tmp_path: Path) -> None:
    rows = [{"post": f"{index} " + "x" * 200} for index in range(5000)]
    assert rows_of(tmp_path, "a.jsonl.zst", zstd("".join(json.dumps(row) + "\n" for row in rows))) == rows


def test_a_header_may_hold_another_delimiter_in_quotes(tmp_path: Path) -> None:
    assert rows_of(tmp_path, "a.csv", '"a;b;c",d\n1,2\n') == [{"a;b;c": "1", "d": "2"}]


def test_a_map_of_parquet_is_a_mapping(tmp_path: Path) -> None:
    table = pa.table({"extra": pa.array([[("a", "1"), ("b", "2")]], pa.map_(pa.string(), pa.string()))})
    assert rows_of(tmp_path, "a.parquet", parquet(table)) == [{"extra": {"a": "1", "b": "2"}}]


def test_columns_without_a_name_may_be_several(tmp_path: Path) -> None:
    assert rows_of(tmp_path, "a.csv", "prompt,,\na,,\n")[0]["prompt"] == "a"


def test_an_object_that_is_a_row_is_one(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "a"}], "id": 1}
    assert rows_of(tmp_path, "a.json", json.dumps(row)) == [row]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '[{"a": 1}', "is not JSON"),
        ("a.json", '{"post": {"0": "a"}, "id": {"0": "b"}}', "holds columns or several lists, not rows"),
        ("a.json", '{"train": [{"a": 1}], "test": [{"a": 1}]}', "holds columns or several lists, not rows"),
        ("a.json", '"text"', "holds str, not rows"),
        ("a.json", '{"a": 1}\n{"a": \n', "line 2: is not JSON"),
        ("a.jsonl", JSONL.encode("utf-16-le"), "is not UTF-8 text"),
        ("a.jsonl", '{"a": 1}\n'.encode("utf-16-le"), "is not UTF-8 text"),
        ("a.jsonl.gz", b"not compressed", "is not a whole .gz file"),
        ("a.jsonl.gz", packed(JSONL.encode())[:-12], "is not a whole .gz file"),
        ("a.jsonl.zst", b"not compressed", "is not a whole .zst file"),
        ("a.csv.gz", packed(b"post\ncaf\xe9\n"), "is not UTF-8 text"),
        ("a.csv", "prompt,answer,prompt\na,b,c\n", "has several columns called 'prompt'"),
        ("a.parquet", parquet(pa.Table.from_arrays([[1], [2]], ["a", "a"])), "has several columns called 'a'"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        rows_of(tmp_path, name, content)
    assert message in caught.value.message
    assert str(tmp_path / name) in caught.value.message


@pytest.mark.parametrize("name", ["a.txt", "a", "a.gz", "a.xlsx", "a.parquet.gz", "jsonl"])
def test_other_names_have_no_reader(name: str) -> None:
    assert reader_of(Path(name)) is None


def test_blanks_around_the_names_of_columns_are_no_part_of_them(tmp_path: Path) -> None:
    assert rows_of(tmp_path, "a.csv", " post , answer\na , b\n") == [{"post": "a ", "answer": "b"}]
    assert rows_of(tmp_path, "b.tsv", "post \tanswer\na\tb\n") == [{"post": "a", "answer": "b"}]
