"""The PLC's program, as the structured text of the README has it, on the registers themselves.

It lays a part before the camera, triggers it, waits for the verdict that bears its sequence and part id, acts
on it, acknowledges it and goes on after a short random pause. A part that is not answered within PATIENCE_S
is given up as a reject.
Part ids are never used twice; the sequence counts up and wraps at 16 bits.
"""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

from tests.campaign import scene
from tests.campaign.history import History
from tests.campaign.server import BLOCK, PART, SEQUENCE, VERDICT

COILS = (10, 11)  # pass, reject; for the simple PLC beside this one
NORMAL, ODD = "normal", "odd"  # how the names of pictures begin
PICTURES = [f"{kind}-{index:03}.png" for kind in (NORMAL, ODD) for index in range(12)]
CYCLE_S = 0.005
BEAT_S = 0.1
PATIENCE_S = 45.0  # far beyond every fault: what is unanswered by then is lost
ALIVE_S = 1.0
PAUSE_S = (0.0, 0.12)
FIRST_SEQUENCE = 65_500  # the wrap at 16 bits comes soon
HURRIED_S = 2.0  # for a part that it triggered while another was in work, see judgement.py
HURRY = 0.4  # share of cycles in which an impatient line triggers again
BEFORE_THE_WRAP = 65_530
READY = 1


class Program(threading.Thread):
    """One camera's part of the PLC's program."""

    def __init__(
        self,
        bank: Any,
        history: History,
        base: int,
        plc_base: int,
        seed: int,
        station: Path,
        patience_s: float,
    ) -> None:
        super().__init__(daemon=True)
        self._bank = bank
        self._history = history
        self._base = base
        self._plc = plc_base
        self._random = random.Random(seed)
        self._cycle = threading.Lock()
        self._sequence = FIRST_SEQUENCE
        self._part = 0
        self._awaited = (0, 0)  # sequence and part id
        self._waiting = False
        self._station = station
        self._patient_s = patience_s
        self._patience = patience_s
        self._asked = self._next = self._beat_at = 0.0
        self._heart = (0, 0.0)
        self._beat = 0
        self.halted = True
        self.impatient = False
        self.finishing = False

    def run(self) -> None:
        while True:
            with self._cycle:
                if not self.halted:
                    self._turn(time.monotonic())
            time.sleep(CYCLE_S)

    @property
    def waiting(self) -> bool:
        return self._waiting

    def resume(self) -> None:
        with self._cycle:
            self.halted = False

    def halt(self) -> None:
        with self._cycle:
            self.halted = True

    def forget(self) -> None:
        """The PLC restarts without retentive memory: every register is 0, the sequence goes back."""
        with self._cycle:
            self._history.note("forget")
            for address in range(0, 1000, 100):
                self._bank.set_holding_registers(address, [0] * 100)
            self._bank.set_coils(min(COILS), [0, 0])
            self._sequence, self._waiting, self._beat = 0, False, 0

    def jump(self) -> None:
        """An older program is loaded: its sequence goes back by some thousands, or just before the wrap."""
        with self._cycle:
            back = (self._sequence - BEFORE_THE_WRAP) & 0xFFFF
            if not 1000 < back < 64_000:  # within a thousand it would be a PLC that counts, not another one
                back = self._random.choice([5000, 20_000])
            self._sequence = (self._sequence - back) & 0xFFFF

    def repeat(self) -> None:
        """Write the same sequence and part id once more: no change, so no trigger."""
        with self._cycle:
            held = self._bank.get_holding_registers(self._plc + 1, 3)
            self._bank.set_holding_registers(self._plc + 1, held)

    def _turn(self, now: float) -> None:
        block = self._bank.get_holding_registers(self._base, BLOCK)
        if block[0] != self._heart[0]:
            self._heart = (block[0], now)
        alive = now - self._heart[1] <= ALIVE_S and block[1] & READY
        if self._waiting:
            self._use(block, bool(alive), now)
        if now >= self._next and not self.finishing and not self._waiting:
            self._trigger(now)
        elif self.impatient and self._waiting and self._random.random() < HURRY:
            for _ in range(self._random.choice((1, 1, 3))):  # three at once: two go by between two readings
                self._trigger(now)
        if now >= self._beat_at:
            self._beat, self._beat_at = (self._beat + 1) & 0xFFFF, now + BEAT_S
            self._bank.set_holding_registers(self._plc, [self._beat])

    def _use(self, block: list[int], alive: bool, now: float) -> None:
        part = (block[PART] << 16) + block[PART + 1]
        sequence = block[SEQUENCE]
        if (sequence, part) == self._awaited and block[VERDICT]:
            good = alive and block[VERDICT] == 1
            self._history.note("used", sequence=sequence, part=part, verdict=block[VERDICT], good=good)
            self._bank.set_holding_registers(self._plc + 5, [sequence])
        elif now - self._asked > self._patience:
            hurried = self._patience == HURRIED_S
            sequence, part = self._awaited
            self._history.note("gave_up", sequence=sequence, part=part, hurried=hurried)
        else:
            return
        self._waiting = False
        self._next = now + self._random.uniform(*PAUSE_S)

    def _trigger(self, now: float) -> None:
        self._patience = HURRIED_S if self._waiting else self._patient_s
        self._part += 1
        self._sequence = (self._sequence + 1) & 0xFFFF
        self._waiting, self._asked, self._awaited = True, now, (self._sequence, self._part)
        shows = self._random.choice(PICTURES)
        self._history.note("scene", shows=shows)
        scene.put(self._station, shows)
        self._history.note("trigger", sequence=self._sequence, part=self._part)
        part = [self._part >> 16, self._part & 0xFFFF]  # at once, as at the end of a PLC's cycle
        self._bank.set_holding_registers(self._plc + 1, [self._sequence, *part])
