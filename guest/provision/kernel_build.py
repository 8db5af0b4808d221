"""A kernel that is built here: Debian's source, the patches and the configuration of this project, in the user's cache.

Its folder's name holds all that goes into it: the patches and the configuration by their hash, the source's version and
the compiler's. So it is built once.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tarfile
from collections import deque
from collections.abc import Callable
from importlib import resources
from pathlib import Path, PurePosixPath

from . import apt
from .cache import cache_directory, staging
from .errors import ProvisionError
from .kernel import Kernel
from .kernel_tools import PREFIX, KernelTools, provide_kernel_tools
from .part import cached, find_or_make, settle
from .progress import Progress

SOURCE = "linux-source-7.3"
_SUITES = ("trixie", "trixie-backports")
_REMEDY = "see CONTRIBUTING.md, The kernel of the schemes; or boot a kernel of your own"
_STEPS = 1220
"""Lines that `make` prints in a whole build; a wrong number makes the progress bar uneven, nothing else."""
_LAST_LINES = 25
_UNUSED = (
    *("Documentation", "arch", "net", "rust", "samples", "sound", "tools/perf", "tools/testing", "fs/btrfs", "fs/xfs"),
    *(
        f"drivers/{name}"
        for name in (
            *("accel", "crypto", "gpu", "hwmon", "i2c", "iio", "infiniband", "input", "media", "mfd", "mtd", "net"),
            *("pinctrl", "platform", "regulator", "scsi", "soc", "spi", "staging", "usb", "video"),
        )
    ),
)
"""Folders of which only what the configuration reads is unpacked: two thirds of the source."""
_KEPT = ("arch/arm64", "arch/x86/entry/syscalls", "Documentation/admin-guide", "Documentation/virt/kvm")
"""What is needed all the same: the list of system calls is compared with x86's, and patches document."""
_CONFIGURATION = ("Kconfig", "Makefile", "Kbuild")


def _ours() -> tuple[str, list[tuple[str, str]]]:
    """The configuration, and the patches by name, in order."""
    folder = resources.files("pyvfio_user.guest") / "linux"
    patches = [each for each in (folder / "patches").iterdir() if each.name.endswith(".patch")]
    config = (folder / "schemes.config").read_text(encoding="utf-8")
    return config, sorted((each.name, each.read_text(encoding="utf-8")) for each in patches)


def _folder() -> Path:
    return cache_directory() / "kernel-built"


def _hash(config: str, patches: list[tuple[str, str]]) -> str:
    return hashlib.sha256(repr((SOURCE, (config, patches))).encode()).hexdigest()[:16]


def find_built_kernel() -> Kernel | None:
    """The kernel in the cache that was built of these patches and this configuration; the newest of several."""
    for image in cached(_folder(), "boot/vmlinuz-*"):
        if image.parents[1].name.startswith(f"{_hash(*_ours())}-"):
            release = image.name.removeprefix("vmlinuz-")
            return Kernel(image, image.parents[1] / "lib/modules" / release, release)
    return None


def provide_built_kernel(progress: Progress) -> Kernel:
    """Return the kernel from the cache; build it when it is not there: 250 MB to fetch, about four minutes on two CPUs.

    Raises:
        ProvisionError: The source or the tools cannot be fetched, a patch does not apply, or the build fails; the
            message has the last lines of the log and its path.
    """
    return find_or_make(_folder(), find_built_kernel, lambda: _build(progress), progress, "building a kernel")


def _build(progress: Progress) -> Kernel:
    tools = provide_kernel_tools(progress)
    with staging(_folder()) as stage:
        tree, version = _source(stage, progress)
        config, patches = _ours()
        _patch(tree, patches)
        log = _folder() / "build.log"
        with progress.step(f"building Linux {version} with {len(patches)} patches") as share:
            make = _Make(tree, tools, log)
            (tree / "pyvfio-user.config").write_text(config, encoding="utf-8")
            make.run(["allnoconfig"], {"KCONFIG_ALLCONFIG": "pyvfio-user.config"})
            _check_config(tree, config)
            make.run([f"-j{os.cpu_count() or 1}", "Image"], {}, lambda line: share(min(line / _STEPS, 0.99)))
            release = (tree / "include/config/kernel.release").read_text().strip()
        new = stage / "new/boot"
        new.mkdir(parents=True)
        shutil.move(tree / "arch/arm64/boot/Image", new / f"vmlinuz-{release}")
        shutil.move(tree / ".config", new / f"config-{release}")
        shutil.move(tree / "System.map", new / f"System.map-{release}")
        final = (
            _folder() / f"{_hash(config, patches)}-{version}-{hashlib.sha256(tools.compiler.encode()).hexdigest()[:8]}"
        )
        settle(new.parent, final)
    found = find_built_kernel()
    if found is None:
        raise ProvisionError(f"{final} must hold the kernel that was built", _REMEDY)
    return found


def _source(stage: Path, progress: Progress) -> tuple[Path, str]:
    """Fetch and unpack the source; its folder and version."""
    versions = apt.fetch(
        apt.machine_archive(_REMEDY),
        [SOURCE],
        stage / "root",
        architecture=apt.host_architecture(_REMEDY),
        suites=_SUITES,
        work=stage / "apt",
        progress=progress,
        remedy=_REMEDY,
    )
    archive = stage / f"root/usr/src/{SOURCE}.tar.xz"
    with progress.step("unpacking the source of Linux") as share:
        size = archive.stat().st_size
        with archive.open("rb") as packed, tarfile.open(fileobj=packed, mode="r|xz") as tar:
            for member in tar:
                share(packed.tell() / size)
                if _wanted(member.name.partition("/")[2]):
                    tar.extract(member, stage, filter="data")
    return stage / SOURCE, versions[SOURCE]


def _wanted(name: str) -> bool:
    """Whether a file of the source is needed: by its path in it."""
    if PurePosixPath(name).name.startswith(_CONFIGURATION) or _within(name, _KEPT):
        return True
    return not _within(name, _UNUSED)


def _within(name: str, folders: tuple[str, ...]) -> bool:
    return name.startswith(tuple(f"{folder}/" for folder in folders))


def _patch(tree: Path, patches: list[tuple[str, str]]) -> None:
    """Apply all patches, just as they are. Raises `ProvisionError`."""
    environment = {**os.environ, "GIT_DIR": os.devnull}  # the cache may lie in somebody's repository
    for name, text in patches:
        done = subprocess.run(
            ["git", "apply", "-"], cwd=tree, input=text, capture_output=True, text=True, env=environment
        )
        if done.returncode:
            raise ProvisionError(f"{name} must apply to {SOURCE}: {done.stderr.strip()}", _REMEDY)


def _check_config(tree: Path, wanted: str) -> None:
    """See that what was switched on is on: an option whose dependencies are missing vanishes silently."""
    got = set((tree / ".config").read_text(encoding="utf-8").splitlines())
    lost = [line for line in wanted.splitlines() if re.match(r"CONFIG_\w+=[^n]", line) and line not in got]
    if lost:
        raise ProvisionError(f"the kernel's configuration must have {', '.join(lost)}", _REMEDY)


class _Make:
    """Runs `make` in the tree; all that it says goes to a log, which stays."""

    def __init__(self, tree: Path, tools: KernelTools, log: Path) -> None:
        self.tree, self.tools, self.log = tree, tools, log
        log.write_text("")

    def run(
        self, words: list[str], environment: dict[str, str], share: Callable[[int], None] = lambda line: None
    ) -> None:
        """Run it to its end; `share` is given the number of lines so far. Raises `ProvisionError`."""
        command = ["make", "ARCH=arm64", f"CROSS_COMPILE={PREFIX}", "KBUILD_BUILD_USER=pyvfio-user",
                   "KBUILD_BUILD_HOST=localhost", *words]  # fmt: skip
        last: deque[str] = deque(maxlen=_LAST_LINES)
        with (
            self.log.open("a", buffering=1, encoding="utf-8") as log,
            subprocess.Popen(
                command,
                cwd=self.tree,
                env={**self.tools.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            ) as process,
        ):
            assert process.stdout is not None
            try:
                for number, line in enumerate(process.stdout):
                    log.write(line)
                    last.append(line)
                    share(number)
                code = process.wait()
            except BaseException:
                os.killpg(process.pid, signal.SIGTERM)
                raise
        if code:
            raise ProvisionError(
                f"`{shlex.join(command)}` ended with {code}; the last lines of {self.log}:\n{''.join(last)}", _REMEDY
            )
