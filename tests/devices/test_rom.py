"""An expansion ROM: as it is declared, as any client finds it, and as a guest of QEMU reads it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pyvfio_user.devices import DefinitionError, Device, KiB, MiB, PciId, Rom
from pyvfio_user.guest.fixtures import AttachClient, ServeDevice, StartQtest
from tests.bridge.raw import Raw

ROM_BAR, REGION = 0x30, 6
CONTENTS = b"\x55\xaa" + bytes(range(256)) * 10
WHOLE = CONTENTS.ljust(4 * KiB, b"\xff")


class Bootable(Device):
    """Has nothing but a ROM."""

    identity = PciId(vendor=0x1234, device=0xB007, class_code=0x020000)
    rom = Rom(CONTENTS)


@pytest.mark.parametrize(("length", "size"), [(1, 2 * KiB), (2 * KiB, 2 * KiB), (2 * KiB + 1, 4 * KiB), (9999, 16384)])
def test_it_takes_the_least_size(length: int, size: int) -> None:
    assert Rom(bytes(length)).size == size
    assert Rom(bytes(length), size=64 * KiB).size == 64 * KiB


@pytest.mark.parametrize(
    ("contents", "size", "message"),
    [
        (b"", None, "contents of Rom must be at least one byte, not b''"),
        ("55aa", None, "contents of Rom must be at least one byte, not '55aa'"),
        (b"x", 1 * KiB, "size of Rom must be a power of two of 2 KiB to 16 MiB, not 1024"),
        (b"x", 3 * KiB, "size of Rom must be a power of two of 2 KiB to 16 MiB, not 3072"),
        (b"x", 32 * MiB, "size of Rom must be a power of two of 2 KiB to 16 MiB, not 33554432"),
        (b"x", "2048", "size of Rom must be an integer, not '2048'"),
        (bytes(2049), 2 * KiB, "contents of Rom must fit in 2048 bytes, not be 2049"),
    ],
)
def test_what_cannot_be_one(contents: Any, size: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=f"^{re.escape(message)}$"):
        Rom(contents, size=size)


def test_a_device_has_one() -> None:
    with pytest.raises(DefinitionError, match=r"^Rom must be declared once, not 2 times$"):
        type("Two", (Bootable,), {"other": Rom(b"x")})


@pytest.mark.asyncio
async def test_a_client_sizes_enables_and_reads_it(serve_device: ServeDevice, vfio_client: AttachClient) -> None:
    client = await vfio_client(await serve_device(Bootable()))
    await client.config.write(ROM_BAR, 0xFFFF_FFFF, 4)
    assert await client.config.read(ROM_BAR, 4) == 0xFFFF_F001, "4 KiB, and enabled"
    await client.config.write(ROM_BAR, 0x1000_0000, 4)
    assert await client.config.read(ROM_BAR, 4) == 0x1000_0000


@pytest.mark.asyncio
async def test_writes_are_ignored_and_nothing_is_mapped(serve_device: ServeDevice) -> None:
    async with Raw.connect((await serve_device(Bootable())).path) as raw:
        info = (await raw.request(5, (32).to_bytes(4, "little") + bytes(4) + bytes([REGION]) + bytes(23))).body
        assert (info[4], int.from_bytes(info[16:24], "little")) == (1, 4 * KiB), "can be read, not written or mapped"
        await raw.write(REGION, 0, b"\0\0")
        assert await raw.read(REGION, 0, 4 * KiB) == WHOLE


@pytest.mark.asyncio
async def test_a_guest_reads_it_once_it_is_enabled(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    machine = await qemu_qtest(await serve_device(Bootable()))
    (function,) = await machine.pci.scan()
    await function.place_bars()
    await function.write_config(ROM_BAR, 4, 0xFFFF_F800)
    assert await function.read_config(ROM_BAR, 4) == 0xFFFF_F000
    address = machine.pci.allocate("32", 4 * KiB)
    await function.write_config(0x04, 2, 2)
    await function.write_config(ROM_BAR, 4, address)
    assert await machine.read(address, 4) != int.from_bytes(CONTENTS[:4], "little"), "not enabled"
    await function.write_config(ROM_BAR, 4, address | 1)
    assert await machine.read_bytes(address, 4 * KiB) == WHOLE
    await machine.write(address, 4, 0)
    assert await machine.read_bytes(address, 4 * KiB) == WHOLE
