"""A process that serves the S3 API from memory. It prints its port, and ends when its standard input does."""

from __future__ import annotations

import logging
import sys

from moto import backends
from moto.server import ThreadedMotoServer

if __name__ == "__main__":
    modules = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: modules  # it would look at 175 folders for each request
    logging.getLogger("werkzeug").addHandler(logging.StreamHandler(sys.stderr))  # a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.read()
