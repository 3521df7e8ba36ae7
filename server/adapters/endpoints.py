"""What the clients of Kafka and ClickHouse share: addresses, and TLS to look at a server with."""

import ssl


def host_and_port(server: str) -> tuple[str, int]:
    """Return the parts of HOST:PORT.

    >>> host_and_port("[::1]:9440")
    ('::1', 9440)
    """
    host, _, port = server.rpartition(":")
    return host.strip("[]"), int(port)


def unverified_context() -> ssl.SSLContext:
    """Return TLS that trusts anybody, to find out who speaks it: no secret may be sent."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
