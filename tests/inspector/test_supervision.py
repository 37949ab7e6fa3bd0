"""What systemd is told, and that the watchdog is fed by the decision loop and nothing else."""

import socket
import time

from inspector.inquiry import ask
from inspector.plc.registers import Status
from tests.station import camera, until

PASS, FAULT = 1, 3
READY = Status.READY


class Systemd:
    """The notification socket of a unit of Type=notify."""

    def __init__(self, folder):
        self.path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.setblocking(False)
        self._all = []

    def told(self):
        """Every message so far."""
        try:
            while True:
                self._all.append(self._socket.recv(65536).decode())
        except BlockingIOError:
            return list(self._all)

    def fed(self):
        return sum("WATCHDOG=1" in one for one in self.told())


def test_the_watchdog_starves_and_the_heart_stops_when_the_decision_loop_hangs(station, plc, tmp_path):
    systemd = Systemd(tmp_path)
    station.write(camera(deadline_ms=500))
    station.start("tests.sabotage", NOTIFY_SOCKET=str(systemd.path))
    until(lambda: any("READY=1" in one for one in systemd.told()), "READY=1")
    loading = "EXTEND_TIMEOUT_USEC=300000000\nSTATUS=loading the model of recipe 'part'"
    assert systemd.told()[0] == loading, "each of many models has its time"
    until(lambda: plc.status() & READY, "READY", 10)
    until(lambda: any("STATUS=inspecting" in one for one in systemd.told()), "STATUS", 10)
    fed = systemd.fed()
    until(lambda: systemd.fed() >= fed + 3, "the watchdog is fed", 20)

    (station.root / "sabotage").write_text("hang")
    plc.trigger(1)
    until(lambda: plc.verdicts() == [(1, FAULT)], "FAULT at the deadline though the loop hangs", 30)
    until(lambda: "the decision loop hangs: the heartbeat stops" in station.said(), "the stall is told", 20)
    time.sleep(0.5)  # what was on its way
    fed, beats = systemd.fed(), len(plc.writes())
    assert ask(station.data)["station"] == "station", "who asks is answered all the same"
    time.sleep(2.5)
    assert systemd.fed() == fed, "no timer feeds the watchdog"
    assert len(plc.writes()) == beats, "no timer beats the heart"

    (station.root / "sabotage").unlink()
    until(lambda: systemd.fed() > fed and len(plc.writes()) > beats, "both go on", 20)
    until(lambda: plc.status() & READY, "READY", 20)
    plc.trigger(2)
    until(lambda: (2, PASS) in plc.verdicts(), "a pass", 30)
    assert station.stop() == 0
    assert any("STOPPING=1" in one for one in systemd.told())
    with station.log() as log:
        kinds = {e.kind: e for e in log.events(limit=None)}
        assert "stall" in kinds
        assert "came after FAULT" in kinds["late_score"].message


def test_three_verdicts_late_in_a_row_raise_an_alarm(station, plc):
    station.write(camera(deadline_ms=400, silence_s=20.0))
    station.start("tests.sabotage")
    until(lambda: plc.status() & READY, "READY")
    (station.root / "sabotage").write_text("slow")

    def alarms():
        with station.log() as log:
            return [e for e in log.events(limit=None) if e.kind == "late"]

    for sequence in (1, 2, 3):
        assert alarms() == []
        plc.trigger(sequence)
        until(lambda s=sequence: (s, FAULT) in plc.verdicts(), f"FAULT {sequence}", 30)
        time.sleep(1.5)  # the loop is done with the part
    until(lambda: len(alarms()) == 1, "the alarm", 10)
    assert alarms()[0].severity == "error"
    assert "3 verdicts in a row" in alarms()[0].message
    assert ask(station.data)["cameras"][0]["late_in_a_row"] == 3


def test_a_plc_whose_heart_stands_still_is_an_alarm_once_and_told_when_it_beats_again(station, plc):
    station.write(camera(trigger="camera"))
    station.start()
    until(lambda: plc.status() & READY, "READY")

    def told():
        with station.log() as log:
            return [e.severity for e in reversed(log.events(limit=None)) if e.kind == "plc_heartbeat"]

    until(lambda: told() == ["warning"], "the alarm", 20)
    assert ask(station.data)["cameras"][0]["plc_heartbeat_still"]
    time.sleep(2.5)
    assert told() == ["warning"]
    plc.set_registers(200, [7])
    until(lambda: told() == ["warning", "info"], "it beats again", 20)
    assert "(register 200) has been still for 2 s" in station.said()
