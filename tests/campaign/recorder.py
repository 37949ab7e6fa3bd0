"""The recorder: a process of its own that is the PLC, server and program, and keeps its history."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.campaign.history import History
from tests.campaign.program import FIRST_SEQUENCE, PATIENCE_S, Program
from tests.campaign.server import Bank, Rows, Server, Watch

BASE, PLC_BASE = 100, 200


class Plc:
    """What the campaign can ask of the PLC; runs in the recorder's process."""

    def __init__(self, station: Path, kind: str, seed: int, patience_s: float) -> None:
        self._history = History(station / "plc.jsonl")
        self._watch = Watch(Rows(station / "data" / "inspector.db"), BASE)
        self._bank = _bank(kind, self._history, self._watch)
        # what a PLC holds that has run for long, so that the first trigger is a change
        self._bank.set_holding_registers(PLC_BASE + 1, [FIRST_SEQUENCE])
        self._bank.set_holding_registers(BASE + 3, [FIRST_SEQUENCE])
        self._program = Program(self._bank, self._history, BASE, PLC_BASE, seed, station, patience_s)
        self._program.start()
        self._server = Server(0, self._bank) if isinstance(self._bank, Bank) else self._bank
        self._port = self._server.begin()

    def port(self) -> int:
        return self._port

    def stop(self) -> None:
        """Switch the server off: nobody listens, connections are cut."""
        self._server.cut()
        self._history.note("server", on=False)

    def start(self) -> None:
        self._history.note("server", on=True)
        if isinstance(self._bank, Bank):
            self._server = Server(self._port, self._bank)
            self._server.begin()
        else:
            self._bank.start()

    def freeze(self) -> None:
        """Half-open: connections stand, nothing is executed or answered, the PLC's program included."""
        self._history.note("mode", name="frozen")
        self._program.halt()
        self._server.freeze()

    def thaw(self) -> None:
        self._server.thaw()
        self._program.resume()
        self._history.note("mode", name="")

    def mode(self, name: str) -> None:
        """Misbehave in this way from now on; "" is honest."""
        self._history.note("mode", name=name)
        self._server.mode = name

    def finish(self) -> None:
        """Trigger nothing more; what is in work is still waited for."""
        self._program.finishing = True

    def halt(self) -> None:
        self._program.halt()

    def resume(self) -> None:
        self._program.resume()

    def forget(self) -> None:
        self._program.forget()

    def jump(self) -> None:
        self._program.jump()

    def repeat(self) -> None:
        self._program.repeat()

    def impatient(self, on: bool) -> None:
        """Trigger while a part is still in work."""
        self._program.impatient = on

    def kill_at_verdict(self, pid: int | None) -> None:
        """SIGKILL to this process as soon as its next verdict has arrived, before it is told so."""
        self._watch.trap = pid

    def last_good(self) -> int:
        """When the last PASS or REJECT arrived."""
        return self._watch.last_good

    def waiting(self) -> bool:
        """Whether the program waits for a verdict."""
        return self._program.waiting

    def status(self) -> int:
        """The inspector's status register."""
        return int(self._bank.get_holding_registers(BASE + 1, 1)[0])


def _bank(kind: str, history: History, watch: Watch) -> Any:
    if kind == "libmodbus":
        from tests.campaign.libmodbus import LibmodbusBank

        return LibmodbusBank(history, watch)
    return Bank(history, watch)


def _serve(pipe: Connection, *arguments: Any) -> None:
    plc = Plc(*arguments)
    while True:
        try:
            name, asked = pipe.recv()
        except EOFError:
            return
        pipe.send(getattr(plc, name)(*asked))


class Recorder:
    """The campaign's end: every method of Plc by its name."""

    def __init__(
        self, station: Path, kind: str = "pyModbusTCP", seed: int = 0, patience_s: float = PATIENCE_S
    ) -> None:
        """kind of server: pyModbusTCP or libmodbus. patience_s: when the program gives a part up."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, station, kind, seed, patience_s), daemon=True
        )
        self._process.start()
        theirs.close()

    def __getattr__(self, name: str) -> Any:
        def ask(*arguments: Any) -> Any:
            self._pipe.send((name, arguments))
            return self._pipe.recv()

        return ask

    def close(self) -> None:
        self._pipe.close()
        self._process.join(5)
        self._process.kill()
