"""The link against servers that know nothing of pymodbus, well-behaved and otherwise."""

from __future__ import annotations

import logging
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from inspector.errors import PlcError
from inspector.plc.link import BACKOFF_MAX_S, Link
from inspector.plc.registers import PASS, InspectorBlock, Order, PlcBlock, Status
from tests.inspector.plc.servers import (
    Answer,
    RawServer,
    Recorder,
    Write,
    frame,
    free_port,
    honest,
    plain_server,
    reply_to,
)

TIMEOUT_S = 0.15
PATIENCE_S = 1.2  # far above the timeout, far below what pymodbus would take by itself

BLOCK = InspectorBlock(
    heartbeat=9,
    status=Status.READY | Status.CAMERA_OK,
    verdict=PASS,
    sequence=513,
    part_id=70_000,
    score=0.25,
    threshold=0.5,
    recipe=2,
    latency_ms=31,
    overruns=1,
)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def link(recorder: Recorder) -> Iterator[Link]:
    port = free_port()
    with plain_server(port, recorder), Link("127.0.0.1", port, timeout_s=1.0) as link:
        yield link


def seconds(call: Callable[[], object]) -> tuple[PlcError, float]:
    """The PlcError that the call must raise, and how long it took."""
    started = time.monotonic()
    with pytest.raises(PlcError) as caught:
        call()
    return caught.value, time.monotonic() - started


def state(link: Link) -> tuple[bool, int]:
    return link.connected, link.reconnects


def until_it_answers(link: Link) -> PlcBlock:
    """Call as the daemon would, until the link has recovered by itself."""
    give_up = time.monotonic() + 10
    while True:
        try:
            return link.read_plc(200)
        except PlcError:
            assert time.monotonic() < give_up, link.last_error
            time.sleep(0.02)


# -- what is on the wire ------------------------------------------------------------------------------


def test_a_verdict_is_exactly_one_fc16_of_thirteen_registers(link: Link, recorder: Recorder) -> None:
    link.write_inspector(100, BLOCK)
    assert recorder.writes == [Write(16, 100, BLOCK.encode())]
    assert link.read_inspector(100) == BLOCK


def test_a_heartbeat_leaves_the_verdict_as_it_is(link: Link, recorder: Recorder) -> None:
    link.write_inspector(100, BLOCK)
    link.write_heartbeat(100, 10, Status.FAULT)
    assert recorder.writes[1:] == [Write(16, 100, [10, 4])]
    read = link.read_inspector(100)
    assert (read.heartbeat, read.status, read.verdict, read.sequence) == (10, Status.FAULT, PASS, 513)


def test_the_plc_block_is_read_from_its_base(link: Link, recorder: Recorder) -> None:
    block = PlcBlock(heartbeat=1, sequence=65535, part_id=0xFFFF_FFFE, recipe=4, ack=65534)
    recorder.data_bank.set_holding_registers(321, block.encode())
    assert link.read_plc(321) == block


def test_the_order_of_words_and_bytes_holds_both_ways(recorder: Recorder) -> None:
    port, order = free_port(), Order("little", "little")
    recorder.data_bank.set_holding_registers(200, [1, 2, 0x7856, 0x3412, 5, 6])
    with plain_server(port, recorder), Link("127.0.0.1", port, timeout_s=1.0, order=order) as link:
        assert link.read_plc(200).part_id == 0x12345678
        link.write_inspector(100, InspectorBlock(part_id=0x12345678))
    assert recorder.writes[0].values[4:6] == [0x7856, 0x3412]


def test_neighbouring_coils_are_one_request(link: Link, recorder: Recorder) -> None:
    link.write_coils({11: False, 10: True})
    assert recorder.writes == [Write(15, 10, [1, 0])]


def test_of_distant_coils_the_one_that_goes_off_is_first(link: Link, recorder: Recorder) -> None:
    link.write_coils({10: True, 40: False})
    assert recorder.writes == [Write(15, 40, [0]), Write(15, 10, [1])]


def test_device_id_and_transaction_are_in_every_request() -> None:
    with RawServer() as server, Link("127.0.0.1", server.port, device_id=17, timeout_s=1.0) as link:
        link.read_plc(200)
        link.write_inspector(100, BLOCK)
    assert [request[6] for request in server.requests] == [17, 17]
    first, second = (struct.unpack(">H", request[:2])[0] for request in server.requests)
    assert first != second


def test_nagle_is_off() -> None:
    with RawServer() as server, Link("127.0.0.1", server.port, timeout_s=1.0) as link:
        link.read_plc(200)
        assert link._client is not None
        assert link._client.socket is not None
        assert link._client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_two_threads_share_a_link(link: Link, recorder: Recorder) -> None:
    recorder.data_bank.set_holding_registers(200, PlcBlock(sequence=7, ack=7).encode())
    wrong: list[object] = []

    def poll() -> None:
        wrong.extend(
            block for _ in range(300) if (block := link.read_plc(200)) != PlcBlock(sequence=7, ack=7)
        )

    poller = threading.Thread(target=poll)
    poller.start()
    for sequence in range(300):
        link.write_inspector(100, InspectorBlock(verdict=PASS, sequence=sequence))
    poller.join(timeout=30)
    assert not wrong
    assert [write.values[3] for write in recorder.writes] == list(range(300))
    assert (link.errors, link.reconnects) == (0, 0)


# -- what a PLC refuses -------------------------------------------------------------------------------


def test_a_modbus_exception_is_named_by_code_and_register(recorder: Recorder) -> None:
    port = free_port()
    recorder.data_bank._h_regs = [0] * 105  # a PLC that ends in the middle of our block
    with plain_server(port, recorder), Link("127.0.0.1", port, timeout_s=1.0) as link:
        error, _ = seconds(lambda: link.write_inspector(100, BLOCK))
        assert "illegal data address (2) writing registers 100–112" in str(error)
        assert f"127.0.0.1:{port}" in str(error)
        assert "bases and coils under [[camera]]" in str(error)
        assert link.connected, "the PLC answered: the connection is good"
        assert (link.errors, link.reconnects, link.last_error) == (1, 0, str(error))
        link.write_heartbeat(100, 1, Status.READY)


@pytest.mark.parametrize(
    ("code", "name"),
    [(1, "illegal function"), (4, "server device failure"), (6, "server device busy"), (99, "unknown")],
)
def test_every_exception_code_is_a_plc_error(code: int, name: str) -> None:
    def refuse(connection: socket.socket, request: bytes, number: int) -> None:
        connection.sendall(frame(request[:2], request[6], bytes([request[7] | 0x80, code])))

    with RawServer(refuse) as server, Link("127.0.0.1", server.port, timeout_s=1.0) as link:
        error, _ = seconds(lambda: link.read_plc(200))
        assert name in str(error)
        assert f"({code}) reading registers 200–205" in str(error)


# -- servers that misbehave ---------------------------------------------------------------------------


def never(connection: socket.socket, request: bytes, number: int) -> None:
    pass


def late(connection: socket.socket, request: bytes, number: int) -> None:
    time.sleep(TIMEOUT_S * 2)
    honest(connection, request, number)


def another_transaction(connection: socket.socket, request: bytes, number: int) -> None:
    connection.sendall(bytes([request[0], request[1] ^ 1]) + reply_to(request, number)[2:])


def transaction_zero(connection: socket.socket, request: bytes, number: int) -> None:
    connection.sendall(b"\0\0" + reply_to(request, number)[2:])


def another_device(connection: socket.socket, request: bytes, number: int) -> None:
    reply = bytearray(reply_to(request, number))
    reply[6] ^= 1
    connection.sendall(reply)


def half_a_reply(connection: socket.socket, request: bytes, number: int) -> None:
    connection.sendall(reply_to(request, number)[:10])


def trickle(connection: socket.socket, request: bytes, number: int) -> None:
    for i in reply_to(request, number):
        connection.sendall(bytes([i]))
        time.sleep(TIMEOUT_S * 0.8)


def another_function(connection: socket.socket, request: bytes, number: int) -> None:
    connection.sendall(frame(request[:2], request[6], bytes([6, 0, 200, 0, 1])))


def too_few_registers(connection: socket.socket, request: bytes, number: int) -> None:
    connection.sendall(frame(request[:2], request[6], bytes([3, 4, 0, 1, 0, 2])))


def byte_count_lies(connection: socket.socket, request: bytes, number: int) -> None:
    connection.sendall(frame(request[:2], request[6], bytes([3, 12, 0, 1, 0, 2])))


def noise(connection: socket.socket, request: bytes, number: int) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def flood(connection: socket.socket, request: bytes, number: int) -> None:
    wrong = bytes([request[0], request[1] ^ 1]) + reply_to(request, number)[2:]
    while True:
        connection.sendall(wrong * 50)
        time.sleep(0.005)


def hang_up(connection: socket.socket, request: bytes, number: int) -> None:
    connection.close()


BAD = [
    never,
    late,
    another_transaction,
    transaction_zero,
    another_device,
    half_a_reply,
    trickle,
    another_function,
    too_few_registers,
    byte_count_lies,
    noise,
    flood,
    hang_up,
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.__name__)
def test_a_bad_reply_is_an_error_in_time_and_the_link_recovers(bad: Answer) -> None:
    with RawServer(bad) as server, Link("127.0.0.1", server.port, timeout_s=TIMEOUT_S) as link:
        error, took = seconds(lambda: link.read_plc(200))
        assert took < PATIENCE_S
        assert f"127.0.0.1:{server.port}" in str(error)
        assert "reading registers 200–205" in str(error)
        assert state(link) == (False, 0)
        server.answer = honest
        asked = len(server.requests)
        block = until_it_answers(link)
        assert block.sequence > asked, "a reply to an earlier request answered a later one"
        assert link.connected
        assert link.reconnects >= 1
        assert link.errors >= 1


@pytest.mark.parametrize("bad", [never, late, another_transaction, half_a_reply, noise, hang_up])
def test_a_bad_reply_to_a_verdict_is_an_error_too(bad: Answer) -> None:
    with RawServer(bad) as server, Link("127.0.0.1", server.port, timeout_s=TIMEOUT_S) as link:
        error, took = seconds(lambda: link.write_inspector(100, BLOCK))
        assert took < PATIENCE_S
        assert "writing registers 100–112" in str(error)


@pytest.mark.parametrize("echo", [(101, 13), (100, 12)])
def test_a_write_reply_for_other_registers_is_an_error(echo: tuple[int, int]) -> None:
    def lie(connection: socket.socket, request: bytes, number: int) -> None:
        connection.sendall(frame(request[:2], request[6], struct.pack(">BHH", 16, *echo)))

    with RawServer(lie) as server, Link("127.0.0.1", server.port, timeout_s=TIMEOUT_S) as link:
        error, _ = seconds(lambda: link.write_inspector(100, BLOCK))
        assert "does not fit the request" in str(error)
        assert not link.connected


def test_a_reply_that_comes_twice_never_answers_the_next_request() -> None:
    def twice(connection: socket.socket, request: bytes, number: int) -> None:
        connection.sendall(reply_to(request, number))
        time.sleep(0.01)
        connection.sendall(reply_to(request, number))

    with RawServer(twice) as server, Link("127.0.0.1", server.port, timeout_s=1.0) as link:
        for number in range(1, 6):
            assert link.read_plc(200).sequence == number
            time.sleep(0.03)


def test_a_reply_in_pieces_is_put_together() -> None:
    def pieces(connection: socket.socket, request: bytes, number: int) -> None:
        for i in reply_to(request, number):
            connection.sendall(bytes([i]))

    with RawServer(pieces) as server, Link("127.0.0.1", server.port, timeout_s=2.0) as link:
        assert link.read_plc(200).sequence == 1


def test_the_time_allowed_is_for_the_whole_call_not_for_each_piece_of_the_reply() -> None:
    def first_byte_late(connection: socket.socket, request: bytes, number: int) -> None:
        time.sleep(0.85)
        connection.sendall(request[:1])

    with RawServer(first_byte_late) as server, Link("127.0.0.1", server.port, timeout_s=1.0) as link:
        _, took = seconds(lambda: link.read_plc(200))
    assert took < 1.5, "pymodbus by itself would wait 1.85 s"


def test_a_server_that_never_accepts_cannot_hold_a_call() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:  # once the backlog is full, the kernel answers no SYN
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        try:
            error, took = seconds(lambda: Link("127.0.0.1", port, timeout_s=TIMEOUT_S).read_plc(200))
        finally:
            for filler in fillers:
                filler.close()
    assert took < PATIENCE_S
    assert "within 150 ms" in str(error)


# -- connection ---------------------------------------------------------------------------------------


def test_nothing_is_opened_before_the_first_call() -> None:
    with RawServer() as server:
        link = Link("127.0.0.1", server.port, timeout_s=1.0)
        before = link.round_trip_ms
        assert (before, state(link)) == (None, (False, 0))
        link.read_plc(200)
        assert state(link) == (True, 0)
        assert link.round_trip_ms is not None
        link.close()
        link.close()
        assert state(link) == (False, 0)
        link.read_plc(200)
        assert server.connections == 2
        assert state(link) == (True, 1)
        link.close()


def test_a_closed_port_says_where_and_what_to_check() -> None:
    port = free_port()
    error, _ = seconds(lambda: Link("127.0.0.1", port).read_plc(200))
    assert f"PLC 127.0.0.1:{port}" in str(error)
    assert "connection refused; check host and port" in str(error)


def test_a_host_that_does_not_exist_is_a_plc_error() -> None:
    error, _ = seconds(lambda: Link("plc.invalid").read_plc(200))
    assert "PLC plc.invalid:502" in str(error)
    assert "check host" in str(error)


def test_a_name_with_several_addresses_reaches_the_one_that_listens() -> None:
    with RawServer() as server, Link("localhost", server.port, timeout_s=1.0) as link:
        assert link.read_plc(200).sequence == 1


def test_a_plc_that_is_stopped_and_started_is_found_again(recorder: Recorder) -> None:
    port = free_port()
    with Link("127.0.0.1", port, timeout_s=1.0) as link:
        for round_number in range(3):
            with plain_server(port, recorder):
                until_it_answers(link)
                link.write_inspector(100, BLOCK)
            for _ in range(5):
                seconds(lambda: link.write_inspector(100, BLOCK))
            assert link.reconnects >= round_number
    assert recorder.writes == [Write(16, 100, BLOCK.encode())] * 3


def test_a_connection_that_the_plc_closed_while_idle_costs_no_error() -> None:
    def once(connection: socket.socket, request: bytes, number: int) -> None:
        honest(connection, request, number)
        connection.close()

    with RawServer(once) as server, Link("127.0.0.1", server.port, timeout_s=1.0) as link:
        for number in range(1, 4):
            assert link.read_plc(200).sequence == number
            time.sleep(0.05)
        assert (link.errors, link.reconnects) == (0, 2)


def test_the_pause_between_attempts_grows_and_is_bounded() -> None:
    """The first attempt after a failure is at once; calls in a pause fail without touching the network."""
    with RawServer(hang_up) as server, Link("127.0.0.1", server.port, timeout_s=TIMEOUT_S) as link:
        seconds(lambda: link.read_plc(200))
        seconds(lambda: link.read_plc(200))
        assert server.connections == 2
        error, _ = seconds(lambda: link.read_plc(200))
        if server.connections == 2:  # else this machine was slower than the pause
            assert "next attempt in" in str(error)
            assert "connection lost" in str(error), "the cause stays visible"
        for _ in range(20):
            link._failed("reading", 0.0, "again")
        assert link._not_before == BACKOFF_MAX_S


def test_a_call_refused_in_a_pause_is_not_counted_as_an_error() -> None:
    port = free_port()
    link = Link("127.0.0.1", port)
    for _ in range(2):
        seconds(lambda: link.read_plc(200))
    link._not_before = time.monotonic() + 60
    seconds(lambda: link.read_plc(200))
    assert link.errors == 2


def test_pymodbus_prints_nothing_by_itself() -> None:
    program = (
        "from inspector.plc.link import Link\n"
        "from inspector.errors import PlcError\n"
        f"link = Link('127.0.0.1', {free_port()})\n"
        "try:\n"
        "    link.read_plc(200)\n"
        "except PlcError:\n"
        "    pass\n"
        "import logging\n"
        "logging.getLogger('pymodbus.logging').error('not to be seen')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_pymodbus_adds_nothing_to_the_station_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with RawServer(noise) as server, Link("127.0.0.1", server.port, timeout_s=TIMEOUT_S) as link:
        seconds(lambda: link.read_plc(200))
    assert not [record for record in caplog.records if record.name.startswith("pymodbus")]
