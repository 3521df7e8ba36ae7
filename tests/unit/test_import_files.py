"""Every fault a file can have is one clear error or one refused row; the rest of the file is imported."""

import gzip
import json
from datetime import UTC, datetime

import polars as pl
import pytest

from server.adapters.memory_log import MemoryLog
from server.importing import files, readers
from server.importing.files import Options, import_file
from server.importing.report import ImportFault
from server.importing.writing import item_record
from shopkeeper.v1 import event_pb2, item_pb2, profile_service_pb2, record_pb2

NOW_MS = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000)
SECOND = 1_767_225_600  # 2026-01-01
HEADER = "user_id,item_id,event_type,timestamp"


@pytest.fixture
def log():
    return MemoryLog()


@pytest.fixture
def run(tmp_path, log):
    def run(content, kind="events", *, name="file.csv", into=log, **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return import_file(into, path, kind, Options(now_ms=NOW_MS, rejected_dir=tmp_path / "rejected", **options))

    return run


def events(log):
    records = [record for record in log.read(0, 10_000) if record.kind == record_pb2.RECORD_KIND_EVENT]
    return [event_pb2.Event.FromString(record.payload) for record in records]


def visitor(event):
    return event.context.user_id or event.context.visitor_id


def refused(report):
    with open(report.rejected_file, encoding="utf-8") as file:  # noqa: PTH123
        return [json.loads(line) for line in file]


def test_rows_become_events(run, log):
    report = run(
        f"{HEADER},price,quantity,session_id,store_id\n"
        f"u1,i1,view,{SECOND},2.5,1,s1,st1\nu2,i2,PURCHASE,{SECOND + 1},,3,,\n"
    )
    first, second = events(log)
    assert (report.rows, report.accepted, report.stored, report.rejected) == (2, 2, 2, 0)
    assert (first.event_type, visitor(first)) == (event_pb2.EVENT_TYPE_VIEW, "u1")
    assert (first.context.session_id, first.context.store_id) == ("s1", "st1")
    assert (first.items[0].price.units, first.items[0].price.nanos) == (2, 500_000_000)
    assert first.event_time.seconds == SECOND
    assert (second.items[0].item_id, second.items[0].quantity) == ("i2", 3)
    assert not second.items[0].HasField("price")


def test_second_import_changes_nothing(run, log):
    content = f"{HEADER},order_id\nu1,i1,view,{SECOND},\nu1,i1,purchase,{SECOND},o1\nu1,i2,purchase,{SECOND},o1\n"
    run(content)
    before = log.last_offset()
    report = run(content)
    assert (report.stored, report.duplicates) == (0, 2)
    assert log.last_offset() == before


def test_same_row_twice_is_one_event(run, log):
    report = run(f"{HEADER}\nu1,i1,view,{SECOND}\nu1,i1,view,{SECOND}\n")
    assert (report.stored, report.duplicates, len(events(log))) == (1, 1, 1)


def test_rows_of_an_order_are_one_event_wherever_they_stand(run, log, monkeypatch):
    monkeypatch.setattr(readers, "BATCH_ROWS", 2)
    monkeypatch.setattr(files, "GROUP", 2)
    rows = [f"u1,i{n},purchase,{SECOND + n},o1" for n in range(3)] + [f"u2,i9,view,{SECOND},"]
    rows.insert(1, f"u2,i1,purchase,{SECOND + 60},o2")
    report = run(f"{HEADER},order_id\n" + "\n".join(rows))
    by_user = {(visitor(event), event.event_type): [line.item_id for line in event.items] for event in events(log)}
    assert report.stored == 3
    assert by_user[("u1", event_pb2.EVENT_TYPE_PURCHASE)] == ["i0", "i1", "i2"]
    assert by_user[("u2", event_pb2.EVENT_TYPE_PURCHASE)] == ["i1"]


def test_events_enter_the_log_in_order_of_time(run, log):
    run(f"{HEADER}\n" + "\n".join(f"u1,i{n},view,{SECOND - n}" for n in range(5)))
    times = [event.event_time.seconds for event in events(log)]
    assert times == sorted(times)


def test_long_order_is_split_at_the_limit_of_an_event(run, log):
    run(f"{HEADER},order_id\n" + "\n".join(f"u1,i{n},purchase,{SECOND},o1" for n in range(501)))
    assert sorted(len(event.items) for event in events(log)) == [1, 500]


def test_changed_order_is_a_conflict_and_says_so(run):
    run(f"{HEADER},order_id\nu1,i1,purchase,{SECOND},o1\n")
    report = run(f"{HEADER},order_id\nu1,i1,purchase,{SECOND},o1\nu1,i2,purchase,{SECOND},o1\n")
    assert report.conflicts == 1
    assert any("other lines" in note for note in report.notes)


def test_dry_run_checks_and_stores_nothing(run, log):
    report = run(f"{HEADER}\nu1,i1,view,{SECOND}\nu1,i1,dance,{SECOND}\n", dry_run=True)
    assert (report.accepted, report.rejected, report.records, report.stored) == (1, 1, 1, 0)
    assert log.last_offset() == 0


def test_lines_are_counted_as_joined_when_the_catalogue_has_the_item(run, log):
    list(log.import_records([[item_record(item_pb2.Item(item_id="i1"), 0)]], 0))
    report = run(f"{HEADER}\nu1,i1,view,{SECOND}\nu1,i2,view,{SECOND}\n")
    assert (report.joined, report.unjoined) == (1, 1)


def test_map_names_the_file_s_own_columns(run, log):
    content = f"visitorid,itemid,event,ts,extra\nu1,i1,addtocart,{SECOND},x\n"
    columns = {"visitorid": "user_id", "itemid": "item_id", "event": "event_type", "ts": "timestamp"}
    report = run(content, columns=columns)
    assert events(log)[0].event_type == event_pb2.EVENT_TYPE_ADD_TO_CART
    assert "columns not read: extra" in report.notes
    assert run("item_id,colour\ni1,red\n", "items", columns={"colour": "attribute.colour"}).stored == 1


def test_event_type_of_a_file_without_the_column(run, log):
    run(f"user_id,item_id,timestamp\nu1,i1,{SECOND}\n", event_type="purchase")
    assert events(log)[0].event_type == event_pb2.EVENT_TYPE_PURCHASE


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (f"{SECOND}", "Unix seconds"),
        (f"{SECOND}.25", "Unix seconds"),
        (f"{SECOND}000", "Unix milliseconds"),
        (f"{SECOND}000000", "Unix microseconds"),
        (f"{SECOND}000000000", "Unix nanoseconds"),
        ("2026-01-01T00:00:00Z", "ISO 8601"),
        ("2026-01-01T01:00:00+01:00", "ISO 8601"),
        ("2026-01-01 00:00:00 UTC", "ISO 8601"),
        ("2026-01-01 00:00:00.000", "ISO 8601 without a time zone, read as UTC"),
        ("2026-01-01", "ISO 8601 without a time zone, read as UTC"),
    ],
)
def test_unit_of_times_is_found_and_said(run, log, text, note):
    report = run(f"{HEADER}\nu1,i1,view,{text}\n")
    assert f"timestamp: {note}" in report.notes
    assert events(log)[0].event_time.seconds == SECOND


def test_row_with_another_unit_of_time_is_refused(run):
    report = run(f"{HEADER}\n" + f"u1,i1,view,{SECOND}\n" * 3 + f"u1,i2,view,{SECOND}000\nu1,i3,view,12\n")
    assert [(row["row"], row["field"]) for row in refused(report)] == [(5, "timestamp"), (6, "timestamp")]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (f"u1,i1,dance,{SECOND},,,", "event_type"),
        (f"u1,i1,,{SECOND},,,", "event_type"),
        (f",i1,view,{SECOND},,,", "user_id"),
        (f"u1,,view,{SECOND},,,", "item_id"),
        (f"u1,,search,{SECOND},,,", "query"),
        ("u1,i1,view,,,,", "timestamp"),
        ("u1,i1,view,yesterday,,,", "timestamp"),
        ("u1,i1,view,0,,,", "timestamp"),
        (f"u1,i1,view,{SECOND * 2},,,", "timestamp"),
        (f"u1,i1,view,{SECOND},cheap,,", "price"),
        (f"u1,i1,view,{SECOND},-1,,", "price"),
        (f"u1,i1,view,{SECOND},nan,,", "price"),
        (f"u1,i1,view,{SECOND},inf,,", "price"),
        (f"u1,i1,view,{SECOND},,1.5,", "quantity"),
        (f"u1,i1,view,{SECOND},,-2,", "quantity"),
        (f"u1,i1,view,{SECOND},,1000001,", "quantity"),
        (f"{'u' * 257},i1,view,{SECOND},,,", "user_id"),
        (f"u\x001,i1,view,{SECOND},,,", "user_id"),
        (f"u1,,search,{SECOND},,,{'q' * 1025}", "query"),
        (f"u1,i1,view,{SECOND}", ""),
        (f"u1,i1,view,{SECOND},,,,,,", ""),
        (f"u1,i\xff,view,{SECOND},,,".encode("latin-1"), ""),
    ],
)
def test_bad_row_is_refused_with_row_number_and_reason_and_the_others_stay(run, log, row, field):
    good = f"u9,i9,view,{SECOND},1,1,\n".encode()
    raw = row if isinstance(row, bytes) else row.encode()
    report = run(f"{HEADER},price,quantity,query\n".encode() + good + raw + b"\n" + good.replace(b"u9", b"u8"))
    (rejection,) = refused(report)
    assert (rejection["row"], rejection["field"]) == (3, field)
    assert rejection["reason"]
    assert sorted(visitor(event) for event in events(log)) == ["u8", "u9"]


def test_search_needs_no_item(run, log):
    run(f"{HEADER},query\nu1,,search,{SECOND},red shoes\nu1,i1,view,{SECOND},\n")
    search, view = sorted(events(log), key=lambda event: -event.event_type)
    assert (search.context.query, len(search.items), len(view.items)) == ("red shoes", 0, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace(",", ";").encode(),
        lambda text: text.replace(",", "\t").encode(),
        lambda text: text.replace("\n", "\n\n").encode(),
        lambda text: text.rstrip().encode(),
        lambda text: gzip.compress(text.encode()),
        lambda text: text.replace("i1", '"i1"').encode(),
    ],
    ids=["bom", "crlf", "semicolon", "tab", "blank-lines", "no-last-newline", "gzip", "quotes"],
)
def test_harmless_ways_to_write_csv(run, log, change):
    report = run(change(f"{HEADER}\nu1,i1,view,{SECOND}\nu2,i1,view,{SECOND}\n"))
    assert (report.stored, report.rejected) == (2, 0)
    assert {event.items[0].item_id for event in events(log)} == {"i1"}


def test_order_of_columns_does_not_matter(run, log):
    run(f"timestamp,event_type,item_id,user_id\n{SECOND},view,i1,u1\n")
    assert visitor(events(log)[0]) == "u1"


ROWS = f"{HEADER}\nu1,i1,view,{SECOND}\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf\r\n", "empty"),
        (HEADER.encode(), "no rows"),
        (b"user_id,user_id,event_type,timestamp\nu,i,view,1\n", "user_id twice"),
        (b"user,item_id,event_type,timestamp\nu,i,view,1\n", "no column user_id"),
        (ROWS.encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04rest", "ZIP"),
        (b"ab\0\0\0\0", "binary"),
        (b'[{"user_id": 1}]', "JSON array"),
        (b"PAR1 and no more", "damaged Parquet"),
        (gzip.compress(ROWS.encode() * 1000)[:-200], "damaged gzip"),
        (gzip.compress(b"")[:5], "damaged gzip"),
        (f'{HEADER}\nu1,"i1,view,{SECOND}\n{"x" * 200_000}'.encode(), "line 2"),
        (b"us\xe9r,item_id\n", "UTF-8"),
    ],
)
def test_file_that_cannot_be_read_is_one_error_with_a_remedy(run, content, words):
    with pytest.raises(ImportFault) as fault:
        run(content)
    assert words in fault.value.what
    assert fault.value.remedy


def test_missing_file_is_one_error(tmp_path, log):
    with pytest.raises(ImportFault, match="cannot be read"):
        import_file(log, tmp_path / "none.csv", "events", Options())


def test_unknown_name_in_map_is_one_error(run):
    with pytest.raises(ImportFault, match="no column nope"):
        run(ROWS, columns={"nope": "user_id"})


def test_json_lines(run, log):
    rows = [
        {"user_id": "u1", "item_id": 7, "event_type": "view", "timestamp": SECOND},
        {"user_id": "u1", "item_id": "i2", "event_type": "view", "timestamp": SECOND, "price": 1.5, "more": {"a": 1}},
    ]
    broken = ['{"user_id": ', "[1]", '"text"', "{}"]
    report = run("\n".join([*map(json.dumps, rows), "", *broken]))
    assert {event.items[0].item_id for event in events(log)} == {"7", "i2"}
    assert [row["row"] for row in refused(report)] == [4, 5, 6, 7]


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_batches_of_refused_lines_only_do_no_harm(run, log, monkeypatch, rows):
    monkeypatch.setattr(readers, "BATCH_ROWS", rows)
    good = json.dumps({"user_id": "u1", "item_id": "i1", "event_type": "view", "timestamp": SECOND})
    report = run("\n".join([good, "{", "", "[]", good.replace("i1", "i\u00e9")]))
    assert (report.rows, report.rejected, len(events(log))) == (4, 2, 2)


def write_parquet(tmp_path, **columns):
    path = tmp_path / "made.parquet"
    pl.DataFrame(columns).write_parquet(path)
    return path.read_bytes()


def test_parquet_of_typed_columns(run, log, tmp_path):
    content = write_parquet(
        tmp_path,
        user_id=[1, 2],
        item_id=[7.0, None],
        event_type=["view", "view"],
        timestamp=[datetime(2026, 1, 1, tzinfo=UTC)] * 2,
        quantity=[2, None],
    )
    report = run(content, name="f.parquet")
    (event,) = events(log)
    assert (visitor(event), event.items[0].item_id, event.items[0].quantity) == ("1", "7", 2)
    assert event.event_time.seconds == SECOND
    assert [(row["row"], row["field"]) for row in refused(report)] == [(2, "item_id")]


def test_parquet_with_a_column_of_a_wrong_type_is_one_error(run, tmp_path):
    content = write_parquet(tmp_path, user_id=[{"a": 1}], item_id=["i"], event_type=["view"], timestamp=[SECOND])
    with pytest.raises(ImportFault, match="column user_id has the type Struct"):
        run(content)


def test_truncated_parquet_is_one_error(run, tmp_path):
    content = write_parquet(tmp_path, user_id=["u"], item_id=["i"], event_type=["view"], timestamp=[SECOND])
    with pytest.raises(ImportFault, match="damaged Parquet"):
        run(content[:-20])


def test_items(run, log):
    content = (
        "item_id,title,category_path,brand,price,available,stock_quantity,release_time,attribute.colour\n"
        "i1,Red shoe,Clothes > Shoes,Acme,19.99,yes,4,2026-01-01,red|dark red\n"
        ",No id,,,,,,,\n"
        "i2,Bad price,,,free,,,,\n"
        "i3,Bad truth,,,,perhaps,,,\n"
        "i4,Bad time,,,,,,soon,\n"
    )
    report = run(content, "items")
    change = record_pb2.ItemChange.FromString(log.read(0, 10)[0].payload)
    assert list(change.item.category_path) == ["Clothes", "Shoes"]
    assert (change.item.price.units, change.item.price.nanos) == (19, 990_000_000)
    assert (change.item.stock_quantity, change.item.release_time.seconds) == (4, SECOND)
    assert list(change.item.attributes[0].values) == ["red", "dark red"]
    assert change.set_time.seconds > 0
    fields = [(row["row"], row["field"]) for row in refused(report)]
    assert fields == [(3, "item_id"), (4, "price"), (5, "available"), (6, "release_time")]
    assert (report.stored, run(content, "items").rejected) == (1, 4)


def test_promotions_of_items(run, log):
    content = (
        "item_id,promotions\n"
        "i1,mailer 2026-01-01/2026-01-08|display 2026-01-01T06:00:00Z/2026-01-03 0.25\n"
        "i2,leaflet 2026-01-01/2026-01-08\n"
        "i3,mailer 2026-01-01\n"
        "i4,mailer 2026-01-08/2026-01-01\n"
    )
    report = run(content, "items")
    mailer, display = record_pb2.ItemChange.FromString(log.read(0, 10)[0].payload).item.promotion_intervals
    assert (mailer.kind, mailer.start_time.seconds, mailer.end_time.seconds) == (1, SECOND, SECOND + 7 * 86_400)
    assert not mailer.HasField("share")
    assert (display.kind, display.start_time.seconds, display.share) == (2, SECOND + 6 * 3_600, 0.25)
    assert [(row["row"], row["field"]) for row in refused(report)] == [
        (3, "promotions"),
        (4, "promotions"),
        (5, "promotion_intervals[0].end_time"),
    ]


def test_profiles(run, log):
    report = run("user_id,trait.age,consent_training\nu1,35-44,no\n,25-34,yes\n", "profiles")
    record = log.read(0, 10)[0]
    profile = profile_service_pb2.Profile.FromString(record.payload)
    assert (record.key, profile.traits[0].name, profile.traits[0].value) == ("u1", "age", "35-44")
    assert not profile.consents[0].granted
    assert [(row["row"], row["field"]) for row in refused(report)] == [(3, "user_id")]


@pytest.mark.parametrize(
    ("kind", "columns", "words"),
    [
        ("events", {"price": "prise"}, "events have no column prise; they have user_id, item_id"),
        ("events", {"user_id": "userid"}, "no column userid"),
        ("items", {"item_id": "price", "price": "price"}, "item_id and price the one column price"),
    ],
)
def test_map_to_a_column_that_is_none_or_taken_is_refused(run, log, kind, columns, words):
    with pytest.raises(ImportFault, match=words):
        run(f"{HEADER},price\nu1,i1,view,{SECOND},2\n", kind, columns=columns)
    assert log.last_offset() == 0


@pytest.mark.parametrize("value", [{"x": 1}, [{"x": 1}]])
def test_row_with_an_object_for_a_value_is_refused_with_its_reason(run, value):
    row = {"user_id": "u1", "item_id": "i1", "event_type": "view", "timestamp": SECOND}
    lines = [row, {**row, "user_id": value}, {**row, "item_id": "i2", "more": value}]
    report = run("".join(json.dumps(line) + "\n" for line in lines))
    assert (report.rows, report.accepted, report.stored) == (3, 2, 2)
    (line,) = refused(report)
    assert (line["row"], line["field"], line["value"]) == (2, "user_id", '{"x": 1}')
    assert "JSON object" in line["reason"]


def test_garbage_named_parquet_is_told_to_be_none(run):
    for content in (b"\xff\xd8\xe9 garbage\n\x80", b"ab\0\0\0\0"):
        with pytest.raises(ImportFault, match="is no Parquet file"):
            run(content, name="file.parquet")
