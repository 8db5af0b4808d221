"""The report of a run: the terminal's tables, and one HTML file that needs nothing else."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from rich.console import Console

from pyvfio_user.bridge.schemes import SCHEMES
from pyvfio_user.guest.matrix_view import _type_names
from pyvfio_user.guest.orders.answers import QUESTIONS as ORDER_QUESTIONS
from pyvfio_user.guest.orders.results import Ordering, OrderPair, Orders, SpeculativeRead
from pyvfio_user.guest.report import HONESTY, html, terminal
from pyvfio_user.guest.report.orders import LEGEND, compact
from pyvfio_user.guest.report.terminal import short, summary
from pyvfio_user.guest.results import Cell, Finding, Kernel, Matrix, Proof, Verdict
from pyvfio_user.guest.scorecard import QUESTIONS, answers

from .cells import CELL, KERNEL, ORDERS, PROOF, cell, host, matrix


def shown(made: Matrix, width: int = 240) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    terminal.show(made, console, {**QUESTIONS, **ORDER_QUESTIONS} if made.orders else QUESTIONS)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def rows(made: Matrix) -> list[list[str]]:
    """The cells of the tables' rows, without their headings."""
    return [[each.strip() for each in line.split("│")[1:-1]] for line in shown(made) if line.startswith("│")]


class TestShort:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (True, "y"),
            (False, "n"),
            (None, "-"),
            ("page", "page"),
            (3, "3"),
            ([], "0"),
            (["a", "b"], "2"),
            ({"a": True, "b": False}, "yn"),
            ({"a": True, "b": None, "c": ["x"]}, "y-1"),
            ({"a": True, "b": "page"}, "y/page"),
            ({"bar0": {"c": True, "n": 1}, "bar2": {"c": True, "n": 12}}, "y1/y/12"),
        ],
    )
    def test_it(self, value: Any, text: str) -> None:
        assert short(value) == text


class TestLabels:
    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({}, "04"),
            ({"observed": "0c", "verdict": Verdict.KNOWN_DEVIATION}, "0c≠04"),
            ({"observed": "44", "verdict": Verdict.DISAGREE}, "44≠04"),
            ({"observed": None, "verdict": Verdict.DISAGREE}, "-≠04"),
            ({"accesses": Verdict.KNOWN_DEVIATION}, "04·"),
            ({"accesses": Verdict.DISAGREE}, "04!"),
            ({"verdict": Verdict.REFUSED, "observed": None, "architecture": None, "s2": None}, "refused"),
            ({"verdict": Verdict.UNOBSERVABLE, "observed": None}, "-"),
        ],
    )
    def test_a_cell(self, changes: dict[str, Any], text: str) -> None:
        (found,) = rows(matrix([cell(**changes)]))
        assert found[-1] == text

    @pytest.mark.parametrize(
        ("changes", "text"),
        [({}, "00"), ({"type": None}, "-"), ({"accesses": Verdict.DISAGREE}, "00!"), ({"range": "msix"}, "-")],
    )
    def test_the_hosts_mapping(self, changes: dict[str, Any], text: str) -> None:
        (found,) = rows(matrix(host=(host(**changes),)))
        assert found == ["status-quo", "strict", text, "1", "04"]

    @pytest.mark.parametrize(
        ("case", "title"),
        [("asking", "trap"), ("changed", "trap (after the change)")],
    )
    def test_the_case(self, case: str, title: str) -> None:
        (found,) = rows(matrix([cell(scheme="trap", case=case)]))
        assert found[0] == title


class TestTables:
    @pytest.mark.parametrize("changes", [{"case": "nothing"}, {"range": "bar0+0xc000"}])
    def test_what_only_the_reports_have_is_said(self, changes: dict[str, str]) -> None:
        made = matrix([cell(), cell(**changes)])
        assert len(rows(made)) == 1
        assert "Only in the JSON and HTML: a VMM that asks for nothing, pages that no range claims." in shown(made)

    def test_ranges_that_came_out_alike_are_one_row(self) -> None:
        cells = [
            cell(range=name, s1=s1, observed=observed)
            for name, observed in (("strict", "04"), ("msix", "0c"), ("dynamic[1]", "04"), ("control", "04"))
            for s1 in ("00", "44")
        ]
        hosts = tuple(host(range=name) for name in ("strict", "msix", "dynamic[1]"))
        assert rows(matrix(cells, host=hosts)) == [
            ["status-quo", "strict, dynamic[1]", "00", "1", "04", "04"],
            ["", "msix", "00", "1", "0c≠04", "0c≠04"],
            ["", "control", "-", "1", "04", "04"],
        ]

    def test_another_stage_2_or_verdict_is_another_row(self) -> None:
        cells = [cell(range="a"), cell(range="b", s2="2"), cell(range="c", accesses=Verdict.KNOWN_DEVIATION)]
        assert [row[1] for row in rows(matrix(cells, host=()))] == ["a", "b", "c"]

    def test_each_cpu_and_setting_has_a_table(self) -> None:
        cells = [cell(), cell(fwb=0), cell(cpu="cortex-a76", fwb=0)]
        titles = [line.partition(":")[0] for line in shown(matrix(cells)) if line.startswith("lane")]
        assert titles == ["lane el2, -cpu max, FWB=1", "lane el2, -cpu max, FWB=0", "lane el2, -cpu cortex-a76, FWB=0"]
        # The host's mapping is that of the same CPU and setting.
        assert [row[2] for row in rows(matrix(cells))] == ["00", "-", "-"]

    def test_the_scorecard_marks_what_was_seen(self) -> None:
        card = answers(["status-quo"], [CELL], [])
        card["status-quo"]["host-process"] |= {"how": "seen", "lane": "el2"}
        card["status-quo"]["cacheable"] |= {"how": "seen", "lane": "kvm"}
        card["status-quo"]["two-ranges"] |= {"how": "seen", "lane": "el2, kvm"}
        (found,) = [row for row in rows(matrix(scorecard=card)) if len(row) == 16]
        assert found[0] == "status-quo"
        assert found[1 + list(QUESTIONS).index("host-process")] == "no*"
        assert found[1 + list(QUESTIONS).index("cacheable")] == "no+"
        assert found[1 + list(QUESTIONS).index("two-ranges")] == "n/none*+"
        assert found[1 + list(QUESTIONS).index("asks-nothing")] == "yy"
        assert "  cacheable: Can it give a cacheable mapping?" in shown(matrix(scorecard=card))
        assert "  platform: Is a platform device unaffected? (guest, host)" in shown(matrix(scorecard=card))


class TestOrders:
    """What is modelled: columns of the schemes' table, a table of its own, and said so everywhere."""

    def made(self, **changes: Any) -> Matrix:
        cells = [
            cell(s1="44", architecture="44", observed="44", s2="5", orders="44>04"),
            cell(s1="04", s2="5", orders="04>04"),
        ]
        return matrix(cells, orders=ORDERS, **changes)

    def test_without_them_there_are_no_columns(self) -> None:
        lines = shown(matrix())
        assert not any("model" in line or "orders" in line for line in lines)

    def test_a_row_of_the_schemes_has_the_freest_of_its_types(self) -> None:
        made = self.made()
        assert rows(made)[0][-3:] == ["86.3%", "7.1%", "gh"]
        heads = [[each.strip() for each in line.split("┃")[-4:-1]] for line in shown(made) if line.startswith("┃")]
        assert heads[:2] == [["one TLP", "bell 1st", "spec."], ["(model)"] * 3]
        assert LEGEND.startswith("(model): modelled, not seen")
        assert any(line.startswith(LEGEND[:60]) for line in shown(made))

    def test_a_row_of_one_type_that_cannot_has_never(self) -> None:
        made = matrix([cell(s1="04", orders="04>04", range="fifo")], host=(), orders=ORDERS)
        assert rows(made)[0][-3:] == ["never", "never", "-"]

    def test_a_row_that_is_no_place_for_a_payload_has_dashes(self) -> None:
        assert rows(matrix([cell(range="platform")], orders=ORDERS))[0][-3:] == ["-", "-", "-"]

    def test_programs_and_types_that_came_out_alike_are_one(self) -> None:
        lines = shown(self.made())
        title = lines.index("orders (modelled), profile wc-64x4, 1,000 seeds")
        assert lines[title + 1].startswith("legal behaviours / one 64-byte TLP (else torn; TLPs, least and most) / ")
        assert rows(self.made())[1:] == [
            ["8 x STR x", "none", "3,816,548 / 86.3% (1-3) / 7.1%", "1 / never (8) / never", "8x8, doorbell"],
            ["", "dmb oshst", "545,835 / 86.3% (1-3) / never", "1 / never (8) / never", "not run"],
            ["memcpy", "none, dmb oshst", "too many / 0.0% (2-6) / 0.0%", "faults at store 2", "not run"],
        ]
        (heads,) = (line for line in lines if line.startswith("┃ payload"))
        assert [each.strip() for each in heads.split("┃")[3:5]] == ["NC > nGnRE", "nGnRE > nGnRE"]

    def test_what_was_seen_is_said_by_type_where_it_differs(self) -> None:
        seen = {"44>04": "2x8 48x1 2x8, doorbell", "04>04": "2x8, fault"}
        pairs = {}
        for key, pair in ORDERS.pairs.items():
            said = [seen[key] if row.idiom == "memcpy" else "" for row in pair.rows]
            rows_of = tuple(msgspec.structs.replace(r, seen=saw) for r, saw in zip(pair.rows, said, strict=True))
            pairs[key] = msgspec.structs.replace(pair, rows=rows_of)
        found = rows(msgspec.structs.replace(self.made(), orders=msgspec.structs.replace(ORDERS, pairs=pairs)))
        assert [row[-1] for row in found[1:]] == [
            "not run", "not run", "NC: 2x8 48x1 2x8, doorbell; nGnRE: 2x8, fault"
        ]  # fmt: skip

    def test_it_says_what_it_is_not(self) -> None:
        text = " ".join(shown(self.made()))
        assert ORDERS.note in text
        assert "Profile wc-64x4: 4 buffers." in text
        assert "Too many legal behaviours to be counted: memcpy, up to 53 effects" in text

    @pytest.mark.parametrize(("count", "text"), [(9_999_999, "9,999,999"), (10_000_000, "1.0e07"), (6.8e16, "6.8e16")])
    def test_counts(self, count: int, text: str) -> None:
        assert compact(count) == text


class TestKernels:
    def test_the_proofs_of_each(self) -> None:
        other = msgspec.structs.replace(PROOF, kernel="6.12.9", range="msix")
        lying = msgspec.structs.replace(PROOF, range="fifo", quarrel="EL1 cold: they differ")
        wrong = msgspec.structs.replace(PROOF, range="strict", memattr="5")
        made = matrix(kernels=(KERNEL,), proofs=(PROOF, other, lying, wrong))
        assert "Linux 6.1.0, -cpu max: status-quo (seen alike: trap)" in shown(made)
        story = ["rw", "KVM_RUN -EFAULT", "nothing"]
        assert [row for row in rows(made) if row[0] == "vfio"] == [
            ["vfio", "policy", "wc-trapped", "32", "3", "1", "1", *story, "agree"],
            ["vfio", "policy", "fifo", "32", "3", "1", "1", *story, "disagree"],
            ["vfio", "policy", "strict", "32", "3", "5", "1", *story, "disagree"],
        ]

    def test_one_line_for_each(self) -> None:
        other = msgspec.structs.replace(KERNEL, release="6.12.9", scheme=None)
        proofs = (
            PROOF,
            msgspec.structs.replace(PROOF, range="fifo"),
            msgspec.structs.replace(PROOF, way="ram", memattr="6", effect="works"),
            msgspec.structs.replace(PROOF, kernel="6.12.9", memattr="5", effect="works"),
            msgspec.structs.replace(PROOF, kernel="6.12.9", range="fifo"),
        )
        found = rows(matrix(kernels=(KERNEL, other), proofs=proofs))
        assert found[:2] == [
            ["6.1.0", "max", "1", "1 faults", "6 works", "status-quo"],
            ["6.12.9", "max", "1", "5 works, 1 faults", "-", "none known"],
        ]

    def test_one_line_has_one_way_of_what_is_proved_for_every_type(self) -> None:
        types = [msgspec.structs.replace(PROOF, way=f"nvgrace-gpu, s1={s1}") for s1 in ("00", "44")]
        device, normal = types[0], msgspec.structs.replace(types[1], memattr="6", wanted="6", effect="works")
        found = rows(matrix(kernels=(KERNEL,), proofs=(device, normal)))
        assert found[0] == ["6.1.0", "max", "1", "6 works", "status-quo"]

    def test_one_that_is_like_no_scheme(self) -> None:
        kernel = msgspec.structs.replace(KERNEL, scheme=None, differs="strict has stage 2 f, not 1")
        wanted = "Linux 6.1.0, -cpu max: none known; status-quo comes nearest, but strict has stage 2 f, not 1"
        assert wanted in shown(matrix(kernels=(kernel,)))

    def test_why_one_could_not_be_looked_at(self) -> None:
        kernel = msgspec.structs.replace(KERNEL, failure="no /dev/kvm\n  what to do: switch it on")
        lines = shown(matrix(kernels=(kernel,)))
        at = lines.index("Linux 6.1.0, -cpu max: not looked at")
        assert lines[at + 1 : at + 3] == ["no /dev/kvm", "  what to do: switch it on"]

    def test_rules_and_scenarios(self) -> None:
        mine = Finding.of("max, Linux 6.1.0", "rule", "ask nicely", "yes", "no")
        unseen = Finding.unobservable("max, Linux 6.1.0", "change", "swap", "done", "it cannot")
        other = Finding.of("max, Linux 7.3.1", "rule", "ask again", "yes", "yes")
        found = rows(matrix(kernels=(KERNEL,), findings=(mine, unseen, other)))
        assert found[:2] == [["rule", "ask nicely", "no", "disagree"], ["change", "swap", "it cannot", "unobservable"]]

    def test_what_one_cannot_show(self) -> None:
        kernel = msgspec.structs.replace(KERNEL, unobservable={"cacheable BARs": "the kernel lacks it"})
        assert "not seen: cacheable BARs: the kernel lacks it" in shown(matrix(kernels=(kernel,)))

    def test_its_cells_have_a_table_of_their_own(self) -> None:
        cells = [cell(), cell(lane="kvm", kernel="6.1.0"), cell(lane="kvm", kernel="6.12.9", observed="44")]
        titles = [line.partition(":")[0] for line in shown(matrix(cells)) if line.startswith("lane")]
        assert titles == [
            "lane el2, -cpu max, FWB=1",
            "lane kvm, Linux 6.1.0, -cpu max, FWB=1",
            "lane kvm, Linux 6.12.9, -cpu max, FWB=1",
        ]

    def test_the_probes_behind_each_claim_are_named(self) -> None:
        card = answers(["status-quo"], [CELL], [])
        card["status-quo"]["cacheable"] |= {"how": "seen", "lane": "kvm", "probes": ["kvm Linux 6.1.0: ff"]}
        console = Console(file=io.StringIO(), width=100)
        terminal.show_claims(matrix(scorecard=card), console)
        assert isinstance(console.file, io.StringIO)
        assert console.file.getvalue() == "status-quo: cacheable: no, seen in lane kvm by\n  kvm Linux 6.1.0: ff\n"


class TestSummary:
    def test_it_counts_both_verdicts(self) -> None:
        cells = [cell(), cell(), cell(verdict=Verdict.DISAGREE, accesses=Verdict.KNOWN_DEVIATION)]
        assert summary(matrix(cells)) == (
            "3 cells: attributes 2 agree, 1 disagree; accesses 2 agree, 1 known-deviation. 1,234 experiments, "
            "56,789 transactions at the device, 1.2 s."
        )

    def test_what_is_wrong_is_named_as_it_is(self) -> None:
        lines = shown(matrix(problems=("x [bold]y[/nothing] dynamic[2:16]",), vanished=("z [/red]",)))
        assert lines[-2:] == [
            "known deviation not seen any more: z [/red]", "disagree: x [bold]y[/nothing] dynamic[2:16]"
        ]  # fmt: skip
        assert any(line.startswith(HONESTY[:60]) for line in lines)

    def test_without_cells_there_is_nothing_to_count_nor_to_explain(self) -> None:
        assert shown(matrix((), problems=("why there are none",))) == ["disagree: why there are none"]

    def test_a_command_in_a_problem_can_be_copied(self) -> None:
        command = "qemu-system-aarch64 " + " ".join(f"-option{number}" for number in range(30))
        assert shown(matrix(problems=(command,)), width=80)[-1] == f"disagree: {command}"

    def test_many_problems_are_cut(self) -> None:
        lines = shown(matrix(problems=tuple(f"p{n}" for n in range(43))))
        assert lines[-2:] == ["disagree: p39", "... and 3 more (the JSON file has all)"]


class Page(HTMLParser):
    """What a browser makes of the page's elements: tags with attributes, and the content of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._script = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._script = tag == "script"
        if self._script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[-1] += data


def render(made: Matrix) -> str:
    return html.render(made, types=_type_names(made), questions=QUESTIONS)


HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=y> & \u2028 \" ' {{ 1 }} ]]>"


class TestThePage:
    def test_it_needs_nothing_else(self) -> None:
        text = render(matrix())
        assert not re.search(r"(https?:)?//[a-z]+\.|@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
        for tag, attributes in Page(text).tags:
            assert tag not in ("link", "img", "iframe", "object", "embed", "base")
            assert not {"src", "href", "srcset", "onclick", "onload"} & attributes.keys()

    def test_it_holds_the_whole_run(self) -> None:
        cells = [cell(range=name, s1=s1) for name in ("strict", "msix") for s1 in ("00", "44")]
        made = matrix(cells, pairs=(cell(scheme="all-pairs"),), scorecard=answers(["trap"], [CELL], []))
        data, labels, _ = Page(render(made)).scripts
        assert json.loads(data) == json.loads(made.to_json())
        assert json.loads(labels)["questions"] == QUESTIONS
        assert json.loads(labels)["types"] == {
            "00": "Device-nGnRnE", "04": "Device-nGnRE", "44": "Normal Non-cacheable"
        }  # fmt: skip

    def test_the_names_of_stage_2_depend_on_fwb(self) -> None:
        off, on = json.loads(Page(render(matrix())).scripts[1])["stage2"]
        assert list(on.items()) == [
            ("0", "Device-nGnRnE"), ("1", "Device-nGnRE"), ("2", "Device-nGRE"), ("3", "Device-GRE"),
            ("5", "Normal NC"), ("6", "Normal WB, forced"), ("7", "Normal WB"),
        ]  # fmt: skip
        assert list(off) == list("01235679abdef")
        assert (off["5"], off["6"], off["f"]) == ("Normal NC", "Normal outer NC, inner WT", "Normal WB")

    def test_data_cannot_break_out_of_its_script(self) -> None:
        plain, hostile = render(matrix()), render(matrix([cell(note=HOSTILE, range=HOSTILE)], problems=(HOSTILE,)))
        assert [tag for tag, _ in Page(hostile).tags] == [tag for tag, _ in Page(plain).tags]
        data, _, code = Page(hostile).scripts
        found = json.loads(data)
        assert (found["cells"][0]["note"], found["problems"]) == (HOSTILE, [HOSTILE])
        assert code == Page(plain).scripts[2]
        assert "<" not in data and "\u2028" not in data

    def test_its_code_writes_no_markup_from_data(self) -> None:
        code = Page(render(matrix())).scripts[2]
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", code)

    def test_every_element_and_field_that_its_code_names_is_there(self) -> None:
        made = matrix([CELL], scorecard=answers(list(SCHEMES), [CELL], []))
        page = Page(render(made))
        code = page.scripts[2]
        ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
        assert set(re.findall(r'\$\("(\w+)"\)', code)) <= ids
        assert set(re.findall(r"\bM\.(\w+)", code)) <= set(Matrix.__struct_fields__)
        assert set(re.findall(r"\bL\.(\w+)", code)) == {"types", "questions", "stage2"}
        assert set(re.findall(r"\b(?:cell|c)\.(\w+)", code)) <= {*Cell.__struct_fields__, "type"}
        found = made.batteries["b1"]
        assert set(re.findall(r"\bfound\.(\w+)", code)) <= {
            *found.__struct_fields__, "text", "value", "detail", "how", "lane", "probes", "cells", "contrary",
            "modelled", "programs",
        }  # fmt: skip
        assert set(re.findall(r"\bkernel\.(\w+)", code)) <= set(Kernel.__struct_fields__)
        assert set(re.findall(r"\bproof\.(\w+)", code)) <= set(Proof.__struct_fields__)
        assert set(re.findall(r"\bfinding\.(\w+)", code)) <= set(Finding.__struct_fields__)
        assert set(re.findall(r"\brow\.(\w+)", code)) == {"verdict", "op", "expected", "observed", "device", "reason"}
        for name, kind in (("O", Orders), ("pair", OrderPair), ("program", Ordering), ("read", SpeculativeRead)):
            named = set(re.findall(rf"\b{name}\.(\w+)", code))
            assert named and named <= set(kind.__struct_fields__)
