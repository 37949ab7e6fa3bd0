"""The PLC of a test on libmodbus (C): the same interface as tests/recorder.py, no code in common with it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import threading
from functools import cache
from pathlib import Path
from queue import Queue

from tests.recorder import Write

SOURCE = Path(__file__).with_name("libmodbus_server.c")


class Missing(RuntimeError):
    """This machine has no libmodbus, or nothing to compile with."""


@cache
def program() -> Path:
    """The compiled server. Raises Missing."""
    compiler, config = shutil.which("gcc") or shutil.which("cc"), shutil.which("pkg-config")
    if compiler is None or config is None:
        raise Missing("libmodbus server: no C compiler or no pkg-config (apt-get install gcc pkg-config)")
    flags = subprocess.run([config, "--cflags", "--libs", "libmodbus"], capture_output=True, text=True)
    if flags.returncode:
        raise Missing("libmodbus server: no libmodbus (apt-get install libmodbus-dev)")
    target = Path(tempfile.mkdtemp(prefix="libmodbus-")) / "server"
    subprocess.run([compiler, "-O1", "-o", target, SOURCE, *flags.stdout.split()], check=True)
    return target


class LibmodbusRecorder:
    """See tests.recorder.Recorder."""

    def __init__(self, port: int = 0) -> None:
        self._process = subprocess.Popen(
            [program(), str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._writes: list[tuple[int, Write]] = []  # function code and what was written
        self._answers: Queue[list[int]] = Queue()
        self._one = threading.Lock()
        self.bank = self  # where the tests say read_only
        self.port = int(self._process.stdout.readline().split()[1])
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def start(self) -> None:
        self._ask("start")

    def stop(self) -> None:
        self._ask("stop")

    def freeze(self) -> None:
        """The kernel goes on taking connections for a process that stands still."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.thaw()
        self._process.stdin.close()
        self._process.wait(10)
        self._listener.join()
        self._process.stdout.close()

    def forget(self) -> None:
        self._ask("set", 0, *[0] * 1000)

    @property
    def read_only(self) -> bool:
        raise AttributeError("write-only")

    @read_only.setter
    def read_only(self, on: bool) -> None:
        self._ask("readonly", int(on))

    @property
    def no_coils(self) -> bool:
        raise AttributeError("write-only")

    @no_coils.setter
    def no_coils(self, on: bool) -> None:
        self._ask("nocoils", int(on))

    def writes(self, base: int = 100) -> list[Write]:
        return [w for f, w in self._all() if f in (6, 16) and base <= w.address < base + 13]

    def functions(self) -> list[int]:
        return [function for function, _ in self._all()]

    def verdicts(self, base: int = 100) -> list[tuple[int, int]]:
        blocks = [w.values for w in self.writes(base) if len(w.values) == 13]
        return [(block[3], block[2]) for block in blocks if block[2]]

    def registers(self, base: int, count: int) -> list[int]:
        return self._ask("get", base, count)

    def set_registers(self, base: int, values: list[int]) -> None:
        self._ask("set", base, *values)

    def coils(self, *addresses: int) -> list[bool]:
        return [bool(self._ask("coil", address)[0]) for address in addresses]

    def status(self, base: int = 100) -> int:
        return self.registers(base, 13)[1]

    def trigger(self, sequence: int, part: int = 0, base: int = 200) -> None:
        self._ask("set", base + 2, part >> 16, part & 0xFFFF)
        self._ask("set", base + 1, sequence)

    def _all(self) -> list[tuple[int, Write]]:
        self._ask("get", 0, 1)  # what was executed before this has been told before its answer
        return list(self._writes)

    def _ask(self, *words: object) -> list[int]:
        with self._one:
            self._process.stdin.write(" ".join(map(str, words)) + "\n")
            return self._answers.get(timeout=10)

    def _listen(self) -> None:
        for line in self._process.stdout:
            word, *numbers = line.split()
            values = [int(number) for number in numbers]
            if word == "write":
                t, function, address, *written = values
                self._writes.append((function, Write(t / 1e9, address, written)))
            else:
                self._answers.put(values)
