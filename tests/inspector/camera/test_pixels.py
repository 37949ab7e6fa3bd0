import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspector.camera.pixels import SUPPORTED, decode, decoded_bytes, size_in_bytes
from inspector.errors import PixelFormatError

DEPTHS = {
    "Mono8": 8,
    "Mono10": 10,
    "Mono12": 12,
    "Mono16": 16,
    "Mono10Packed": 10,
    "Mono12Packed": 12,
    "Mono10p": 10,
    "Mono12p": 12,
}


def pack(name, values):
    """A line or an image of pixel values as the camera sends it, one bit at a time: slow and plain."""
    depth = DEPTHS[name]
    bits = []  # of the stream, lowest first within each byte
    if name.endswith("p"):  # one pixel after the other, lowest bit first
        for value in values:
            bits += [(value >> i) & 1 for i in range(depth)]
    elif name.endswith("Packed"):  # high byte, low bits of both in one byte, high byte of the second
        low = depth - 8
        for first in range(0, len(values), 2):
            pair = [*values[first : first + 2], None][:2]
            bits += [(pair[0] >> (low + i)) & 1 for i in range(8)]
            middle = [0] * 8
            for nibble, value in enumerate(pair):
                for i in range(low):
                    middle[4 * nibble + i] = 0 if value is None else (value >> i) & 1
            bits += middle
            if pair[1] is not None:
                bits += [(pair[1] >> (low + i)) & 1 for i in range(8)]
    else:  # the value in the low bits of one or two bytes, low byte first
        for value in values:
            bits += [(value >> i) & 1 for i in range(8 if depth == 8 else 16)]
    bits += [0] * (-len(bits) % 8)
    return bytes(sum(bit << i for i, bit in enumerate(bits[k : k + 8])) for k in range(0, len(bits), 8))


@st.composite
def mono_images(draw):
    name = draw(st.sampled_from(sorted(DEPTHS)))
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    top = 2 ** DEPTHS[name] - 1
    values = draw(st.lists(st.integers(0, top), min_size=height * width, max_size=height * width))
    return name, np.array(values).reshape(height, width)


@given(mono_images())
@settings(max_examples=1000, deadline=None)
def test_mono_values_survive_in_the_top_bits(case):
    name, values = case
    height, width = values.shape
    image = decode(pack(name, values.reshape(-1).tolist()), name, width, height)
    depth = DEPTHS[name]
    assert image.dtype == (np.uint8 if depth == 8 else np.uint16)
    assert np.array_equal(image >> (image.itemsize * 8 - depth), values)


@given(mono_images(), st.integers(1, 7), st.integers(0, 255))
@settings(max_examples=1000, deadline=None)
def test_line_padding_leaves_no_trace(case, padding, filler):
    name, values = case
    height, width = values.shape
    lines = [pack(name, line.tolist()) + bytes([filler]) * padding for line in values]
    padded = decode(b"".join(lines), name, width, height, x_padding=padding)
    depth = DEPTHS[name]
    assert np.array_equal(padded >> (padded.itemsize * 8 - depth), values)


@given(
    st.data(), st.sampled_from(sorted(SUPPORTED)), st.integers(3, 20), st.integers(3, 20), st.integers(0, 5)
)
@settings(max_examples=1000, deadline=None)
def test_any_buffer_of_the_right_size_is_an_image_and_any_other_is_refused(
    data, name, width, height, padding
):
    size = size_in_bytes(name, width, height, padding)
    raw = data.draw(st.binary(min_size=size, max_size=size))
    image = decode(raw, name, width, height, padding)
    assert image.shape == ((height, width) if name.startswith("Mono") else (height, width, 3))
    assert image.nbytes == decoded_bytes(name, width, height)
    assert np.array_equal(image, decode(bytearray(raw), name, width, height, padding)), (
        "a copy, not the buffer"
    )
    other = data.draw(st.integers(0, 2 * size).filter(lambda found: found != size))
    with pytest.raises(PixelFormatError, match=f"take {size} bytes, the camera delivered {other}"):
        decode(bytes(other), name, width, height, padding)


@pytest.mark.parametrize("name", sorted(DEPTHS))
def test_black_is_zero_and_white_is_the_largest_value(name):
    top = 2 ** DEPTHS[name] - 1
    image = decode(pack(name, [0, top, 0, top]), name, 2, 2)
    white = np.iinfo(image.dtype).max
    assert image.tolist() == [[0, white], [0, white]]


def test_bits_above_the_depth_are_ignored():
    assert decode(b"\xff\xff", "Mono10", 1, 1).tolist() == [[65535]]
    assert decode(b"\x00\xfc", "Mono10", 1, 1).tolist() == [[0]]


def test_known_bytes_of_the_packed_formats():
    """Worked by hand from the PFNC (p) and GigE Vision (Packed) drawings: pixels 0x3A5, 0x123 (, 0, 0)."""
    for name, data in (
        ("Mono10p", bytes([0xA5, 0x8F, 0x04, 0x00, 0x00])),
        ("Mono10Packed", bytes([0xE9, 0x31, 0x48, 0x00, 0x00, 0x00])),
    ):
        assert (decode(data, name, 4, 1) >> 6).tolist() == [[0x3A5, 0x123, 0, 0]]
    for name, data in (
        ("Mono12p", bytes([0xA5, 0x3B, 0x12])),
        ("Mono12Packed", bytes([0xBA, 0x35, 0x12])),
    ):
        assert (decode(data, name, 2, 1) >> 4).tolist() == [[0xBA5, 0x123]]


PHASES = {"BayerRG8": "RGGB", "BayerGR8": "GRBG", "BayerGB8": "GBRG", "BayerBG8": "BGGR"}


@pytest.mark.parametrize("name", sorted(PHASES))
def test_bayer_phases_give_back_the_colours(name):
    scene = np.empty((32, 48, 3), np.uint8)
    scene[:, :24] = (200, 100, 30)
    scene[:, 24:] = (10, 60, 240)
    mosaic = np.empty((32, 48), np.uint8)
    for i, colour in enumerate(PHASES[name]):
        y, x = divmod(i, 2)
        mosaic[y::2, x::2] = scene[y::2, x::2, "RGB".index(colour)]
    image = decode(mosaic.tobytes(), name, 48, 32)
    away_from_the_edge = [*range(22), *range(26, 48)]
    assert np.array_equal(image[:, away_from_the_edge], scene[:, away_from_the_edge])


@pytest.mark.parametrize(
    ("name", "pixel"),
    [("RGB8", [1, 2, 3]), ("BGR8", [3, 2, 1]), ("RGBa8", [1, 2, 3, 9]), ("BGRa8", [3, 2, 1, 9])],
)
@pytest.mark.parametrize("padding", [0, 5])
def test_colour_formats_become_rgb(name, pixel, padding):
    line = bytes(pixel) + bytes(pixel) + bytes(padding)
    image = decode(line * 3, name, 2, 3, x_padding=padding)
    assert image.shape == (3, 2, 3)
    assert (image == [1, 2, 3]).all()


@pytest.mark.parametrize("name", SUPPORTED)
def test_the_image_is_a_copy_of_announced_size(name):
    raw = np.zeros(size_in_bytes(name, 8, 6), np.uint8)
    image = decode(raw, name, 8, 6)
    assert image.nbytes == decoded_bytes(name, 8, 6)
    raw[:] = 255
    assert not image.any()


@pytest.mark.parametrize("name", SUPPORTED)
@pytest.mark.parametrize("change", [-1, 1])
def test_a_wrong_size_is_refused(name, change):
    expected = size_in_bytes(name, 8, 6, 2)
    with pytest.raises(PixelFormatError) as error:
        decode(bytes(expected + change), name, 8, 6, x_padding=2)
    assert all(text in str(error.value) for text in (name, str(expected), str(expected + change)))


def test_an_unknown_format_names_the_known_ones():
    with pytest.raises(PixelFormatError) as error:
        decode(b"", "YUV422_8", 8, 6)
    assert all(text in str(error.value) for text in ("YUV422_8", *SUPPORTED))


def test_a_bayer_image_too_small_to_interpolate_is_refused():
    with pytest.raises(PixelFormatError, match="2 × 8"):
        decode(bytes(16), "BayerRG8", 2, 8)
