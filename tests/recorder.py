"""A Modbus TCP server that knows nothing of our contract code: plain pyModbusTCP and a list of writes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass

from pyModbusTCP.server import DataBank, ModbusServer


@dataclass(frozen=True)
class Write:
    """One write as it arrived."""

    time: float  # monotonic
    address: int
    values: list[int]


class _Bank(DataBank):
    def __init__(self) -> None:
        super().__init__()
        self.writes: list[Write] = []
        self.functions: list[int] = []  # function codes of all writes
        self.guard = threading.Lock()
        self.thawed = threading.Event()
        self.thawed.set()
        self.read_only = False  # refuse writes with a Modbus exception, as a PLC in program mode does
        self.no_coils = False  # refuse coils alone, as a PLC that has none where they were

    def get_holding_registers(self, address, number=1, srv_info=None):
        if srv_info is not None:
            self.thawed.wait()
        return super().get_holding_registers(address, number, srv_info)

    def set_holding_registers(self, address, word_list, srv_info=None):
        if srv_info is not None:
            self.thawed.wait()
            if self.read_only:
                return None
            with self.guard:
                self.writes.append(Write(time.monotonic(), address, list(word_list)))
                self.functions.append(srv_info.recv_frame.pdu.func_code)
        return super().set_holding_registers(address, word_list, srv_info)

    def set_coils(self, address, bit_list, srv_info=None):
        if srv_info is not None:
            if self.read_only or self.no_coils:
                return None
            with self.guard:
                self.functions.append(srv_info.recv_frame.pdu.func_code)
        return super().set_coils(address, bit_list, srv_info)


class Recorder:
    """The PLC of a test. Verdicts are whole-block writes with a verdict in them."""

    def __init__(self, port: int = 0) -> None:
        self.bank = _Bank()
        self.port = port
        self.start()

    def start(self) -> None:
        """Switch on; what the registers hold has lasted."""
        self._server = ModbusServer("127.0.0.1", self.port, no_block=True, data_bank=self.bank)
        self._connections = connections = []

        class Service(ModbusServer.ModbusService):
            def setup(self):
                super().setup()
                connections.append(self.request)

        self._server.ModbusService = Service
        self._server.start()
        while not self._server.is_run:
            time.sleep(0.001)
        self.port = self._server._service.server_address[1]

    def stop(self) -> None:
        """Switch off: nobody listens, and connections are cut."""
        self._server.stop()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def freeze(self) -> None:
        """Half-open: connections stand and are taken, nothing is answered, until thaw()."""
        self.bank.thawed.clear()

    def thaw(self) -> None:
        """Go on."""
        self.bank.thawed.set()

    def close(self) -> None:
        """Switch off for good."""
        self.thaw()
        self.stop()

    def forget(self) -> None:
        """Lose every register, as a PLC without retentive memory does when it restarts."""
        self.set_registers(0, [0] * 1000)

    def writes(self, base: int = 100) -> list[Write]:
        with self.bank.guard:
            return [w for w in self.bank.writes if base <= w.address < base + 13]

    def functions(self) -> list[int]:
        """Function codes of all writes, in the order of arrival."""
        with self.bank.guard:
            return list(self.bank.functions)

    def verdicts(self, base: int = 100) -> list[tuple[int, int]]:
        """(sequence, verdict) of every whole block with a verdict in it, in the order of arrival."""
        blocks = [w.values for w in self.writes(base) if len(w.values) == 13]
        return [(block[3], block[2]) for block in blocks if block[2]]

    def registers(self, base: int, count: int) -> list[int]:
        return self.bank.get_holding_registers(base, count)

    def set_registers(self, base: int, values: list[int]) -> None:
        """As the PLC's own program does."""
        self.bank.set_holding_registers(base, values)

    def coils(self, *addresses: int) -> list[bool]:
        return [bool(self.bank.get_coils(address)[0]) for address in addresses]

    def status(self, base: int = 100) -> int:
        return self.registers(base, 13)[1]

    def trigger(self, sequence: int, part: int = 0, base: int = 200) -> None:
        """As a PLC does: the part id first, then the sequence that makes it valid."""
        self.set_registers(base + 2, [part >> 16, part & 0xFFFF])
        self.set_registers(base + 1, [sequence])
