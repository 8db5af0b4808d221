"""The job that looks at one kernel."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..linux.boot import LinuxImage

STEPS = (
    *("booting", "vfio", "vfio-platform", "vfio pieces", "ram", "rules and scenarios", "sysfs", "sysfs wc", "gicv2"),
    "linux",
)
"""What is done one after the other, for the progress; "linux" only where it is asked for."""


class KernelJob(msgspec.Struct, frozen=True, tag=True):
    """A kernel to look at: ``image``, and where they are known the folder of its modules and its .config.

    ``name`` is how it was asked for, ``release`` what it is, ``expected`` the scheme that it must have. ``ranges`` are
    those that batteries run on, by name; none: all. ``append`` is for the kernel's command line.
    """

    name: str
    release: str
    image: str
    modules: str | None
    config: str | None
    cpu: str
    expected: str | None = None
    ranges: tuple[str, ...] = ()
    append: str = ""
    schemes: tuple[str, ...] = ()
    """Those that this one kernel has, to be chosen by its parameter."""
    linux: bool = False
    """Whether a Linux of the same kernel is run as virtual machine, too."""

    @property
    def title(self) -> str:
        """Which run it is, for people."""
        return f"Linux {self.release}, -cpu {self.cpu}"

    @property
    def steps(self) -> int:
        """How many there are, for the progress."""
        return len(STEPS) if self.linux else len(STEPS) - 1

    @property
    def files(self) -> LinuxImage:
        """What is booted."""
        modules, config = (None if each is None else Path(each) for each in (self.modules, self.config))
        return LinuxImage(Path(self.image), modules, config, self.append)
