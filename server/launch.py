"""Start of a deployment. It imports nothing heavy: every child process begins here too."""

import importlib.util
from pathlib import Path

import structlog

from server.lockfile import FileLock, LockHeldError
from server.settings import Settings
from server.telemetry import configure_logging
from server.workers.supervisor import Child, reserve_port, supervise

_log = structlog.get_logger()


def serve(settings: Settings) -> int:
    """Run the replicas, the sink and the exchange with Kafka until a signal; return the exit status.

    Raises
    ------
    OSError : the port is taken, or another server has the data folder
    """
    configure_logging(settings.log_level)
    with _sole_server(settings.data_dir), reserve_port(settings.listen) as port:
        listen = settings.listen.model_copy(update={"port": port})
        settings = settings.model_copy(update={"listen": listen})
        children = [Child(f"replica-{i}", "server.app:run_replica", (settings, i)) for i in range(listen.workers)]
        if settings.clickhouse.server or importlib.util.find_spec("chdb"):
            children.append(Child("sink", "server.tables:run_sink", (settings,), vital=False))
        else:
            _log.warning("no table view: chdb is missing", fix="pip install 'shopkeeper[embedded]'")
        if settings.kafka.servers:
            children.append(Child("exchange", "server.exchange:run_exchange", (settings,), vital=False))
        return supervise(children)


def _sole_server(data_dir: Path) -> FileLock:
    try:
        return FileLock(data_dir / "serve.lock")
    except LockHeldError as held:
        text = f"{data_dir} is served by process {held.owner}; stop it, or name another folder by --data-dir"
        raise OSError(text) from None
