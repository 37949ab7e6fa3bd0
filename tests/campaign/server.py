"""The PLC's Modbus TCP server: plain pyModbusTCP, a history of every write, and ways to misbehave.

It knows nothing of the inspector's contract code. A request is executed as it arrives and answered in one
piece, unless a mode says otherwise:

| mode | the server |
|---|---|
| slow | answers 120 ms late, within the inspector's timeout |
| too-slow | executes, and answers 400 ms late |
| late-execution | executes 300 ms late: the inspector has given the request up by then |
| busy | refuses every request with exception 6 |
| no-writes | refuses writes with exception 4 |
| no-coils | refuses coils alone with exception 2 |
| short | answers with the first ten bytes only |
| other-transaction | answers with another transaction id |
| other-device | answers as another device |
| other-function | answers with another function code |
| twice | sends every answer twice |
| trickle | sends the answer in pieces, 60 ms apart |
| silent | executes and never answers |
| half-open | takes connections and requests, executes nothing, answers nothing |
| hang-up | executes, then cuts the connection |
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import threading
import time
from pathlib import Path

from pyModbusTCP.server import DataBank, ModbusServer

from tests.campaign.history import History

MODES = (
    "slow",
    "too-slow",
    "late-execution",
    "busy",
    "no-writes",
    "short",
    "other-transaction",
    "other-device",
    "other-function",
    "twice",
    "trickle",
    "silent",
    "half-open",
    "hang-up",
)
BLOCK = 13  # registers of the inspector's block
VERDICT, SEQUENCE, PART, SCORE = 2, 3, 4, 6  # offsets in it
WRITES = (5, 6, 15, 16, 22, 23)
REFUSALS = {"busy": (6, range(256)), "no-writes": (4, WRITES), "no-coils": (2, (5, 15))}  # code, functions


class Rows:
    """Whether a decision is in the log, asked at the moment when its verdict arrives."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._connection: sqlite3.Connection | None = None

    def find(self, sequence: int, part: int, verdict: int) -> int | None:
        """Its row id; None when there is no such row, or no log."""
        try:
            if self._connection is None:
                uri = f"{self._database.as_uri()}?mode=ro"
                self._connection = sqlite3.connect(uri, uri=True, check_same_thread=False, timeout=1)
            found = self._connection.execute(
                "SELECT max(id) FROM inspections WHERE sequence = ? AND part_id = ? AND verdict = ?",
                (sequence, part, verdict),
            ).fetchone()
        except sqlite3.Error:
            return None
        return found[0]


class Watch:
    """Looks at every block as it arrives, and may kill its writer in the act."""

    def __init__(self, rows: Rows, base: int) -> None:
        self._rows = rows
        self._base = base
        self.trap: int | None = None  # process to kill at the next verdict
        self.last_good = 0  # when the last PASS or REJECT arrived

    def seen(self, address: int, values: list[int]) -> dict[str, int | None]:
        """What there is to note of this write: for a verdict its row in the log, None without one."""
        if address != self._base or len(values) != BLOCK or not values[VERDICT]:
            return {}
        part = (values[PART] << 16) + values[PART + 1]
        row = self._rows.find(values[SEQUENCE], part, values[VERDICT])
        target, self.trap = self.trap, None
        if target is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(target, 9)
        if values[VERDICT] in (1, 2):
            self.last_good = time.monotonic_ns()
        return {"row": row}


class Bank(DataBank):
    """Registers and coils that note every write of a client."""

    def __init__(self, history: History, watch: Watch) -> None:
        super().__init__()
        self._history = history
        self.watch = watch
        self._one = threading.Lock()
        self.received = threading.local()

    def set_holding_registers(self, address, word_list, srv_info=None):
        if srv_info is None:
            return super().set_holding_registers(address, word_list)
        with self._one:
            values = list(word_list)
            more = self.watch.seen(address, values)  # before it is executed: the row must be there by now
            done = super().set_holding_registers(address, values)
            received = self.received.ns
            self._history.note("write", address=address, values=values, received=received, **more)
        return done

    def set_coils(self, address, bit_list, srv_info=None):
        if srv_info is None:
            return super().set_coils(address, bit_list)
        with self._one:
            done = super().set_coils(address, bit_list)
            values = [int(bit) for bit in bit_list]
            self._history.note("coils", address=address, values=values, received=self.received.ns)
        return done


class Server(ModbusServer):
    """One life of the server: from start() to cut()."""

    def __init__(self, port: int, bank: Bank, mode: str = "") -> None:
        super().__init__("127.0.0.1", port, no_block=True, data_bank=bank)
        self.mode = mode
        self._bank = bank
        self._connections: list[socket.socket] = []
        self.ModbusService = _service(self)

    def begin(self) -> int:
        """Listen; returns the port."""
        self.start()
        while not self.is_run:
            time.sleep(0.001)
        return int(self._service.server_address[1])

    def cut(self) -> None:
        """Nobody listens any more, and every connection ends."""
        self.stop()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _engine(self, session_data):
        """Execute one request, or refuse it."""
        mode, pdu = self.mode, session_data.request.pdu
        self._bank.received.ns = time.monotonic_ns()
        if mode == "half-open":
            while self.mode == mode and self.is_run:
                time.sleep(0.01)
            raise ModbusServer.NetworkError("the request was never executed")
        if mode == "late-execution":
            time.sleep(0.3)
        exception, functions = REFUSALS.get(mode, (0, ()))
        if pdu.func_code in functions:
            session_data.response.pdu.build_except(pdu.func_code, exception)
            return
        super()._engine(session_data)


def _service(server: Server) -> type[ModbusServer.ModbusService]:
    class Service(ModbusServer.ModbusService):
        """One connection."""

        def setup(self):
            super().setup()
            server._connections.append(self.request)

        def _send_all(self, data):
            for pause, piece in _answer(server.mode, data):
                time.sleep(pause)
                super()._send_all(piece)
            if server.mode == "hang-up":
                raise ModbusServer.NetworkError("hung up")
            return True

    return Service


def _answer(mode: str, data: bytes) -> list[tuple[float, bytes]]:
    """What goes over the wire in place of a correct answer: pauses and pieces."""
    match mode:
        case "slow":
            return [(0.12, data)]
        case "too-slow":
            return [(0.4, data)]
        case "short":
            return [(0, data[:10])]
        case "other-transaction":
            return [(0, bytes([data[0], data[1] ^ 1]) + data[2:])]
        case "other-device":
            return [(0, data[:6] + bytes([data[6] ^ 1]) + data[7:])]
        case "other-function":
            return [(0, data[:7] + bytes([data[7] ^ 1]) + data[8:])]
        case "twice":
            return [(0, data), (0.005, data)]
        case "trickle":
            return [(0.06, data[i : i + 3]) for i in range(0, len(data), 3)]
        case "silent" | "hang-up":
            return []
        case _:
            return [(0, data)]
