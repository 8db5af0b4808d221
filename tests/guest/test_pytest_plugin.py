"""The fixtures that ship, and what a failing test's report shows. Whole pytest runs, as a user's project has them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pyvfio_user.bridge.client import QEMU_CAPABILITIES
from pyvfio_user.devices.upcase import Upcase
from pyvfio_user.guest.errors import QemuError
from pyvfio_user.guest.fixtures import AttachClient, ServeDevice, StartGuest, StartQtest
from pyvfio_user.guest.provision.qemu import QemuBinary

UPCASE = 0x11CA1234
VENDOR = UPCASE & 0xFFFF


@pytest.mark.asyncio
async def test_a_served_device_and_a_client(serve_device: ServeDevice, vfio_client: AttachClient) -> None:
    first, second = await serve_device(Upcase()), await serve_device(Upcase())
    assert first.path != second.path
    clients = [await vfio_client(first), await vfio_client(second)]
    assert [await client.config.read(0, 4) for client in clients] == [UPCASE, UPCASE]
    with pytest.raises(ConnectionError, match=r"^the server must be free, not busy with another client$"):
        await vfio_client(first)


@pytest.mark.asyncio
async def test_a_client_may_propose_other_capabilities(serve_device: ServeDevice, vfio_client: AttachClient) -> None:
    client = await vfio_client(await serve_device(Upcase()), capabilities={**QEMU_CAPABILITIES, "max_msg_fds": 3})
    assert await client.config.read(0, 4) == UPCASE


SOCKET_GOES = """
import pytest
from pyvfio_user.devices.upcase import Upcase

paths = []

@pytest.mark.asyncio
async def test_first(serve_device):
    served = await serve_device(Upcase())
    assert served.path.stat().st_mode & 0o777 == 0o600
    paths.append(served.path)

def test_second():
    assert not paths[0].exists() and not paths[0].parent.exists()
"""


def test_the_socket_is_the_users_own_and_goes_with_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SOCKET_GOES)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


@pytest.mark.asyncio
async def test_qemu_without_a_guest_sees_each_device_in_a_slot_of_its_own(
    serve_device: ServeDevice, qemu_qtest: StartQtest
) -> None:
    machine = await qemu_qtest(await serve_device(Upcase()), await serve_device(Upcase()))
    functions = await machine.pci.scan()
    assert [(function.slot, await function.identity()) for function in functions] == [
        (1, (VENDOR, 0x11CA)),
        (2, (VENDOR, 0x11CA)),
    ]
    bars = await functions[0].place_bars()
    await machine.write(bars[0].address + 8, 2, 77)
    assert await machine.read(bars[0].address + 8, 2) == 77


@pytest.mark.asyncio
async def test_properties_and_options_reach_qemu(serve_device: ServeDevice, qemu_qtest: StartQtest) -> None:
    machine = await qemu_qtest(
        await serve_device(Upcase()), properties={"addr": "0x9"}, extra=["-name", "a name"], timeout=30
    )
    assert [function.slot for function in await machine.pci.scan()] == [9]
    assert await machine.vm.execute("query-name") == {"name": "a name"}
    assert machine.vm.timeout == 30


@pytest.mark.asyncio
async def test_qemu_that_cannot_start_is_an_error_with_its_command(qemu_qtest: StartQtest) -> None:
    with pytest.raises(QemuError, match=r"^QEMU ended with exit status 1\nQEMU's command:\n .* -device 'no such'"):
        await qemu_qtest(extra=["-device", "no such"])


@pytest.mark.asyncio
async def test_the_bare_metal_guest_finds_its_devices(serve_device: ServeDevice, baremetal_guest: StartGuest) -> None:
    running = await baremetal_guest(await serve_device(Upcase()))
    hello = await running.guest.hello()
    assert {"fwb", "mte", "lse"} <= hello.features
    assert hello.find(VENDOR, 0x11CA).vendor == VENDOR
    other = await baremetal_guest(config="el2-no-fwb", cpu="neoverse-n1")
    assert "fwb" not in (await other.guest.hello()).features


FAILING = """
import pytest
from pyvfio_user.devices.upcase import Upcase

@pytest.mark.asyncio
async def test_failing(serve_device, qemu_qtest):
    machine = await qemu_qtest(await serve_device(Upcase()), extra=["-name", "the name"])
    (function,) = await machine.pci.scan()
    address = (await function.place_bars())[0].address
    for number in range(25):
        await machine.write(address + 8, 2, number)
    assert not await machine.read(address + 8, 2)
"""


@pytest.fixture
def found_qemu(monkeypatch: pytest.MonkeyPatch, qemu_binary: QemuBinary) -> None:
    """Name QEMU by its variable: pytester's runs have a home of their own, without the cache."""
    monkeypatch.setenv("QEMU_SYSTEM_AARCH64", str(qemu_binary.path))


@pytest.mark.usefixtures("found_qemu")
def test_a_failing_test_shows_command_console_and_transactions(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FAILING)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    section = text.partition(" QEMU ")[2].splitlines()
    assert section[1] == "QEMU's command:"
    assert re.search(r"^  /\S+ -readconfig \S+/qtest.cfg -accel qtest .* -name 'the name' -qtest unix:", section[2])
    assert section[3] == "the console's last lines: (nothing)"
    title, *lines = text.partition("Upcase: ")[2].splitlines()
    assert title.startswith("the last 20 of 26 transactions ")
    assert lines[0] == "#6 region 0 +0x8 <- 06 00"
    assert lines[19] == "#25 region 0 +0x8 -> 18 00"


@pytest.mark.usefixtures("found_qemu")
def test_a_passing_test_shows_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FAILING.replace("assert not", "assert"))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-rA")
    result.assert_outcomes(passed=1)
    assert "QEMU's command" not in result.stdout.str()


@pytest.mark.parametrize("fixture", ["serve_device", "vfio_client", "qemu_qtest", "baremetal_guest"])
def test_without_pytest_asyncio_a_fixture_says_what_to_install(pytester: pytest.Pytester, fixture: str) -> None:
    pytester.makepyfile(f"def test_nothing(): pass\ndef test_it({fixture}): pass")
    result = pytester.runpytest_subprocess("-p", "no:asyncio", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, errors=1)
    wanted = f"the fixture {fixture} needs pytest-asyncio: pip install pytest-asyncio"
    assert wanted in result.stdout.str().splitlines()


@pytest.mark.usefixtures("found_qemu")
@pytest.mark.parametrize("fixture", ["qemu_qtest", "baremetal_guest"])
def test_without_the_extra_a_fixture_says_what_to_install(pytester: pytest.Pytester, fixture: str) -> None:
    pytester.makeconftest("import sys\nsys.modules['qemu.qmp'] = sys.modules['qemu'] = None")
    pytester.makepyfile(f"import pytest\n@pytest.mark.asyncio\nasync def test_it({fixture}): pass")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(errors=1)
    assert re.search(
        rf"^the fixture {fixture} needs the extra `guest` \(.*qemu.*\): pip install 'pyvfio-user\[guest\]'$",
        result.stdout.str(),
        re.MULTILINE,
    )


@pytest.mark.asyncio
async def test_a_device_must_be_served_to_be_attached(vfio_client: AttachClient, qemu_qtest: StartQtest) -> None:
    device: Any = Upcase()
    expected = r"^what is attached must be served, as in `await serve_device\(device\)`, not <.*Upcase object at "
    for attach in (vfio_client, qemu_qtest):
        with pytest.raises(TypeError, match=expected):
            await attach(device)


def test_every_fixture_is_listed_with_a_line_of_help(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--fixtures", "-p", "no:cacheprovider")
    for name in ("serve_device", "vfio_client", "qemu_qtest", "baremetal_guest", "qemu_binary"):
        result.stdout.fnmatch_lines([f"{name}*", "    *"], consecutive=True)
