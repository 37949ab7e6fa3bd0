"""A PLC to develop against: a Modbus TCP server that holds the register blocks and sees every verdict.

Built on pyModbusTCP, so that the link (pymodbus) and the simulator cannot share a misunderstanding.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock
from types import TracebackType
from typing import Any, Final

from pyModbusTCP.server import DataBank, ModbusServer

from inspector.errors import PlcError
from inspector.plc.registers import (
    INSPECTOR_REGISTERS,
    MODBUS_ORDER,
    NO_VERDICT,
    PLC_REGISTERS,
    InspectorBlock,
    Order,
    PlcBlock,
)

STILL_S: Final = 1.0  # an inspector's heartbeat that is still for longer means: treat every part as reject
_RECENT: Final = 20
_VERDICT, _SEQUENCE = 2, 3  # offsets in the inspector's block


@dataclass(frozen=True, slots=True)
class CameraMap:
    """Where a camera's two blocks begin."""

    name: str
    inspector_base: int = 100
    plc_base: int = 200


@dataclass(frozen=True, slots=True)
class Seen:
    """A verdict as it arrived, all 13 registers of one write; seen_ns is time.monotonic_ns()."""

    seen_ns: int
    camera: str
    block: InspectorBlock


class Simulator:
    """The server, its registers, and a record of the verdicts written to them. Thread-safe.

    Port 0 takes a free one; `port` then holds it, also for a stop and start, over which the registers last.
    With record=True `verdicts` keeps every verdict, else the latest 20. A write of verdict 0 is no verdict.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        cameras: Sequence[CameraMap] = (CameraMap("camera"),),
        order: Order = MODBUS_ORDER,
        record: bool = False,
    ) -> None:
        self.host = host
        self.port = port
        self.order = order
        self.cameras = {camera.name: camera for camera in cameras}
        self.torn = 0  # writes to a verdict or sequence register that were not one whole block
        self._bank = _Bank(self._written)
        self._server: _Server | None = None
        self._lock = Lock()
        self._seen: deque[Seen] = deque(maxlen=None if record else _RECENT)
        self._listeners: list[SimpleQueue[Seen]] = []
        self._beats: dict[str, tuple[int, float]] = {}  # camera → heartbeat and when it last changed

    def __enter__(self) -> Simulator:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen. Raises PlcError when the port cannot be had."""
        server = _Server(self.host, self.port, no_block=True, ipv6=":" in self.host, data_bank=self._bank)
        try:
            server.listen()
        except (ModbusServer.NetworkError, OSError) as exc:
            raise PlcError(
                f"PLC simulator: cannot listen on {self.host}:{self.port} ({exc}); another program may have "
                "the port, and ports below 1024 need special rights: choose another one, such as 5020"
            ) from exc
        self.port = server.bound_port
        self._server = server

    def stop(self) -> None:
        """Stop listening and cut every connection, as a PLC that is switched off."""
        if self._server is not None:
            self._server.cut()
            self._server = None

    def inspector(self, camera: str) -> InspectorBlock:
        """The inspector's block of a camera as it is now."""
        return InspectorBlock.decode(self.inspector_registers(camera), self.order)

    def inspector_registers(self, camera: str) -> list[int]:
        """The same as 13 registers."""
        return self._bank.read(self.cameras[camera].inspector_base, INSPECTOR_REGISTERS)

    def plc(self, camera: str) -> PlcBlock:
        """The PLC's block of a camera as it is now."""
        return PlcBlock.decode(self.plc_registers(camera), self.order)

    def plc_registers(self, camera: str) -> list[int]:
        """The same as 6 registers."""
        return self._bank.read(self.cameras[camera].plc_base, PLC_REGISTERS)

    def write_plc(self, camera: str, block: PlcBlock) -> None:
        """Set the PLC's block, all of it at once, as the PLC's program does."""
        self._bank.set_holding_registers(self.cameras[camera].plc_base, block.encode(self.order))

    def coil(self, address: int) -> bool:
        """A coil as it is now."""
        return bool(self._bank.get_coils(address)[0])

    @property
    def verdicts(self) -> list[Seen]:
        """The verdicts seen, oldest first."""
        with self._lock:
            return list(self._seen)

    def listen(self) -> SimpleQueue[Seen]:
        """A queue that gets every verdict from now on."""
        queue: SimpleQueue[Seen] = SimpleQueue()
        with self._lock:
            self._listeners.append(queue)
        return queue

    def heartbeat_age_s(self, camera: str) -> float | None:
        """Seconds since the inspector's heartbeat last changed, None when it never did."""
        with self._lock:
            beat = self._beats.get(camera)
        return None if beat is None else time.monotonic() - beat[1]

    def alive(self, camera: str) -> bool:
        """True while the inspector's heartbeat counts."""
        age = self.heartbeat_age_s(camera)
        return age is not None and age <= STILL_S

    def _written(self, address: int, values: list[int]) -> None:
        """A client has written holding registers; called in the thread of its connection."""
        end = address + len(values)
        for camera in self.cameras.values():
            base = camera.inspector_base
            whole = address <= base and end >= base + INSPECTOR_REGISTERS
            with self._lock:
                if address <= base < end:
                    self._beat(camera.name, values[base - address])
                if whole:
                    self._verdict(camera.name, values[base - address :][:INSPECTOR_REGISTERS])
                elif address <= base + _SEQUENCE and end > base + _VERDICT:
                    self.torn += 1

    def _beat(self, camera: str, heartbeat: int) -> None:
        if self._beats.get(camera, (None,))[0] != heartbeat:
            self._beats[camera] = (heartbeat, time.monotonic())

    def _verdict(self, camera: str, registers: list[int]) -> None:
        block = InspectorBlock.decode(registers, self.order)
        if block.verdict == NO_VERDICT:
            return
        seen = Seen(time.monotonic_ns(), camera, block)
        self._seen.append(seen)
        for queue in self._listeners:
            queue.put(seen)


class _Bank(DataBank):  # type: ignore[misc]  # pyModbusTCP has no types
    """Registers that tell of every write of a client."""

    def __init__(self, written: Callable[[int, list[int]], None]) -> None:
        super().__init__()
        self._written = written

    def set_holding_registers(self, address: int, word_list: list[int], srv_info: Any = None) -> Any:
        done = super().set_holding_registers(address, word_list, srv_info)
        if done and srv_info is not None:
            self._written(address, word_list)
        return done

    def read(self, address: int, count: int) -> list[int]:
        return list(self.get_holding_registers(address, count))


class _Server(ModbusServer):  # type: ignore[misc]  # pyModbusTCP has no types
    """A server that can be switched off: pyModbusTCP's own stop() leaves its connections open."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._connections = connections = set[socket.socket]()

        class Service(ModbusServer.ModbusService):  # type: ignore[misc]  # pyModbusTCP has no types
            def setup(self) -> None:
                super().setup()
                connections.add(self.request)

            def finish(self) -> None:
                connections.discard(self.request)
                super().finish()

        self.ModbusService = Service

    def listen(self) -> None:
        """Start, and return only once stop() would work."""
        self.start()
        while not self.is_run:
            time.sleep(0.001)

    def _serve(self) -> None:
        """The thread of pyModbusTCP's start(), looking more often whether to stop."""
        self._evt_running.set()
        try:
            self._service.serve_forever(poll_interval=0.02)
        finally:
            self._evt_running.clear()

    @property
    def bound_port(self) -> int:
        return int(self._service.server_address[1])

    def cut(self) -> None:
        self.stop()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
