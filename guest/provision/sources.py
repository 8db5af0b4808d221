"""Reading the machine's own apt sources, to learn which mirror of the Debian main archive it uses.

Both forms of sources.list(5) are read: one line an entry (`*.list`), and deb822 stanzas (`*.sources`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_ALIASES = ("stable", "oldstable", "oldoldstable", "testing", "unstable", "sid")
_CODENAMES = ("buster", "bullseye", "bookworm", "trixie", "forky", "duke")
_POCKETS = ("", "-updates", "-backports", "-proposed-updates", "-backports-sloppy")
_SUITES = frozenset(release + pocket for release in _ALIASES + _CODENAMES for pocket in _POCKETS)
_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<components>.*)$")


@dataclass(frozen=True)
class Source:
    """One enabled binary entry: where it is, its suites and components, and the value of Signed-By ("" when absent)."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""

    @property
    def main_archive(self) -> bool:
        """Whether this is the Debian archive itself: not its security archive, nor anybody else's packages.

        A third party's entry gives itself away by its suite, its component, its own key, or (as a last resort) by
        having no suite of ours: apt checks the signature of whatever is fetched with the Debian keyring in any case.
        """
        foreign_key = self.signed_by.startswith("/") and "debian-archive" not in self.signed_by
        return (
            "main" in self.components
            and any(suite in _SUITES for suite in self.suites)
            and not self.uri.startswith("cdrom:")
            and not foreign_key
        )


def parse_one_line(text: str) -> Iterator[Source]:
    """Yield the enabled `deb` entries of a `*.list` file; `deb-src` and comments are passed over."""
    for raw in text.splitlines():
        match = _ONE_LINE.match(raw.partition("#")[0].strip())
        if match is None:
            continue
        options = dict(option.partition("=")[::2] for option in (match["options"] or "").split())
        components = tuple(match["components"].split())
        yield Source(match["uri"].strip('"'), (match["suite"],), components, options.get("signed-by", ""))


def parse_deb822(text: str) -> Iterator[Source]:
    """Yield the enabled `deb` entries of a `*.sources` file, one for each URI of each stanza."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields = _fields(stanza)
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        suites = tuple(fields.get("suites", "").split())
        components = tuple(fields.get("components", "").split())
        for uri in fields.get("uris", "").split():
            yield Source(uri, suites, components, fields.get("signed-by", ""))


def _fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1] in (" ", "\t") and name:
            fields[name] = f"{fields[name]} {line.strip()}".strip()
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def read_sources(source_list: Path, source_parts: Path) -> list[Source]:
    """Return the entries of `source_list` and of the `*.list` and `*.sources` files in `source_parts`."""
    files = [source_list, *sorted(source_parts.glob("*.list")), *sorted(source_parts.glob("*.sources"))]
    found: list[Source] = []
    for file in files:
        if file.is_file():
            parse = parse_deb822 if file.suffix == ".sources" else parse_one_line
            found.extend(parse(file.read_text(encoding="utf-8", errors="replace")))
    return found


def debian_mirrors(sources: Iterable[Source]) -> list[str]:
    """Return the mirrors of the Debian main archive, the ones signed with the Debian keyring first, each once."""
    mirrors = [source for source in sources if source.main_archive]
    mirrors.sort(key=lambda source: "debian-archive" not in source.signed_by)
    return list(dict.fromkeys(source.uri.rstrip("/") for source in mirrors))
