"""Prometheus's text format, written from rows once, and served as often as it is asked for."""

import gzip
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
# Prometheus decompresses each scrape; beyond the first level, time grows faster than the size shrinks.
_LEVEL = 1

Row = Sequence[str | None]


class BadContent(Exception):  # noqa: N818 - it is shown to people as it is
    """What is wrong with the rows of a collector's SQL."""


@dataclass(frozen=True)
class Family:
    """One metric's name, type and help, and its sample lines as one text or several."""

    name: str
    type: str
    help: str
    samples: Sequence[str] = ()

    def text(self) -> str:
        """Return the family in the text format, nothing without samples."""
        if not any(self.samples):
            return ""
        # The text format has no type of its own for an info metric.
        kind = "gauge" if self.type == "info" else self.type
        return f"# HELP {self.name} {_line(self.help)}\n# TYPE {self.name} {kind}\n{''.join(self.samples)}"


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
        return Family(self.name, "gauge", self.help, self.lines)


class Part:
    """A piece of an answer: as text, and compressed when that is first asked for."""

    def __init__(self, families: Iterable[Family]) -> None:
        self.plain = "".join(family.text() for family in families).encode()
        self._packed: bytes | None = None

    def packed(self) -> bytes:
        """Return a gzip member; members that follow each other are one gzip file."""
        if self._packed is None:
            self._packed = gzip.compress(self.plain, _LEVEL)
        return self._packed


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
