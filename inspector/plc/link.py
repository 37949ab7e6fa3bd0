"""The Modbus TCP client: reads and writes the register blocks of a PLC. Only file that imports pymodbus.

What is ours because pymodbus 3.16 does it otherwise:

- One deadline for a whole call: connecting, sending and waiting together take `timeout_s` at most.
  pymodbus restarts its timeout with every piece of a reply that trickles in.
- After any error the connection is closed, so that a late reply can never answer a later request.
- A reply must fit its request: function code, address, count. pymodbus checks transaction and device id only.
- Reconnect: at once after the first failure, then with a growing pause, never more than 1 s apart.
- TCP_NODELAY: Nagle's algorithm against delayed acknowledgements would cost 40 ms a request.
"""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from threading import RLock
from types import TracebackType
from typing import Final

from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from inspector.errors import CoilsRefusedError, PlcError
from inspector.plc.registers import (
    INSPECTOR_REGISTERS,
    MODBUS_ORDER,
    PLC_REGISTERS,
    InspectorBlock,
    Order,
    PlcBlock,
    Status,
)

# Every failure becomes a PlcError; pymodbus' own account of it would only repeat it, to stderr by default.
logging.getLogger("pymodbus").addHandler(logging.NullHandler())
logging.getLogger("pymodbus").setLevel(logging.CRITICAL + 1)

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 1.0

# Modbus Application Protocol V1.1b3, section 7
_EXCEPTIONS: Final = {
    1: (
        "illegal function",
        "the PLC's Modbus server must allow FC3 and FC16, and FC15 where coils are mapped",
    ),
    2: (
        "illegal data address",
        "the PLC has no such address; check bases and coils under [[camera]] against its map",
    ),
    3: ("illegal data value", "the PLC refuses the value or the number of registers in one request"),
    4: ("server device failure", "look at the PLC's diagnostics"),
    5: ("acknowledge", "the PLC needs longer than a cycle for this; it must answer at once"),
    6: ("server device busy", "the PLC is busy; look at its cycle time and at its other Modbus clients"),
    8: ("memory parity error", "look at the PLC's diagnostics"),
    10: ("gateway path unavailable", "check the gateway and the device id under [plc]"),
    11: ("gateway target device failed to respond", "check the device behind the gateway and its device id"),
}


class _OverdueError(Exception):
    """A write's turn came too late; it is not made."""


class Link:
    """A PLC's registers over Modbus TCP. Thread-safe: one request at a time, the next waits its turn.

    Connects by itself at the first call. Every call returns within `timeout_s` (host names excepted: looking
    one up can take seconds, an address takes none) plus the call that another thread has in hand.
    All methods raise PlcError; after one, call again whenever there is something to say.

    on: only on the connection with this number (`reconnects`), never on a newer one; there the PLC may hold
    something else by now. None: on any, which is made if need be.
    """

    def __init__(
        self,
        host: str,
        port: int = 502,
        *,
        device_id: int = 1,
        timeout_s: float = 0.25,
        order: Order = MODBUS_ORDER,
    ) -> None:
        self.host = host
        self.port = port
        self.device_id = device_id
        self.timeout_s = timeout_s
        self.order = order
        self.errors = 0  # requests and connections that failed, Modbus exceptions included
        self.reconnects = 0  # connections made after the first
        self.last_error = ""
        self.round_trip_ms: float | None = None  # of the last answered request, connecting left out
        self._lock = RLock()
        self._client: _Client | None = None
        self._connections = 0
        self._failures = 0  # since the last good reply
        self._not_before = 0.0

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """host:port."""
        return f"{self.host}:{self.port}"

    @property
    def connected(self) -> bool:
        """True while a connection stands on which the last request was answered."""
        return self._client is not None and self._failures == 0

    def read_plc(self, base: int) -> PlcBlock:
        """The PLC's block: one FC3 of 6 registers."""
        return PlcBlock.decode(self._read(base, PLC_REGISTERS), self.order)

    def read_inspector(self, base: int, *, on: int | None = None) -> InspectorBlock:
        """Our own block as the PLC holds it: one FC3 of 13 registers."""
        return InspectorBlock.decode(self._read(base, INSPECTOR_REGISTERS, on=on), self.order)

    def write_inspector(
        self,
        base: int,
        block: InspectorBlock,
        *,
        coils: Mapping[int, bool] | None = None,
        until_ns: int | None = None,
        on: int | None = None,
    ) -> bool:
        """Our whole block, exactly one FC16 of 13 registers, and in the same turn the coils that follow it.

        until_ns: false, and nothing written, when the write has not begun by then (monotonic), for whatever
        it had to wait. One that has begun reaches the PLC within `timeout_s`, or its connection is reset.
        Raises CoilsRefusedError, as write_coils does, when the PLC has taken the registers alone.
        """
        with self._lock:
            try:
                self._write(base, block.encode(self.order), on=on, until_ns=until_ns)
            except _OverdueError:
                return False
            if coils:
                self.write_coils(coils, on=on)
        return True

    def write_heartbeat(self, base: int, heartbeat: int, status: Status, *, on: int | None = None) -> None:
        """The first two registers of our block alone, one FC16: the verdict stays as it is."""
        registers = InspectorBlock(heartbeat=heartbeat, status=status).encode(self.order)[:2]
        self._write(base, registers, on=on)

    def write_coils(self, states: Mapping[int, bool], *, on: int | None = None) -> None:
        """Coils by address: one FC15 where they are neighbours, else one each, those that go off first.

        Write the registers before: coils follow them, never lead.
        """
        low, high = min(states), max(states)
        if high - low == len(states) - 1:
            self._write_coils(low, [states[address] for address in range(low, high + 1)], on=on)
            return
        for address in sorted(states, key=lambda address: states[address]):
            self._write_coils(address, [states[address]], on=on)

    def close(self) -> None:
        """End the connection; a later call makes a new one."""
        with self._lock:
            self._drop(reset=False)

    def _read(self, base: int, count: int, *, on: int | None = None) -> Sequence[int]:
        return self._request(
            f"reading registers {_span(base, count)}",
            lambda client: client.read_holding_registers(base, count=count, device_id=self.device_id),
            lambda reply: (reply.function_code, len(reply.registers)) == (3, count),
            on=on,
        ).registers

    def _write(self, base: int, registers: list[int], *, on: int | None, until_ns: int | None = None) -> None:
        self._request(
            f"writing registers {_span(base, len(registers))}",
            lambda client: client.write_registers(base, registers, device_id=self.device_id),
            lambda reply: (reply.function_code, reply.address, reply.count) == (16, base, len(registers)),
            on=on,
            until_ns=until_ns,
        )

    def _write_coils(self, base: int, values: list[bool], *, on: int | None) -> None:
        self._request(
            f"writing coils {_span(base, len(values))} (FC15)",
            lambda client: client.write_coils(base, values, device_id=self.device_id),
            lambda reply: (reply.function_code, reply.address, reply.count) == (15, base, len(values)),
            on=on,
            refusal=CoilsRefusedError,
        )

    def _request(
        self,
        what: str,
        call: Callable[[_Client], ModbusPDU],
        fits: Callable[[ModbusPDU], bool],
        *,
        on: int | None,
        until_ns: int | None = None,
        refusal: type[PlcError] = PlcError,
    ) -> ModbusPDU:
        with self._lock:
            started = time.monotonic()
            client = self._connect(what, started, on)
            if until_ns is not None and time.monotonic_ns() >= until_ns:
                raise _OverdueError
            client.expect_reply(started + self.timeout_s)
            sent = time.perf_counter()
            try:
                reply = call(client)
            except (ModbusException, OSError) as exc:
                raise self._failed(what, started, self._no_reply(client, exc)) from exc
            if not reply.isError() and not fits(reply):
                problem = f"the reply does not fit the request: {reply}; is this the PLC's Modbus server?"
                raise self._failed(what, started, problem)
            self.round_trip_ms = (time.perf_counter() - sent) * 1000
            self._failures = 0
            if reply.isError():
                raise refusal(self._refused(what, reply.exception_code))
            return reply

    def _connect(self, what: str, started: float, on: int | None) -> _Client:
        if self._client is not None and self._client.unusable():
            self._drop(reset=True)
        if on is not None and (self._client is None or on != self.reconnects):
            raise PlcError(f"PLC {self.address}: the connection has ended, so not {what}")
        if self._client is not None:
            return self._client
        if (wait := self._not_before - started) > 0:
            raise PlcError(
                f"PLC {self.address}: not connected, so not {what}; next attempt in {wait * 1000:.0f} ms; "
                f"last error: {self.last_error}"
            )
        try:
            connection = _open(self.host, self.port, started + self.timeout_s)
        except OSError as exc:
            raise self._failed(what, started, self._unreachable(exc)) from exc
        self.reconnects += self._connections > 0
        self._connections += 1
        self._client = _Client(self.host, port=self.port, timeout=self.timeout_s, retries=0)
        self._client.socket = connection
        return self._client

    def _failed(self, what: str, started: float, problem: str) -> PlcError:
        """Close, set the time of the next attempt, and say what happened."""
        self._drop(reset=True)
        self._failures += 1
        pause = 0.0 if self._failures == 1 else BACKOFF_FIRST_S * 2.0 ** min(self._failures - 2, 8)
        self._not_before = started + min(pause, BACKOFF_MAX_S)
        return PlcError(self._noted(f"PLC {self.address} (device id {self.device_id}), {what}: {problem}"))

    def _refused(self, what: str, code: int) -> str:
        name, advice = _EXCEPTIONS.get(code, ("unknown Modbus exception", "see the PLC's manual"))
        return self._noted(
            f"PLC {self.address} (device id {self.device_id}): {name} ({code}) {what}: {advice}"
        )

    def _noted(self, message: str) -> str:
        self.errors += 1
        self.last_error = message
        return message

    def _unreachable(self, exc: OSError) -> str:
        if isinstance(exc, ConnectionRefusedError):
            return "connection refused; check host and port under [plc] and that the PLC's server is running"
        if isinstance(exc, TimeoutError):
            advice = "check host under [plc], the cable and firewalls"
            return f"no answer to connecting within {self.timeout_s * 1000:.0f} ms; {advice}"
        reason = exc.strerror or str(exc)
        return f"cannot connect ({reason}); check host under [plc], the cable and the network settings"

    def _no_reply(self, client: _Client, exc: Exception) -> str:
        limit = f"{self.timeout_s * 1000:.0f} ms"
        if isinstance(exc, OSError) and not isinstance(exc, TimeoutError):
            reason = exc.strerror or str(exc)
            return f"connection lost ({reason}); the PLC restarted or has too many Modbus clients"
        if not client.received:
            return f"no reply within {limit}; check device_id under [plc] and the load of the PLC"
        head = client.received[:12].hex(" ") + (" …" if len(client.received) > 12 else "")
        return (
            f"no valid reply within {limit}, only {len(client.received)} bytes ({head}), incomplete or "
            "for another transaction or device id; check device_id under [plc] and any gateway in between"
        )

    def _drop(self, *, reset: bool) -> None:
        if self._client is not None:
            self._client.end(reset=reset)
            self._client = None


class _Client(ModbusTcpClient):
    """pymodbus' requests and framing over a socket of ours, every wait ending at one deadline."""

    def expect_reply(self, deadline: float) -> None:
        """A request begins that must be answered by then (time.monotonic())."""
        self.deadline = deadline
        self.received = b""

    def send(self, request: bytes, addr: tuple[str, int] | None = None) -> int:
        """All of the request. Raises OSError."""
        connection = self._wait()
        connection.sendall(request)
        return len(request)

    def recv(self, size: int | None) -> bytes:
        """Whatever comes next. Raises OSError."""
        data = self._wait().recv(4096)
        if not data:
            raise ConnectionResetError("closed by the PLC")
        self.received += data
        return data

    def unusable(self) -> bool:
        """True when the PLC has closed the connection, or sent something that nobody asked for."""
        connection = self._wait(0)
        try:
            connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def end(self, *, reset: bool) -> None:
        """Close. A reset drops what is unsent and frees the PLC's connection slot at once."""
        if self.socket is None:
            return
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        self.socket = None

    def _wait(self, seconds: float | None = None) -> socket.socket:
        if self.socket is None:
            raise ConnectionResetError("not connected")
        left = self.deadline - time.monotonic() if seconds is None else seconds
        if left <= 0 and seconds is None:
            raise TimeoutError
        self.socket.settimeout(left)
        return self.socket


def _open(host: str, port: int, deadline: float) -> socket.socket:
    """Connect, giving each of the host's addresses an equal share of the time left. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for i, (family, kind, protocol, _, address) in enumerate(found):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(max((deadline - time.monotonic()) / (len(found) - i), 0.001))
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            connection.close()
            if i == len(found) - 1:
                raise
        else:
            return connection
    raise OSError(f"{host} has no address")


def _span(base: int, count: int) -> str:
    return f"{base}" if count == 1 else f"{base}–{base + count - 1}"
