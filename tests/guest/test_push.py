"""The device's checker of the push loop: a sound run passes, and each wrong is found and named."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvfio_user.bridge.recorder import Transaction
from pyvfio_user.guest.push import STORES, Delivery, check_log, check_window
from pyvfio_user.guest.workload import Barrier, Idiom, Workload, entry

WINDOW, DOORBELL = 0x2_0000, 0x4000
FOUR = Workload(
    el=0,
    idiom=Idiom.ST1,
    barrier=Barrier.DMB,
    window_s1=4,
    window_bar=2,
    window_offset=WINDOW,
    doorbell_s1=1,
    doorbell_bar=0,
    doorbell_offset=DOORBELL,
    count=4,
    slots=3,
)


def write(region: int, offset: int, data: bytes) -> Transaction:
    return Transaction(0, True, region, offset, len(data), data)


def ring(value: int) -> Transaction:
    return write(0, DOORBELL, value.to_bytes(4, "little"))


def pieces(sequence: int, workload: Workload = FOUR, width: int = 8) -> list[Transaction]:
    """An entry as TCG makes it: each store in pieces of at most ``width`` bytes."""
    start = workload.window_offset + sequence % workload.slots * workload.stride
    return [
        write(workload.window_bar, start + at, entry(sequence)[at : min(at + width, store.offset + store.size)])
        for store in STORES[workload.idiom]
        for at in range(store.offset, store.offset + store.size, width)
    ]


def sound(workload: Workload = FOUR) -> list[list[Transaction]]:
    """For each entry, its pieces and its doorbell."""
    sequences = range(workload.first, workload.first + workload.count)
    return [[*pieces(sequence, workload), ring(sequence + 1)] for sequence in sequences]


def check(*groups: list[Transaction], pushed: int = 4) -> Delivery:
    return check_log(FOUR, [each for group in groups for each in group], pushed)


class TestASoundLog:
    def test_every_entry_is_whole_and_its_transactions_are_counted(self) -> None:
        assert check(*sound()) == Delivery(4, (8, 8, 8, 8), ())

    @given(
        st.sampled_from(Idiom), st.sampled_from([1, 2, 4, 8]), st.integers(1, 20), st.integers(1, 7), st.integers(0, 99)
    )
    def test_whatever_the_idiom_the_width_and_the_reuse_of_slots(
        self, idiom: Idiom, width: int, count: int, slots: int, first: int
    ) -> None:
        workload = replace(FOUR, idiom=idiom, count=count, slots=slots, first=first)
        log = [
            each
            for sequence in range(first, first + count)
            for each in [*pieces(sequence, workload, width), ring(sequence + 1)]
        ]
        found = check_log(workload, log, count)
        assert (found.whole, found.problems) == (count, ())
        assert set(found.transactions) == {len(log) // count - 1}

    @pytest.mark.parametrize(("idiom", "stored"), [(idiom, 80 if idiom is Idiom.MEMCPY else 64) for idiom in Idiom])
    def test_the_stores_of_an_idiom_cover_an_entry(self, idiom: Idiom, stored: int) -> None:
        assert sum(store.size for store in STORES[idiom]) == stored
        assert {at for s in STORES[idiom] for at in range(s.offset, s.offset + s.size)} == set(range(64))


class TestWrongs:
    """Each test damages a sound log in one way."""

    def problems(self, *groups: list[Transaction], pushed: int = 4) -> tuple[str, ...]:
        return check(*groups, pushed=pushed).problems

    def test_a_missing_entry(self) -> None:
        a, b, c, d = sound()
        found = check(a, b[-1:], c, d)
        assert found == Delivery(3, (8, 8, 8), ("entry 1 must arrive, not be missing",))

    def test_a_torn_entry(self) -> None:
        a, b, c, d = sound()
        found = check(a, b[1:], c, d)
        assert found == Delivery(3, (8, 8, 8), ("entry 1 must arrive, not be torn: 8 of 64 bytes never came",))

    def test_wrong_bytes(self) -> None:
        a, b, c, d = sound()
        b[2] = b[2]._replace(data=bytes(8))
        assert self.problems(a, b, c, d) == (
            "slot 1 must be given bytes of its entry at 16, not 00 00 00 00 00 00 00 00",
            "entry 1 must arrive, not be torn: 8 of 64 bytes never came",
        )

    def test_a_piece_in_the_slot_of_another_entry(self) -> None:
        a, b, c, d = sound()
        b[0] = b[0]._replace(offset=WINDOW + 128)
        assert self.problems(a, b, c, d) == (
            f"slot 2 must be given bytes of its entry at 0, not {entry(1)[:8].hex(' ')}",
            "entry 1 must arrive, not be torn: 8 of 64 bytes never came",
        )

    def test_a_duplicated_entry(self) -> None:
        a, b, c, d = sound()
        problem = "entry 1 must arrive once, not have byte 0 more often than it was stored"
        assert self.problems(a, b[:-1], b, c, d) == (problem,)
        assert self.problems(a, b, b[:-1], c, d) == (problem,)

    def test_a_duplicated_piece(self) -> None:
        a, b, c, d = sound()
        problem = "entry 1 must arrive once, not have byte 40 more often than it was stored"
        assert self.problems(a, [*b[:5], b[5], *b[5:]], c, d) == (problem,)

    def test_a_piece_of_an_overlapping_copy_may_come_as_often_as_it_is_stored(self) -> None:
        workload = replace(FOUR, idiom=Idiom.MEMCPY, count=1)
        log = [*pieces(0, workload), ring(1)]
        assert check_log(workload, log, 1).problems == ()
        (problem,) = check_log(workload, [log[0], *log], 1).problems
        assert problem == "entry 0 must arrive once, not have byte 0 more often than it was stored"

    def test_entries_out_of_order(self) -> None:
        a, b, c, d = sound()
        assert self.problems(a, c[:-1], b, c[-1:], d) == (
            "entry 2 must come after the doorbell of entry 1, not before it",
        )

    def test_an_entry_ahead_of_the_one_that_still_has_its_slot(self) -> None:
        a, b, c, d = sound()
        assert self.problems(d[:-1], a, b, c, d[-1:]) == (
            "entry 3 must come after the doorbell of entry 0, not before it",
        )

    def test_an_early_doorbell(self) -> None:
        a, b, c, d = sound()
        problem = "the doorbell of entry 1 must ring after the entry is whole, not before"
        assert self.problems(a, [*b[:4], b[-1], *b[4:-1]], c, d) == (problem,)
        assert self.problems(a, b[-1:], b[:-1], c, d) == (problem,)

    def test_a_missing_doorbell(self) -> None:
        a, b, c, d = sound()
        assert self.problems(a, b[:-1], c, d) == (
            "entry 2 must come after the doorbell of entry 1, not before it",
            "entry 1 must be followed by its doorbell, not by another's",
        )
        assert self.problems(a, b, c, d[:-1]) == ("entry 3 must be followed by its doorbell, not by nothing",)

    @pytest.mark.parametrize("value", [0, 77, 0xFFFF_FFFF])
    def test_a_doorbell_with_a_wrong_value(self, value: int) -> None:
        a, b, c, d = sound()
        assert self.problems(a, [*b[:-1], ring(value)], c, d) == (
            f"the doorbell of entry 1 must have the value 2, not {value}",
        )

    def test_a_doorbell_that_rings_again(self) -> None:
        a, b, c, d = sound()
        assert self.problems(a, b, b[-1:], c, d) == ("the doorbell of entry 2 must have the value 3, not 2",)
        assert self.problems(a, b, c, d, d[-1:]) == ("the doorbell must ring 4 times, not once more with 4",)

    def test_a_doorbell_of_another_size(self) -> None:
        a, b, c, d = sound()
        b[-1] = write(0, DOORBELL, b"\x02\x00")
        assert self.problems(a, b, c, d) == ("the doorbell must be rung with 4 bytes, not 2",)

    def test_anything_else_in_the_log(self) -> None:
        beyond, other = write(2, WINDOW + 3 * 64, b"\1"), write(0, DOORBELL + 0x100, b"\1\0\0\0")
        read = Transaction(0, False, 2, WINDOW, 1, b"\0")
        for stray, text in (
            (beyond, "#0 region 2 +0x200c0 <- 01"),
            (other, "#0 region 0 +0x4100 <- 01 00 00 00"),
            (read, "#0 region 2 +0x20000 -> 00"),
        ):
            assert self.problems(*sound(), [stray]) == (f"only entries and doorbells must arrive, not {text}",)

    def test_fewer_than_the_guest_says(self) -> None:
        a, b, _, _ = sound()
        assert self.problems(a, b, pushed=3) == ("entry 2 must be followed by its doorbell, not by nothing",)

    @given(st.data())
    def test_one_lost_transaction_is_always_noticed(self, data: st.DataObject) -> None:
        idiom = data.draw(st.sampled_from([each for each in Idiom if each is not Idiom.MEMCPY]))
        workload = replace(FOUR, idiom=idiom, count=7)
        log = [each for group in sound(workload) for each in group]
        del log[data.draw(st.integers(0, len(log) - 1))]
        assert check_log(workload, log, 7).problems


class TestAFault:
    """The second store of an overlapping copy faults: the first one's bytes are there, no doorbell rang."""

    workload = replace(FOUR, idiom=Idiom.MEMCPY)

    def test_what_went_before_is_there(self) -> None:
        assert check_log(self.workload, pieces(0, self.workload)[:2], 0, stores=1) == Delivery(0, (), ())

    def test_less_or_more_is_wrong(self) -> None:
        log = pieces(0, self.workload)
        assert check_log(self.workload, log[:1], 0, stores=1).problems == ("entry 0 must end after 16 bytes, not 8",)
        assert check_log(self.workload, log[:4], 0, stores=1).problems == ("entry 0 must end after 16 bytes, not 29",)

    def test_in_a_mapped_window_too(self) -> None:
        window = entry(0)[:16] + bytes(176)
        assert check_window(self.workload, [], window, 0, stores=1) == Delivery(0, (), ())
        wrong = check_window(self.workload, [], bytes(192), 0, stores=1)
        assert wrong.problems == ("the window must hold ff at 0x4, not 00",)


RINGS = [ring(number) for number in (1, 2, 3, 4)]


class TestAMappedWindow:
    mapped = replace(FOUR, slots=6)

    def contents(self, *sequences: int | None) -> bytes:
        return b"".join(bytes(64) if n is None else entry(n) for n in sequences)

    def check(self, window: bytes, rings: list[Transaction] | None = None) -> tuple[str, ...]:
        return check_window(self.mapped, RINGS if rings is None else rings, window, 4).problems

    def test_every_entry_is_in_its_slot(self) -> None:
        window = self.contents(0, 1, 2, 3, None, None)
        assert check_window(self.mapped, RINGS, window, 4) == Delivery(4, (), ())

    def test_the_last_entry_of_a_slot_that_is_used_again(self) -> None:
        assert check_window(FOUR, RINGS, self.contents(3, 1, 2), 4) == Delivery(3, (), ())

    @pytest.mark.parametrize(
        ("slot", "content", "found"),
        [(2, bytes(64), "nothing"), (2, entry(2)[:63] + b"\0", "a torn one"), (2, entry(1), "entry 1")],
    )
    def test_a_wrong_slot(self, slot: int, content: bytes, found: str) -> None:
        window = bytearray(self.contents(0, 1, 2, 3, None, None))
        window[64 * slot : 64 * slot + 64] = content
        assert self.check(bytes(window)) == (f"slot {slot} must hold entry {slot}, not {found}",)

    def test_bytes_where_nothing_was_written(self) -> None:
        window = self.contents(0, 1, 2, 3, None, 5)
        assert self.check(window) == ("the window must hold 00 at 0x140, not 05",)

    def test_doorbells(self) -> None:
        window = self.contents(0, 1, 2, 3, None, None)
        one, two, three, four = RINGS
        assert self.check(window, [one, three, four]) == ("entry 1 must be followed by its doorbell, not by another's",)
        assert self.check(window, [one, two, three]) == ("entry 3 must be followed by its doorbell, not by nothing",)
        assert self.check(window, [one, ring(9), three, four]) == (
            "the doorbell of entry 1 must have the value 2, not 9",
        )
        stray = write(2, WINDOW, b"\0")
        assert self.check(window, [one, two, three, four, stray]) == (
            "only doorbells must arrive, not #0 region 2 +0x20000 <- 00",
        )
