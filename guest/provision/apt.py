"""Debian packages, fetched and unpacked without root by an apt that shares nothing but its mirror with the machine's.

apt resolves the dependencies and checks every signature with the Debian archive keyring; dpkg's database, the
machine's sources and its pins are not touched. So packages of a newer release unpack beside an older system.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from .errors import ProvisionError
from .progress import Progress
from .sources import debian_mirrors, read_sources

_KEYRINGS = tuple(
    Path(folder) / f"debian-archive-keyring.{form}"
    for folder in ("/usr/share/keyrings", "/etc/apt/trusted.gpg.d")
    for form in ("gpg", "pgp")
)

_CONFIGURATION = """\
#clear APT::Update;
#clear APT::NeverAutoRemove;
#clear DPkg;
Dir::Etc::sourcelist "{work}/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "-";
Dir::Etc::preferencesparts "-";
Dir::State "{work}";
Dir::State::Lists "{work}/lists";
Dir::State::status "{work}/status";
Dir::State::extended_states "{work}/extended_states";
Dir::Cache "{work}/cache";
Dir::Cache::archives "{work}/cache/archives";
Dir::Log "{work}";
APT::Architecture "{architecture}";
#clear APT::Architectures;
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
APT::Get::Assume-Yes "true";
APT::Keep-Downloaded-Packages "true";
Acquire::Languages "none";
Acquire::PDiffs "false";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Binary::apt-get::APT::Keep-Downloaded-Packages "true";
Debug::NoLocking "true";
"""


@dataclass(frozen=True)
class Archive:
    """Where Debian packages come from on this machine: mirrors to try in turn, and the keyring that checks them."""

    mirrors: tuple[str, ...]
    keyring: Path


def machine_archive(remedy: str) -> Archive:
    """Return the Debian archive that the machine's own apt is configured for.

    `remedy` is what the user can do instead when there is none: it ends the message of the `ProvisionError` raised
    when apt or dpkg is absent, no Debian mirror is configured, or the Debian keyring is not installed.
    """
    _require_tools(remedy)
    shell = subprocess.run(
        ["apt-config", "shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    places = {line.partition("=")[0]: line.partition("=")[2].strip("'") for line in shell.splitlines()}
    mirrors = debian_mirrors(
        read_sources(
            Path(places.get("LIST", "/etc/apt/sources.list")), Path(places.get("PARTS", "/etc/apt/sources.list.d"))
        )
    )
    if not mirrors:
        raise ProvisionError("the apt of this machine is configured for no mirror of the Debian main archive", remedy)
    keyring = next((path for path in _KEYRINGS if path.is_file()), None)
    if keyring is None:
        raise ProvisionError(
            "the keys of the Debian archive are not installed", f"install debian-archive-keyring, or {remedy}"
        )
    return Archive(tuple(mirrors), keyring)


def _require_tools(remedy: str) -> None:
    for tool in ("apt-get", "apt-config", "dpkg"):
        if shutil.which(tool) is None:
            raise ProvisionError(f"{tool} is not on this machine, so no Debian package can be fetched", remedy)


def host_architecture(remedy: str) -> str:
    """Return Debian's name of this machine's architecture, such as `amd64` or `arm64`.

    Raises `ProvisionError`, which ends with `remedy`, when this is no Debian.
    """
    _require_tools(remedy)
    return subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()


def fetch(
    archive: Archive,
    packages: Sequence[str],
    into: Path,
    *,
    architecture: str,
    suites: Sequence[str],
    work: Path,
    progress: Progress,
    remedy: str,
) -> dict[str, str]:
    """Download `packages` and all they depend on, and unpack them into the folder `into`.

    Packages come from the last of `suites` when it has them; `work` is an empty folder for apt's own files.
    Returns the version of every package unpacked. Raises `ProvisionError` with what apt said on each mirror.
    """
    failures: list[str] = []
    for number, mirror in enumerate(archive.mirrors):
        apt = _Apt(work / str(number), mirror, archive.keyring, architecture, suites)
        try:
            with progress.step(f"reading the package lists of {', '.join(suites)} ({architecture})") as share:
                apt.run(["update"], share)
            with progress.step(f"downloading {', '.join(packages)}") as share:
                apt.run(["--download-only", "-t", suites[-1], "install", *packages], share)
        except _AptFailed as failure:
            failures.append(f"{mirror}: {failure}")
            continue
        return _unpack(apt.packages(), into, progress)
    raise ProvisionError(f"apt could not fetch {', '.join(packages)}:\n    " + "\n    ".join(failures), remedy)


class _AptFailed(Exception):
    """apt ended with an error; the text is its last lines."""


class _Apt:
    """An apt-get with its own sources, state and cache in one folder."""

    def __init__(self, work: Path, mirror: str, keyring: Path, architecture: str, suites: Sequence[str]) -> None:
        (work / "lists/partial").mkdir(parents=True)
        (work / "cache/archives/partial").mkdir(parents=True)
        (work / "status").touch()
        options = f"[signed-by={keyring} arch={architecture}]"
        (work / "sources.list").write_text("".join(f"deb {options} {mirror} {suite} main\n" for suite in suites))
        self._configuration = work / "apt.conf"
        self._configuration.write_text(_CONFIGURATION.format(work=work, architecture=architecture))
        self._archives = work / "cache/archives"

    def run(self, arguments: Sequence[str], share: Callable[[float], None]) -> None:
        """Run apt-get to its end, handing the share done to `share`; raise `_AptFailed` on any error."""
        reader, writer = os.pipe()
        command = ["apt-get", "-q", "-c", str(self._configuration), "-o", f"APT::Status-Fd={writer}", *arguments]
        log = self._configuration.with_name("log")
        with open(log, "w") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[writer],
                env={**os.environ, "LC_ALL": "C"},
            )
        os.close(writer)
        try:
            with open(reader, encoding="utf-8", errors="replace") as status:
                for line in status:
                    if line.startswith("dlstatus:"):
                        share(float(line.split(":")[2]) / 100)
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if code != 0:
            said = log.read_text(errors="replace").splitlines()
            errors = [line for line in said if line.startswith(("E:", "W:", "Err:"))] or said
            raise _AptFailed("; ".join(errors[-4:]) or f"exit status {code}")

    def packages(self) -> list[Path]:
        """Return the downloaded package files, in name order."""
        return sorted(self._archives.glob("*.deb"))


def _unpack(packages: Sequence[Path], into: Path, progress: Progress) -> dict[str, str]:
    versions: dict[str, str] = {}
    into.mkdir(parents=True, exist_ok=True)
    with progress.step(f"unpacking {len(packages)} packages") as share:
        for number, package in enumerate(packages):
            share(number / len(packages))
            done = subprocess.run(["dpkg", "-x", str(package), str(into)], stderr=subprocess.PIPE, text=True)
            if done.returncode != 0:
                said = done.stderr.strip().replace("\n", "; ")
                raise ProvisionError(f"{package.name} could not be unpacked: {said}", f"see whether {into} has room")
            name, version, _ = package.name.split("_")
            versions[name] = unquote(version)
    return versions
