"""The interconnect: from what a guest did to what may arrive at the device, by Arm's rules and PCIe's.

    program = Program.of(burst(0x40, type=NORMAL_NC), dmb("oshst"), store(0x1000, 4, type=NGNRE))
    found = behaviours(program)
    found.count                         # how many legal behaviours there are, by dynamic programming
    for behaviour in found: ...         # all of them; found.sample(seed): one, each as likely as any other
    found.order.explain(0, 8)           # why effect 0 arrives before effect 8: rules with sections; () if it need not
    for tlp in tlps(found.effects, behaviour): ...

The words, from the guest to the device:

* `Program`: labelled events (`bridge.stream.Event`), written in a test (`store`, `load`, `dmb`, ...) or recorded; with
  what a stream cannot carry: dependencies, and which load of RAM read which store (`reads_from`).
* `Effect`: a single-copy-atomic unit of an access (DDI 0487 B2.2). Its number is its bit in every mask.
* `Order`: which effects arrive before which, and which may be gathered into one, as rows of bits. It comes from
  `Rules`, which are data: each has a name, its section, and its `Basis`: [A] architecture, [P] PCIe, [M] a choice of
  this model (`Model` has those that are numbers).
* `Behaviour`: the blocks in their order of arrival, each a mask of effects that arrive as one. An effect that is in no
  block never arrives: a read that was answered from a write buffer, or a speculative one that was not made.
* `Behaviours`: all legal ones of a program. With `passive` bytes (memory that the device does not look at when it is
  written), `reduced()` and `reduced_count` take those together that such a device cannot tell apart.
* `Invariant`: a predicate that is checked in C (`Behaviours.check`): `arrives_before`, `in_one_block`,
  `never_arrives`, `final_image`.
* `Tlp`: what is on the link. `Profile`: named write-combining buffers and root complexes, which pick within the legal
  set.

What a memory type that is unknown permits is everything; `Effects.notes` says so, and whatever else was assumed.
"""

from __future__ import annotations

from .behaviours import Behaviour, Behaviours, Checked, behaviours
from .effects import DEFAULT_MODEL, RAM, Effect, Effects, Model, Op, Place, effects
from .invariants import Invariant, arrives_before, final_image, in_one_block, never_arrives
from .link import Failure, Notice, arrivals, may_pass, who_notices
from .order import Edge, Order
from .profiles import PROFILES, Eviction, Profile
from .program import (
    Dependency,
    DependencyKind,
    Part,
    Program,
    atomic,
    burst,
    dc_zva,
    dgh,
    dma_write,
    dmb,
    dsb,
    isb,
    ldar,
    load,
    msi,
    on_vcpu,
    pair,
    ram_load,
    ram_store,
    speculative,
    st1,
    st64b,
    stlr,
    store,
    windows,
)
from .rules import RULES, Basis, Rule, Rules
from .speculation import Mapped, Reach, reaches, speculated
from .tlp import DEFAULT_LINK, Link, Packets, Tlp, TlpKind, completions, tlps

__all__ = [
    "DEFAULT_LINK",
    "DEFAULT_MODEL",
    "PROFILES",
    "RAM",
    "RULES",
    "Basis",
    "Behaviour",
    "Behaviours",
    "Checked",
    "Dependency",
    "DependencyKind",
    "Edge",
    "Effect",
    "Effects",
    "Eviction",
    "Failure",
    "Invariant",
    "Link",
    "Mapped",
    "Model",
    "Notice",
    "Op",
    "Order",
    "Packets",
    "Part",
    "Place",
    "Profile",
    "Program",
    "Reach",
    "Rule",
    "Rules",
    "Tlp",
    "TlpKind",
    "arrivals",
    "arrives_before",
    "atomic",
    "behaviours",
    "burst",
    "completions",
    "dc_zva",
    "dgh",
    "dma_write",
    "dmb",
    "dsb",
    "effects",
    "final_image",
    "in_one_block",
    "isb",
    "ldar",
    "load",
    "may_pass",
    "msi",
    "never_arrives",
    "on_vcpu",
    "pair",
    "ram_load",
    "ram_store",
    "reaches",
    "speculated",
    "speculative",
    "st1",
    "st64b",
    "stlr",
    "store",
    "tlps",
    "who_notices",
    "windows",
]
