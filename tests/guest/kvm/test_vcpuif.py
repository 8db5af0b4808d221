"""What a scheme makes of a GICv2's virtual CPU interface: by the proposals, one alone relaxes it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pyvfio_user.bridge.schemes import SCHEMES
from pyvfio_user.guest.kvm import vcpuif

VGIC = (Path(__file__).parents[3] / "guest/linux/vgic.c").read_text(encoding="utf-8")


@pytest.mark.parametrize("fwb", [False, True])
def test_normal_nc_all_alone_relaxes_it(fwb: bool) -> None:
    """PATCH v2 1/1 changes kvm_phys_addr_ioremap() for everyone: Normal-NC is MemAttr 5 with and without FWB."""
    assert {name: vcpuif.stage2(name, fwb) for name in SCHEMES} == {
        name: 5 if name == "normal-nc-all" else 1 for name in SCHEMES
    }


def test_the_vmm_has_it_where_it_is_looked_for() -> None:
    (address,) = re.findall(r"#define CPU_INTERFACE (0x[0-9a-f]+)ull", VGIC)
    assert int(address, 16) == vcpuif.ADDRESS
