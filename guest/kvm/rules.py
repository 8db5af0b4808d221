"""Rules of KVM's that are no attribute: which memslots it takes, what it cannot emulate, what it does not execute.

Expected from Linux's sources: `kvm_arch_prepare_memory_region` and `user_mem_abort` in arch/arm64/kvm/mmu.c,
`io_mem_abort` in mmio.c.
"""

from __future__ import annotations

import errno

from ...devices.probe_map import RANGES
from ..battery import INDEX
from ..findings import Finding
from ..lanes.kvm import Backing, KvmLane
from ..layout import LAYOUT
from ..operation import PAGE, pattern
from ..plan import MAIR, Experiment, Range, Status
from ..script import Action, Space, Step
from .vmm import Trial, Vmm

_NC = MAIR.index(0x44)
_WINDOW = RANGES["wc-trapped"]
_SLOTS = (
    (Trial.BAR, "memslot over a BAR", 0),
    (Trial.PIECES, "memslot over mappings of a BAR and of RAM", 0),
    (Trial.LOGGED_BAR, "dirty logging of a BAR", errno.EINVAL),
    (Trial.LOGGED_RAM, "dirty logging of RAM", 0),
    (Trial.TAGGED_BAR, "memslot over a BAR with MTE", errno.EINVAL),
    (Trial.TAGGED_RAM, "memslot over RAM with MTE", 0),
)
_NO_SYNDROME = ("ldp-x", "stp-x", "ldr-q", "str-q", "st1-4x16b")
_EMULATED = "to a page that the VMM emulates"
_ISV = 1 << 24
_CLASSES = {0x00: "undefined instruction", 0x21: "instruction abort"}


async def rules(lane: KvmLane, cpu: str) -> list[Finding]:
    """Try them; the probe's BARs are left as the last of them wants them mapped."""
    vmm = Vmm(lane.guest, lane.hello)
    found = [await _slot(vmm, cpu, *slot) for slot in _SLOTS]
    registers = Range(0, 0, LAYOUT.bar(0).size // PAGE, Backing.DEVICE, 0)
    await lane.guest.install([registers])
    found += [await _emulated(lane, cpu, op) for op in ("str-x", "ldr-x")]
    found += [await _no_syndrome(lane, cpu, op) for op in _NO_SYNDROME]
    found.append(await _execution(lane, cpu, "execution where there is no memslot"))
    window = Range(_WINDOW.bar, _WINDOW.offset, _WINDOW.size // PAGE, Backing.DEVICE, 0)
    await lane.guest.install([registers, window])
    found.append(await _execution(lane, cpu, "execution from a BAR's memslot"))
    return found


def _answer(error: int) -> str:
    return f"-{errno.errorcode[error]}" if error else "taken"


async def _slot(vmm: Vmm, cpu: str, trial: Trial, name: str, expected: int) -> Finding:
    error = await vmm.try_slot(trial)
    if error == errno.ENOTSUP:
        return Finding.unobservable(cpu, "rule", name, _answer(expected), "KVM has no MTE here: it needs -cpu max")
    return Finding.of(cpu, "rule", name, _answer(expected), _answer(error))


async def _run(lane: KvmLane, op: str) -> tuple[str, str]:
    """How an operation on a page without a memslot ended, and what the device got of it."""
    lane.probe.endpoint.recorder.drain()
    order = Experiment(0, INDEX[op], 1, _NC, _WINDOW.bar, _WINDOW.offset)
    (result,) = (await lane.guest.run([order])).results
    log = [each for each in lane.guest.last.transactions if each.region == _WINDOW.bar]
    device = " ".join(f"{'w' if each.write else 'r'}{each.size}" for each in log) or "nothing"
    if result.status == Status.DONE:
        right = op != "str-x" or log[-1].data == pattern(0)[:8]
        return ("works" if right else "wrong bytes"), device
    syndrome = "a syndrome" if result.esr & _ISV else "no syndrome"
    return f"KVM_RUN -{errno.errorcode.get(result.far, str(result.far))}, {syndrome}", device


async def _emulated(lane: KvmLane, cpu: str, op: str) -> Finding:
    ended, device = await _run(lane, op)
    expected = f"works; the device gets {'w8' if op == 'str-x' else 'r8'}"
    return Finding.of(cpu, "rule", f"{op} {_EMULATED}", expected, f"{ended}; the device gets {device}")


async def _no_syndrome(lane: KvmLane, cpu: str, op: str) -> Finding:
    ended, device = await _run(lane, op)
    expected = "KVM_RUN -ENOSYS, no syndrome; the device gets nothing"
    return Finding.of(cpu, "rule", f"{op} {_EMULATED}", expected, f"{ended}; the device gets {device}")


async def _execution(lane: KvmLane, cpu: str, name: str) -> Finding:
    """An instruction abort of EL1's own with the fault status of a synchronous external abort."""
    address = lane.hello.physical(_WINDOW.bar, _WINDOW.offset)
    (outcome,) = await lane.guest.script([Step(Action.EXECUTE, Space.MMIO, 4, address)])
    kind = _CLASSES.get(outcome.esr >> 26, f"ESR {outcome.esr:#x}")
    observed = f"{kind}, status {outcome.esr & 0x3F:#x}, at EL{outcome.value}"
    return Finding.of(cpu, "rule", name, "instruction abort, status 0x10, at EL1", observed)
