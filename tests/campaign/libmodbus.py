"""The PLC's registers in a server on libmodbus (C): the interface of server.py, no code in common with it."""

from __future__ import annotations

import signal
import subprocess
import threading
from queue import Queue

from tests.campaign.history import History
from tests.campaign.server import Watch
from tests.libmodbus import program


class LibmodbusBank:
    """Registers and coils of a server process, which is the server as well. See server.Bank and Server."""

    def __init__(self, history: History, watch: Watch) -> None:
        self._history = history
        self.watch = watch
        self._answers: Queue[list[int]] = Queue()
        self._one = threading.Lock()
        self._process = subprocess.Popen(
            [program(), "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.port = int(self._process.stdout.readline().split()[1])
        threading.Thread(target=self._listen, daemon=True).start()

    def begin(self) -> int:
        """It listens already."""
        return self.port

    def start(self) -> None:
        self._ask("start")

    def cut(self) -> None:
        self._ask("stop")

    def freeze(self) -> None:
        """The kernel goes on taking connections and bytes for a process that stands still."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def get_holding_registers(self, address: int, count: int = 1) -> list[int]:
        return self._ask("get", address, count)

    def set_holding_registers(self, address: int, values: list[int]) -> None:
        self._ask("set", address, *values)

    def set_coils(self, address: int, values: list[int]) -> None:
        self._ask("coils", address, *values)

    def _ask(self, *words: object) -> list[int]:
        with self._one:
            self._process.stdin.write(" ".join(map(str, words)) + "\n")
            return self._answers.get(timeout=60)

    def _listen(self) -> None:
        for line in self._process.stdout:
            word, *numbers = line.split()
            values = [int(number) for number in numbers]
            if word != "write":
                self._answers.put(values)
                continue
            t, function, address, *written = values
            kind = "coils" if function in (5, 15) else "write"
            more = self.watch.seen(address, written) if kind == "write" else {}
            self._history.note(kind, t=t, address=address, values=written, received=t, **more)
