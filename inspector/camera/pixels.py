"""GenICam pixel formats → images. Layouts after the GenICam Pixel Format Naming Convention (PFNC 2.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.camera import Image
from inspector.errors import PixelFormatError

Bytes = NDArray[np.uint8]
Raw = bytes | bytearray | memoryview | Bytes


@dataclass(frozen=True, slots=True)
class _Format:
    bits: int  # per pixel in the buffer
    decode: Callable[[Bytes, int, int], Image]  # padding-free bytes, width, height → image


def decode(raw: Raw, name: str, width: int, height: int, x_padding: int = 0) -> Image:
    """Turn a camera's buffer into an image of its own memory.

    raw: the image's bytes, nothing before or after them; x_padding: unused bytes at the end of each line.
    Returns (H, W) or (H, W, 3) RGB; uint8, or uint16 stretched so that 65535 is white at any bit depth.
    Packed formats run on from one line to the next without a gap; only where x_padding > 0 does each
    line start on a byte of its own.
    Raises PixelFormatError for an unknown format and for a buffer of the wrong size.
    """
    form = _known(name)
    data = np.frombuffer(raw, np.uint8)
    expected = size_in_bytes(name, width, height, x_padding)
    if data.size != expected:
        raise PixelFormatError(
            f"pixel format {name}: {width} × {height} pixels with {x_padding} bytes of line padding "
            f"take {expected} bytes, the camera delivered {data.size}"
        )
    if x_padding == 0:
        return form.decode(data, width, height)
    lines = data.reshape(height, -1)[:, :-x_padding]
    if width * form.bits % 8 == 0:
        return form.decode(np.ascontiguousarray(lines).reshape(-1), width, height)
    return np.concatenate([form.decode(np.ascontiguousarray(line), width, 1) for line in lines])


def size_in_bytes(name: str, width: int, height: int, x_padding: int = 0) -> int:
    """How many bytes an image takes in the camera's buffer. Raises PixelFormatError for an unknown format."""
    bits = _known(name).bits
    if x_padding:
        return (-(-width * bits // 8) + x_padding) * height
    return -(-width * height * bits // 8)


def decoded_bytes(name: str, width: int, height: int) -> int:
    """How many bytes the decoded image takes. Raises PixelFormatError for an unknown format."""
    _known(name)
    if not name.startswith("Mono"):
        return 3 * width * height
    return width * height * (1 if name == "Mono8" else 2)


def _known(name: str) -> _Format:
    try:
        return _FORMATS[name]
    except KeyError:
        raise PixelFormatError(
            f"pixel format {name} is not supported; "
            f"set the camera's PixelFormat to one of {', '.join(SUPPORTED)}"
        ) from None


def _stretch(values: NDArray[np.uint16], bits: int) -> NDArray[np.uint16]:
    """Left-align and repeat the top bits below, so that the largest value becomes 65535 exactly."""
    return (values << np.uint16(16 - bits)) | (values >> np.uint16(2 * bits - 16))


def _mono8(data: Bytes, width: int, height: int) -> Image:
    return data.reshape(height, width).copy()


def _mono_in_words(bits: int) -> Callable[[Bytes, int, int], Image]:
    """One little-endian 16-bit word a pixel, the value in its low bits."""

    def decode(data: Bytes, width: int, height: int) -> Image:
        values = data.view("<u2").astype(np.uint16).reshape(height, width)
        return _stretch(values & np.uint16((1 << bits) - 1), bits)

    return decode


def _mono_lsb_packed(bits: int) -> Callable[[Bytes, int, int], Image]:
    """PFNC "p": a stream of bits, lowest first, each pixel the next `bits` of it."""
    group = 4 if bits == 10 else 2  # pixels that fill whole bytes

    def decode(data: Bytes, width: int, height: int) -> Image:
        stride = group * bits // 8
        groups = -(-width * height // group)
        padded = np.zeros(groups * stride, np.uint8)
        padded[: data.size] = data
        octets = padded.reshape(groups, stride).astype(np.uint16)
        values = np.empty((groups, group), np.uint16)
        for i in range(group):
            first, shift = divmod(i * bits, 8)
            values[:, i] = (octets[:, first] >> shift) | (octets[:, first + 1] << (8 - shift))
        values &= np.uint16((1 << bits) - 1)
        return _stretch(values.reshape(-1)[: width * height].reshape(height, width), bits)

    return decode


def _mono_gige_packed(bits: int) -> Callable[[Bytes, int, int], Image]:
    """GigE Vision "Packed": two pixels in three bytes, the low bits of both in the middle one."""
    low = bits - 8
    mask = np.uint16((1 << low) - 1)

    def decode(data: Bytes, width: int, height: int) -> Image:
        pairs = -(-width * height // 2)
        padded = np.zeros(pairs * 3, np.uint8)
        padded[: data.size] = data
        octets = padded.reshape(pairs, 3).astype(np.uint16)
        values = np.empty((pairs, 2), np.uint16)
        values[:, 0] = (octets[:, 0] << low) | (octets[:, 1] & mask)
        values[:, 1] = (octets[:, 2] << low) | ((octets[:, 1] >> 4) & mask)
        return _stretch(values.reshape(-1)[: width * height].reshape(height, width), bits)

    return decode


def _bayer(code: int) -> Callable[[Bytes, int, int], Image]:
    def decode(data: Bytes, width: int, height: int) -> Image:
        if width < 3 or height < 3:
            raise PixelFormatError(f"a Bayer image of {width} × {height} pixels is too small to interpolate")
        return np.asarray(cv2.cvtColor(data.reshape(height, width), code), np.uint8)

    return decode


def _colour(depth: int, code: int) -> Callable[[Bytes, int, int], Image]:
    def decode(data: Bytes, width: int, height: int) -> Image:
        return np.asarray(cv2.cvtColor(data.reshape(height, width, depth), code), np.uint8)

    return decode


def _rgb8(data: Bytes, width: int, height: int) -> Image:
    return data.reshape(height, width, 3).copy()


# GenICam names a Bayer pattern after its first two pixels, OpenCV's short names after the second and
# third pixel of the second line; the RGGB spellings mean what GenICam means.
_FORMATS = {
    "Mono8": _Format(8, _mono8),
    "Mono10": _Format(16, _mono_in_words(10)),
    "Mono12": _Format(16, _mono_in_words(12)),
    "Mono16": _Format(16, _mono_in_words(16)),
    "Mono10Packed": _Format(12, _mono_gige_packed(10)),
    "Mono12Packed": _Format(12, _mono_gige_packed(12)),
    "Mono10p": _Format(10, _mono_lsb_packed(10)),
    "Mono12p": _Format(12, _mono_lsb_packed(12)),
    "BayerRG8": _Format(8, _bayer(cv2.COLOR_BayerRGGB2RGB)),
    "BayerGR8": _Format(8, _bayer(cv2.COLOR_BayerGRBG2RGB)),
    "BayerGB8": _Format(8, _bayer(cv2.COLOR_BayerGBRG2RGB)),
    "BayerBG8": _Format(8, _bayer(cv2.COLOR_BayerBGGR2RGB)),
    "RGB8": _Format(24, _rgb8),
    "BGR8": _Format(24, _colour(3, cv2.COLOR_BGR2RGB)),
    "RGBa8": _Format(32, _colour(4, cv2.COLOR_RGBA2RGB)),
    "BGRa8": _Format(32, _colour(4, cv2.COLOR_BGRA2RGB)),
}
SUPPORTED = tuple(_FORMATS)
