"""`inspector status` asks the running daemon over a Unix socket in the data folder.

Whoever connects is sent one JSON object, and the connection ends. A thread of its own answers; a disk or a
client that hangs holds up nobody but itself.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from inspector.errors import InspectorError

logger = structlog.get_logger()

NAME = "inspector.sock"
PATIENCE_S = 2.0
RETRY_S = 0.5
MODE = 0o660  # the operator's account may ask when it is in the daemon's group


class Inquiries:
    """Answers whoever asks, until closed."""

    def __init__(self, folder: Path, snapshot: Callable[[], dict[str, Any]]) -> None:
        self._folder = folder
        self._snapshot = snapshot
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Begin to listen. A station that cannot be asked inspects all the same."""
        listener = socket.socket(socket.AF_UNIX)
        try:
            with _short(self._folder) as path:
                path.unlink(missing_ok=True)  # of a daemon that was killed: the lock says that it is gone
                listener.bind(str(path))
                path.chmod(MODE)
            listener.listen()
        except OSError as error:
            listener.close()
            logger.warning("`inspector status` will not find this daemon", error=error.strerror)
            return
        self._socket = listener
        threading.Thread(target=self._answer, args=(listener,), name="inquiries", daemon=True).start()

    def close(self) -> None:
        """Nobody is answered any more."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            with suppress(OSError):
                (self._folder / NAME).unlink()

    def _answer(self, listener: socket.socket) -> None:
        while True:
            try:
                asker, _ = listener.accept()
            except OSError as error:
                if listener.fileno() < 0 or error.errno == errno.EINVAL:  # closed, or about to be
                    return
                time.sleep(RETRY_S)  # no file descriptor is left, say; that passes
                continue
            try:
                with asker:
                    asker.settimeout(PATIENCE_S)
                    asker.sendall(json.dumps(self._snapshot(), allow_nan=False).encode())
            except OSError:
                pass  # whoever asked has gone
            except Exception:  # one question that cannot be answered must not silence the next
                logger.exception("status not told")


def ask(folder: Path) -> dict[str, Any]:
    """The snapshot of the daemon whose data folder this is. Raises InspectorError when none answers."""
    try:
        with _short(folder) as path, socket.socket(socket.AF_UNIX) as asker:
            asker.settimeout(PATIENCE_S)
            asker.connect(str(path))
            said = _all_of(asker)
    except PermissionError:
        raise InspectorError(
            f"{folder / NAME} may not be asked by this user; expected the daemon's own user or group "
            "(sudo -u inspector inspector status)"
        ) from None
    except TimeoutError:
        raise InspectorError(
            f"the inspector behind {folder / NAME} does not answer within {PATIENCE_S:g} s; "
            "see journalctl -u inspector"
        ) from None
    except OSError:
        raise InspectorError(
            f"no inspector runs on this station (nobody answers at {folder / NAME}); "
            "start it: systemctl start inspector, or `inspector run`"
        ) from None
    if not said:
        raise InspectorError(f"the inspector behind {folder / NAME} is ending; ask again")
    try:
        answer = json.loads(said)
    except ValueError:  # cut short, or no text at all
        answer = None
    if not isinstance(answer, dict):
        raise InspectorError(
            f"what answers at {folder / NAME} was cut short, or is no inspector; ask again, and see "
            "journalctl -u inspector"
        )
    return answer


def _all_of(asker: socket.socket) -> bytes:
    """Until the other end closes. Raises TimeoutError when all of it takes longer than PATIENCE_S."""
    give_up, said = time.monotonic() + PATIENCE_S, b""
    while piece := asker.recv(65536):
        said += piece
        asker.settimeout(max(give_up - time.monotonic(), 0.001))
    return said


@contextmanager
def _short(folder: Path) -> Iterator[Path]:
    """The socket's path by way of the open folder: a Unix address holds 107 bytes only."""
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield Path(f"/proc/self/fd/{handle}") / NAME
    finally:
        os.close(handle)
