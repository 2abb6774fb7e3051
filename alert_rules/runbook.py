"""Runbooks: Markdown files of four sections, and how they look in a message."""

import html
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

FOLDER = Path(__file__).parent / "runbooks"
SECTIONS = ("Meaning", "Impact", "Diagnosis", "Mitigation")

_FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Block:
    """A heading, a paragraph, one item of a list, or lines of code: all that runbooks use."""

    kind: Literal["heading", "paragraph", "item", "code"]
    text: str


@cache
def runbooks() -> dict[str, str]:
    """Return the runbooks' Markdown by alert name."""
    return {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.md"))}


def parse(markdown: str) -> list[Block]:
    """Return a runbook's blocks, without its title."""
    found: list[Block] = []
    for number, part in enumerate(_FENCED.split(markdown)):
        found += [Block("code", part.rstrip("\n"))] if number % 2 else _prose(part)
    return found


def _prose(text: str) -> list[Block]:
    found: list[Block] = []
    for chunk in re.split(r"\n{2,}|\n(?=#|- )", text.strip("\n")):
        joined = " ".join(line.strip() for line in chunk.splitlines())
        if joined.startswith("## "):
            found.append(Block("heading", joined[3:]))
        elif joined.startswith("- "):
            found.append(Block("item", joined[2:]))
        elif joined and not joined.startswith("# "):
            found.append(Block("paragraph", joined))
    return found


def plain(markdown: str) -> str:
    """Return a runbook as plain text, for the text part of a message."""
    forms = {"heading": "\n{}\n", "paragraph": "{}\n", "item": "- {}\n"}
    lines = [
        forms[block.kind].format(block.text)
        if block.kind in forms
        else "".join(f"    {line}\n" for line in block.text.splitlines())
        for block in parse(markdown)
    ]
    return "".join(lines).strip("\n")


def as_html(markdown: str) -> str:
    """Return a runbook as HTML for a message, styled inline since mail programs drop style sheets."""
    forms = {
        "heading": '<h3 style="margin:16px 0 4px;font-size:15px">{}</h3>',
        "paragraph": '<p style="margin:4px 0">{}</p>',
        "item": '<p style="margin:4px 0 4px 16px">• {}</p>',
        "code": '<pre style="margin:4px 0 4px 16px;padding:8px;background:#f3f4f6;white-space:pre-wrap">{}</pre>',
    }
    lines = []
    for block in parse(markdown):
        text = html.escape(block.text, quote=False)
        lines.append(forms[block.kind].format(text if block.kind == "code" else _CODE.sub(r"<code>\1</code>", text)))
    return "\n".join(lines)


def first_step(markdown: str) -> str:
    """Return the first item of the section Diagnosis, for messages that have no room for what it leads up to."""
    blocks = parse(markdown)
    start = blocks.index(Block("heading", "Diagnosis"))
    text = next(block.text for block in blocks[start:] if block.kind == "item")
    return re.sub(r"(?<=[.?]) [^.?]*:$", "", text)
