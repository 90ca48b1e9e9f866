"""Runs uvicorn: in this process, or in several that share one socket."""

import os
import socket
import tempfile

import uvicorn
from uvicorn.supervisors import Multiprocess

from app.metrics.counting import SHARED_FOLDER


def serve(factory: str, *, host: str, port: int, processes: int) -> None:
    """Serve the app that a factory, named ``module:function``, makes, until interrupted."""
    config = uvicorn.Config(factory, factory=True, host=host, port=port, access_log=False, workers=processes)
    if processes == 1:
        uvicorn.Server(config).run()
        return
    shared = config.bind_socket()
    # asyncio turns Nagle's algorithm off only for sockets that it makes itself. With it, an answer in two packets
    # waits 40 ms for the other side to acknowledge the first. Connections inherit this from the socket they come by.
    shared.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with tempfile.TemporaryDirectory(prefix="preferably-metrics-") as folder:
        # Whichever process is asked for the metrics answers for all of them.
        os.environ.setdefault(SHARED_FOLDER, folder)
        Multiprocess(config, sockets=[shared]).run()
