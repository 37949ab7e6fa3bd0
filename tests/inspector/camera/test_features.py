"""Against GenApi itself: a node map with trigger features, whose values live in the map."""

import pytest
from genicam import genapi

from inspector.camera.features import configure, write
from inspector.errors import CameraSetupError

HEAD = """<?xml version="1.0" encoding="utf-8"?>
<RegisterDescription ModelName="Test" VendorName="Test" StandardNameSpace="None" SchemaMajorVersion="1"
 SchemaMinorVersion="1" SchemaSubMinorVersion="0" MajorVersion="1" MinorVersion="0" SubMinorVersion="0"
 ProductGuid="00000000-0000-0000-0000-000000000000" VersionGuid="00000000-0000-0000-0000-000000000000"
 xmlns="http://www.genicam.org/GenApi/Version_1_1">
<Category Name="Root"><pFeature>Width</pFeature><pFeature>Height</pFeature></Category>
<Integer Name="Width"><Value>640</Value><Min>64</Min><Max>1920</Max><Inc>16</Inc></Integer>
<Integer Name="Height"><ImposedAccessMode>RO</ImposedAccessMode><Value>480</Value></Integer>
<Integer Name="OffsetX"><pIsAvailable>Nothing</pIsAvailable><Value>0</Value></Integer>
<Integer Name="Nothing"><Value>0</Value></Integer>
<Float Name="ExposureTime"><Value>100.0</Value><Min>10.0</Min><Max>5000.0</Max><Unit>us</Unit></Float>
<Boolean Name="ReverseX"><Value>0</Value></Boolean>
<String Name="DeviceUserID"><Value>none</Value></String>
<Enumeration Name="PixelFormat"><EnumEntry Name="Mono8"><Value>1</Value></EnumEntry>
 <EnumEntry Name="Mono12"><Value>2</Value></EnumEntry>
 <EnumEntry Name="Mono16"><pIsAvailable>Nothing</pIsAvailable><Value>3</Value></EnumEntry>
 <Value>1</Value></Enumeration>
<Enumeration Name="AcquisitionMode"><EnumEntry Name="SingleFrame"><Value>0</Value></EnumEntry>
 <EnumEntry Name="Continuous"><Value>1</Value></EnumEntry><Value>0</Value></Enumeration>
<Command Name="Reset"><pValue>ResetCount</pValue><CommandValue>7</CommandValue></Command>
<Integer Name="ResetCount"><Value>0</Value></Integer>
"""
TRIGGER = """
<Enumeration Name="TriggerSelector"><EnumEntry Name="AcquisitionStart"><Value>0</Value></EnumEntry>
 <EnumEntry Name="FrameStart"><Value>1</Value></EnumEntry><Value>0</Value></Enumeration>
<Enumeration Name="TriggerMode"><EnumEntry Name="Off"><Value>0</Value></EnumEntry>
 <EnumEntry Name="On"><Value>1</Value></EnumEntry><Value>0</Value></Enumeration>
<Enumeration Name="TriggerSource"><EnumEntry Name="Software"><Value>0</Value></EnumEntry>
 <EnumEntry Name="Line0"><Value>1</Value></EnumEntry><EnumEntry Name="Line1"><Value>2</Value></EnumEntry>
 <Value>0</Value></Enumeration>
<Command Name="TriggerSoftware"><pValue>Fired</pValue><CommandValue>1</CommandValue></Command>
<Integer Name="Fired"><Value>0</Value></Integer>
"""


def node_map(trigger=True):
    nodes = genapi.NodeMap()
    nodes.load_xml_from_string(HEAD + (TRIGGER if trigger else "") + "</RegisterDescription>")
    return nodes


@pytest.fixture
def nodes():
    return node_map()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Width", 1280),
        ("ExposureTime", 250.5),
        ("ExposureTime", 250),
        ("ReverseX", True),
        ("PixelFormat", "Mono12"),
        ("DeviceUserID", "station 3"),
    ],
)
def test_a_feature_takes_its_value(nodes, name, value):
    write(nodes, name, value)
    assert nodes.get_node(name).value == value


def test_a_command_is_executed(nodes):
    write(nodes, "Reset", True)
    assert nodes.ResetCount.value == 7


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("Widht", 640, ["Widht", "no such feature", "did you mean Width?"]),
        ("Width", 63, ["Width", "found 63", "64 to 1920"]),
        ("Width", 650, ["Width", "found 650", "64 plus a multiple of 16"]),
        ("Width", 640.0, ["Width", "found 640.0", "a whole number"]),
        ("Width", True, ["Width", "found true", "a whole number"]),
        ("ExposureTime", 9, ["ExposureTime", "found 9 us", "10.0 to 5000.0 us"]),
        ("ExposureTime", "10", ["ExposureTime", "found '10'", "a number"]),
        ("ReverseX", 1, ["ReverseX", "found 1", "true or false"]),
        ("PixelFormat", "Mono10", ["PixelFormat", "found 'Mono10'", "one of Mono8, Mono12"]),
        ("PixelFormat", "Mono16", ["PixelFormat", "found 'Mono16'", "one of Mono8, Mono12"]),
        ("PixelFormat", 2, ["PixelFormat", "found 2", "one of its entries as a string"]),
        ("Height", 100, ["Height", "not writable", "480"]),
        ("OffsetX", 1, ["OffsetX", "not available"]),
        ("Reset", False, ["Reset", "found false", "true, which executes it"]),
        ("Root", 1, ["Root", "no feature with a value"]),
    ],
)
def test_a_wrong_feature_says_what_is_accepted(nodes, name, value, says):
    with pytest.raises(CameraSetupError) as error:
        write(nodes, name, value)
    assert all(part in str(error.value) for part in [f"camera.genicam.features.{name}", *says])


def trigger_of(nodes):
    return nodes.TriggerSelector.value, nodes.TriggerMode.value, nodes.TriggerSource.value


def test_camera_trigger_waits_for_the_wired_line(nodes):
    assert configure(nodes, {"TriggerSource": "Line1"}, "camera") is None
    assert trigger_of(nodes) == ("FrameStart", "On", "Line1")


def test_camera_trigger_with_software_source_is_refused(nodes):
    with pytest.raises(CameraSetupError, match=r"TriggerSource is Software.*Line0, Line1"):
        configure(nodes, {}, "camera")


def test_features_may_let_a_camera_run_free_under_camera_trigger(nodes):
    configure(nodes, {"TriggerMode": "Off"}, "camera")
    assert nodes.TriggerMode.value == "Off"


def test_plc_trigger_returns_the_command_that_fires(nodes):
    command = configure(nodes, {"TriggerMode": "Off", "TriggerSource": "Line0"}, "plc")
    assert trigger_of(nodes) == ("FrameStart", "On", "Software")
    command.execute()
    assert nodes.Fired.value == 1


def test_interval_switches_a_left_over_trigger_off(nodes):
    write(nodes, "TriggerMode", "On")
    configure(nodes, {}, "interval")
    assert nodes.TriggerMode.value == "Off"


def test_acquisition_is_continuous_whatever_the_camera_was_left_with(nodes):
    configure(nodes, {}, "interval")
    assert nodes.AcquisitionMode.value == "Continuous"


def test_features_are_written_in_their_order(nodes):
    configure(nodes, {"Width": 640, "ExposureTime": 20, "TriggerMode": "Off"}, "camera")
    assert (nodes.Width.value, nodes.ExposureTime.value) == (640, 20)


def test_a_camera_without_trigger_features():
    bare = node_map(trigger=False)
    assert configure(bare, {}, "camera") is None
    assert configure(bare, {}, "interval") is None
    with pytest.raises(CameraSetupError, match=r'trigger = "plc": the camera has no feature TriggerMode'):
        configure(bare, {}, "plc")
