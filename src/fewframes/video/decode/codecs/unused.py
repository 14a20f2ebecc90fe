"""Tell by the first bytes of a packet whether any other picture builds on its picture.

H.264 says so by nal_ref_idc (ITU-T H.264, 7.4.1), HEVC by its NAL unit type (ITU-T H.265, table 7-1), MPEG-1, -2 and -4 by
B-pictures. AV1 says more (av1.py). VP8 and VP9 adapt their probabilities and motion vectors from every frame to the next, so
nothing can be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from av.video.stream import VideoStream

START_CODE = b"\x00\x00\x01"
"""The bytes that begin each unit of a stream without lengths (H.264 and HEVC in Annex B format, MPEG)."""
H264_SLICE, H264_REFRESH, H264_BESIDE = 1, 5, frozenset({6, 9, 12})
"""Types of NAL units: a slice of a picture that is no instant refresh; one of an instant refresh; information, delimiter and filler
beside them."""
HEVC_FIRST_PARAMETERS, HEVC_BESIDE = 32, frozenset({35, 38, 39, 40})
"""Types of NAL units: the video parameter set, which the sequence parameter set follows; delimiter, filler and information."""

MPEG_B, MPEG2_B = 2, 3
"""The types of B-pictures in MPEG-4, and in MPEG-1 and -2."""

Test = Callable[[bytes], bool]
"""A function of a packet's bytes that returns whether no other picture builds on its picture."""


def left_out_test(stream: VideoStream) -> Test | None:
    """Return the test for a stream's codec.

    Returns None if nothing can be left out, or the stream's headers do not say how to tell.
    """
    context = stream.codec_context
    extradata = bytes(context.extradata or b"")
    # A configuration record begins with 1, and says by how many bytes the length of a unit is written. Without such a record
    # units are separated by start codes, which the length 0 stands for.
    if context.name == "h264":
        length = _h264_length_bytes(extradata)
        return lambda data: _h264_unused(data, length)
    if context.name == "hevc":
        length = (extradata[21] & 3) + 1 if extradata[:1] == b"\x01" and len(extradata) > 21 else 0
        layers = _hevc_layers(extradata, length)
        return None if layers is None else lambda data: _hevc_unused(data, length, layers)
    if context.name == "mpeg4":
        return _mpeg4_unused
    return _mpeg2_unused if context.name in {"mpeg1video", "mpeg2video"} else None


def begins_open(stream: VideoStream, data: bytes) -> bool:
    """Return whether a key frame of H.264 is no instant refresh, so that pictures behind it may still speak of ones before it."""
    length = _h264_length_bytes(bytes(stream.codec_context.extradata or b""))
    return all(not unit or unit[0] & 31 != H264_REFRESH for unit in _units(data, length))


def _h264_length_bytes(extradata: bytes) -> int:
    return (extradata[4] & 3) + 1 if extradata[:1] == b"\x01" and len(extradata) > 4 else 0


def _units(data: bytes, length_bytes: int) -> Iterator[bytes]:
    """Yield the first five bytes of each unit of a packet.

    Args:
        data: the packet.
        length_bytes: the number of bytes in which the length before each unit is written; 0 if start codes separate units.
    """
    if not length_bytes:
        position = data.find(START_CODE)
        while position >= 0:
            yield data[position + 3 : position + 8]
            position = data.find(START_CODE, position + 3)
        return
    position = 0
    while position + length_bytes < len(data):
        start = position + length_bytes
        yield data[start : start + 5]
        position = start + int.from_bytes(data[position:start], "big")


def _h264_unused(data: bytes, length_bytes: int) -> bool:
    """Return whether an H.264 packet holds nothing but slices of a picture with nal_ref_idc 0."""
    slices = 0
    for unit in _units(data, length_bytes):
        kind = unit[0] & 31 if unit else 0
        if kind == H264_SLICE and not unit[0] >> 5 & 3:
            slices += 1
        elif kind not in H264_BESIDE:
            return False
    return slices > 0


def _hevc_layers(extradata: bytes, length_bytes: int) -> int | None:
    """Return the number of temporal layers of an HEVC stream, or None if its headers do not say it.

    Args:
        extradata: the stream's configuration record, or its parameter sets behind start codes.
        length_bytes: the number of bytes of a unit's length; 0 if there is no configuration record.
    """
    if length_bytes:
        return extradata[21] >> 3 & 7 or None
    found = [
        unit[2] for unit in _units(extradata, 0) if len(unit) > 2 and unit[0] >> 1 & 63 == HEVC_FIRST_PARAMETERS + 1
    ]
    return (found[0] >> 1 & 7) + 1 if found else None


def _hevc_unused(data: bytes, length_bytes: int, layers: int) -> bool:
    """Return whether an HEVC packet holds nothing but slices of a picture of the highest layer that no other refers to."""
    slices = 0
    for unit in _units(data, length_bytes):
        if len(unit) < 2:
            return False
        kind, layer = unit[0] >> 1 & 63, unit[1] & 7
        # Even types below 16 are not referred to within their temporal layer, and the highest layer has none above it.
        if kind < 16 and kind % 2 == 0 and layer >= layers:
            slices += 1
        elif kind not in HEVC_BESIDE:
            return False
    return slices > 0


def _mpeg4_unused(data: bytes) -> bool:
    """Return whether an MPEG-4 packet holds one B-picture and no header."""
    pictures = 0
    for unit in _units(data, 0):  # most packets are decided by their first bytes, and the rest is not searched
        if unit[:1] == b"\xb6":
            if pictures or len(unit) < 2 or unit[1] >> 6 != MPEG_B:
                return False  # a packet with two pictures holds a B-picture and one that it builds on
            pictures += 1
        elif b"\x20" <= unit[:1] < b"\x30":
            return False
    return pictures == 1


def _mpeg2_unused(data: bytes) -> bool:
    """Return whether a packet of MPEG-1 or MPEG-2 holds nothing but B-pictures and no header."""
    pictures = 0
    for unit in _units(data, 0):
        if unit[:1] == b"\0":
            if len(unit) < 3 or unit[2] >> 3 & 7 != MPEG2_B:
                return False
            pictures += 1
        elif unit[:1] in (b"\xb3", b"\xb8"):
            return False
    return pictures > 0
