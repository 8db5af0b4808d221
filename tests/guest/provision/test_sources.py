"""Reading apt's own sources: both forms, and which entry is the Debian main archive."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvfio_user.guest.provision.sources import Source, debian_mirrors, parse_deb822, parse_one_line, read_sources

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR = "http://mirror.example/archive"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"deb {MIRROR} bookworm main", [Source(MIRROR, ("bookworm",), ("main",))]),
        (f"deb  [ arch=amd64 signed-by={KEYRING} ] {MIRROR}/  trixie  main contrib # a mirror",
         [Source(f"{MIRROR}/", ("trixie",), ("main", "contrib"), KEYRING)]),
        (f"deb [signed-by={KEYRING}] {MIRROR} ./", [Source(MIRROR, ("./",), (), KEYRING)]),
        (f"deb-src {MIRROR} bookworm main", []),
        (f"# deb {MIRROR} bookworm main", []),
        ("", []),
        ("deb", []),
    ],
)  # fmt: skip
def test_one_line_entries(line: str, expected: list[Source]) -> None:
    assert list(parse_one_line(line)) == expected


def test_a_deb822_stanza_is_one_entry_for_each_uri() -> None:
    text = f"""\
# a comment
Types: deb deb-src
URIs: {MIRROR} https://other.example/archive
Suites: trixie trixie-updates
# a comment within
Components: main
 contrib
Signed-By: {KEYRING}

Types: deb-src
URIs: {MIRROR}
Suites: trixie
Components: main

Enabled: no
Types: deb
URIs: {MIRROR}
Suites: trixie
Components: main
"""
    assert list(parse_deb822(text)) == [
        Source(MIRROR, ("trixie", "trixie-updates"), ("main", "contrib"), KEYRING),
        Source("https://other.example/archive", ("trixie", "trixie-updates"), ("main", "contrib"), KEYRING),
    ]


def test_a_key_written_into_the_stanza_is_kept_as_one_value() -> None:
    stanza = f"Types: deb\nURIs: {MIRROR}\nSuites: sid\nComponents: main\nSigned-By:\n -----BEGIN PGP\n .\n abc\n"
    assert list(parse_deb822(stanza)) == [Source(MIRROR, ("sid",), ("main",), "-----BEGIN PGP . abc")]


@pytest.mark.parametrize(
    ("source", "is_main"),
    [
        (Source(MIRROR, ("bookworm",), ("main",), KEYRING), True),
        (Source(MIRROR, ("trixie",), ("main",), KEYRING.replace("gpg", "pgp")), True),
        (Source(MIRROR, ("stable", "stable-updates"), ("main", "non-free-firmware")), True),
        (Source("mirror+file:///etc/apt/mirrors/debian.list", ("bookworm",), ("main",)), True),
        (Source("http://security.example/archive-security", ("bookworm-security",), ("main",), KEYRING), False),
        (Source("http://security.example/archive-security", ("buster/updates",), ("main",)), False),
        (Source("https://third-party.example/linux", ("bookworm",), ("stable",)), False),
        (Source("https://node.example/node_20.x", ("nodistro",), ("main",), "/usr/share/keyrings/node.gpg"), False),
        (Source("https://browser.example/deb", ("stable",), ("main",), "/usr/share/keyrings/browser.gpg"), False),
        (Source("http://archive.example/ubuntu", ("noble",), ("main", "universe")), False),
        (Source("cdrom:[Debian 12]/", ("bookworm",), ("main",)), False),
    ],
)
def test_which_entries_are_the_main_archive(source: Source, is_main: bool) -> None:
    assert source.main_archive is is_main


def test_the_mirror_with_the_debian_keyring_comes_first_and_each_once() -> None:
    sources = [
        Source("https://browser.example/deb/", ("stable",), ("main",)),
        Source(MIRROR, ("bookworm",), ("main",), KEYRING),
        Source(f"{MIRROR}/", ("bookworm-updates",), ("main",), KEYRING),
    ]
    assert debian_mirrors(sources) == [MIRROR, "https://browser.example/deb"]


def test_all_files_that_apt_reads_are_read_and_no_others(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://one.example/archive bookworm main\n")
    (parts / "a.list").write_text("deb http://two.example/archive bookworm main\n")
    (parts / "b.sources").write_text("Types: deb\nURIs: http://three.example/archive\nSuites: sid\nComponents: main\n")
    (parts / "c.list.disabled").write_text("deb http://four.example/archive bookworm main\n")
    (parts / "d.list").mkdir()
    found = read_sources(tmp_path / "sources.list", parts)
    assert [source.uri for source in found] == [f"http://{n}.example/archive" for n in ("one", "two", "three")]


def test_absent_files_give_nothing(tmp_path: Path) -> None:
    assert read_sources(tmp_path / "sources.list", tmp_path / "sources.list.d") == []


words = st.from_regex(r"[a-z][a-z0-9./-]{0,12}", fullmatch=True)


@given(
    st.lists(st.builds(Source, words.map("http://".__add__), st.tuples(words), st.lists(words, min_size=1).map(tuple)))
)
def test_both_forms_say_the_same(sources: list[Source]) -> None:
    one_line = "".join(f"deb {s.uri} {s.suites[0]} {' '.join(s.components)}\n" for s in sources)
    deb822 = "\n".join(
        f"Types: deb\nURIs: {s.uri}\nSuites: {s.suites[0]}\nComponents: {' '.join(s.components)}\n" for s in sources
    )
    assert list(parse_one_line(one_line)) == sources
    assert list(parse_deb822(deb822)) == sources


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    list(parse_one_line(text))
    list(parse_deb822(text))
