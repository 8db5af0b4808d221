"""Compare one experiment with its expectation: the fault or value that the guest saw, and what reached the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..bridge.attributes import Effect, Outcome
from .deviations import ACCESSES, EXCLUSIVE_STORE_READS, AccessDeviation, Deviation, Trial
from .expectation import Expectation, Instruction, Mapping
from .operation import Access, Element, pattern
from .operation import Kind as OpKind
from .order import doorbell_is_last, is_non_reordering, out_of_order
from .plan import Experiment, Result, ResultFlag, RunFlag, Status
from .results import Verdict

Elements = tuple[Element, ...]

# Plain numbers: a run judges hundreds of thousands of experiments, and an enumeration's operators are slow.
_DONE, _FAULT = int(Status.DONE), int(Status.FAULT)
_WARM, _SKIP_TLBI, _IN_WARM_UP = int(RunFlag.WARM), int(RunFlag.SKIP_TLBI), int(ResultFlag.IN_WARM_UP)


class Arrival(NamedTuple):
    """One access as the device saw it; ``offset`` is from the start of the experiment's slot."""

    write: bool
    offset: int
    size: int
    data: bytes


class Judgement(NamedTuple):
    """What came of one experiment. ``why`` is the reason of a deviation, or what is wrong."""

    observed: str
    verdict: Verdict
    why: str = ""
    deviation: Deviation | None = None
    missed: Deviation | None = None
    """A deviation that should have shown here and did not."""


def fault_of(result: Result) -> Outcome:
    """What the guest saw, as an outcome: the low 32 bits of ESR, all of them meant."""
    return Outcome(Effect.FAULT, result.level, result.esr & 0xFFFF_FFFF, 0xFFFF_FFFF)


def sizes(arrivals: Iterable[Arrival]) -> str:
    """Accesses as people read them: "8x1" (eight of one byte), reads as "r4", in order, equal neighbours counted."""
    parts: list[tuple[str, int]] = []
    for each in arrivals:
        text = f"{'' if each.write else 'r'}{each.size}"
        if parts and parts[-1][0] == text:
            parts[-1] = (text, parts[-1][1] + 1)
        else:
            parts.append((text, 1))
    return " ".join(text if count == 1 else f"{count}x{text}" for text, count in parts) or "nothing"


class Judge:
    """Judges the experiments of one operation under one mapping at one exception level.

    ``before`` is what the experiment's slot held, twice `SLOT` for an operation that crosses; ``arrivals`` are the
    transactions of a trapped range, ``after`` the final bytes of a mapped one. With neither, as for a device that keeps
    no record, faults alone are judged. ``rung`` is what was written to the doorbell, ``late`` how many accesses came
    after it.
    """

    def __init__(self, expectation: Expectation, mapping: Mapping) -> None:
        self.expectation = expectation
        self.op = expectation.op
        self.mapping = mapping
        self.expected = expectation.text
        self._in_order = is_non_reordering(mapping.effective) and not self.op.crossing
        self._doorbell_last = doorbell_is_last(self.op, mapping.effective, in_guest=mapping.s2 is not None)
        self._shapes: dict[tuple[object, ...], tuple[str, Deviation | None]] = {}

    def judge(
        self,
        experiment: Experiment,
        result: Result,
        before: bytes,
        *,
        arrivals: Sequence[Arrival] | None = None,
        after: bytes | None = None,
        rung: Sequence[bytes] = (),
        late: int = 0,
        far: int | None = None,
    ) -> Judgement:
        """Return the verdict. ``far`` is the virtual address of the slot."""
        observed = self._text(result)
        problem = self._integrity(experiment, result)
        if problem:
            return Judgement(observed, Verdict.DISAGREE, problem)
        warm = bool(experiment.flags & _WARM)
        if result.status == _FAULT:
            verdict = self._fault(result, warm)
            made = self.expectation.before(result.instruction)
            doubtful = self._crossing_elements(result)
            if far is not None and not far + self.op.offset <= result.far < far + self.op.offset + self.op.size:
                return Judgement(
                    observed, Verdict.DISAGREE, f"FAR must lie in the access at {far:#x}, not {result.far:#x}"
                )
        else:
            verdict = self._done(warm)
            made, doubtful = self.op.elements, ()
        if verdict.verdict is Verdict.DISAGREE:
            return Judgement(observed, verdict.verdict, verdict.why)
        problem, shown = self._doorbell(experiment, result, rung, late), verdict.deviation
        if not problem and arrivals is not None:
            problem, shown = self._transactions(experiment, before, made, doubtful, warm, list(arrivals))
            shown = verdict.deviation or shown
        elif not problem and after is not None:
            problem = self._bytes(experiment, before, made, doubtful, after)
        problem = problem or self._value(result, before, arrivals is not None or after is not None)
        if problem:
            return Judgement(observed, Verdict.DISAGREE, problem)
        missed = verdict.missed
        if arrivals is not None and shown is None and any(_exclusive_store(element) for element in made):
            missed = EXCLUSIVE_STORE_READS
        if shown is not None:
            return Judgement(observed, Verdict.KNOWN_DEVIATION, shown.reason, shown, missed)
        return Judgement(observed, verdict.verdict, verdict.why, None, missed)

    def _text(self, result: Result) -> str:
        if result.status == _DONE:
            return "works"
        if result.status == _FAULT:
            return str(fault_of(result))
        return Status(result.status).name.lower()

    def _integrity(self, experiment: Experiment, result: Result) -> str:
        """Whether the guest did what it was asked: right level, TLBI made, operation run."""
        if result.mark != experiment.mark:
            return f"the result must be of experiment {experiment.mark}, not {result.mark}"
        if result.status not in (_DONE, _FAULT):
            return f"the operation must be run, not end as {Status(result.status).name.lower()}"
        if result.ran_at != experiment.el:
            return f"the operation must run at EL{experiment.el}, not EL{result.ran_at}"
        if not result.tlbi and not experiment.flags & _SKIP_TLBI:
            return "a TLBI must precede the operation"
        if result.flags & _IN_WARM_UP:
            return "the aligned load that warms the TLB must work, not fault"
        return ""

    def _trial(self, instruction: Instruction, warm: bool) -> Trial:
        warm = warm or instruction is not self.expectation.instructions[0]
        vector = instruction.elements[0].access is Access.VECTOR
        return Trial(instruction.kind, vector, warm, self.mapping.s1.is_device, self.mapping.s2_device)

    def _deviation(self, instruction: Instruction, warm: bool) -> AccessDeviation | None:
        """The deviation that applies to an instruction which may, or must, fault by its memory type."""
        if not instruction.by_type or all(outcome.effect is not Effect.FAULT for outcome in instruction.permitted):
            return None
        trial = self._trial(instruction, warm)
        return next((each for each in ACCESSES if each.applies(trial)), None)

    def _fault(self, result: Result, warm: bool) -> Judgement:
        """A fault was seen. Every instruction before it must be allowed to have worked."""
        earlier = self._through([i for i in self.expectation.instructions if i.number < result.instruction], warm)
        if earlier.verdict is Verdict.DISAGREE:
            return earlier
        instruction = self.expectation.instruction(result.instruction)
        seen = fault_of(result)
        if instruction is None:
            return Judgement("", Verdict.DISAGREE, f"instruction {result.instruction} must not fault: {seen}")
        expected = self._deviation(instruction, warm)
        if any(outcome.matches(Effect.FAULT, result.level, result.esr) for outcome in instruction.permitted):
            # Where the architecture permits what the deviation predicts as well, seeing it is no miss.
            missed = None if instruction.may_work or (expected and expected.shown_by(seen)) else expected
            return Judgement("", earlier.verdict, earlier.why, earlier.deviation, missed)
        if expected is not None and expected.shown_by(seen):
            return Judgement("", Verdict.KNOWN_DEVIATION, expected.reason, expected)
        return Judgement("", Verdict.DISAGREE, f"expected {instruction.text}, not {seen}")

    def _done(self, warm: bool) -> Judgement:
        return self._through(self.expectation.instructions, warm)

    def _through(self, instructions: Iterable[Instruction], warm: bool) -> Judgement:
        """These instructions worked."""
        shown: AccessDeviation | None = None
        for instruction in instructions:
            if instruction.may_work:
                continue
            deviation = self._deviation(instruction, warm)
            if deviation is None or deviation.effect is not Effect.WORKS:
                return Judgement("", Verdict.DISAGREE, f"expected {instruction.text}, not works")
            shown = shown or deviation
        if shown is None:
            return Judgement("", Verdict.AGREE)
        return Judgement("", Verdict.KNOWN_DEVIATION, shown.reason, shown)

    def _crossing_elements(self, result: Result) -> tuple[Element, ...]:
        """Accesses that a fault may have left made, unmade or half made: those of a faulting, crossing instruction."""
        instruction = self.expectation.instruction(result.instruction)
        return instruction.elements if self.op.crossing and instruction else ()

    def _doorbell(self, experiment: Experiment, result: Result, rung: Sequence[bytes], late: int) -> str:
        """The doorbell must ring once, with its value, when the operation got that far; and last, where that is due."""
        rings = self.op.doorbell and result.status == _DONE
        wanted = [self.op.doorbell_value(pattern(experiment.mark))] if rings else []
        if list(rung) == wanted:
            return f"the doorbell must arrive last, not before {late} accesses" if late and self._doorbell_last else ""
        return f"the doorbell must get {[each.hex() for each in wanted]}, not {[each.hex() for each in rung]}"

    def _value(self, result: Result, before: bytes, known: bool) -> str:
        """What was loaded must be what was there."""
        if not known or result.status != _DONE or self.op.kind not in (OpKind.LOAD, OpKind.UPDATE):
            return ""
        wanted = self.op.value(before)
        if (result.value0, result.value1) == wanted:
            return ""
        return f"loaded value must be {wanted[0]:#x} {wanted[1]:#x}, not {result.value0:#x} {result.value1:#x}"

    def _bytes(self, experiment: Experiment, before: bytes, made: Elements, doubtful: Elements, after: bytes) -> str:
        """A mapped range must hold what the accesses stored; those that are doubtful may have been made or not."""
        data = pattern(experiment.mark)
        expected = self.op.stored(data, before, elements=made)
        if after in (expected, self.op.stored(data, expected, elements=doubtful)):
            return ""
        return f"the window must hold {expected.hex()}, not {after.hex()}"

    def _transactions(
        self,
        experiment: Experiment,
        before: bytes,
        made: Elements,
        doubtful: Elements,
        warm: bool,
        arrivals: list[Arrival],
    ) -> tuple[str, Deviation | None]:
        """The transactions must be the accesses, whole, once, with the right bytes; warm-up reads come first."""
        for _ in range((2 if self.op.crossing else 1) if warm else 0):
            if not arrivals or arrivals[0].write or arrivals[0].size != 8:
                return f"an 8-byte read must come first, not {sizes(arrivals[:1])}", None
            del arrivals[0]
        image = bytearray(before)
        for each in arrivals:
            if not 0 <= each.offset <= each.offset + each.size <= len(before):
                return f"a transaction must lie in the slot, not at {each.offset:+#x}", None
            if each.write:
                image[each.offset : each.offset + each.size] = each.data
            elif each.data != image[each.offset : each.offset + each.size]:
                return f"a read at {each.offset:+#x} must return what is there, not {each.data.hex()}", None
        shape = tuple((each.write, each.offset, each.size) for each in arrivals)
        found = self._shapes.get((shape, made, doubtful))
        if found is None:
            found = self._shapes[shape, made, doubtful] = self._shape(arrivals, len(before), made, doubtful)
        if found[0]:
            return found
        expected = self.op.stored(pattern(experiment.mark), before, elements=made)
        if image != expected:
            complete = self.op.stored(pattern(experiment.mark), expected, elements=doubtful)
            if any(byte not in pair for byte, pair in zip(image, zip(expected, complete, strict=True), strict=True)):
                return f"the device must hold {expected.hex()}, not {image.hex()}", None
        return found

    def _shape(
        self, arrivals: list[Arrival], length: int, made: Elements, doubtful: Elements
    ) -> tuple[str, Deviation | None]:
        """Each byte must be read and written as often as the accesses do; what is doubtful may have been made."""
        shown: Deviation | None = None
        counts = _counts(arrivals, length)
        wanted, most = _counts(made, length), _counts(made + doubtful, length)
        rereads = tuple(replace(element, write=False) for element in made if _exclusive_store(element))
        if rereads and counts == _counts(made + rereads, length):
            shown = EXCLUSIVE_STORE_READS
        elif not all(_between(low, seen, high) for low, seen, high in zip(wanted, counts, most, strict=True)):
            return f"the device must get {self._describe(made + doubtful)}, not {sizes(arrivals)}", None
        if self._in_order:
            found = out_of_order(made, [(each.write, each.offset) for each in arrivals])
            if found is not None:
                kind = "write" if arrivals[found].write else "read"
                return (
                    f"accesses must arrive in program order, not with the {kind} at {arrivals[found].offset:+#x} late",
                    None,
                )
        return self._atomicity(made, arrivals), shown

    def _describe(self, elements: Elements) -> str:
        return sizes(Arrival(e.write, e.offset, e.size, b"") for e in elements)

    def _atomicity(self, made: Elements, arrivals: list[Arrival]) -> str:
        """One aligned general register on non-Gathering memory is one transaction of its size (B2.10.2.1)."""
        if self.mapping.effective.gathering or len(made) != 1 or made[0].size > 8 or made[0].faults_on_device:
            return ""
        if (
            self.op.elements == made
            and self.op.elements[0].access.value in ("single", "ordered")
            and len(arrivals) != 1
        ):
            return f"one access to non-Gathering memory must be one transaction, not {sizes(arrivals)}"
        return ""


def _exclusive_store(element: Element) -> bool:
    return element.access is Access.EXCLUSIVE and element.write


def _between(low: list[int], seen: list[int], high: list[int]) -> bool:
    return seen == low or all(least <= count <= most for least, count, most in zip(low, seen, high, strict=True))


def _counts(accesses: Iterable[Element | Arrival], length: int) -> tuple[list[int], list[int]]:
    """How often each byte of the slot is read, and written.

    Nothing gathers under TCG, so the counts are exact for every type; a lane that gathers needs another rule.
    """
    counts = ([0] * length, [0] * length)
    for each in accesses:
        for at in range(each.offset, each.offset + each.size):
            counts[each.write][at] += 1
    return counts
