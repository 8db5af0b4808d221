"""What was found of kernels, on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..results import Finding, Kernel, Matrix, Proof, Verdict


def verdict(kernel: Kernel) -> str:
    """One line: the scheme that the kernel implements, as far as could be told."""
    title = f"Linux {kernel.release}, -cpu {kernel.cpu}"
    if kernel.failure:
        return f"{title}: not looked at"
    if kernel.scheme is None:
        return f"{title}: none known; {kernel.judged_by} comes nearest, but {kernel.differs}"
    alike = f" (seen alike: {', '.join(kernel.alike)})" if kernel.alike else ""
    return f"{title}: {kernel.scheme}{alike}"


def show_kernels(matrix: Matrix, console: Console) -> None:
    """Print all kernels in one table, then for each the verdict, the proofs, and what it cannot show."""
    if matrix.proofs:
        console.print(_overview(matrix))
    for kernel in matrix.kernels:
        console.print(Text(verdict(kernel), "bold"))
        if kernel.failure:
            console.print(kernel.failure, style="red", highlight=False, markup=False)
            continue
        console.print(_proofs(kernel, _of(kernel, matrix)))
        own = f"{kernel.cpu}, Linux {kernel.release}"
        show_findings([finding for finding in matrix.findings if finding.cpu == own], console)
        for what, why in kernel.unobservable.items():
            console.print(f"not seen: {what}: {why}", style="dim", highlight=False, markup=False)


def _of(kernel: Kernel, matrix: Matrix) -> list[Proof]:
    run = (kernel.release, kernel.cpu)
    return [proof for proof in matrix.proofs if (proof.kernel, proof.cpu) == run]


def _overview(matrix: Matrix) -> Table:
    """One row a kernel: the stage 2 of each way to map a BAR, and whether unaligned stores as Normal-NC then work."""
    ways = list(dict.fromkeys(_short(proof) for proof in matrix.proofs))
    table = Table(title="stage 2 (MemAttr), and an unaligned store as Normal-NC", title_justify="left")
    for heading in ("kernel", "-cpu", "FWB", *ways, "scheme"):
        table.add_column(heading)
    for kernel in matrix.kernels:
        if not kernel.failure:
            found = [
                _outcome([proof for proof in _of(kernel, matrix) if _short(proof) == way and _as_nc(proof)])
                for way in ways
            ]
            table.add_row(kernel.release, kernel.cpu, str(kernel.fwb), *found, kernel.scheme or "none known")
    return table


_TYPE = ", s1="
"""Where the way of a proof also says as which type the guest mapped the pages."""


def _short(proof: Proof) -> str:
    return proof.way.partition(_TYPE)[0]


def _as_nc(proof: Proof) -> bool:
    return _TYPE not in proof.way or proof.way.endswith(f"{_TYPE}44")


def _outcome(proofs: list[Proof]) -> Text:
    words = {f"{proof.memattr} {'works' if proof.effect == 'works' else 'faults'}": None for proof in proofs}
    agrees = all(proof.agrees for proof in proofs)
    return Text(", ".join(words) or "-", "" if agrees else "bold white on red")


def _proofs(kernel: Kernel, proofs: list[Proof]) -> Table:
    title = f"{kernel.title}: stage 2 in memory, an unaligned store as Normal-NC, and the device"
    table = Table(title=title, title_justify="left")
    headings = ("mapped by", "", "range", "pages", "level", "S2", "wanted", "S2AP", "guest", "device", "")
    for heading in headings:
        table.add_column(heading)
    for proof in proofs:
        agrees = Text("agree", "green") if proof.agrees else Text("disagree", "bold white on red")
        table.add_row(
            proof.way, proof.role, proof.range, str(proof.pages), str(proof.level), proof.memattr, proof.wanted,
            proof.access, proof.effect, proof.device, agrees,
        )  # fmt: skip
    return table


def show_findings(findings: list[Finding], console: Console) -> None:
    """Print rules and scenarios: what came of each, or why nothing could."""
    if not findings:
        return
    table = Table(title="rules and scenarios", title_justify="left")
    for heading in ("", "what was tried", "what came of it", ""):
        table.add_column(heading)
    for finding in findings:
        style = {Verdict.AGREE: "green", Verdict.DISAGREE: "bold white on red"}.get(finding.verdict, "")
        text = finding.observed or finding.note
        table.add_row(finding.kind, finding.name, text, Text(finding.verdict, style))
    console.print(table)
