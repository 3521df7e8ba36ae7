"""Where a server listens, and how to find out whether it speaks TLS."""

import ssl


def host_and_port(server: str) -> tuple[str, int]:
    """Return the parts of HOST:PORT.

    >>> host_and_port("[::1]:9440")
    ('::1', 9440)
    """
    host, _, port = server.rpartition(":")
    return host.strip("[]"), int(port)


def trusting_context() -> ssl.SSLContext:
    """Return TLS that trusts anybody, for connections on which no secret is sent."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
