"""What a device class may declare, and what each refusal says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyvfio_user.bridge.config_image import BarShape, MsixShape
from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.devices import (
    RC,
    Bar,
    Device,
    Doorbell,
    GiB,
    Intx,
    KiB,
    Memory,
    MiB,
    Msi,
    MsiX,
    PciId,
    Register,
    Registers,
    WriteCombineWindow,
)
from pyvfio_user.devices.layout import layout_of

IDENTITY = PciId(vendor=0x1234, device=0x0001, class_code=0xFF0000)


class Small(Registers):
    """Two registers and a doorbell."""

    first = Register(0x00)
    second = Register(0x08, width=8)
    bell = Doorbell(0x10)


class Draining(Registers):
    """A register with a side effect."""

    drops = Register(0x00, access=RC)


def test_everything_declared_is_collected() -> None:
    class Full(Device):
        identity = IDENTITY
        bar0 = Bar(Small, size=64 * KiB)
        tail = bar0.place(Memory(0x3000), 0x1000)
        bar2 = Bar(WriteCombineWindow(1 * MiB, mapped=True), size=2 * MiB, bits=64, prefetchable=True)
        second = bar2.place(WriteCombineWindow(4 * KiB, mapped=True), 0x10_1000)
        third = bar2.place(Memory(8 * KiB, mapped=True), 0x10_4000)
        fourth = bar2.place(Memory(4 * KiB, mapped=True), 0x10_6000)
        intx = Intx()
        msi = Msi(4)
        msix = MsiX(70, bar=bar2, table=0x10_2000, pba=0x10_3000)

    layout = layout_of(Full, Device, IDENTITY)
    assert [each.shape for each in layout.bars] == [BarShape(0, 0x1_0000), BarShape(2, 0x20_0000, 64, True)]
    assert [each.mapped for each in layout.bars] == [(), ((0, 0x10_0000), (0x10_1000, 0x1000), (0x10_4000, 0x3000))]
    assert (layout.intx, layout.msi, layout.msix) == (True, 4, MsixShape(70, 2, 0x10_2000, 2, 0x10_3000))


def test_a_subclass_adds_to_its_base() -> None:
    class Base(Device):
        identity = IDENTITY
        bar0 = Bar(Small, size=4 * KiB)

    class Derived(Base):
        bar1 = Bar(Memory(4 * KiB))

    assert [each.shape.index for each in layout_of(Derived, Device, IDENTITY).bars] == [0, 1]
    assert [each.shape.index for each in layout_of(Base, Device, IDENTITY).bars] == [0]


@pytest.mark.parametrize(
    ("vectors", "index", "size", "pba"),
    [(1, 1, 0x1000, 16), (240, 1, 0x1000, 0xF00), (256, 1, 0x2000, 0x1000), (2048, 1, 0x1_0000, 0x8000)],
)
def test_msix_without_a_bar_gets_the_first_free_one(vectors: int, index: int, size: int, pba: int) -> None:
    class Own(Device):
        identity = IDENTITY
        bar0 = Bar(Small, size=4 * KiB)
        bar2 = Bar(Memory(4 * KiB), bits=64)
        msix = MsiX(vectors)

    layout = layout_of(Own, Device, IDENTITY)
    assert [each.shape for each in layout.bars][1] == BarShape(index, size)
    assert layout.msix == MsixShape(vectors, index, 0, index, pba)


def refused(define: Callable[[], object]) -> str:
    with pytest.raises(DefinitionError) as caught:
        define()
    return str(caught.value)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (3000, "size of bar0 must be a power of two of at least 16 bytes, not 3000"),
        (8, "size of bar0 must be a power of two of at least 16 bytes, not 8"),
        (-16, "size of bar0 must be a power of two of at least 16 bytes, not -16"),
        (4 * GiB, "size of bar0 must be at most 2 GiB in a 32-bit BAR, not 4294967296"),
        (16, "Small.bell must lie within the 0x10 bytes of bar0, not at 0x10 to 0x13"),
    ],
)
def test_bar_size(size: int, message: str) -> None:
    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            bar0 = Bar(Small, size=size)

    assert refused(define) == message


def test_bar_takes_the_size_of_a_window() -> None:
    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            bar0 = Bar(Memory(3000))

    assert refused(define) == "size of bar0 must be a power of two of at least 16 bytes, not 3000"


def test_bar_name() -> None:
    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            bar6 = Bar(size=4 * KiB)

    assert refused(define) == "name of a BAR must be bar0 to bar5, not bar6"


def test_bar5_has_no_upper_half() -> None:
    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            bar5 = Bar(size=4 * KiB, bits=64)

    assert refused(define) == "bar5 must be 32-bit, not 64-bit: no BAR follows it for the upper half"


def test_upper_half_is_no_bar_of_its_own() -> None:
    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            bar2 = Bar(size=4 * KiB, bits=64)
            bar3 = Bar(size=4 * KiB)

    assert refused(define) == "bar3 must be left out, not declared: it is the upper half of the 64-bit bar2"


def test_bar_bits() -> None:
    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            bar2 = Bar(size=4 * KiB, bits=48)  # type: ignore[call-overload]

    assert refused(define) == "bits of bar2 must be 32 or 64, not 48"


def test_pieces_do_not_overlap() -> None:
    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            bar0 = Bar(Small, size=4 * KiB)
            memory_ = bar0.place(Memory(16), 0x10)

    assert refused(define) == "Memory must begin at or after 0x14, the end of Small.bell, not at 0x10"


def test_pieces_keep_their_alignment() -> None:
    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            bar0 = Bar(size=4 * KiB)
            control = bar0.place(Small, 0x4)

    assert refused(define) == "offset of control in bar0 must be a multiple of 8, not 0x4"


def test_mapped_window_starts_on_a_page() -> None:
    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            bar0 = Bar(size=64 * KiB)
            window = bar0.place(WriteCombineWindow(4 * KiB, mapped=True), 0x800)

    assert refused(define) == "offset of window in bar0 must be a multiple of 4096, not 0x800"


def test_mapped_window_is_whole_pages() -> None:
    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            bar0 = Bar(WriteCombineWindow(0x1800, mapped=True), size=64 * KiB)

    assert refused(define) == "size of the mapped WriteCombineWindow must be a multiple of 4096, not 0x1800"


def test_mapped_bar_is_at_least_a_page() -> None:
    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            bar0 = Bar(WriteCombineWindow(2048, mapped=True))

    assert refused(define) == "size of bar0 must be at least 4096 bytes to hold the mapped WriteCombineWindow, not 2048"


def test_read_side_effects_are_not_prefetchable() -> None:
    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            bar0 = Bar(Draining, size=4 * KiB, prefetchable=True)

    assert (
        refused(define) == "bar0 must be non-prefetchable, not prefetchable: reads of Draining.drops have a side effect"
    )


@pytest.mark.parametrize(
    ("table", "pba", "message"),
    [
        (0xFF8, 0x800, "the MSI-X table must lie within the 0x1000 bytes of bar1, not at 0xff8 to 0x1037"),
        (0x000, 0x1000, "the MSI-X PBA must lie within the 0x1000 bytes of bar1, not at 0x1000 to 0x1007"),
        (0x000, 0x038, "the MSI-X PBA must begin at or after 0x40, the end of the MSI-X table, not at 0x38"),
        (0x004, 0x800, "offset of the MSI-X table must be a multiple of 8, not 0x4"),
        (0x000, 0x804, "offset of the MSI-X PBA must be a multiple of 8, not 0x804"),
        (0x100, 0x400, "the MSI-X PBA must begin at or after 0x410, the end of Memory, not at 0x400"),
    ],
)
def test_msix_placement(table: int, pba: int, message: str) -> None:
    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            bar1 = Bar(size=4 * KiB)
            memory_ = bar1.place(Memory(16), 0x400)
            msix = MsiX(4, bar=bar1, table=table, pba=pba)

    assert refused(define) == message


def test_msix_needs_a_bar_of_this_device() -> None:
    elsewhere = Bar(size=4 * KiB)

    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            msix = MsiX(4, bar=elsewhere)

    assert refused(define) == "bar of MsiX must be a BAR of the same device, not a BAR"


def test_msix_needs_a_free_bar() -> None:
    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            bar0 = Bar(size=4 * KiB, bits=64)
            bar2 = Bar(size=4 * KiB, bits=64)
            bar4 = Bar(size=4 * KiB, bits=64)
            msix = MsiX(4)

    assert refused(define) == "bar of MsiX must be named, not left out: no BAR is free for it"


def test_one_of_each_interrupt() -> None:
    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            msi = Msi(1)
            more = Msi(2)

    assert refused(define) == "Msi must be declared once, not 2 times"


def test_handler_for_a_register_elsewhere() -> None:
    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            bar0 = Bar(Draining, size=4 * KiB)

            @Small.first.on_write
            def handle(self, value: int) -> None: ...

    assert refused(define) == "Small.first, which handle handles, must lie in the device's BARs once, not 0 times"


def test_handler_for_a_register_in_two_places() -> None:
    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            bar0 = Bar(Small, size=4 * KiB)
            bar1 = Bar(Small, size=4 * KiB)

            @Small.bell.rung
            def handle(self, index: int, value: int) -> None: ...

    assert refused(define) == "Small.bell, which handle handles, must lie in the device's BARs once, not 2 times"


def test_two_handlers_for_one_event() -> None:
    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            bar0 = Bar(Small, size=4 * KiB)

            @Small.first.on_write
            def one(self, value: int) -> None: ...

            @Small.first.on_write
            async def other(self, value: int) -> None: ...

    assert refused(define) == "write handler of Small.first must be one method, not one and other"


def test_async_read_handler() -> None:
    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            bar0 = Bar(Small, size=4 * KiB)

            @Small.first.on_read  # type: ignore[type-var]
            async def handle(self) -> int:
                return 1

    assert refused(define) == (
        "read handler of Small.first must be a plain function, not the async handle: "
        "the access is answered with what it returns"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vendor": 0x1_0000}, "vendor must be an integer of 16 bits, not 0x10000"),
        ({"class_code": -1}, "class_code must be an integer of 24 bits, not -0x1"),
        ({"revision": 256}, "revision must be an integer of 8 bits, not 0x100"),
        ({"vendor": 0xFFFF}, "vendor must be a vendor's, not 0xffff, which says that no function is there"),
    ],
)
def test_identity(fields: dict[str, int], message: str) -> None:
    assert refused(lambda: PciId(**{"vendor": 1, "device": 1, "class_code": 0, **fields})) == message


def test_a_device_needs_an_identity() -> None:
    class Nameless(Device):
        bar0 = Bar(Small, size=4 * KiB)

    assert refused(Nameless) == "identity of Nameless must be a PciId, not left out"


def test_a_declaration_hides_nothing_of_the_device() -> None:
    def define() -> None:
        class Wrong(Device):
            identity = IDENTITY
            bar0 = Bar(size=4 * KiB)
            memory = bar0.place(Memory(16), 0)  # type: ignore[assignment]

    assert refused(define) == "memory must be a name that Device leaves free, not one that it uses itself"


def test_an_identity_is_a_pci_id() -> None:
    def define() -> None:
        class Wrong(Device):
            identity = (0x1234, 0x5678)  # type: ignore[assignment]

    assert refused(define) == "identity of Wrong must be a PciId, not (4660, 22136)"
