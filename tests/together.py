"""`inspector run` on a CPU as on a GPU: batches pay, for a batch takes as long as a part; and frames wait."""

from __future__ import annotations

import time

from torch import Tensor

from inspector import cli, judges
from inspector.model.bundle import Bundle
from inspector.model.engine import Engine
from inspector.settings import EngineSettings

TAKES_S = 0.1


class Slow(Engine):
    """Takes its time, whatever the size of the batch."""

    def _errors(self, x: Tensor) -> Tensor:
        time.sleep(TAKES_S)
        return super()._errors(x)

    def _timed(self) -> dict[int, list[float]]:
        return {size: [1e3 * TAKES_S] for size in super()._timed()}


def open_engine(bundle: Bundle, settings: EngineSettings, together: int = 1) -> Engine:
    return Slow(bundle, "cpu", settings.precision, settings.threads, together)


if __name__ == "__main__":
    judges.open_engine = open_engine
    cli.main()
