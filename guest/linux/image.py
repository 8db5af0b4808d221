"""How long an arm64 Image must be: one that can be started by UEFI, as most can, is a PE file, and says it."""

from __future__ import annotations

import struct

_HEADER_AT = 0x3C
_SIGNATURE = b"PE\0\0"
_COFF = struct.Struct("<2xH12xH2x")
_SECTION = struct.Struct("<16xII16x")


def image_size(image: bytes) -> int:
    """The bytes that the file must have at least, by its sections (Microsoft, PE Format); 0 where it does not say.

    What ends within its headers must have one more than it has.
    """
    if not image.startswith(b"MZ"):
        return 0
    try:
        (at,) = struct.unpack_from("<I", image, _HEADER_AT)
        if image[at : at + 4] != _SIGNATURE[: max(0, len(image) - at)]:
            return 0
        count, optional = _COFF.unpack_from(image, at + 4)
        table = at + 4 + _COFF.size + optional
        sections = [_SECTION.unpack_from(image, table + index * _SECTION.size) for index in range(count)]
    except struct.error:
        return len(image) + 1
    return max((start + size for size, start in sections), default=0)
