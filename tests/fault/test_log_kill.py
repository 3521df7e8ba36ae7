"""What was acknowledged before a kill -9 is in the log, once."""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from server.adapters.sqlite_log import SqliteLog
from tests.whole_log import every_record

ROUNDS = 5
APPENDER = """
import asyncio, sys
from pathlib import Path
from server.adapters.sqlite_log import SqliteLog
from server.ports import NewRecord

async def append(log, lane):
    for number in range(1_000_000):
        name = f"{sys.argv[2]}-{lane}-{number}"
        records = [NewRecord(1, "v", f"{name}-{line}", name.encode() * 20) for line in range(20)]
        await log.append(records, 0)
        print(name, flush=True)

async def main():
    log = SqliteLog(Path(sys.argv[1]))
    await asyncio.gather(*(append(log, lane) for lane in range(4)))

asyncio.run(main())
"""


def run_and_kill(path: Path, number: int) -> list[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", APPENDER, str(path), str(number)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(0.1 + 0.07 * number)
    process.kill()
    rest = process.communicate()[0]
    return [line for line in (first + rest).splitlines(keepends=False) if line.count("-") == 2]


def test_acknowledged_records_survive_a_kill_once(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    acknowledged = [name for number in range(ROUNDS) for name in run_and_kill(path, number)]
    assert len(acknowledged) >= ROUNDS
    log = SqliteLog(path)
    records = list(every_record(log))
    log.close()
    kept = Counter(record.record_id for record in records)
    assert all(kept[f"{name}-{line}"] == 1 for name in acknowledged for line in range(20))
    assert max(kept.values()) == 1
    whole = Counter(record.record_id.rpartition("-")[0] for record in records)
    assert set(whole.values()) == {20}, "a call is stored whole or not at all"
    assert [record.offset for record in records] == list(range(1, len(records) + 1))
