"""Kafka and ClickHouse of a test: on loopback, in their own folder, on ports that they keep through restarts."""

import base64
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final, Self

from aiokafka.conn import create_conn
from aiokafka.protocol.metadata import MetadataRequest

from server.adapters.kafka import LoopThread
from server.ports import StreamUnavailableError
from tests.fetch_servers import CLICKHOUSE_LIBRARY, KAFKA_FOLDER

_START_S: Final = 120.0
_STOP_S: Final = 20.0
_LOOK_S: Final = 10.0
_CLICKHOUSE: Final = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
arguments = [b"clickhouse", *(argument.encode() for argument in sys.argv[2:])]
run, error = library.chdb_query_cmdline, library.chdb_result_error
run.restype, run.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]
error.restype, error.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
fault = error(run(len(arguments), (ctypes.c_char_p * (len(arguments) + 1))(*arguments, None)))
sys.exit(fault.decode() if fault else 0)
"""
"""clickhouse-local inside the library of chDB; it serves until its standard input ends."""


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Server:
    """Server in a child process that does not outlive this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ports = free_ports(3)
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> Self:
        """Start, again if need be, and wait until it serves."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, "TZ": "UTC"},
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one thread starts servers
            )
        deadline = time.monotonic() + _START_S
        while not self.is_serving():
            if time.monotonic() > deadline or self._process.poll() is not None:
                text = (self.folder / "server.log").read_text(errors="replace")[-2_000:]
                raise RuntimeError(
                    f"{type(self).__name__} did not start; run `make servers`. Its log ends with:\n{text}"
                )
            time.sleep(0.02)
        return self

    def is_serving(self) -> bool:
        """Return whether the port is open."""
        try:
            socket.create_connection(("127.0.0.1", self._ports[0]), 1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._reap()

    def pause(self) -> None:
        """Let it hang: connections stay open and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def revive(self) -> None:
        """Let it run, whatever was done to it."""
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self.start()
        self.resume()

    def stop(self) -> None:
        """End it in good order; may be repeated."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _reap(self) -> None:
        assert self._process is not None
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()


class KafkaServer(Server):
    """Apache Kafka: one broker that is its own controller."""

    format_flags: ClassVar[Sequence[str]] = ()
    node_id: ClassVar[int] = 1

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.plain_port = self._ports[0]
        self.controller = f"127.0.0.1:{self._ports[1]}"
        self.cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().strip("=-_")

    def command(self) -> list[str]:
        properties = self.folder / "server.properties"
        if not properties.exists():
            properties.write_text("".join(f"{name}={value}\n" for name, value in self.properties().items()))
            arguments = ["format", "-t", self.cluster_id, "-c", str(properties), *self.format_flags]
            subprocess.run(self._java(["kafka.tools.StorageTool", *arguments]), check=True, capture_output=True)
        return self._java(["kafka.Kafka", str(properties)])

    def is_serving(self) -> bool:
        """Return whether the broker is in service, which is later than that its port is open."""
        if not super().is_serving():
            return False
        thread = LoopThread("probe")
        try:
            return self.node_id in thread.run(self._brokers(), _LOOK_S)
        except StreamUnavailableError:
            return False
        finally:
            thread.close()

    async def _brokers(self) -> set[int]:
        connection = await create_conn("127.0.0.1", self.plain_port)
        try:
            return {broker[0] for broker in (await connection.send(MetadataRequest([]))).brokers}
        finally:
            connection.close()

    def _java(self, arguments: Sequence[str]) -> list[str]:
        jars = ":".join(sorted(map(str, KAFKA_FOLDER.glob("*.jar"))))
        if not jars:
            raise RuntimeError(f"Kafka is not in {KAFKA_FOLDER}; run `make servers`")
        flags = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xmx256m"]
        options = [f"-Djava.io.tmpdir={self.folder}", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        return ["java", *flags, *options, "-cp", jars, *arguments]

    def properties(self) -> dict[str, object]:
        return {
            "process.roles": "broker,controller",
            "node.id": self.node_id,
            "controller.quorum.voters": f"1@{self.controller}",
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{self.controller}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": self.folder / "data",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1_000,
            "broker.session.timeout.ms": 4_000,  # a killed broker is back after it
            "broker.heartbeat.interval.ms": 500,
            "log.cleaner.dedupe.buffer.size": 2_097_152,
            "log.initial.task.delay.ms": 500,
            "log.retention.check.interval.ms": 500,
        }


class SecondKafka(KafkaServer):
    """Another broker of the Kafka of `first`, which controls it."""

    node_id = 2

    def __init__(self, folder: Path, first: KafkaServer) -> None:
        super().__init__(folder)
        self.controller, self.cluster_id = first.controller, first.cluster_id

    def properties(self) -> dict[str, object]:
        own = {"process.roles": "broker", "listeners": f"PLAINTEXT://{self.address}"}
        return super().properties() | own


_CLUSTER: Final = """
<clickhouse>
  <zookeeper><implementation>testkeeper</implementation></zookeeper>
  <macros><shard>{shard}</shard><replica>one</replica></macros>
  <remote_servers><{name}>{shards}</{name}></remote_servers>
</clickhouse>
"""
_SHARD: Final = """
<shard><internal_replication>true</internal_replication><replica><host>127.0.0.1</host><port>{port}</port></replica></shard>
"""
"""Its Keeper is in the server itself: enough to make replicated tables, which only a whole server replicates."""


class ClickHouseServer(Server):
    """ClickHouse over native TCP."""

    config: Path | None = None

    def join(self, name: str, shard: int, ports: Sequence[int]) -> None:
        """Be one of the shards of a cluster, from the next start on."""
        shards = "".join(_SHARD.format(port=port) for port in ports)
        self.config = self.folder / "config.xml"
        self.config.write_text(_CLUSTER.format(name=name, shard=shard, shards=shards), encoding="utf-8")

    @property
    def port(self) -> int:
        return self._ports[0]

    def command(self) -> list[str]:
        if not CLICKHOUSE_LIBRARY.exists():
            raise RuntimeError(f"ClickHouse is not at {CLICKHOUSE_LIBRARY}; run `make servers`")
        return [
            sys.executable,
            "-c",
            _CLICKHOUSE,
            str(CLICKHOUSE_LIBRARY),
            *([f"--config-file={self.config}"] if self.config else []),
            f"--path={self.folder / 'data'}",
            f"--tcp_port={self._ports[0]}",
            "--listen_host=127.0.0.1",
            "--input-format=LineAsString",
            "--structure=line String",
            "--query=SYSTEM START LISTEN TCP; SELECT count() FROM table FORMAT Null",
        ]


def _die_with_parent() -> None:
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
