"""The config space as a guest sees it, byte by byte, against a table of its writable bits."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from .machine import LENGTH, ServedMachine
from .raw import REPLY, RESET

SIZE = 4096
PM, MSI, MSIX, EXPRESS = 0x40, 0x48, 0x58, 0x64
COMMAND, PMCSR, DEVICE_CONTROL, FLR = 0x04, PM + 4, EXPRESS + 8, 0x8000
WRITABLE = {
    COMMAND: (2, 0x0546),
    0x0C: (1, 0xFF),
    0x10: (4, 0xFFFF_0000),  # BAR 0: 64 KiB
    0x18: (8, 0xFFFF_FFFF_FFFF_0000),  # BAR 2: 64 KiB of 64 bits
    0x20: (4, 0xFFFF_F000),  # BAR 4: 4 KiB
    0x3C: (1, 0xFF),
    PMCSR: (2, 0x0003),
    MSI + 2: (2, 0x0071),
    MSI + 4: (4, 0xFFFF_FFFC),
    MSI + 8: (4, 0xFFFF_FFFF),
    MSI + 12: (2, 0xFFFF),
    MSIX + 2: (2, 0xC000),
    DEVICE_CONTROL: (2, 0xF9FF),
    EXPRESS + 0x10: (2, 0x00CB),
    EXPRESS + 0x28: (2, 0x0010),
    EXPRESS + 0x30: (2, 0x000F),
}
OFFSETS = st.integers(0, 0xFF) | st.sampled_from(list(WRITABLE)) | st.integers(0, SIZE - 1)


def mask() -> bytes:
    """The writable bits of all bytes."""
    bits = bytearray(SIZE)
    for offset, (width, value) in WRITABLE.items():
        bits[offset : offset + width] = value.to_bytes(width, "little")
    return bytes(bits)


class ConfigSpaceMachine(ServedMachine):
    """Reads and writes of 1 to 8 bytes anywhere, and resets."""

    def __init__(self) -> None:
        super().__init__()
        self.initial = self.run(self.raw.read(7, 0, SIZE))
        self.expected = bytearray(self.initial)
        self.mask = mask()
        self.resets = 0

    @rule(at=OFFSETS, size=st.sampled_from([1, 2, 4]) | st.integers(1, 8))
    def read(self, at: int, size: int) -> None:
        """Has no effect."""
        size = min(size, SIZE - at)
        assert self.run(self.raw.read(7, at, size)) == self.expected[at : at + size]

    @rule(at=OFFSETS, data=st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff\xff", b"\xff" * 4]))
    def write(self, at: int, data: bytes) -> None:
        """Changes the writable bits, and no others; the function-level reset bit changes all."""
        data = data[: SIZE - at]
        self.run(self.raw.write(7, at, data))
        for n, (byte, bits) in enumerate(zip(data, self.mask[at:], strict=False), at):
            self.expected[n] = self.expected[n] & ~bits | byte & bits
        if self.register(DEVICE_CONTROL) & FLR:
            self.function_reset()

    @rule(at=st.sampled_from([COMMAND, COMMAND, PMCSR, DEVICE_CONTROL]), value=st.integers(0, 0xFFFF))
    def write_register(self, at: int, value: int) -> None:
        """One that the device acts on."""
        self.write(at, value.to_bytes(2, "little"))

    @rule()
    def size_bars(self) -> None:
        """As every guest does: write ones, read, write back."""
        for bar, size in ((0x10, 0x1_0000), (0x18, 0x1_0000), (0x20, 0x1000)):
            before = self.run(self.raw.read(7, bar, 4))
            self.run(self.raw.write(7, bar, b"\xff" * 4))
            found = int.from_bytes(self.run(self.raw.read(7, bar, 4)), "little") & ~0xF
            assert found == (1 << 32) - size
            self.run(self.raw.write(7, bar, before))

    @rule()
    def reset(self) -> None:
        """By the client."""
        assert self.run(self.raw.request(RESET)).flags == REPLY
        self.function_reset()

    @rule()
    def come_again(self) -> None:
        """The next client finds a device that was reset."""
        self.disconnect()
        self.function_reset()
        self.connect()

    @invariant()
    def all_is_as_expected(self) -> None:
        """Header and capabilities."""
        assert self.run(self.raw.read(7, 0, 256)) == self.expected[:256]

    @invariant()
    def the_device_follows(self) -> None:
        """What Python knows of the bits that it acts on."""
        command, power = self.register(COMMAND), self.register(PMCSR) & 3
        assert self.bench.device.config.memory_enabled == (command & 2 != 0 and power == 0)
        assert self.bench.memory.bus_master == (command & 4 != 0 and power == 0)
        assert self.bench.interrupts.bus_master == self.bench.memory.bus_master
        assert self.bench.interrupts.intx_disabled == (command & 0x400 != 0)
        assert self.bench.device.resets == self.resets

    def register(self, offset: int) -> int:
        """Two expected bytes."""
        return int.from_bytes(self.expected[offset : offset + 2], "little")

    def function_reset(self) -> None:
        """All as it was."""
        self.expected[:] = self.initial
        self.resets += 1


TestConfigSpace = ConfigSpaceMachine.TestCase
TestConfigSpace.settings = LENGTH
