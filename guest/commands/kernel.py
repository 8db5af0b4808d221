"""`pyvfio-user kernel`: build the kernel that shows every attribute scheme."""

from __future__ import annotations

import click


@click.command()
@click.option("--quiet", is_flag=True, help="Say nothing when it is there already.")
def kernel(quiet: bool) -> None:
    """Build Linux with every attribute scheme of the thread, chosen by a parameter, into the user's cache, once.

    `pyvfio-user kvm --kernel schemes` boots it. About four minutes on two CPUs; the source and the compiler are fetched
    without root.
    """
    from ..provision.kernel_build import provide_built_kernel
    from ..provision.progress import Progress

    built = provide_built_kernel(Progress())
    if not quiet:
        click.echo(f"Linux {built.release}: {built.image}")
