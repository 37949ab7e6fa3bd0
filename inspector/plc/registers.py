"""The PLC contract: what each holding register means. Pure, no I/O.

The PLC is the Modbus TCP server. The inspector owns a block of 13 registers and writes it with one
FC16, so that verdict and sequence are never torn; the PLC owns a block of 6 registers that the
inspector reads. Register addresses are the zero-based ones of the protocol (100 is 40101 in 4x notation).

What the register width cannot hold:

- counters (heartbeat, sequence, overruns, part id) wrap;
- latency stops at 65535 ms, which also stands for "unknown";
- a score or threshold that does not exist (None, NaN) is NaN, one that float32 cannot hold is ±infinity.
  float32 is for display: the verdict register alone decides.

Verdict 0 means "no verdict", whatever the sequence beside it; sequence 0 means "none yet". Sequences that
the inspector numbers itself (camera trigger) therefore run 1 … 65535, 1 …; sequences that the PLC numbers
are echoed as they are, 0 included, and it is the verdict (not 0) that tells the answer from the empty block.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntFlag
from typing import Final, Literal

INSPECTOR_REGISTERS: Final = 13
PLC_REGISTERS: Final = 6

NO_VERDICT: Final = 0
PASS: Final = 1
REJECT: Final = 2
FAULT: Final = 3

LATENCY_MAX: Final = 0xFFFF
_PAIR: Final = {"big": ">HH", "little": "<HH"}
_NAN: Final = b"\x7f\xc0\x00\x00"


class Status(IntFlag):
    """Bits of the inspector's status register."""

    READY = 1 << 0
    BUSY = 1 << 1
    FAULT = 1 << 2
    CAMERA_OK = 1 << 3
    MODEL_OK = 1 << 4
    LOG_OK = 1 << 5
    UNCALIBRATED = 1 << 6
    OVERRUN = 1 << 7


_NO_STATUS: Final = Status(0)


@dataclass(frozen=True, slots=True)
class Order:
    """How a 32-bit value ABCD (A the most significant byte) lies in two registers.

    word "big" is AB CD, "little" is CD AB; byte "little" exchanges the bytes within each register
    (BA DC, DC BA). 16-bit values are always as Modbus defines them.
    """

    word: Literal["big", "little"] = "big"
    byte: Literal["big", "little"] = "big"

    def __post_init__(self) -> None:
        for name, value in (("word", self.word), ("byte", self.byte)):
            if value not in ("big", "little"):
                raise ValueError(f"{name} order is {value!r}, expected 'big' or 'little'")

    def __str__(self) -> str:
        big, little = ("ABCD", "CDAB") if self.byte == "big" else ("BADC", "DCBA")
        return big if self.word == "big" else little

    def split(self, value: bytes) -> tuple[int, int]:
        """Four bytes, most significant first → two registers."""
        first, second = struct.unpack(_PAIR[self.byte], value)
        return (first, second) if self.word == "big" else (second, first)

    def join(self, registers: Sequence[int]) -> bytes:
        """Two registers → four bytes, most significant first."""
        first, second = registers if self.word == "big" else (registers[1], registers[0])
        return struct.pack(_PAIR[self.byte], first, second)


MODBUS_ORDER: Final = Order()


@dataclass(frozen=True, slots=True)
class InspectorBlock:
    """What the inspector writes: 13 registers from its base."""

    heartbeat: int = 0
    status: Status = _NO_STATUS
    verdict: int = NO_VERDICT  # 1 PASS, 2 REJECT, 3 FAULT; anything else is not PASS
    sequence: int = 0
    part_id: int = 0
    score: float | None = None
    threshold: float | None = None
    recipe: int = 0
    latency_ms: float | None = 0
    overruns: int = 0

    def encode(self, order: Order = MODBUS_ORDER) -> list[int]:
        """13 registers. Raises ValueError for a verdict outside 0–3: wrapping one could make a PASS."""
        if self.verdict not in (NO_VERDICT, PASS, REJECT, FAULT):
            raise ValueError(f"verdict is {self.verdict}, expected 0 (none), 1 PASS, 2 REJECT or 3 FAULT")
        return [
            _uint16(self.heartbeat),
            _uint16(self.status),
            self.verdict,
            _uint16(self.sequence),
            *order.split(_uint32(self.part_id)),
            *order.split(_float32(self.score)),
            *order.split(_float32(self.threshold)),
            _uint16(self.recipe),
            _milliseconds(self.latency_ms),
            _uint16(self.overruns),
        ]

    @property
    def blank(self) -> bool:
        """Whether a PLC that holds this has lost its memory, though our heart may have beaten since.

        We never write zeros alone: no score is NaN.
        """
        return replace(self, heartbeat=0, status=_NO_STATUS) == InspectorBlock(score=0.0, threshold=0.0)

    @classmethod
    def decode(cls, registers: Sequence[int], order: Order = MODBUS_ORDER) -> InspectorBlock:
        """The block that 13 registers hold; NaN reads as None, the verdict is taken as it is."""
        _expect(registers, INSPECTOR_REGISTERS)
        return cls(
            heartbeat=registers[0],
            status=Status(registers[1]),
            verdict=registers[2],
            sequence=registers[3],
            part_id=int.from_bytes(order.join(registers[4:6]), "big"),
            score=_number(order.join(registers[6:8])),
            threshold=_number(order.join(registers[8:10])),
            recipe=registers[10],
            latency_ms=registers[11],
            overruns=registers[12],
        )


@dataclass(frozen=True, slots=True)
class PlcBlock:
    """What the PLC writes: 6 registers from its base."""

    heartbeat: int = 0
    sequence: int = 0  # a change asks for an inspection (trigger = "plc")
    part_id: int = 0
    recipe: int = 0
    ack: int = 0  # sequence of the last verdict that the PLC has used

    def encode(self, order: Order = MODBUS_ORDER) -> list[int]:
        """6 registers."""
        return [
            _uint16(self.heartbeat),
            _uint16(self.sequence),
            *order.split(_uint32(self.part_id)),
            _uint16(self.recipe),
            _uint16(self.ack),
        ]

    @classmethod
    def decode(cls, registers: Sequence[int], order: Order = MODBUS_ORDER) -> PlcBlock:
        """The block that 6 registers hold."""
        _expect(registers, PLC_REGISTERS)
        return cls(
            heartbeat=registers[0],
            sequence=registers[1],
            part_id=int.from_bytes(order.join(registers[2:4]), "big"),
            recipe=registers[4],
            ack=registers[5],
        )


def next_sequence(sequence: int) -> int:
    """The sequence after this one when the inspector numbers the parts: 1 … 65535, then 1, never 0."""
    return sequence % 0xFFFF + 1


def next_heartbeat(heartbeat: int) -> int:
    """The heartbeat after this one: 0 … 65535, then 0."""
    return _uint16(heartbeat + 1)


def coils(verdict: int) -> tuple[bool, bool]:
    """(pass, reject) for simple PLCs: PASS alone passes, REJECT and FAULT reject, no verdict sets neither."""
    return verdict == PASS, verdict in (REJECT, FAULT)


def _uint16(value: int) -> int:
    return int(value) & 0xFFFF


def _uint32(value: int) -> bytes:
    return (int(value) & 0xFFFFFFFF).to_bytes(4, "big")


def _float32(value: float | None) -> bytes:
    if value is None or math.isnan(value):
        return _NAN
    try:
        return struct.pack(">f", value)
    except OverflowError:
        return struct.pack(">f", math.copysign(math.inf, value))


def _number(data: bytes) -> float | None:
    value: float = struct.unpack(">f", data)[0]
    return None if math.isnan(value) else value


def _milliseconds(value: float | None) -> int:
    if value is None or math.isnan(value):
        return LATENCY_MAX
    return round(min(max(value, 0), LATENCY_MAX))


def _expect(registers: Sequence[int], count: int) -> None:
    if len(registers) != count:
        raise ValueError(f"{len(registers)} registers, expected {count}")
