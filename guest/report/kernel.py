"""What was found of a kernel, on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..kvm import KernelReport
from ..results import Verdict


def verdict(report: KernelReport) -> str:
    """One line: the scheme that the kernel implements, as far as could be told."""
    if report.scheme is None:
        return f"Linux {report.kernel}: none known; {report.differs}"
    alike = f" (seen alike: {', '.join(report.alike)})" if report.alike else ""
    return f"Linux {report.kernel}: {report.scheme}{alike}"


def show(report: KernelReport, console: Console) -> None:
    """Print the verdict, the proofs, and what disagrees."""
    console.print(Text(verdict(report), "bold"))
    title = f"-cpu {report.cpu}, FWB={report.fwb}: stage 2 in memory, an unaligned store as Normal-NC, and the device"
    table = Table(title=title, title_justify="left")
    for heading in (
        "mapped by",
        "range",
        "pages",
        "level",
        "S2",
        "wanted",
        "S2AP",
        "the guest saw",
        "the device got",
        "",
    ):
        table.add_column(heading)
    for proof in report.proofs:
        agrees = proof.story and proof.memattr == proof.wanted
        table.add_row(
            proof.way, proof.range, str(proof.pages), str(proof.level), proof.memattr, proof.wanted, proof.access,
            proof.effect, proof.device, Text("agree", "green") if agrees else Text("disagree", "bold white on red"),
        )  # fmt: skip
    console.print(table)
    _show_findings(report, console)
    for problem in report.problems[:40]:
        console.print(Text.assemble(("disagree:", "bold red"), f" {problem}"))
    if len(report.problems) > 40:
        console.print(f"... and {len(report.problems) - 40} more (the JSON file has all)")
    console.print(f"{report.experiments:,} experiments, {report.transactions:,} transactions at the device.")


def _show_findings(report: KernelReport, console: Console) -> None:
    """Print rules and scenarios: what came of each, or why nothing could."""
    table = Table(title="rules and scenarios", title_justify="left")
    for heading in ("", "what was tried", "what came of it", ""):
        table.add_column(heading)
    for finding in report.findings:
        style = {Verdict.AGREE: "green", Verdict.DISAGREE: "bold white on red"}.get(finding.verdict, "")
        text = finding.observed or finding.note
        table.add_row(finding.kind, finding.name, text, Text(finding.verdict, style))
    console.print(table)
