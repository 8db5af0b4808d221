"""Which jobs a matrix has, and which kernels: those named, or those that need not be fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyvfio_user.bridge.errors import DefinitionError
from pyvfio_user.guest import matrix_view
from pyvfio_user.guest.kvm import kernels
from pyvfio_user.guest.kvm.job import KernelJob
from pyvfio_user.guest.kvm.kernels import EXPECTED, kernel_jobs
from pyvfio_user.guest.matrix_view import choose_jobs
from pyvfio_user.guest.provision.errors import ProvisionError
from pyvfio_user.guest.provision.kernel import RELEASES, Kernel


@pytest.fixture(autouse=True)
def debian(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """6.1 and 6.12 are cached; the kernels that were asked for."""
    asked: list[str] = []

    def provide(progress: object, name: str) -> Kernel:
        asked.append(name)
        return Kernel(Path(f"/cache/vmlinuz-{name}.0"), Path(f"/cache/modules-{name}.0"), f"{name}.0")

    monkeypatch.setattr(kernels, "provide_kernel", provide)
    monkeypatch.setattr(matrix_view, "cached_kernels", lambda: ["6.1", "6.12"])
    return asked


def chosen(*lanes: str, schemes: tuple[str, ...] = (), named: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    """The lanes of the jobs, each once, and the kernels."""
    jobs = choose_jobs(lanes, schemes, (), (), named)
    names = [job.name for job in jobs if isinstance(job, KernelJob)]
    return sorted({"kvm" if isinstance(job, KernelJob) else "el2" for job in jobs}), names


def test_nothing_named_is_all_that_need_not_be_fetched() -> None:
    assert chosen() == (["el2", "kvm"], ["6.1", "6.12"])


def test_a_scheme_brings_the_kernels_that_have_it() -> None:
    assert chosen(schemes=("status-quo",)) == (["el2", "kvm"], ["6.1"])
    assert chosen(schemes=("trap",)) == (["el2"], [])


def test_a_lane_that_is_named() -> None:
    assert chosen("el2") == (["el2"], [])
    assert chosen("kvm") == (["kvm"], ["6.1", "6.12", "7.3"])
    assert chosen("el2", "kvm", named=("7.3",)) == (["el2", "kvm"], ["7.3"])
    assert chosen(named=("7.3", "7.3")) == (["el2", "kvm"], ["7.3"])
    with pytest.raises(DefinitionError, match=r"^lane must be one of el2, kvm, not model$"):
        chosen("model")


def test_each_release_has_an_expectation_by_the_history_of_linux() -> None:
    """KVM's rule was relaxed by what became VM_ALLOW_ANY_UNCACHED in 6.9."""
    for name in RELEASES:
        major, minor = map(int, name.split("."))
        assert EXPECTED[name] == ("status-quo" if (major, minor) < (6, 9) else "vma-allow-any-uncached")


def test_a_job_a_kernel_and_cpu() -> None:
    jobs = list(kernel_jobs(["6.1", "6.12"], ["max", "neoverse-n1"], ["fifo"]))
    assert [(job.title, job.expected) for job in jobs] == [
        ("Linux 6.1.0, -cpu max", "status-quo"),
        ("Linux 6.1.0, -cpu neoverse-n1", "status-quo"),
        ("Linux 6.12.0, -cpu max", "vma-allow-any-uncached"),
        ("Linux 6.12.0, -cpu neoverse-n1", "vma-allow-any-uncached"),
    ]
    assert {job.ranges for job in jobs} == {("fifo",)}
    assert (jobs[0].modules, jobs[0].config) == ("/cache/modules-6.1.0", "/cache/config-6.1.0")


def test_a_kernel_of_ones_own(debian: list[str]) -> None:
    (job,) = kernel_jobs(["build/Image"], modules=Path("modules"), expect="trap", append="quiet")
    assert (job.name, job.release, job.image, job.modules, job.config) == (
        "build/Image", "Image", "build/Image", "modules", None
    )  # fmt: skip
    assert (job.expected, job.append, job.cpu) == ("trap", "quiet", "max")
    assert debian == []


def test_modules_and_a_config_are_those_of_an_image() -> None:
    """They would else be left aside."""
    what = r"^--%s must go with the path of an Image, not with 6\.1, schemes, which has its own$"
    with pytest.raises(DefinitionError, match=what % "modules"):
        list(kernel_jobs(["6.1", "schemes"], modules=Path("named")))
    with pytest.raises(DefinitionError, match=what % "config"):
        list(kernel_jobs(["6.1", "schemes"], config=Path("named")))


def test_an_unknown_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(
        ProvisionError, match=r"^kernel must be one of 6\.1, 6\.12, 7\.3, schemes, or the path of an Image, not 5"
    ):
        list(kernel_jobs(["5"]))
