"""station.toml and the environment: what loads, and what is said of what does not."""

import json
import re
import tomllib
import typing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from inspector.errors import SettingsError
from inspector.model.network import METHODS
from inspector.model.records import EXPOSURES, PRESETS
from inspector.settings import CameraSettings, Folder, Genicam, Recipe, Settings, load
from training.options import METHOD, SYMMETRIES

EXAMPLE = Path(__file__).parents[2] / "station.toml"
VALID = """\
[plc]
port = 5020
[[camera]]
name = "cam1"
recipe = "part"
[camera.folder]
path = "pictures"
[recipe.part]
"""
FOLDER = '[camera.folder]\npath = "pictures"\n'


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    monkeypatch.delenv("INSPECTOR_CONFIG", raising=False)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "station.toml"


def refused(file, text):
    """What an integrator reads about this text."""
    file.write_text(text) if isinstance(text, str) else file.write_bytes(text)
    with pytest.raises(SettingsError) as error:
        load(file)
    assert error.value.exit_code == 2
    return str(error.value)


def models(kind=Settings):
    """Every table of a station file."""
    yield kind
    for field in kind.model_fields.values():
        for one in nested(field.annotation):
            yield from models(one)


def nested(annotation):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from nested(argument)


# --- the example ------------------------------------------------------------------------------------------


def test_the_example_loads_as_it_is():
    station = load(EXAMPLE)
    assert station.camera[0].kind == "folder"
    assert station.station.data == EXAMPLE.parent / "demo" / "data"


@pytest.mark.parametrize("model", list(models()), ids=lambda m: m.__name__)
def test_the_example_mentions_every_key(model):
    text = EXAMPLE.read_text()
    for key in model.model_fields:
        written = rf"(^|[#{{,])\s*{key} = |^(# )?\[+[\w.]*\b{key}\b[\w.]*\]"
        assert re.search(written, text, re.MULTILINE), f"{model.__name__}.{key} is not explained"


def test_every_line_of_the_example_explains_its_key():
    for line in EXAMPLE.read_text().splitlines():
        if re.match(r"\w+ = ", line):
            assert "#" in line, line


def test_the_values_of_the_example_are_the_defaults_or_named_as_such():
    """What is written differs from the default only where the comment beside it names the default."""
    lines = EXAMPLE.read_text().splitlines()
    table = tomllib.loads(EXAMPLE.read_text())
    camera, folder, recipe = table["camera"][0], table["camera"][0].pop("folder"), table["recipe"]["flange"]
    pairs = [
        (Settings.model_fields[name].annotation, table[name])
        for name in table
        if name not in ("camera", "recipe")
    ]
    pairs += [(CameraSettings, camera), (Folder, folder), (Recipe, recipe)]
    for model, written in pairs:
        for key, value in written.items():
            field = model.model_fields[key]
            default = field.default
            if field.is_required() or default == value or key == "name":
                continue
            comments = " ".join(line for line in lines if line.startswith(f"{key} ="))
            assert "default" in comments.lower(), f"{key} = {value}, its default {default} is not told"
            assert str(default) in comments.split("#")[1], f"the comment of {key} does not name {default}"


def test_the_commented_examples_load_too(file):
    text = EXAMPLE.read_text()
    table = text[text.index("# [camera.genicam]") : text.index("[recipe.flange]")]
    table = re.sub(r"^# (user_id|model) =.*$", "", table, flags=re.MULTILINE)
    table = "\n".join(line.removeprefix("#").strip() for line in table.splitlines())
    start, end = text.index("[camera.folder]"), text.index("# A GenICam camera")
    text = text[:start] + text[end:].replace("[recipe.flange]", table + "\n[recipe.flange]", 1)
    text = re.sub(r"^# (coils|roi)", r"\1", text, flags=re.MULTILINE)
    text = text.replace(re.search(r"^coils.*$", text, re.MULTILINE)[0], "")
    file.write_text(text)
    station = load(file)
    assert station.camera[0].genicam.features == {"PixelFormat": "Mono8", "ExposureTime": 4000.0}
    assert station.camera[0].genicam.buffers == Genicam.model_fields["buffers"].default
    assert station.recipe["flange"].region == (0, 0, 640, 640)


def test_presets_are_those_of_the_model():
    assert set(typing.get_args(Recipe.model_fields["preset"].annotation)) == set(PRESETS)


def test_the_example_names_the_method_that_is_taken_where_none_is_named():
    kind = typing.get_args(Recipe.model_fields["method"].annotation)
    assert set(typing.get_args(kind[0])) == set(METHODS)
    assert Recipe().method is None
    assert f'"{METHOD}" (default)' in EXAMPLE.read_text()


def test_symmetries_are_those_of_training():
    kind = typing.get_args(Recipe.model_fields["symmetries"].annotation)[0]
    assert typing.get_args(kind) == SYMMETRIES


def test_exposures_are_those_of_the_model():
    kind = typing.get_args(Recipe.model_fields["exposure"].annotation)[0]
    assert typing.get_args(kind) == EXPOSURES


def test_relative_paths_count_from_the_file(file, monkeypatch):
    producer = '[[camera]]\nname = "b"\nrecipe = "part"\ninspector_base = 300\nplc_base = 400\n'
    producer += '[camera.genicam]\nserial = "1"\nproducer = "lib/x.cti"\n'
    file.write_text(producer + VALID.replace("[plc]", '[station]\ndata = "~/kept"\n[plc]', 1))
    monkeypatch.chdir("/")
    station = load(file)
    assert station.camera[1].folder.path == file.parent / "pictures"
    assert station.camera[0].genicam.producer == file.parent / "lib" / "x.cti"
    assert station.station.data == Path.home() / "kept"
    assert station.database == Path.home() / "kept" / "inspector.db"


def test_marks_and_line_ends_of_other_editors_are_taken(file):
    file.write_bytes(b"\xef\xbb\xbf" + VALID.replace("\n", "\r\n").encode())
    assert load(file).plc.port == 5020


# --- a wrong file -----------------------------------------------------------------------------------------


def camera(**keys):
    """VALID with these keys in its [[camera]]."""
    lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
    return VALID.replace("[camera.folder]", lines + "[camera.folder]")


def two(first="", second="", name="cam2"):
    """VALID with a second camera."""
    table = f'[[camera]]\nname = "{name}"\nrecipe = "part"\n{second}{FOLDER}'
    return VALID.replace("[camera.folder]", first + "[camera.folder]") + table


WRONG = {
    # text: (key, what was found, what was expected)
    "unknown section": ("[lgo]\n" + VALID, "lgo: unknown key", "a table", "expected log?"),
    "unknown key": (VALID.replace("port", "prot"), "plc.prot: unknown key", "5020", "expected port?"),
    "unknown key, nothing alike": (
        VALID + "zzz = 1\n",
        "recipe.part.zzz",
        "found 1",
        "number, method, preset",
    ),
    "unknown key of a camera": (camera(baze=1), "camera[1].baze", "found 1", "expected one of name, recipe"),
    "unknown key of a folder": (
        VALID.replace("path", "pth"),
        "camera[1].folder.pth",
        '"pictures"',
        "expected path?",
    ),
    "an argument of the library": (
        "_env_file = 'x'\n" + VALID,
        "_env_file",
        "unknown",
        "expected one of station",
    ),
    "text for a number": (
        VALID.replace("5020", '"5020"'),
        "plc.port",
        '"5020"',
        "a whole number from 1 to 65535",
    ),
    "a switch for a number": (VALID.replace("5020", "true"), "plc.port", "true", "a whole number"),
    "half a port": (VALID.replace("5020", "502.5"), "plc.port", "502.5", "a whole number"),
    "a number for a switch": (
        VALID.replace("port = 5020", "enabled = 1"),
        "plc.enabled",
        "1",
        "true or false",
    ),
    "a number for text": (VALID.replace("port = 5020", "host = 5"), "plc.host", "found 5", "text in quotes"),
    "a number for a table": ("log = 3\n" + VALID, "log", "found 3", "a table [log] with synchronous, frames"),
    "a table for a list": (VALID.replace("[[camera]]", "[camera]"), "camera", "a table", "tables [[camera]]"),
    "a date for a number": (VALID.replace("5020", "2024-01-01"), "plc.port", "2024-01-01", "a whole number"),
    "out of range": (VALID.replace("5020", "70000"), "plc.port", "70000", "from 1 to 65535"),
    "not positive": (camera(silence_s=0), "camera[1].silence_s", "0", "a number above 0 and up to 3600"),
    "not finite": (camera(silence_s="inf"), "camera[1].silence_s", "inf", "a number above 0"),
    "no choice": (
        camera(trigger='"button"'),
        "camera[1].trigger",
        '"button"',
        'one of "camera", "plc", "interval"',
    ),
    "not TOML": ("[plc\n", "not valid TOML", "line 1", "Expected"),
    "a key twice": (VALID + "[plc]\n", "not valid TOML", "plc", "line"),
    "not UTF-8": (VALID.encode() + b"# \xfc\n", "not UTF-8", "line 9", "expected a TOML file"),
    "nested too deeply": ("x = " + "[" * 5000, "nested too deeply", "", ""),
    "no camera": ("[recipe.part]\n", "camera", "missing", "tables [[camera]]"),
    "an empty list of cameras": ("camera = []\n[recipe.part]\n", "camera", "a list of 0", "at least one"),
    "no recipe": (VALID.replace("[recipe.part]\n", ""), "recipe", "missing", "a table [recipe.NAME]"),
    "a camera without a name": (
        VALID.replace('name = "cam1"\n', ""),
        "camera[1].name",
        "missing",
        "text in quotes",
    ),
    "a bad name": (
        camera().replace("cam1", "cam 1"),
        "camera[1].name",
        '"cam 1"',
        "letters, digits, '-' and '_'",
    ),
    "a name that climbs": (camera().replace("cam1", "../x"), "camera[1].name", '"../x"', "letters, digits"),
    "a bad recipe name": (VALID + '[recipe."a b"]\n', "recipe.a b", '"a b"', "letters, digits"),
    "unknown recipe": (
        camera().replace('"part"', '"prat"'),
        "camera 'cam1'",
        'recipe = "prat"',
        "here: part",
    ),
    "neither kind": (
        VALID.replace(FOLDER, ""),
        "camera[1]",
        "found neither",
        "[camera.folder] and [camera.genicam]",
    ),
    "both kinds": (VALID + '[camera.genicam]\nserial = "1"\n', "camera[1]", "found both", "exactly one"),
    "two devices": (
        VALID.replace(FOLDER, '[camera.genicam]\nserial = "1"\nmodel = "m"\n'),
        "camera[1].genicam",
        "serial and model",
        "exactly one of serial, user_id and model",
    ),
    "no device": (
        VALID.replace(FOLDER, "[camera.genicam]\n"),
        "camera[1].genicam",
        "no device",
        "exactly one",
    ),
    "a serial as a number": (
        VALID.replace(FOLDER, "[camera.genicam]\nserial = 1\n"),
        "camera[1].genicam.serial",
        "found 1",
        "text in quotes",
    ),
    "a feature as a list": (
        VALID.replace(FOLDER, '[camera.genicam]\nserial = "1"\nfeatures = { Width = [1] }\n'),
        "camera[1].genicam.features.Width",
        "a list of 1",
        "true or false, a number, or text in quotes",
    ),
    "two cameras of a name": (
        two(name="cam1"),
        "camera[2].name",
        "'cam1', which camera[1] has",
        "of its own",
    ),
    "overlapping registers": (
        two("inspector_base = 100\n", "inspector_base = 112\nplc_base = 300\n"),
        "camera 'cam2' inspector_base",
        "found 112",
        "outside of registers 100 to 112, which camera 'cam1' inspector_base = 100 takes",
    ),
    "our block over the PLC's": (
        camera(inspector_base=195),
        "plc_base",
        "found 200",
        "outside of registers 195 to 207",
    ),
    "a base too high": (
        camera(inspector_base=65524),
        "camera 'cam1' inspector_base",
        "65524",
        "at most 65523",
    ),
    "coils that clash": (
        camera(coils="{ passed = 3, rejected = 3 }"),
        "coils.rejected",
        "found 3, which camera 'cam1' coils.passed has",
        "a coil of its own",
    ),
    "half the coils": (camera(coils="{ passed = 3 }"), "camera[1].coils.rejected", "missing", "0 to 65535"),
    "a trigger without its PLC": (
        camera(trigger='"plc"').replace("port = 5020", "enabled = false"),
        "camera 'cam1'",
        'trigger = "plc" with plc.enabled = false',
        "plc.enabled = true",
    ),
    "a heartbeat that is not read in time": (
        VALID.replace("port = 5020", "heartbeat_ms = 500\nheartbeat_timeout_s = 0.5"),
        "plc.heartbeat_timeout_s",
        "found 0.5",
        "more than plc.heartbeat_ms (500 ms)",
    ),
    "a poll that is rarer than the heartbeat": (
        VALID.replace("port = 5020", "poll_ms = 250"),
        "plc.poll_ms",
        "found 250",
        "plc.heartbeat_ms (200) at most",
    ),
    "a host with its port": (
        VALID.replace("port = 5020", 'host = "plc:502"'),
        "plc.host",
        '"plc:502"',
        "plc.port",
    ),
    "a host as a link": (
        VALID.replace("port = 5020", 'host = "http://plc"'),
        "plc.host",
        "http",
        "an address",
    ),
    "no path": (VALID.replace('"pictures"', '""'), "camera[1].folder.path", '""', "a path that is not empty"),
    "somebody's home": (
        VALID.replace('"pictures"', '"~nobody-here/x"'),
        "folder.path",
        "~nobody-here",
        "no user",
    ),
    "an unknown device": (
        "[engine]\ndevice = 'tpu'\n" + VALID,
        "engine.device",
        '"tpu"',
        '"auto", "cpu", "cuda"',
    ),
    "an unknown preset": (
        VALID + 'preset = "huge"\n',
        "recipe.part.preset",
        '"huge"',
        '"tiny", "small", "paper"',
    ),
    "an unknown symmetry": (
        VALID + 'symmetries = ["spin"]\n',
        "recipe.part.symmetries[1]",
        '"spin"',
        'one of "flip-x", "flip-y", "turn-90", "turn"',
    ),
    "a symmetry that is no list": (
        VALID + 'symmetries = "turn"\n',
        "recipe.part.symmetries",
        '"turn"',
        'a list of any of "flip-x", "flip-y", "turn-90", "turn"',
    ),
    "an impossible rate": (
        VALID + "false_reject_rate = 1\n",
        "recipe.part.false_reject_rate",
        "1",
        "above 0 and below 1",
    ),
    "an incomplete roi": (
        VALID + "roi = { x = 1, y = 1, width = 5 }\n",
        "recipe.part.roi.height",
        "missing",
        "1 to 65535",
    ),
    "two recipes of a number": (
        VALID + "[recipe.other]\n",
        "recipe.other.number",
        "1, which recipe.part has",
        "of its own",
    ),
}


@pytest.mark.parametrize(("text", "key", "found", "expected"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_refused_with_file_key_found_and_expected(file, text, key, found, expected):
    message = refused(file, text)
    assert message.startswith(f"{file}: ")
    for part in (key, found, expected):
        assert part in message
    for foreign in ("pydantic", "pathlib", "dictionary", "tuple", "input should", "Value error", "None"):
        assert foreign not in message


def test_every_slip_is_told_at_once(file):
    message = refused(file, camera(silence_s=-1, ring_slots=1).replace("5020", "0"))
    assert [line.split(": ")[1] for line in message.splitlines()] == [
        "plc.port",
        "camera[1].silence_s",
        "camera[1].ring_slots",
    ]


def test_a_missing_file_and_a_folder_are_told(file):
    with pytest.raises(
        SettingsError, match=r"station\.toml: no such file; expected a station file .*--config"
    ):
        load(file)
    file.mkdir()
    with pytest.raises(SettingsError, match="is a folder; expected a station file"):
        load(file)
    with pytest.raises(SettingsError, match="cannot be read"):
        load(Path("/dev/null/station.toml"))


# --- the environment --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "key", "read"),
    [
        ("INSPECTOR_PLC__HOST", "192.168.0.10", lambda s: s.plc.host, "192.168.0.10"),
        ("INSPECTOR_PLC__PORT", "503", lambda s: s.plc.port, 503),
        ("INSPECTOR_PLC__ENABLED", "false", lambda s: s.plc.enabled, False),
        ("INSPECTOR_STATION__NAME", "7", lambda s: s.station.name, "7"),
        ("INSPECTOR_STATION__DATA", "/var/lib/x", lambda s: s.station.data, Path("/var/lib/x")),
        ("INSPECTOR_RECIPE__PART__NUMBER", "9", lambda s: s.recipe["part"].number, 9),
        ("INSPECTOR_RECIPE__PART__CONFIDENCE", "0.9", lambda s: s.recipe["part"].confidence, 0.9),
        ("INSPECTOR_PLC", '{"port": 504}', lambda s: s.plc.port, 504),
        (
            "INSPECTOR_CAMERA",
            '[{"name": "z", "recipe": "part", "folder": {"path": "/y", "fps": 3}}]',
            lambda s: (s.camera[0].name, s.camera[0].folder.fps),
            ("z", 3.0),
        ),
    ],
    ids=lambda one: one if isinstance(one, str) and one.startswith("INSPECTOR") else "",
)
def test_the_environment_wins_over_the_file(file, monkeypatch, variable, value, key, read):
    file.write_text(VALID)
    assert key(load(file)) != read
    monkeypatch.setenv(variable, value)
    assert key(load(file)) == read


@pytest.mark.parametrize(
    ("variable", "value", "parts"),
    [
        ("INSPECTOR_PLC__PORT", "high", ("plc.port", '"high"', "a whole number from 1 to 65535")),
        ("INSPECTOR_PLC__ENABLED", "perhaps", ("plc.enabled", '"perhaps"', "true or false")),
        ("INSPECTOR_PLC__PROT", "1", ("plc.prot: unknown key", "expected port?")),
        ("INSPECTOR_PLC__HOST__X", "1", ("plc.host", "text in quotes")),
        ("INSPECTOR_X", "1", ("fits no section", "INSPECTOR_PLC__…")),
        ("inspector_x", "1", ("fits no section",)),
        ("INSPECTOR_PLC", "{", ("not JSON",)),
        ("INSPECTOR_PLC", "3", ("plc: found 3", "a table [plc]")),
        ("INSPECTOR_CAMERA", '[{"name": "z"}]', ("camera[1].recipe: missing",)),
        ("INSPECTOR_CAMERA__0__NAME", "z", ("INSPECTOR_CAMERA, as JSON",)),
        ("INSPECTOR_RECIPE__PRAT__NUMBER", "1", ("no table [recipe.prat]", "expected one of part")),
    ],
)
def test_a_wrong_variable_is_named(file, monkeypatch, variable, value, parts):
    monkeypatch.setenv(variable, value)
    message = refused(file, VALID)
    assert message.startswith(f"environment variable {variable}: ")
    for part in parts:
        assert part in message


def test_what_does_not_go_together_names_the_variables_that_had_a_hand_in_it(file, monkeypatch):
    monkeypatch.setenv("INSPECTOR_PLC__ENABLED", "false")
    message = refused(file, camera(trigger='"plc"'))
    assert message.startswith(f"{file} with INSPECTOR_PLC__ENABLED from the environment: camera 'cam1'")


def test_settings_that_a_program_makes_are_left_alone_by_the_environment(monkeypatch):
    monkeypatch.setenv("INSPECTOR_PLC__HOST", "192.168.0.10")
    made = Settings(camera=[{"name": "c", "recipe": "r", "folder": {"path": "p"}}], recipe={"r": {}})
    assert made.plc.host == "127.0.0.1"


# --- anything at all --------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.text(max_size=8),
    st.dates(),
    st.times(),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(
        st.sampled_from(["path", "x", "passed", "serial", ""]), st.integers() | st.text(), max_size=2
    ),
)


def toml(value):
    """Any value as TOML, tables in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else str(value)


def places(table, at=()):
    """Every table of a file, by the keys that lead to it."""
    yield at
    for key, value in table.items() if isinstance(table, dict) else enumerate(table):
        if isinstance(value, dict | list):
            yield from places(value, (*at, key))


@given(data=st.data())
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_change_of_a_valid_file_loads_or_is_a_settings_error(data, file):
    table = tomllib.loads(EXAMPLE.read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(list(places(table))))
        place = table
        for key in at:
            place = place[key]
        keys = [key for model in models() for key in model.model_fields]
        if isinstance(place, list):
            place.append(data.draw(VALUES))
        elif place and data.draw(st.booleans()):
            key = data.draw(st.sampled_from(sorted(place)))
            if data.draw(st.booleans()):
                del place[key]
            else:
                place[key] = data.draw(VALUES)
        else:
            place[data.draw(st.sampled_from(keys) | st.text(max_size=5))] = data.draw(VALUES)
    file.write_text("".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in table.items()))
    try:
        assert isinstance(load(file), Settings)
    except SettingsError as error:
        assert str(error).startswith(str(file))
        assert "input should" not in str(error)


@given(cut=st.integers(0, 4000), junk=st.binary(max_size=6))
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_in_a_valid_file_load_or_are_a_settings_error(file, cut, junk):
    text = EXAMPLE.read_bytes()
    file.write_bytes(text[:cut] + junk + text[cut + len(junk) :])
    try:
        load(file)
    except SettingsError as error:
        assert str(error).startswith(str(file))
