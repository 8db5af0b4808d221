"""Single scenarios of a kernel, from a snapshot of it: no boot, and no battery, so that they are there in a second."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from ...bridge.attributes import NORMAL_WB, encode_stage2
from ...bridge.errors import DefinitionError
from ...bridge.schemes import NOTHING, SCHEMES, Driver, Host, Situation, settled
from ...devices.probe import Probe
from ...devices.probe_map import RANGES, Reg
from ...devices.upcase import Upcase
from ..commander import Guest
from ..errors import MatrixError, QemuError
from ..findings import Finding
from ..hello import Hello
from ..lanes.kvm import Backing, KvmLane
from ..lanes.places import PLACES
from ..layout import DRIVER, LAYOUT, installation
from ..linux.boot import BootedLinux, booted_linux
from ..linux.failures import explain
from ..operation import PAGE
from ..plan import Range
from ..script import Action, Space, Step
from .coherent import SCHEME as COHERENT
from .job import KernelJob
from .run_time import states
from .scenarios import scenarios

_WINDOW = RANGES["wc-trapped"]


async def run_scenarios(job: KernelJob, names: Iterable[str]) -> list[Finding]:
    """Run them, of `scenarios.NAMES`, in a virtual machine of a kernel that goes on from its snapshot.

    Of a kernel that has several schemes, in one for each of the job's that takes no device of its own.

    Raises:
        DefinitionError: The scheme is not known by which to judge what stage 2 is: that job has none expected.
        MatrixError: It could not be looked at, or the device did not see what the guest did.
        KernelError: The kernel, its modules or its configuration cannot be used.
        ProvisionError: There is no QEMU or no compiler.
    """
    schemes = tuple(name for name in job.schemes if name != COHERENT)
    if job.expected is None and not schemes:
        raise DefinitionError(f"the scheme of {job.name} must be named, with --expect, to judge a scenario by")
    wanted = tuple(names)
    others = [Upcase()] if "doorbell" in wanted else []
    try:
        ways = [f"vfio:{name}" for name in schemes] or ["vfio"]
        async with booted_linux(job.files, job.cpu, ways, others, going_on=True) as up:
            found = []
            for scheme in schemes or (job.expected or "",):
                found += await _run(job, up, scheme, wanted)
                await up.guest.off()
            return found
    except QemuError as error:
        raise MatrixError(explain(str(error))) from error


async def _run(job: KernelJob, up: BootedLinux, scheme: str, wanted: tuple[str, ...]) -> list[Finding]:
    """Those of one virtual machine."""
    hello = await up.guest.hello()
    await check_witness(up.guest, hello, up.probe)
    lane = KvmLane(up.guest, up.probe, hello, fwb=False)
    lane.fwb = fwb = await _fwb(lane, up)
    name = f" ({scheme})" if job.schemes else ""
    driver = DRIVER if job.schemes else Driver()  # init.c takes the one that knows the device where a scheme needs it
    decision = settled(SCHEMES[scheme], Situation(LAYOUT, NOTHING, driver, Host(fwb=fwb)))
    mapped = installation(decision).patches[_WINDOW.name].stage2
    changing = states(scheme, fwb) if job.schemes else []
    return await scenarios(
        lane, up, f"{job.cpu}, Linux {job.release}{name}", mapped, encode_stage2(NORMAL_WB, fwb), wanted,
        [changing] if changing else [],
    )  # fmt: skip


async def _fwb(lane: KvmLane, up: BootedLinux) -> bool:
    """HCR_EL2.FWB, while the virtual machine runs."""
    places = [PLACES["control"], PLACES[_WINDOW.name]]
    await lane.guest.install([Range(each.bar, each.offset, each.size // PAGE, Backing.DEVICE, 0) for each in places])
    return (await lane.look(up.stub, places)).tables.fwb


async def check_witness(guest: Guest, hello: Hello, probe: Probe) -> None:
    """Have the guest store a number that nobody knows beforehand, in a register and in a window, and ask the device.

    So a machine with another device than the one that is looked at cannot pass. Raises `MatrixError`.
    """
    number = secrets.randbits(32)
    register, window = hello.physical(0, Reg.SCRATCH), hello.physical(_WINDOW.bar, _WINDOW.offset)
    probe.endpoint.recorder.drain()
    await guest.script([Step(Action.WRITE, Space.MMIO, 4, address, number) for address in (register, window)])
    place = (_WINDOW.bar, _WINDOW.offset)
    seen = [each for each in guest.last.transactions if each.write and (each.region, each.offset) == place]
    stored = [int.from_bytes(each.data, "little") for each in seen]
    if probe.bar0.scratch != number or stored != [number]:
        found = f"{probe.bar0.scratch:#x} and {[hex(each) for each in stored]}"
        raise MatrixError(f"the device must see what the guest stores, {number:#x}, not {found}")
