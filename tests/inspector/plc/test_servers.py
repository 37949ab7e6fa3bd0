"""The link against servers that share no code with it, nor with each other."""

import pytest

from inspector.errors import PlcError
from inspector.plc.link import Link
from inspector.plc.registers import PASS, InspectorBlock, Order, PlcBlock, Status
from tests.conftest import both
from tests.station import until

pytestmark = both
BLOCK = InspectorBlock(verdict=PASS, sequence=513, part_id=70_000, score=0.25, threshold=0.5, latency_ms=31)


@pytest.fixture
def link(plc):
    with Link("127.0.0.1", plc.port, timeout_s=1.0) as link:
        yield link


def test_a_verdict_is_one_fc16_of_thirteen_registers(link, plc):
    link.write_inspector(100, BLOCK)
    assert plc.functions() == [16]
    assert [(w.address, w.values) for w in plc.writes()] == [(100, BLOCK.encode())]
    assert link.read_inspector(100) == BLOCK


def test_a_heartbeat_leaves_the_verdict_as_it_is(link, plc):
    link.write_inspector(100, BLOCK)
    link.write_heartbeat(100, 10, Status.FAULT)
    assert plc.functions() == [16, 16]
    assert plc.registers(100, 13) == [10, 4, *BLOCK.encode()[2:]]


@pytest.mark.parametrize(
    ("order", "integer", "number"),
    [
        (Order("big", "big"), [0x1234, 0x5678], [0x42F6, 0xE979]),
        (Order("little", "big"), [0x5678, 0x1234], [0xE979, 0x42F6]),
        (Order("big", "little"), [0x3412, 0x7856], [0xF642, 0x79E9]),
        (Order("little", "little"), [0x7856, 0x3412], [0x79E9, 0xF642]),
    ],
    ids=str,
)
def test_the_order_of_words_and_bytes_on_the_wire_is_the_known_bit_pattern(plc, order, integer, number):
    plc.set_registers(200, [1, 2, *integer, 5, 6])
    with Link("127.0.0.1", plc.port, timeout_s=1.0, order=order) as link:
        assert link.read_plc(200) == PlcBlock(heartbeat=1, sequence=2, part_id=0x12345678, recipe=5, ack=6)
        link.write_inspector(100, InspectorBlock(sequence=258, part_id=0x12345678, score=123.456))
    assert plc.registers(103, 5) == [258, *integer, *number]


def test_coils_are_set_by_their_address(link, plc):
    link.write_coils({11: False, 10: True})
    link.write_coils({3: True, 40: False})
    assert plc.coils(10, 11, 3, 40) == [True, False, True, False]
    assert plc.functions() == [15, 15, 15]


def test_an_exception_is_named_by_code_and_register(link, plc):
    plc.bank.read_only = True
    with pytest.raises(PlcError, match=r"\(\d+\) writing registers 100–112"):
        link.write_inspector(100, BLOCK)
    assert link.connected
    with pytest.raises(PlcError, match=r"illegal data address \(2\) reading registers 65534–65539"):
        link.read_plc(65534)
    plc.bank.read_only = False
    link.write_inspector(100, BLOCK)


def test_a_server_that_is_stopped_and_started_is_found_again(link, plc):
    link.write_inspector(100, BLOCK)
    plc.stop()
    with pytest.raises(PlcError):
        link.read_plc(200)
    plc.start()

    def answers():
        try:
            return link.read_inspector(100) == BLOCK
        except PlcError:
            return False

    until(answers, "the server's answer", 10)
    assert link.reconnects == 1


def test_a_half_open_server_is_an_error_in_time(plc):
    with Link("127.0.0.1", plc.port, timeout_s=0.2) as link:
        link.read_plc(200)
        plc.freeze()
        with pytest.raises(PlcError, match="no reply within 200 ms"):
            link.read_plc(200)
        plc.thaw()
        until(lambda: answered(link), "the server's answer", 10)


def test_a_heartbeat_can_be_kept_from_opening_a_connection(link, plc):
    with pytest.raises(PlcError, match="the connection has ended, so not writing registers 100–101"):
        link.write_heartbeat(100, 1, Status.READY, on=0)
    assert plc.functions() == []
    link.read_plc(200)
    link.write_heartbeat(100, 1, Status.READY, on=0)
    assert plc.registers(100, 2) == [1, 1]


def answered(link):
    try:
        link.read_plc(200)
    except PlcError:
        return False
    return True
