"""Files of every format give the same histories; broken ones name file, line and remedy."""

import gzip
import json

import polars as pl
import pytest

from trainers.offline.files import ReadError
from trainers.offline.readers import read_attributes, read_baskets, read_histories, read_prefixes, read_sessions

EVENTS = [("u1", "a", "view", 10), ("u2", "c", "view", 5), ("u1", "b", "purchase", 20)]


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    return path


def histories(frame):
    rows = frame.sort("visitor_id", "time_ms", maintain_order=True)
    return {
        visitor: group["item_id"].to_list() for (visitor,), group in rows.group_by("visitor_id", maintain_order=True)
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lines.txt", "u1 a b\n\nu2 c\n"),
        ("lines.txt.gz", "u1 a b\nu2 c\n"),
        ("lists.json", '{\n "u1": ["a", "b"],\n "u2": ["c"]\n}'),
        ("events.csv", "user_id,item_id,event_type,timestamp\nu1,a,view,10\nu2,c,view,5\nu1,b,purchase,20\n"),
        ("events.csv", "item_id,user_id,timestamp\nb,u1,2026-01-02T00:00:00Z\na,u1,2026-01-01\nc,u2,2026-01-01\n"),
        (
            "events.jsonl",
            "".join(json.dumps({"user_id": u, "item_id": i, "timestamp": t}) + "\n" for u, i, _, t in EVENTS),
        ),
    ],
)
def test_every_format_gives_the_same_histories(tmp_path, name, content):
    assert histories(read_histories(write(tmp_path, name, content), ordered=True)) == {"u1": ["a", "b"], "u2": ["c"]}


def test_parquet_keeps_types_and_times(tmp_path):
    names = ["user_id", "item_id", "event_type", "timestamp"]
    pl.DataFrame(EVENTS, schema=names, orient="row").write_parquet(tmp_path / "events.parquet")
    frame = read_histories(tmp_path / "events.parquet", ordered=True)
    assert frame["time_ms"].to_list() == [10_000, 20_000, 5_000]
    assert frame["event_type"].to_list() == ["view", "purchase", "view"]


def test_items_of_a_set_have_one_time(tmp_path):
    frame = read_histories(write(tmp_path, "sets.txt", "u1 a b\n"), ordered=False)
    assert frame["time_ms"].n_unique() == 1


def test_sessions_and_their_questions(tmp_path):
    frame = read_sessions(write(tmp_path, "train.txt", "1 2\n3\n"))
    assert list(histories(frame).values()) == [["1", "2"], ["3"]]
    assert read_prefixes(write(tmp_path, "test.txt", "1 2\t3\n1\t2\n")) == [
        (["1", "2"], ["view", "view"], [0, 60_000], "3"), (["1"], ["view"], [0], "2"),
    ]  # fmt: skip
    lines = "user_id,item_id,timestamp,event_type\ns,1,1,view\ns,2,2,purchase\ns,3,3,view\nt,9,1,view\n"
    assert read_prefixes(write(tmp_path, "test.csv", lines)) == [
        (["1"], ["view"], [1_000], "2"), (["1", "2"], ["view", "purchase"], [1_000, 2_000], "3"),
    ]  # fmt: skip


def test_sessions_of_a_table_are_those_of_its_session_id(tmp_path):
    lines = ["user_id,session_id,item_id,timestamp", "u,s1,a,1", "u,s1,b,2", "u,s2,c,3", "u,,d,4"]
    table = write(tmp_path, "train.csv", "\n".join(lines))
    assert histories(read_sessions(table)) == {"s1": ["a", "b"], "s2": ["c"], "u": ["d"]}
    assert read_prefixes(table) == [(["a"], ["view"], [1_000], "b")]


def test_baskets_of_nobody_and_of_visitors(tmp_path):
    frame, of_visitors = read_baskets(write(tmp_path, "nobody.csv", "whole milk,bread\nbread\n"))
    assert not of_visitors
    assert frame.group_by("event_id", maintain_order=True).agg("item_id")["item_id"].to_list() == [
        ["whole milk", "bread"],
        ["bread"],
    ]
    frame, of_visitors = read_baskets(write(tmp_path, "visitors.txt", "u1 a b\nu2 a\nu1 c\n"))
    assert of_visitors
    assert frame.filter(pl.col("visitor_id") == "u1")["event_id"].n_unique() == 2


def test_attributes_become_words(tmp_path):
    table = read_attributes(write(tmp_path, "attributes.json", '{"a": [1, 2], "b": []}'))
    assert dict(table.rows()) == {"a": "a1 a2", "b": ""}
    table = read_attributes(write(tmp_path, "items.csv", "item_id,category_path\na,home > lamps\n"))
    assert table["category_path"].to_list() == [["home", "lamps"]]


@pytest.mark.parametrize(
    ("read", "content", "text"),
    [
        ("histories", "u1 a\nu2\n", r"file, line 2: has only `u2`; write the visitor"),
        ("histories", "u1 a\nu1 b\n", r"file, line 2: has the visitor `u1` again; write one line"),
        ("histories", '{"u1": ["a"]\n"u2": []}', r"file, line 2: is not JSON .*; write one object"),
        ("histories", '{"u1": "a"}', r"has no list of items for `u1`; write"),
        ("histories", "  \n", r"file: is empty; give a file"),
        ("histories", "user_id,item_id\nu1,a\n", r"line 1: the column timestamp is missing; name the columns"),
        ("histories", "user_id,item_id,timestamp\nu,a,1\nu,a,soon\n", r"line 3: .* is missing or no time; fill it in"),
        ("histories", "user_id,item_id,timestamp\nu,a,1\nu,a,NaN\n", r"line 3: .* is missing or no time; fill it in"),
        ("histories", "user_id,item_id,timestamp\nu,a,1\nu,a,1e300\n", r"line 3: .* is missing or no time; fill it in"),
        ("histories", "customer,product,time\nu,a,1\n", r"line 1: .* a table has the columns user_id, item_id and"),
        (
            "histories",
            "user_id,item_id,event_type,timestamp\nu,a,look,1\n",
            r"line 2: the event type `look` is unknown",
        ),
        ("sessions", "1 2\n1\t2\n", r"file, line 2: has a tab; put blanks"),
        ("prefixes", "1 2\t3\n1 2\n", r'file, line 2: is not a question; write "item item'),
        ("baskets", "a,b\n,c\n", r"file, line 2: has an item without a name"),
    ],
)
def test_faults_name_file_line_and_remedy(tmp_path, read, content, text):
    readers = {
        "histories": lambda path: read_histories(path, ordered=True),
        "sessions": read_sessions,
        "prefixes": read_prefixes,
        "baskets": read_baskets,
    }
    with pytest.raises(ReadError, match=text):
        readers[read](write(tmp_path, "file", content))


def test_bytes_that_cannot_be_read_are_told(tmp_path):
    path = tmp_path / "file"
    for content, text in [
        (b"u1 a\nu2 \xff\n", r"line 2: is not UTF-8; save"),
        (gzip.compress(b"u1 a\n")[:-9], r"is a damaged gzip file .*; copy or make it again"),
        (b"PAR1 no more", r"cannot be read .*; give CSV"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ReadError, match=text):
            read_histories(path, ordered=True)
    with pytest.raises(ReadError, match=r"cannot be read \(No such file or directory\); check the path"):
        read_histories(tmp_path / "none", ordered=True)
