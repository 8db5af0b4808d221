"""`machines`, `doctor` and `setup`: what the guests need, and what of it is here."""

from __future__ import annotations

import shlex

import click

from ..machines import config_names, load_config
from .common import console


@click.command()
def machines() -> None:
    """List the machines that ship: name, and the config file to copy for one of your own."""
    for name in config_names():
        click.echo(f"{name}\t{load_config(name).path}")


@click.command()
def doctor() -> None:
    """Show what was found of what the guests need, where, and which version; exit status 1 if anything is missing."""
    from ..doctor import examine, report

    if not report(examine(), console()):
        raise SystemExit(1)


@click.command()
@click.option("--quiet", is_flag=True, help="Say nothing when nothing had to be done.")
def setup(quiet: bool) -> None:
    """Fetch what is missing of what the guests need (QEMU) into the user's cache, without root."""
    from ..provision.compiler import find_compiler
    from ..provision.progress import Progress
    from ..provision.qemu import provide_qemu

    qemu = provide_qemu(Progress())
    compiler = find_compiler()
    if not quiet:
        click.echo(f"QEMU {qemu.version}: {qemu.path}")
        click.echo(f"{compiler.kind} {compiler.version}: {shlex.join(compiler.command)}")
