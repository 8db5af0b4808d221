"""Generates the guest's sources that come from Python: the battery's code (ops.S) and the probe's map (probe.h)."""

from __future__ import annotations

from ..devices import probe_map
from .battery import BATTERY
from .operation import PAGE, Access, Kind, Op

_GUEST_WINDOW, _DOORBELL = 1 << 4, 1 << 5
_DRIVER = probe_map.RANGES["dynamic"]
"""Where a driver of a Linux guest's is told that its memory is."""

_HEAD = """\
// Generated from guest/battery.py. x0: the target's address, x1: the pattern, results from x1 + 128,
// x2: the doorbell's address, x29 and x30: the addresses to warm up.
    .arch armv8.5-a
#if HOME_EL == 0
#define LEAVE brk #0                // in a process an SVC is a system call
#else
#define LEAVE svc #0
#endif
    .text
    .balign 4096
"""

_STUB = """
    .balign {align}
{label}:                       // {name}
{setup}{label}_before:
{warm}{label}_access:
{asm}{label}_end:
{finish}    LEAVE
{label}_done:
"""

_ROW = """\
    .quad {cold}, {cold}_before, {cold}_access, {cold}_end, {cold}_done
    .quad {warm}, {warm}_before, {warm}_access, {warm}_end, {warm}_done
    .hword {offset}, {size}
    .word {flags:#x}                // {name}
"""

_WARM = ("ldr xzr, [x29]",)
_WARM_CROSSING = (*_WARM, "ldr xzr, [x30]")


def _lines(code: tuple[str, ...]) -> str:
    return "".join(f"    {line}\n" for line in code)


def _flags(op: Op) -> int:
    flags = sum(1 << level for level in op.levels)
    if op.access is Access.TRANSLATE and op.name != "at-s1e2r":
        flags |= _GUEST_WINDOW
    return flags | (_DOORBELL if op.doorbell else 0)


def _warm_up(op: Op) -> tuple[str, ...]:
    """Loads of the pages touched; none for AT, which uses no TLB entry of the address."""
    if op.kind is Kind.TRANSLATE:
        return ()
    return _WARM_CROSSING if op.crossing else _WARM


def _stub(op: Op, label: str, warm: tuple[str, ...], align: int) -> str:
    parts = {"setup": op.setup, "warm": warm, "asm": op.asm, "finish": op.finish}
    code = {name: _lines(lines) for name, lines in parts.items()}
    return _STUB.format(label=label, name=op.name, align=align, **code)


def _size(op: Op, warm: tuple[str, ...]) -> int:
    """Bytes of a stub, a multiple of 8: each line is one instruction, and SVC is the last."""
    count = len(op.setup) + len(warm) + len(op.asm) + len(op.finish) + 1
    return (4 * count + 7) & ~7


def ops_source(battery: tuple[Op, ...] = BATTERY) -> str:
    """The assembler source of all operations, and the table ``ops`` that ``ops.h`` declares.

    Each operation is there twice: cold, and with a warm-up load just before the access. They must be one straight line
    of code within one page: QEMU's TLB is direct-mapped, and a load of the pattern or a fetch from another page in
    between could evict the page that was warmed up.
    """
    text = [_HEAD]
    rows = ["\n    .section .rodata\n    .balign 8\n    .globl ops\nops:\n"]
    at = 0
    for index, op in enumerate(battery):
        cold, warm = f"op_{index}", f"op_{index}_warm"
        for label, extra in ((cold, ()), (warm, _warm_up(op))):
            size = _size(op, extra)
            crosses = at % PAGE + size > PAGE
            text.append(_stub(op, label, extra, PAGE if crosses else 8))
            at = size if crosses else at + size
        rows.append(_ROW.format(name=op.name, cold=cold, warm=warm, offset=op.offset, size=op.size, flags=_flags(op)))
    return "".join((*text, *rows, f"    .globl op_count\nop_count:\n    .word {len(battery)}\n"))


def probe_header() -> str:
    """The C header with the probe's identity, registers and mailbox commands."""
    defines = {
        "PROBE_VENDOR": probe_map.VENDOR,
        "PROBE_DEVICE": probe_map.DEVICE,
        "PROBE_IDENTITY": probe_map.IDENTITY,
        "PROBE_DEVICE_VERSION": probe_map.VERSION,
        "DRIVER_BAR": _DRIVER.bar,
        "DRIVER_OFFSET": _DRIVER.offset,
        "DRIVER_SIZE": _DRIVER.size,
        **{f"PROBE_{each.name}": each.value for each in probe_map.Reg},
        **{f"PROBE_MAILBOX_{each.name}": each.value for each in probe_map.MailboxCommand},
        **{f"PROBE_MAILBOX_{each.name}": each.value for each in probe_map.MailboxStatus},
    }
    body = "".join(f"#define {name} {value:#x}u\n" for name, value in defines.items())
    return f"/* Generated from devices/probe_map.py. */\n#ifndef PROBE_H\n#define PROBE_H\n\n{body}\n#endif\n"
