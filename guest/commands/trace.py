"""`pyvfio-user trace`: what a traced guest did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from .common import console, timeline_options, write_timeline


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--symbols",
    "-s",
    "symbol_files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="ELF|MAP",
    help="Names functions: an ELF, a System.map, or a copy of the guest's /proc/kallsyms; repeatable.",
)
@click.option("--bar", "bars", multiple=True, type=click.IntRange(0, 5), help="Only this BAR (default: all).")
@click.option("--config", is_flag=True, help="Configuration space, too.")
@click.option("--functions", is_flag=True, help="One line for all accesses of a function to the same BAR and type.")
@timeline_options
@click.option(
    "--profile",
    default="wc-64x4",
    show_default=True,
    metavar="P",
    help="The write buffers in the timeline; none: only what the guest did.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="What the profile does by chance.")
def trace(
    file: Path,
    symbol_files: Sequence[Path],
    bars: Sequence[int],
    config: bool,
    functions: bool,
    page: Path | None,
    perfetto: Path | None,
    most: int | None,
    profile: str,
    seed: int,
) -> None:
    """Show a trace that `qemu --trace` recorded: who accessed what, as which memory type, with which barriers between.

    S1 is the guest's stage 1, S2 the MemAttr of its stage 2 (a prime: FWB=1), type what the architecture makes of both.

    With --html or --perfetto it is drawn instead, with the write buffers of a profile and the TLPs that come of it:
    what the memory types permit, not what was seen.
    """
    from ...bridge.interconnect.profiles import find_profile
    from ...bridge.stream import read_trace
    from ...bridge.timeline import recording
    from ..report.trace import chosen, show_events, show_functions, show_summary
    from ..symbols import load_symbols

    symbols = load_symbols(symbol_files)
    events = list(read_trace(file))
    shown = list(chosen(events, config=config, bars=frozenset(bars)))
    if page or perfetto:
        made = None if profile == "none" else find_profile(profile)
        timeline = recording(shown, made, seed, title=f"trace {file.name}", most=most, by=symbols.place)
        write_timeline(timeline, page, perfetto)
        show_summary(file, events, len(shown), console())
        return
    show = show_functions if functions else show_events
    show(shown, symbols, console())
    show_summary(file, events, len(shown), console())
