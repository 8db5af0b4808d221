"""What this machine has of what the guests need: found or missing, where, which version, and the remedy."""

from __future__ import annotations

import importlib
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .errors import BuildError, TraceError
from .provision.browser import find_browser
from .provision.cache import cache_directory
from .provision.compiler import find_compiler
from .provision.errors import ProvisionError
from .provision.herd import find_herd
from .provision.kernel_build import find_built_kernel
from .provision.qemu import find_qemu
from .tracing import API_VERSION, require_api

_HOT_PATH = "pyvfio_user.bridge.hotpath._native"


@dataclass(frozen=True)
class Finding:
    """One part: where it is and its version, or (`where` empty) what to do about its absence.

    `remarks` are what was passed over on the way, such as a QEMU that is too old.
    """

    part: str
    where: str
    version: str
    remedy: str = ""
    remarks: tuple[str, ...] = ()
    optional: bool = False
    """Whether all but one feature works without it."""

    @property
    def found(self) -> bool:
        """Whether the part is there."""
        return bool(self.where)


def _missing(part: str, remedy: str, remarks: tuple[str, ...] = ()) -> Finding:
    return Finding(part, "", "", remedy, remarks)


def _python() -> Finding:
    return Finding("Python", sys.executable, platform.python_version())


def _tool(part: str, program: str, package: str) -> Finding:
    path = shutil.which(program)
    if path is None:
        return _missing(part, f"install the Debian package {package}")
    said = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    match = re.search(r"\d+(\.\d+)+", said)
    return Finding(part, path, match[0] if match else "?")


def _hot_path() -> Finding:
    try:
        module = importlib.import_module(_HOT_PATH)
    except ImportError as error:
        return _missing("C hot path", f"install pyvfio-user anew, its extension does not load: {error}")
    return Finding("C hot path", str(module.__file__), "abi3")


def _qemu() -> Finding:
    search = find_qemu()
    try:
        qemu = search.require()
    except ProvisionError as error:
        return _missing("QEMU", error.remedy, search.rejected)
    return Finding("QEMU", str(qemu.path), qemu.version, remarks=search.rejected)


def _compiler() -> Finding:
    try:
        compiler = find_compiler()
    except ProvisionError as error:
        return _missing("AArch64 compiler", error.remedy)
    return Finding("AArch64 compiler", " ".join(compiler.command), f"{compiler.kind} {compiler.version}")


def _tracer() -> Finding:
    qemu = find_qemu().found
    if qemu is None:
        return Finding("tracer", "", "", "it needs a QEMU", optional=True)
    try:
        require_api(qemu.path)
    except (BuildError, TraceError) as error:
        return Finding("tracer", "", "", str(error), optional=True)
    return Finding("tracer", "QEMU's plugin API", str(API_VERSION), optional=True)


def _built_kernel() -> Finding:
    kernel = find_built_kernel()
    part = "kernel of the schemes"
    if kernel is None:
        return Finding(
            part, "", "", "`make kernel` builds it; only `--kernel schemes` and the tests need it", optional=True
        )
    return Finding(part, str(kernel.image), kernel.release)


def _herd() -> Finding:
    herd = find_herd()
    if herd is None:
        return Finding("herd7", "", "", "`make test` fetches it; only the tests of orders need it", optional=True)
    return Finding("herd7", str(herd.path), herd.version)


def _browser() -> Finding:
    browser = find_browser()
    if browser is None:
        return Finding("Chromium", "", "", "`make test` fetches it; only the tests of pages need it", optional=True)
    return Finding("Chromium", str(browser.path), browser.version)


CHECKS: tuple[Callable[[], Finding], ...] = (
    _python,
    lambda: _tool("git", "git", "git"),
    lambda: _tool("make", "make", "make"),
    lambda: _tool("C compiler", "cc", "build-essential"),
    _hot_path,
    _qemu,
    _compiler,
    _tracer,
    _herd,
    _built_kernel,
    _browser,
)


def examine() -> list[Finding]:
    """Look for every part; takes less than a second."""
    return [check() for check in CHECKS]


def report(findings: list[Finding], console: Console) -> bool:
    """Print the findings as a table, the remedies below it; return whether nothing needed is missing."""
    table = Table("part", "version", "where", highlight=False)
    for finding in findings:
        where = Text(finding.where) if finding.found else Text("missing", style="bold red")
        table.add_row(finding.part, finding.version, where)
    console.print(table)
    console.print(f"cache: {cache_directory()}", highlight=False, markup=False, soft_wrap=True)
    for finding in findings:
        for remark in finding.remarks:
            console.print(f"{finding.part}, passed over: {remark}", highlight=False, markup=False, soft_wrap=True)
        if not finding.found:
            console.print(f"{finding.part}: {finding.remedy}", highlight=False, markup=False, soft_wrap=True)
    return all(finding.found or finding.optional for finding in findings)
