"""`vfio-descriptor`: VFIO hands KVM, per page range, the attributes it wants, from the device driver's own table."""

from __future__ import annotations

from ..attributes import PAGE
from .base import VFIO_FLAGS, Scheme, Slice, device
from .inputs import Bar, Range, Situation
from .outputs import Choice


class VfioDescriptor(Scheme):
    """A table made when the driver was written: it bounds each range by itself, and cannot follow the device."""

    id = "vfio-descriptor"
    title = "something actually describing the attributes that VFIO wants"
    decider = "VFIO hands KVM, per page range, host type and stage 2 from the device's own table"
    granularity = "range"
    opt_in = "driver"
    status = "idea"

    def choose(self, situation: Situation, where: Range, page: int) -> Choice:
        """As described; what is not described is Device."""
        described = situation.driver.descriptors.get(where.name)
        if described is None or where.kvm_internal:
            return device(where)
        return Choice(described.host, described.stage2, VFIO_FLAGS)

    def calls(self, situation: Situation, bar: Bar) -> list[Slice]:
        """One mmap() for each run of pages whose user mapping has one type: a VMA has one pgprot."""
        runs: list[Slice] = []
        last = None
        for where in situation.layout.in_bar(bar.index):
            host = self.choose(situation, where, 0).host
            if runs and host == last:
                runs[-1] = (runs[-1][0], where.end)
            else:
                runs.append((where.offset, where.offset + where.pages * PAGE))
            last = host
        return runs
