"""`python -m tests.guest.orders.bursts` writes the table of 64-byte bursts into CONTRIBUTING.md.

The bursts are what the bare-metal guest does under QEMU, recorded by the tracer; the figures are of a profile's runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pyvfio_user.bridge import loop
from pyvfio_user.bridge.attributes import GRE, NGNRE, NORMAL_NC
from pyvfio_user.bridge.interconnect import PROFILES, Order, Packets, Profile, Program, behaviours

from .recorded import recorder

CONTRIBUTING = Path(__file__).parents[3] / "CONTRIBUTING.md"
BEGIN, END = "<!-- made by python -m tests.guest.orders.bursts -->\n", "<!-- until here -->\n"

BURSTS: Mapping[str, str] = {"8 x STR, DGH": "iowrite64-copy", "ST1 of four registers": "st1-4x16b"}
"""The operations of the guest's battery: Linux' __iowrite64_copy, and the mlx5 self-test's 64 bytes by NEON."""
TYPES = {"NC": NORMAL_NC, "GRE": GRE, "nGnRE": NGNRE}
SHOWN = ("wc-64x4", "wc-64x4-partial", "wc-64x4-reorder", "rc-splits-4", "in-order")
SEEDS = 10_000

Recorded = Mapping[tuple[str, str], Program]
"""What the guest did, by burst and type."""


async def record() -> Recorded:
    """Run each burst in the guest under each type."""
    async with recorder() as guest:
        return {
            (burst, name): await guest.run(op, kind) for burst, op in BURSTS.items() for name, kind in TYPES.items()
        }


class Arrivals:
    """In how many TLPs a burst came, of some seeds of a profile; `never`: no legal behaviour brings it as one.

    What has one legal behaviour is run once.
    """

    def __init__(self, program: Program, profile: Profile, seeds: int = SEEDS) -> None:
        order = Order(program)
        packets = Packets(order.effects, profile.link)
        self.seeds = seeds if behaviours(program).count > 1 else 1
        self.tlps: Counter[int] = Counter()
        self.sizes: Counter[int] = Counter()
        self.instructions = 0
        """The most instructions that one TLP has something of."""
        for seed in range(self.seeds):
            sent = packets(profile.run(order, seed))
            self.tlps[len(sent)] += 1
            self.sizes.update(4 * tlp.length for tlp in sent)
            for tlp in sent:
                merged = {effect.instruction for effect in order.effects.of(tlp.effects)}
                self.instructions = max(self.instructions, len(merged))
        every = (1 << len(order.effects)) - 1
        self.never = any(every & ~(row | 1 << index) for index, row in enumerate(order.rows.gather))

    def __str__(self) -> str:
        """As in `86.7 %, in 1 to 3`: how often it was one TLP of 64 bytes, and in how many TLPs it came."""
        least, most = min(self.tlps), max(self.tlps)
        often = "never" if self.never else f"{100 * self.sizes[64] / self.seeds:.1f} %"
        return f"{often}, in {least}" + (f" to {most}" if most > least else "")


def table(recorded: Recorded, seeds: int = SEEDS) -> str:
    """The table: a row a burst and profile. Where NC and GRE have one order, they are run once."""
    lines = [f"| burst | profile | {' | '.join(TYPES)} |", "|---|---|---|---|---|"]
    for burst in BURSTS:
        for number, name in enumerate(SHOWN):
            found: dict[object, str] = {}
            cells = []
            for kind in TYPES:
                program = recorded[burst, kind]
                key = Order(program).rows, kind in ("NC", "GRE")
                if key not in found:
                    found[key] = str(Arrivals(program, PROFILES[name], seeds))
                cells.append(found[key])
            lines.append(f"| {burst if number == 0 else ''} | `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def written(text: str, made: str) -> str:
    """A text with the generated table made anew."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    CONTRIBUTING.write_text(written(CONTRIBUTING.read_text(), table(loop.run(record()))))
