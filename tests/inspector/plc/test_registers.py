from __future__ import annotations

import math
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspector.plc.registers import (
    FAULT,
    INSPECTOR_REGISTERS,
    LATENCY_MAX,
    NO_VERDICT,
    PASS,
    PLC_REGISTERS,
    REJECT,
    InspectorBlock,
    Order,
    PlcBlock,
    Status,
    coils,
    next_heartbeat,
    next_sequence,
)
from inspector.verdict import Verdict

ORDERS = [Order(word, byte) for word in ("big", "little") for byte in ("big", "little")]
many = settings(max_examples=1000, deadline=None)

uint16 = st.integers(0, 0xFFFF)
uint32 = st.integers(0, 0xFFFFFFFF)
float32 = st.none() | st.floats(width=32, allow_nan=False)
orders = st.sampled_from(ORDERS)
inspector_blocks = st.builds(
    InspectorBlock,
    heartbeat=uint16,
    status=uint16.map(Status),
    verdict=st.sampled_from((NO_VERDICT, PASS, REJECT, FAULT)),
    sequence=uint16,
    part_id=uint32,
    score=float32,
    threshold=float32,
    recipe=uint16,
    latency_ms=uint16,
    overruns=uint16,
)
plc_blocks = st.builds(PlcBlock, heartbeat=uint16, sequence=uint16, part_id=uint32, recipe=uint16, ack=uint16)


def test_every_register_is_where_the_contract_says() -> None:
    block = InspectorBlock(
        heartbeat=7,
        status=Status.READY | Status.CAMERA_OK | Status.MODEL_OK | Status.LOG_OK,
        verdict=REJECT,
        sequence=4711,
        part_id=0x12345678,
        score=1.0,
        threshold=123.456,
        recipe=3,
        latency_ms=42,
        overruns=5,
    )
    assert block.encode() == [
        7,
        0b0011_1001,
        2,
        4711,
        *(0x1234, 0x5678),
        *(0x3F80, 0x0000),
        *(0x42F6, 0xE979),
        3,
        42,
        5,
    ]
    assert PlcBlock(heartbeat=1, sequence=2, part_id=0x12345678, recipe=3, ack=4).encode() == [
        *(1, 2),
        *(0x1234, 0x5678),
        *(3, 4),
    ]


def test_the_status_bits_are_numbered_as_in_the_contract() -> None:
    names = ["READY", "BUSY", "FAULT", "CAMERA_OK", "MODEL_OK", "LOG_OK", "UNCALIBRATED", "OVERRUN"]
    assert [(bit.name, bit.value) for bit in Status] == [(name, 1 << i) for i, name in enumerate(names)]


def test_verdicts_have_the_numbers_that_the_log_uses() -> None:
    assert {v: v for v in Verdict} == {PASS: Verdict.PASS, REJECT: Verdict.REJECT, FAULT: Verdict.FAULT}


@pytest.mark.parametrize(
    ("order", "name", "integer", "number"),
    [
        (Order("big", "big"), "ABCD", (0x1234, 0x5678), (0x42F6, 0xE979)),
        (Order("little", "big"), "CDAB", (0x5678, 0x1234), (0xE979, 0x42F6)),
        (Order("big", "little"), "BADC", (0x3412, 0x7856), (0xF642, 0x79E9)),
        (Order("little", "little"), "DCBA", (0x7856, 0x3412), (0x79E9, 0xF642)),
    ],
)
def test_word_and_byte_order_give_the_known_bit_patterns(
    order: Order, name: str, integer: tuple[int, int], number: tuple[int, int]
) -> None:
    registers = InspectorBlock(verdict=PASS, sequence=0x0102, part_id=0x12345678, score=123.456).encode(order)
    assert str(order) == name
    assert tuple(registers[4:6]) == integer
    assert tuple(registers[6:8]) == number
    assert registers[2:4] == [1, 0x0102], "16-bit values do not change with the order"
    assert tuple(PlcBlock(part_id=0x12345678).encode(order)[2:4]) == integer


@many
@given(inspector_blocks, orders)
def test_an_inspector_block_survives_the_wire(block: InspectorBlock, order: Order) -> None:
    registers = block.encode(order)
    assert len(registers) == INSPECTOR_REGISTERS
    assert all(0 <= register <= 0xFFFF for register in registers)
    assert InspectorBlock.decode(registers, order) == block


@many
@given(plc_blocks, orders)
def test_a_plc_block_survives_the_wire(block: PlcBlock, order: Order) -> None:
    registers = block.encode(order)
    assert len(registers) == PLC_REGISTERS
    assert all(0 <= register <= 0xFFFF for register in registers)
    assert PlcBlock.decode(registers, order) == block


@many
@given(st.lists(uint16, min_size=13, max_size=13), orders)
def test_any_thirteen_registers_can_be_read(registers: list[int], order: Order) -> None:
    block = InspectorBlock.decode(registers, order)
    assert (block.verdict, block.sequence, int(block.status)) == (registers[2], registers[3], registers[1])
    assert all(value is None or not math.isnan(value) for value in (block.score, block.threshold))


@many
@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**40))
def test_counters_wrap(heartbeat: int, sequence: int, overruns: int, part_id: int) -> None:
    block = InspectorBlock(heartbeat=heartbeat, sequence=sequence, overruns=overruns, part_id=part_id)
    read = InspectorBlock.decode(block.encode())
    assert (read.heartbeat, read.sequence, read.overruns) == (
        heartbeat % 2**16,
        sequence % 2**16,
        overruns % 2**16,
    )
    assert read.part_id == part_id % 2**32


@pytest.mark.parametrize(
    ("latency", "register"),
    [
        (0, 0),
        (17.6, 18),
        (65535, 65535),
        (65536, 65535),
        (1e12, 65535),
        (math.inf, 65535),
        (-3.0, 0),
        (None, LATENCY_MAX),
        (math.nan, LATENCY_MAX),
    ],
)
def test_latency_stops_at_the_largest_register_value(latency: float | None, register: int) -> None:
    assert InspectorBlock(latency_ms=latency).encode()[11] == register


@pytest.mark.parametrize("nothing", [None, math.nan, -math.nan])
def test_a_score_that_does_not_exist_is_a_quiet_nan(nothing: float | None) -> None:
    registers = InspectorBlock(score=nothing, threshold=nothing).encode()
    assert registers[6:10] == [0x7FC0, 0, 0x7FC0, 0]
    assert InspectorBlock.decode(registers).score is None


@many
@given(st.floats(allow_nan=False))
def test_a_score_of_any_size_is_the_nearest_float32(score: float) -> None:
    read = InspectorBlock.decode(InspectorBlock(score=score).encode()).score
    try:
        assert read == struct.unpack(">f", struct.pack(">f", score))[0]
    except OverflowError:
        assert read == math.copysign(math.inf, score)


@many
@given(st.integers(-(2**33), 2**33))
def test_no_other_verdict_can_be_encoded(verdict: int) -> None:
    block = InspectorBlock(verdict=verdict)
    if 0 <= verdict <= 3:
        assert block.encode()[2] == verdict
        return
    with pytest.raises(ValueError, match="expected 0"):
        block.encode()


def test_a_verdict_that_wraps_to_pass_is_refused() -> None:
    with pytest.raises(ValueError, match="65537"):
        InspectorBlock(verdict=0x10000 + PASS).encode()


@many
@given(uint16)
def test_the_next_sequence_is_another_one_and_never_zero(sequence: int) -> None:
    following = next_sequence(sequence)
    assert 1 <= following <= 0xFFFF
    assert following != sequence
    assert following == sequence + 1 or (sequence, following) == (0xFFFF, 1)


def test_sequence_and_heartbeat_wrap_at_sixteen_bits() -> None:
    assert [next_sequence(s) for s in (0, 1, 65534, 65535)] == [1, 2, 65535, 1]
    assert [next_heartbeat(h) for h in (0, 65534, 65535)] == [1, 65535, 0]


def test_a_sequence_that_the_plc_numbers_is_echoed_zero_included() -> None:
    assert InspectorBlock(verdict=FAULT, sequence=0).encode()[2:4] == [3, 0]


@pytest.mark.parametrize(
    ("verdict", "states"),
    [
        (NO_VERDICT, (False, False)),
        (PASS, (True, False)),
        (REJECT, (False, True)),
        (FAULT, (False, True)),
        (9, (False, False)),
    ],
)
def test_only_pass_sets_the_pass_coil(verdict: int, states: tuple[bool, bool]) -> None:
    assert coils(verdict) == states


def test_a_block_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="12 registers, expected 13"):
        InspectorBlock.decode([0] * 12)
    with pytest.raises(ValueError, match="7 registers, expected 6"):
        PlcBlock.decode([0] * 7)


def test_an_order_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="middle"):
        replace(Order(), word="middle")  # type: ignore[arg-type]
