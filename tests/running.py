"""Workers in threads of their own, as their processes run them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from server.workers.follower import Follower
from server.workers.shipper import Shipper
from server.workers.sink import Sink


@contextmanager
def running(work: Sink | Shipper | Follower) -> Iterator[None]:
    """Run a worker in a thread; it has to end within a minute of being told."""
    stopping = threading.Event()
    arguments = (stopping, lambda: None) if isinstance(work, Sink) else (stopping,)
    thread = threading.Thread(target=work.run, args=arguments)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(60)
        assert not thread.is_alive()
