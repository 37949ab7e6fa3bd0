"""Modbus servers for the tests, independent of the product: a plain pyModbusTCP one and a raw socket one."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pyModbusTCP.server import DataHandler, ModbusServer


class Write(NamedTuple):
    """A write request as it came over the wire."""

    function: int
    address: int
    values: list[int]


class Recorder(DataHandler):  # type: ignore[misc]  # pyModbusTCP has no types
    """Keeps every write request in order."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[Write] = []

    def write_h_regs(self, address: int, words_l: list[int], srv_info: Any) -> Any:
        self.writes.append(Write(srv_info.recv_frame.pdu.func_code, address, list(words_l)))
        return super().write_h_regs(address, words_l, srv_info)

    def write_coils(self, address: int, bits_l: list[bool], srv_info: Any) -> Any:
        self.writes.append(Write(srv_info.recv_frame.pdu.func_code, address, [int(b) for b in bits_l]))
        return super().write_coils(address, bits_l, srv_info)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def plain_server(port: int, handler: Recorder) -> Iterator[None]:
    server = ModbusServer("127.0.0.1", port, no_block=True, data_hdl=handler)
    server.start()
    while not server.is_run:  # start() returns earlier, and stop() before that does nothing
        time.sleep(0.005)
    try:
        yield
    finally:
        server.stop()


Answer = Callable[[socket.socket, bytes, int], None]


def honest(connection: socket.socket, request: bytes, number: int) -> None:
    """A correct reply; registers read hold the number of the request, so that a stale reply shows."""
    connection.sendall(reply_to(request, number))


def reply_to(request: bytes, number: int) -> bytes:
    transaction, function = request[:2], request[7]
    address_and_count = request[8:12]
    if function == 3:
        count = struct.unpack(">H", request[10:12])[0]
        body = struct.pack(">BB", 3, 2 * count) + struct.pack(">H", number) * count
    else:
        body = bytes([function]) + address_and_count
    return frame(transaction, request[6], body)


def frame(transaction: bytes, unit: int, body: bytes) -> bytes:
    return transaction + struct.pack(">HHB", 0, len(body) + 1, unit) + body


class RawServer:
    """Accepts connections and answers each request as `answer` says."""

    def __init__(self, answer: Answer = honest) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while header := connection.recv(7, socket.MSG_WAITALL):
                length = struct.unpack(">H", header[4:6])[0]
                request = header + connection.recv(length - 1, socket.MSG_WAITALL)
                self.requests.append(request)
                self.answer(connection, request, len(self.requests))
