"""How is a connection to a server opened within one time limit: name resolution, connect and TLS handshake?"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from functools import partial
from typing import Any

from mx8shards.remote.clients import CONNECT_S
from mx8shards.remote.retries import interruptibly


def connected(host: str, port: int, trust: ssl.SSLContext | None, end: float, closed: threading.Event) -> socket.socket:
    """A socket that is connected to a server. Whatever fails is an OSError.

    Args:
        host: The server: a name or an address, in ASCII.
        port: Its port.
        trust: Which certificates are trusted; None for a connection without TLS.
        end: The time limit for all of it, of `time.monotonic`.
        closed: If it is set, nobody waits for the name any longer.
    """
    # The resolver has time limits of its own, of 20 s and more, and nothing can end it: another thread waits for it.
    # As bytes, because Python raises UnicodeError for a name with an empty or too long part.
    resolve = partial(socket.getaddrinfo, host.encode("ascii"), port, type=socket.SOCK_STREAM)
    plain = _connected_to_any(interruptibly(resolve, closed, end), end)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if trust is None:
            return plain
        plain.settimeout(_limit_s(end))
        return trust.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


def _connected_to_any(addresses: list[Any], end: float) -> socket.socket:
    """A socket that is connected to the first address that answers in its share of the time. The last error if none."""
    for left in range(len(addresses), 0, -1):
        family, kind, protocol, _, address = addresses[-left]
        plain = socket.socket(family, kind, protocol)
        try:
            plain.settimeout(_limit_s(end, shares=left))
            plain.connect(address)
        except BaseException as error:
            plain.close()
            if left == 1 or not isinstance(error, OSError):
                raise
        else:
            return plain
    raise ConnectionError("the name has no address")


def _limit_s(end: float, shares: int = 1) -> float:
    """The time limit of one step. TimeoutError if no time is left."""
    left_s = end - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return min(CONNECT_S, left_s / shares)
