"""Settings against models of what they mean: the register map, and values that come back as written."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inspector.errors import SettingsError
from inspector.plc.registers import INSPECTOR_REGISTERS, PLC_REGISTERS
from inspector.settings import load

many = settings(
    max_examples=1000,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # every example writes the whole file
)
close = st.integers(100, 130) | st.integers(0, 65535)  # near each other, so that they meet
coils = st.none() | st.fixed_dictionaries({"passed": st.integers(0, 6), "rejected": st.integers(0, 6)})
cameras = st.lists(
    st.fixed_dictionaries({"inspector_base": close, "plc_base": close, "coils": coils}),
    min_size=1,
    max_size=3,
)
plc = st.fixed_dictionaries(
    {},
    optional={
        "host": st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True),
        "port": st.integers(1, 65535),
        "device_id": st.integers(0, 255),
        "timeout_ms": st.integers(10, 5000),
        "poll_ms": st.integers(1, 500),
        "heartbeat_ms": st.integers(20, 500),
        "heartbeat_timeout_s": st.floats(1.5, 3600),
        "word_order": st.sampled_from(["big", "little"]),
        "byte_order": st.sampled_from(["big", "little"]),
    },
).map(lambda keys: keys | {"poll_ms": min(keys.get("poll_ms", 5), keys.get("heartbeat_ms", 200))})
station = st.fixed_dictionaries(
    {},
    optional={
        "name": st.from_regex(r"[\w-]{1,64}", fullmatch=True),
        "startup_timeout_s": st.floats(0, 3600, exclude_min=True),
    },
)
camera = st.fixed_dictionaries(
    {},
    optional={
        "trigger": st.sampled_from(["camera", "plc", "interval"]),
        "deadline_ms": st.integers(1, 600_000),
        "silence_s": st.floats(0, 3600, exclude_min=True),
        "ring_slots": st.integers(2, 64),
        "ring_slot_mib": st.integers(1, 4096),
    },
)


def toml(value):
    """A value of a table's key."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def table(values):
    return "".join(f"{key} = {toml(value)}\n" for key, value in values.items() if value is not None)


def write(path, plc_keys, station_keys, camera_keys):
    text = f"[plc]\n{table(plc_keys)}[station]\n{table(station_keys)}"
    for index, keys in enumerate(camera_keys):
        text += f'[[camera]]\nname = "c{index}"\nrecipe = "part"\n{table(keys)}[camera.folder]\npath = "p"\n'
    path.write_text(text + "[recipe.part]\n")


def disjoint(found):
    """No register has two owners, none lies beyond the last, and no coil has two either."""
    owned, coils_owned = [], []
    for one in found:
        owned += range(one["inspector_base"], one["inspector_base"] + INSPECTOR_REGISTERS)
        owned += range(one["plc_base"], one["plc_base"] + PLC_REGISTERS)
        coils_owned += [] if one["coils"] is None else list(one["coils"].values())
    within = max(owned) <= 0xFFFF
    return within and len(set(owned)) == len(owned) and len(set(coils_owned)) == len(coils_owned)


@many
@given(cameras)
def test_a_register_map_loads_exactly_when_no_register_and_no_coil_has_two_owners(tmp_path, found):
    write(tmp_path / "station.toml", {}, {}, found)
    try:
        load(tmp_path / "station.toml")
    except SettingsError as error:
        assert not disjoint(found), str(error)
    else:
        assert disjoint(found)


@many
@given(plc, station, camera)
def test_what_is_written_is_what_is_read(tmp_path, plc_keys, station_keys, camera_keys):
    write(tmp_path / "station.toml", plc_keys, station_keys, [camera_keys])
    read = load(tmp_path / "station.toml")
    for part, keys in ((read.plc, plc_keys), (read.station, station_keys), (read.camera[0], camera_keys)):
        assert {key: getattr(part, key) for key in keys} == keys
