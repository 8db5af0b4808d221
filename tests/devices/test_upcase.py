"""The teaching device, driven as its driver would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

import pytest

from pyvfio_user.bridge.client import Client
from pyvfio_user.bridge.loop import run
from pyvfio_user.devices import upcase
from pyvfio_user.devices.upcase import Upcase

from .serving import RAM, attached

ADDRESS, LENGTH, STATUS, RING = 0x00, 0x08, 0x0C, 0x10


async def ring(client: Client, address: int, length: int) -> None:
    await client.bars[0].write(ADDRESS, address, 8)
    await client.bars[0].write(LENGTH, length, 2)
    await client.bars[0].write(RING, 1, 4)


@pytest.mark.asyncio
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", ["msix", "msi", "intx"])
async def test_capitals_and_an_interrupt(kind: Literal["msix", "msi", "intx"], shared: bool) -> None:
    device = Upcase()
    async with attached(device, shared=shared) as client:
        if kind == "msix":
            await client.config.enable_msix()
        elif kind == "msi":
            await client.config.enable_msi()
        else:
            await client.intx.enable()
        ram = client.memories[0].memory
        ram[0x100:0x10D] = b"hello, world!"
        await ring(client, RAM + 0x100, 12)
        assert await {"msix": client.msix, "msi": client.msi, "intx": client.intx}[kind][0].wait() == 1
        assert bytes(ram[0x100:0x10D]) == b"HELLO, WORLD!"
        assert await client.bars[0].read(STATUS, 4) == 1


@pytest.mark.asyncio
async def test_memory_that_is_not_there() -> None:
    async with attached(Upcase()) as client:
        await client.config.enable_msix()
        await ring(client, 0x1000, 12)
        await client.msix[0].wait()
        assert await client.bars[0].read(STATUS, 4) == 2


@pytest.mark.asyncio
async def test_a_driver_that_forgets_bus_mastering() -> None:
    async with attached(Upcase()) as client:
        await client.config.enable_msix()
        await client.config.set_bus_master(False)
        client.memories[0].memory[:5] = b"hello"
        await ring(client, RAM, 5)
        while await client.bars[0].read(STATUS, 4) == 0:
            pass
        assert await client.bars[0].read(STATUS, 4) == 2
        assert bytes(client.memories[0].memory[:5]) == b"hello"
        assert client.msix[0].take() == 0


@pytest.mark.parametrize("run_loop", [asyncio.run, run])
def test_on_any_event_loop(run_loop: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def scenario() -> None:
        async with attached(Upcase()) as client:
            await client.config.enable_msi()
            client.memories[0].memory[:5] = b"hello"
            for _ in range(3):
                await ring(client, RAM, 5)
                await client.msi[0].wait()
            assert bytes(client.memories[0].memory[:5]) == b"HELLO"

    run_loop(scenario())


def test_it_is_short_enough_to_teach() -> None:
    assert len(Path(upcase.__file__).read_text().splitlines()) <= 40


@pytest.mark.asyncio
async def test_an_address_that_changes_meanwhile_is_for_the_next_text(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Upcase()
    async with attached(device) as client:
        await client.config.enable_msix()
        ram = client.memories[0].memory
        ram[0:4], ram[0x100:0x104] = b"text", b"mine"
        read = device.memory.read

        async def read_slowly(address: int, length: int) -> bytes:
            text = await read(address, length)
            await client.bars[0].write(ADDRESS, RAM + 0x100, 8)
            await client.bars[0].write(LENGTH, 2, 2)
            return text

        monkeypatch.setattr(device.memory, "read", read_slowly)
        await ring(client, RAM, 4)
        await client.msix[0].wait()
        assert (bytes(ram[0:4]), bytes(ram[0x100:0x104])) == (b"TEXT", b"mine")
