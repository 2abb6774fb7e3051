"""Prometheus's text format, written from rows once, and served as often as it is asked for."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pgstat_exporter import packing
from pgstat_exporter.packing import Packed

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Row = Sequence[str | None]

# What the exporter says of itself.
UP, BUILD = "pg_up", "pg_exporter_build_info"
OWN = {
    UP: "1 when the database answered this scrape, 0 otherwise.",
    BUILD: "Version of this exporter; always 1.",
    "pg_scrape_collector_success": "1 when the collector delivered its metrics, 0 when it failed or was skipped.",
    "pg_scrape_collector_duration_seconds": "Time the collector took when it was last run.",
    "pg_scrape_collector_skipped": "1 for a collector that cannot be served, with the reason.",
    "pg_scrape_collector_truncated": "1 when the collector had more rows than its limit.",
    "pg_scrape_collector_samples": "Samples that the collector delivered.",
    "pg_scrape_collector_cache_age_seconds": "Age of what a collector in the background delivered.",
}


class BadContent(Exception):  # noqa: N818 - it is shown to people as it is
    """What is wrong with the rows of a collector's SQL."""


class Samples:
    """A metric's sample lines as text; with `pack` compressed at once, since they are kept for long and many."""

    def __init__(self, lines: Sequence[str], *, pack: bool = False) -> None:
        self.number = len(lines)
        text = "".join(lines)
        self.packed = packing.pack(text) if pack and lines else None
        self._text = "" if self.packed else text

    def text(self) -> str:
        """Return the lines."""
        return self.packed.text() if self.packed else self._text


@dataclass(frozen=True)
class Family:
    """One metric's name, type and help, and its samples, of each database apart."""

    name: str
    type: str
    help: str
    samples: Sequence[Samples] = ()

    def pieces(self) -> list[str | Samples]:
        """Return the family in the text format, nothing without samples; those that are compressed stay so."""
        found = [one for one in self.samples if one.number]
        if not found:
            return []
        # The text format has no type of its own for an info metric.
        kind = "gauge" if self.type == "info" else self.type
        header = f"# HELP {self.name} {_line(self.help)}\n# TYPE {self.name} {kind}\n"
        return [header, *(one if one.packed else one.text() for one in found)]


@dataclass
class OwnFamily:
    """A gauge of the exporter itself, filled sample by sample."""

    name: str
    help: str
    lines: list[str] = field(default_factory=list)

    def add(self, value: float, labels: Mapping[str, str]) -> None:
        """Add a sample; a label without a value is left out."""
        pairs = label_text([name for name, value in labels.items() if value], [v for v in labels.values() if v])
        self.lines.append(f"{self.name}{{{pairs}}} {value:.9g}\n" if pairs else f"{self.name} {value:.9g}\n")

    def family(self) -> Family:
        """Return it as a family."""
        return Family(self.name, "gauge", self.help, [Samples(self.lines)])


class Part:
    """A piece of an answer: as text, and compressed, for which what it is made of is compressed one time only."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._pieces = list(_joined(piece for family in families for piece in family.pieces()))
        self._packed: Packed | None = None

    @property
    def plain(self) -> bytes:
        """The text."""
        return "".join(one.text() if isinstance(one, Samples) else one for one in self._pieces).encode()

    def packed(self) -> Packed:
        """Return it compressed."""
        if self._packed is None:
            self._packed = packing.join(map(_packed, self._pieces))
        return self._packed


def _joined(pieces: Iterable[str | Samples]) -> Iterator[str | Samples]:
    texts: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            texts.append(piece)
            continue
        if texts:
            yield "".join(texts)
            texts = []
        yield piece
    if texts:
        yield "".join(texts)


def _packed(piece: str | Samples) -> Packed:
    if isinstance(piece, str):
        return packing.pack(piece)
    return piece.packed or packing.pack(piece.text())


def label_text(names: Sequence[str], values: Iterable[str | None]) -> str:
    """Return what stands between the braces of a sample; a label that is NULL is empty."""
    return ",".join(f'{name}="{(value or "").translate(_ESCAPES)}"' for name, value in zip(names, values, strict=True))


def label_texts(names: Sequence[str], columns: Sequence[int], rows: Sequence[Row], before: str) -> list[str]:
    """Return the label text of every row, `before` put in front."""
    texts = [label_text(names, [row[column] for column in columns]) for row in rows]
    return [",".join(filter(None, (before, text))) for text in texts] if before else texts


def sample_lines(name: str, labels: Sequence[str], values: Sequence[str | None]) -> list[str]:
    """Return a metric's lines: labels beside values, NULL left out; raise BadContent for doubles and what is no number.

    Values stay as PostgreSQL writes them, digit for digit.
    """
    lines = []
    seen = set()
    for text, value in zip(labels, values, strict=True):
        if value is None:
            continue
        try:
            float(value)
        except ValueError:
            raise BadContent(f"{name}: {value!r} is no number") from None
        if text in seen:
            raise BadContent(f"{name} has two rows for {{{text}}}")
        seen.add(text)
        lines.append(f"{name}{{{text}}} {value}\n" if text else f"{name} {value}\n")
    return lines


def _line(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")
