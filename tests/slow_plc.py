"""A PLC that takes its time: a relay to a Modbus server that holds back each reply and notes the requests."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """One request as it went by. count: registers that were read or written."""

    time: float  # monotonic, when its reply was let through
    function: int
    address: int
    count: int


class SlowPlc:
    """Relays to a server on this machine, one client after the other as a PLC would."""

    def __init__(self, port: int, delay_s: float) -> None:
        self._target, self._delay_s = port, delay_s
        self.requests: list[Request] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Nobody is let through any more."""
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with (
                client,
                contextlib.suppress(OSError, EOFError),
                socket.create_connection(("127.0.0.1", self._target)) as server,
            ):
                self._relay(client, server)

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            self._answer(client, server)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        request = message(client)
        server.sendall(request)
        reply = message(server)
        time.sleep(self._delay_s)
        client.sendall(reply)
        function, address, count = struct.unpack(">BHH", request[7:12])
        self.requests.append(Request(time.monotonic(), function, address, count))


def message(connection: socket.socket) -> bytes:
    """One Modbus TCP message: header with the length, then the rest."""
    head = _exactly(connection, 6)
    return head + _exactly(connection, struct.unpack(">H", head[4:])[0])


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data
