import os

import numpy as np
import pytest

from inspector.camera.ring import RingReader, RingWriter
from inspector.errors import CameraSetupError


@pytest.fixture
def ring():
    reader = RingReader(slots=2, slot_bytes=1 << 20)
    return reader, RingWriter(os.dup(reader.fd), 2, reader.slot_bytes)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3)])
def test_an_image_arrives_as_it_was(ring, dtype, shape):
    reader, writer = ring
    image = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    view = reader.view(writer.put(image), shape, image.dtype.str)
    assert view.dtype == dtype
    assert np.array_equal(view, image)


def test_the_view_cannot_be_written(ring):
    reader, writer = ring
    view = reader.view(writer.put(np.zeros((2, 2), np.uint8)), (2, 2), "|u1")
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.setflags(write=True)


def test_a_taken_slot_is_not_written_until_released(ring):
    reader, writer = ring
    views = [reader.view(writer.put(np.full((2, 2), i, np.uint8)), (2, 2), "|u1") for i in (1, 2)]
    assert writer.put(np.full((2, 2), 3, np.uint8)) is None
    assert [int(view[0, 0]) for view in views] == [1, 2]
    writer.release(0)
    assert writer.put(np.full((2, 2), 3, np.uint8)) == 0
    assert int(views[0][0, 0]) == 3


def test_a_view_outlives_the_ring_and_its_descriptor(ring):
    reader, writer = ring
    view = reader.view(writer.put(np.full((2, 2), 9, np.uint8)), (2, 2), "|u1")
    reader.close_fd()
    del reader, writer
    assert view.tolist() == [[9, 9], [9, 9]]


def test_a_frame_too_large_says_what_to_set(ring):
    with pytest.raises(CameraSetupError, match=r"1\.5 MiB.*ring_slot_mib = 1; set ring_slot_mib to 2"):
        ring[1].put(np.zeros(3 << 19, np.uint8))


@pytest.mark.parametrize("slot", [-1, 2])
def test_a_slot_outside_the_ring_is_refused(ring, slot):
    with pytest.raises(ValueError, match="ring of 2"):
        ring[0].view(slot, (2, 2), "|u1")


def test_an_image_larger_than_a_slot_is_refused(ring):
    with pytest.raises(ValueError, match="in a slot of"):
        ring[0].view(0, (1025, 1024), "|u1")
