"""Generates the guest's sources that Python is the source of: the battery's stubs (ops.S) and the probe's map (probe.h)."""

from __future__ import annotations

from ..devices import probe_map
from .battery import BATTERY
from .operation import Access, Op

_GUEST_WINDOW, _DOORBELL, _CROSSING = 1 << 4, 1 << 5, 1 << 6

_HEAD = """\
// Generated from guest/battery.py. x0: the target's address, x1: the pattern, results from x1 + 128, x2: the doorbell's.
    .arch armv8.5-a
    .text
"""

_STUB = """
    .balign 8
op_{index}:                         // {name}
{setup}op_{index}_access:
{asm}op_{index}_end:
{finish}    svc #0
op_{index}_done:
"""

_ROW = """\
    .quad op_{index}, op_{index}_access, op_{index}_end, op_{index}_done
    .hword {offset}, {size}
    .word {flags:#x}                // {name}
"""


def _lines(code: tuple[str, ...]) -> str:
    return "".join(f"    {line}\n" for line in code)


def _flags(op: Op) -> int:
    flags = sum(1 << level for level in op.levels)
    if op.access is Access.TRANSLATE and op.name != "at-s1e2r":
        flags |= _GUEST_WINDOW
    return flags | (_DOORBELL if op.doorbell else 0) | (_CROSSING if op.crossing else 0)


def ops_source(battery: tuple[Op, ...] = BATTERY) -> str:
    """The assembler source of all operations, and the table ``ops`` that ``ops.h`` declares."""
    text = [_HEAD]
    for index, op in enumerate(battery):
        text.append(
            _STUB.format(
                index=index, name=op.name, setup=_lines(op.setup), asm=_lines(op.asm), finish=_lines(op.finish)
            )
        )
    text.append("\n    .section .rodata\n    .balign 8\n    .globl ops\nops:\n")
    for index, op in enumerate(battery):
        text.append(_ROW.format(index=index, name=op.name, offset=op.offset, size=op.size, flags=_flags(op)))
    text.append(f"    .globl op_count\nop_count:\n    .word {len(battery)}\n")
    return "".join(text)


def probe_header() -> str:
    """The C header with the probe's identity, registers and mailbox commands."""
    defines = {
        "PROBE_VENDOR": probe_map.VENDOR,
        "PROBE_DEVICE": probe_map.DEVICE,
        "PROBE_IDENTITY": probe_map.IDENTITY,
        "PROBE_DEVICE_VERSION": probe_map.VERSION,
        **{f"PROBE_{each.name}": each.value for each in probe_map.Reg},
        **{f"PROBE_MAILBOX_{each.name}": each.value for each in probe_map.MailboxCommand},
        **{f"PROBE_MAILBOX_{each.name}": each.value for each in probe_map.MailboxStatus},
    }
    body = "".join(f"#define {name} {value:#x}u\n" for name, value in defines.items())
    return f"/* Generated from devices/probe_map.py. */\n#ifndef PROBE_H\n#define PROBE_H\n\n{body}\n#endif\n"
