"""What the tracer takes an encoding for, without QEMU: the words are LLVM's for the text beside them."""

from __future__ import annotations

import ctypes
import subprocess

import pytest

from pyvfio_user.bridge.stream import Flag
from pyvfio_user.guest.tracing import find_host_compiler, sources

NON_TEMPORAL = {
    "ldnt1b {z5.b}, p3/z, [x17, x16]": 0xA410CE25,
    "ldnt1w {z31.s}, p7/z, [sp, x30, lsl #2]": 0xA51EDFFF,
    "ldnt1d {z0.d}, p0/z, [x0, x0, lsl #3]": 0xA580C000,
    "ldnt1b {z0.b}, p0/z, [x0]": 0xA400E000,
    "ldnt1h {z0.h}, p0/z, [x0, #-8, mul vl]": 0xA488E000,
    "ldnt1d {z31.d}, p7/z, [sp, #-1, mul vl]": 0xA58FFFFF,
    "stnt1b {z5.b}, p3, [x17, x16]": 0xE4106E25,
    "stnt1w {z31.s}, p7, [sp, x30, lsl #2]": 0xE51E7FFF,
    "stnt1b {z0.b}, p0, [x0]": 0xE410E000,
    "stnt1d {z31.d}, p7, [sp, #-1, mul vl]": 0xE59FFFFF,
    "stnt1b {z0.s}, p0, [z1.s, x2]": 0xE4422020,
    "stnt1d {z31.d}, p7, [z31.d]": 0xE59F3FFF,
    "ldnt1b {z0.b-z1.b}, pn8/z, [x0, x1]": 0xA0010001,
    "ldnt1d {z30.d-z31.d}, pn15/z, [sp, x30, lsl #3]": 0xA01E7FFF,
    "ldnt1b {z28.b-z31.b}, pn8/z, [x0, #-32, mul vl]": 0xA048801D,
    "stnt1b {z0.b-z1.b}, pn8, [x0, x1]": 0xA0210001,
    "stnt1d {z28.d-z31.d}, pn15, [sp, #28, mul vl]": 0xA067FFFD,
    "ldnt1b {z0.b, z8.b}, pn8/z, [x0, x1]": 0xA1010008,
    "ldnt1d {z16.d, z20.d, z24.d, z28.d}, pn15/z, [sp, x30, lsl #3]": 0xA11EFFF8,
    "stnt1w {z0.s, z4.s, z8.s, z12.s}, pn8, [x0]": 0xA160C008,
    "ldnp x0, x1, [x2]": 0xA8400440,
    "ldnp w0, w1, [x2, #8]": 0x28410440,
    "ldnp q0, q1, [x2]": 0xAC400440,
    "ldnp s0, s1, [sp, #-256]": 0x2C6007E0,
    "stnp w0, w1, [x2]": 0x28000440,
    "stnp d0, d1, [x2]": 0x6C000440,
}
TEMPORAL = {
    "ld1b {z5.b}, p3/z, [x17, x16]": 0xA4104E25,
    "ld1d {z31.d}, p7/z, [sp, #-1, mul vl]": 0xA5EFBFFF,
    "ldff1b {z5.b}, p3/z, [x17, x16]": 0xA4106E25,
    "ld2b {z0.b, z1.b}, p0/z, [x0, x1]": 0xA421C000,
    "ld2b {z0.b, z1.b}, p0/z, [x0]": 0xA420E000,
    "ld4w {z0.s-z3.s}, p0/z, [x0]": 0xA560E000,
    "ld1rqb {z0.b}, p0/z, [x0, x1]": 0xA4010000,
    "ld1rob {z0.b}, p0/z, [x0, x1]": 0xA4210000,
    "ld1rb {z0.b}, p0/z, [x0]": 0x84408000,
    "ldr z0, [x0]": 0x85804000,
    "str p0, [x0]": 0xE5800000,
    "st1b {z5.b}, p3, [x17, x16]": 0xE4104E25,
    "st1b {z0.b}, p0, [x0]": 0xE400E000,
    "st1d {z31.d}, p7, [sp, #-1, mul vl]": 0xE5EFFFFF,
    "st2b {z0.b, z1.b}, p0, [x0, x1]": 0xE4216000,
    "st2b {z0.b, z1.b}, p0, [x0]": 0xE430E000,
    "st1b {z0.s}, p0, [x0, z0.s, uxtw]": 0xE4408000,
    "st1b {z0.d}, p0, [x0, z0.d]": 0xE400A000,
    "st1b {z0.s}, p0, [z0.s]": 0xE460A000,
    "st1b {z0.d}, p0, [z0.d, #31]": 0xE45FA000,
    "ld1b {z0.b-z1.b}, pn8/z, [x0, x1]": 0xA0010000,
    "ld1b {z0.b, z8.b}, pn8/z, [x0, x1]": 0xA1010000,
    "st1b {z23.b, z31.b}, pn15, [x0, x1]": 0xA1211C17,
    "st1b {za0h.b[w12, 15]}, p0, [x0, x1]": 0xE021000F,
    "ldr za[w12, 1], [x0, #1, mul vl]": 0xE1000001,
    "ldp q0, q1, [x2], #32": 0xACC10440,
    "stp x0, x1, [x2, #-16]!": 0xA9BF0440,
    "ldpsw x0, x1, [x2]": 0x69400440,
    "ldr x0, [x2]": 0xF9400040,
}
UNWATCHED = {
    "ldnt1b {z0.s}, p0/z, [z1.s, x2]": 0x8402A020,
    "ldnt1sh {z0.s}, p0/z, [z1.s, x2]": 0x84828020,
    "ldnt1w {z0.s}, p0/z, [z1.s, x2]": 0x8502A020,
    "ldnt1b {z0.d}, p0/z, [z1.d, x2]": 0xC402C020,
    "ldnt1sw {z31.d}, p7/z, [z31.d]": 0xC51F9FFF,
    "ldnt1d {z0.d}, p0/z, [z1.d, x2]": 0xC582C020,
    "ldnf1b {z0.b}, p0/z, [x0]": 0xA410A000,
    "ld1b {z0.s}, p0/z, [x0, z0.s, uxtw]": 0x84004000,
    "ld1b {z0.s}, p0/z, [z0.s]": 0x8420C000,
    "ld1b {z0.d}, p0/z, [z0.d, #31]": 0xC43FC000,
    "ld1d {z0.d}, p0/z, [x0, z0.d, lsl #3]": 0xC5E0C000,
    "ldff1b {z0.d}, p0/z, [z0.d]": 0xC420E000,
}


class Meaning(ctypes.Structure):
    """`struct meaning` of the tracer."""

    _fields_ = (
        *((name, ctypes.c_uint8) for name in ("action", "kind", "element", "barrier")),
        ("flags", ctypes.c_uint16),
        ("total", ctypes.c_uint8),
    )


@pytest.fixture(scope="module")
def decode(tmp_path_factory: pytest.TempPathFactory) -> ctypes._NamedFuncPointer:
    folder = tmp_path_factory.mktemp("decode")
    for name, text in sources().items():
        (folder / name).write_text(text)
    command = [find_host_compiler(), "-std=c11", "-D_GNU_SOURCE", "-fPIC", "-shared", "decode.c", "-o", "decode.so"]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    function = ctypes.CDLL(str(folder / "decode.so")).decode
    function.argtypes, function.restype = [ctypes.c_uint32], Meaning
    return function


def test_which_accesses_are_non_temporal(decode: ctypes._NamedFuncPointer) -> None:
    found = {text: bool(decode(word).flags & Flag.NON_TEMPORAL) for text, word in {**NON_TEMPORAL, **TEMPORAL}.items()}
    assert found == {**dict.fromkeys(NON_TEMPORAL, True), **dict.fromkeys(TEMPORAL, False)}


def test_what_qemu_would_not_survive_is_not_watched(decode: ctypes._NamedFuncPointer) -> None:
    """Where a plugin asks for the accesses of these, QEMU 11.1 ends."""
    words = {**NON_TEMPORAL, **TEMPORAL, **UNWATCHED}
    assert {text for text, word in words.items() if decode(word).action == 0} == set(UNWATCHED)
