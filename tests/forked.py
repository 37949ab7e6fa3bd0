"""Daemons that start without the seconds of their imports: forked from a process that has them already.

From the fork on it is `inspector run` in a process of its own, to be killed like any other. `python -m
tests.forked` is the one that forks: it reads what to start from standard input and tells what became of it,
one JSON object a line.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
import traceback

from tests.station import Station

IMPORTS = ("inspector.cli", "inspector.judges", "inspector.daemon", "inspector.model.engine")
LOOK_S = 0.01


class Nursery:
    """The process that forks, and the daemons that it has forked."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        self._said: list[dict] = []
        self._news = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, cwd: str, lines: str, module: str, environment: dict[str, str]) -> Forked:
        """Run `python -m MODULE run` there, standard error appended to the file `lines`."""
        before = self._count("pid")
        order = {"cwd": cwd, "lines": lines, "module": module, "environment": environment}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        with self._news:
            self._news.wait_for(lambda: self._count("pid") > before, 120)
        return Forked(self, [event["pid"] for event in self._said if "pid" in event][-1])

    def status(self, pid: int, timeout: float) -> int | None:
        """The exit status of this daemon, as Popen has it; None while it runs."""

        def found() -> int | None:
            return next((event["status"] for event in self._said if event.get("ended") == pid), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None, timeout)
            return found()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(30)

    def _count(self, key: str) -> int:
        return sum(key in event for event in self._said)

    def _listen(self) -> None:
        for line in self._process.stdout:
            with self._news:
                self._said.append(json.loads(line))
                self._news.notify_all()


class Forked:
    """What the tests need of subprocess.Popen."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery = nursery
        self.pid = pid

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        return self._nursery.status(self.pid, 0)

    def wait(self, timeout: float = 60) -> int:
        status = self._nursery.status(self.pid, timeout)
        if status is None:
            raise subprocess.TimeoutExpired("inspector run", timeout)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkedStation(Station):
    """A station whose daemon is forked."""

    nursery: Nursery

    def start(self, module: str = "inspector", **environment: str) -> Forked:
        lines = str(self.root / "daemon.log")
        self.daemon = self.nursery.start(str(self.root), lines, module, environment)
        return self.daemon


def _serve() -> None:
    """Fork what is asked for, tell what ends, until standard input does; then end what is left."""
    alive: set[int] = set()
    while True:
        ready, _, _ = select.select([0], [], [], LOOK_S)
        if ready:
            line = sys.stdin.readline()
            if not line:
                break
            pid = os.fork()
            if pid == 0:
                os._exit(_run(**json.loads(line)))
            alive.add(pid)
            _say(pid=pid)
        for pid in list(alive):
            gone, status = os.waitpid(pid, os.WNOHANG)
            if gone:
                alive.remove(pid)
                _say(ended=pid, status=os.waitstatus_to_exitcode(status))
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


def _run(cwd: str, lines: str, module: str, environment: dict[str, str]) -> int:
    os.chdir(cwd)
    file = os.open(lines, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 2)
    os.close(file)
    os.close(0)
    os.environ.update(environment)
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)  # for the camera's process
    sys.argv = [module, "run"]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def _say(**what: int) -> None:
    print(json.dumps(what | {"t": time.monotonic_ns()}), flush=True)


if __name__ == "__main__":
    for name in IMPORTS:
        importlib.import_module(name)
    _serve()
