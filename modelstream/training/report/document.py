"""A page with headed sections of text, tables and plots, as Markdown or as one HTML file."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SIZE_LIMIT = 2_000_000
"""Bytes of an HTML page, at most."""


@dataclass(frozen=True)
class Table:
    """Rows of texts; the first `left` columns are words, the others numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    folded: str = ""
    """If not empty, HTML shows this text, and the table only on a click."""


@dataclass(frozen=True)
class Plot:
    """A place for a plot, and what it shows."""

    name: str
    caption: str


@dataclass(frozen=True)
class Points:
    """A list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Key figures, each with a name, a value and a remark."""

    items: Sequence[tuple[str, str, str]]


Block = str | Table | Plot | Points | Facts
"""A text is a paragraph; `code` in it stands between backticks."""


@dataclass(frozen=True)
class Section:
    """A part with its heading."""

    heading: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A page."""

    title: str
    lead: Sequence[Block]
    sections: Sequence[Section] = field(default_factory=list)

    def markdown(self) -> str:
        """Return the page as Markdown, without its plots.

        >>> print(Document("Model", ["It works."], [Section("Data", [Table(["a", "n"], [["x|y", "1"]])])]).markdown())
        # Model
        <BLANKLINE>
        It works.
        <BLANKLINE>
        ## Data
        <BLANKLINE>
        | a | n |
        |---|--:|
        | x\\|y | 1 |
        <BLANKLINE>
        """
        parts = [f"# {self.title}", *_marked(self.lead)]
        for section in self.sections:
            blocks = _marked(section.blocks)
            if blocks:
                parts += [f"## {section.heading}", *blocks]
        return "\n\n".join(parts) + "\n"

    def html(self, plots: Mapping[str, str]) -> str:
        """Return the page as HTML; `plots` are SVG elements by the names of `Plot`. Plots that aren't there are left
        out. Nothing is loaded from elsewhere."""
        body = [f"<h1>{_text(self.title)}</h1>", *(_tagged(block, plots) for block in self.lead)]
        shown = [section for section in self.sections if section.blocks]
        anchors = [re.sub(r"[^a-z]+", "-", section.heading.lower()).strip("-") for section in shown]
        links = "".join(
            f'<a href="#{anchor}">{_text(section.heading)}</a>' for anchor, section in zip(anchors, shown, strict=True)
        )
        if len(shown) > 2:
            body.append(f"<nav>{links}</nav>")
        for anchor, section in zip(anchors, shown, strict=True):
            body.append(f'<section id="{anchor}"><h2>{_text(section.heading)}</h2>')
            body += [_tagged(block, plots) for block in section.blocks]
            body.append("</section>")
        head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">{_POLICY}'
        title = f"<title>{_text(self.title)}</title>"
        content = "\n".join(part for part in body if part)
        return (
            f'<!doctype html>\n<html lang="en">\n<head>{head}{title}<style>{_CSS}</style></head>\n'
            f"<body><main>\n{content}\n</main></body>\n</html>\n"
        )


def number(value: float | None, digits: int = 4) -> str:
    """Return a number as a person reads it.

    >>> number(12345.67), number(0.123456), number(3), number(None), number(2.5e9), number(float("inf"))
    ('12,346', '0.1235', '3', '–', '2.5e+09', 'inf')
    """
    if value is None:
        return "–"
    if 1000 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share as percentage.

    >>> percent(0.1234), percent(None)
    ('12.3\xa0%', '–')
    """
    return "–" if value is None else f"{value * 100:.{digits}f}\u00a0%"


def moment(text: str) -> str:
    """Return an ISO 8601 time in UTC as a person reads it.

    >>> moment("2026-11-23T06:16:58Z"), moment("2026-11-23T06:16:58.123456+00:00")
    ('2026-11-23 06:16:58 UTC', '2026-11-23 06:16:58 UTC')
    """
    return re.sub(r"(\d)T(\d\d:\d\d:\d\d)(\.\d+)?(Z|\+00:00)$", r"\1 \2 UTC", text)


def _marked(blocks: Sequence[Block]) -> list[str]:
    """Return blocks as Markdown."""
    parts = []
    for block in blocks:
        match block:
            case str():
                parts.append(block)
            case Table(columns, rows, left, _):
                line = "|" + "".join("---|" if i < left else "--:|" for i in range(len(columns)))
                cells = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in [columns, *rows]]
                parts.append("\n".join([f"| {cells[0]} |", line, *(f"| {row} |" for row in cells[1:])]))
            case Points(items):
                parts.append("\n".join(f"- {item}" for item in items))
            case Facts(items):
                remarks = [f" ({remark})" if remark else "" for _, _, remark in items]
                facts = zip(items, remarks, strict=True)
                parts.append("\n".join(f"- {what}: **{much}**{remark}" for (what, much, _), remark in facts))
            case Plot():
                pass
    return [part for part in parts if part]


def _tagged(block: Block, plots: Mapping[str, str]) -> str:
    """Return a block as HTML."""
    match block:
        case str():
            return f"<p>{_text(block)}</p>"
        case Table(columns, rows, left, folded):
            head = "".join(_cell("th", cell, i >= left) for i, cell in enumerate(columns))
            lines = ["".join(_cell("td", cell, i >= left) for i, cell in enumerate(row)) for row in rows]
            body = "".join(f"<tr>{line}</tr>" for line in lines)
            head = f"<thead><tr>{head}</tr></thead>" if any(columns) else ""
            table = f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'
            return f"<details><summary>{_text(folded)}</summary>{table}</details>" if folded else table
        case Points(items):
            return "<ul>" + "".join(f"<li>{_text(item)}</li>" for item in items) + "</ul>"
        case Facts(items):
            cells = "".join(
                f"<div><dt>{_text(what)}</dt><dd>{_text(much)}<small>{_text(remark)}</small></dd></div>"
                for what, much, remark in items
            )
            return f"<dl>{cells}</dl>"
        case Plot(name, caption):
            if name not in plots:
                return ""
            return f"<figure>{plots[name]}<figcaption>{_text(caption)}</figcaption></figure>"


def _cell(tag: str, text: str, right: bool) -> str:
    return f"<{tag}{' class=n' if right else ''}>{_text(text)}</{tag}>"


def _text(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text, quote=False))


_POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    '<meta name="color-scheme" content="light dark">'
)

_CSS = """
:root{--paper:#fff;--ink:#1c1e22;--muted:#5b6068;--grid:#d7dade;--link:#2460c4;
--series-1:#2460c4;--series-2:#bd5408;--series-3:#187a49;--series-4:#7746c2}
@media (prefers-color-scheme:dark){:root{--paper:#16181c;--ink:#e4e6ea;--muted:#a2a8b1;--grid:#3a3e45;--link:#86b4ff;
--series-1:#7fb0ff;--series-2:#ffa35c;--series-3:#62d49b;--series-4:#c3a3ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:860px;margin:0 auto;padding:2.5rem 1.25rem 5rem}
h1{font-size:1.8rem;line-height:1.25;margin:0 0 .75rem}
h2{font-size:1.25rem;margin:3rem 0 .75rem;padding-top:.9rem;border-top:1px solid var(--grid)}
p,ul{margin:.75rem 0;max-width:46rem}
ul{padding-left:1.25rem}
nav{display:flex;flex-wrap:wrap;gap:.25rem 1.1rem;margin:1.5rem 0 0;font-size:.9rem}
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}
code{font:.88em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(7.25rem,1fr));gap:1rem;margin:1.5rem 0}
dl div{border-top:2px solid var(--series-1);padding-top:.5rem}
dt{font-size:.85rem;color:var(--muted)}
dd{margin:0;font-size:1.45rem;font-weight:600;line-height:1.3;font-variant-numeric:tabular-nums}
dd small{display:block;font-size:.8rem;font-weight:400;color:var(--muted)}
.wide{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-size:.875rem;line-height:1.4;min-width:60%;font-variant-numeric:tabular-nums}
th{text-align:left;font-weight:600;vertical-align:bottom;border-bottom:1px solid var(--muted)}
th,td{padding:.35rem 1.1rem .35rem 0}
td{border-bottom:1px solid var(--grid);vertical-align:top}
th:last-child,td:last-child{padding-right:0}
.n{text-align:right}td.n{white-space:nowrap}
details{margin:1rem 0}summary{cursor:pointer;color:var(--link);font-size:.9rem}
figure{margin:1.25rem 0;overflow-x:auto}
figure svg{display:block;width:100%;min-width:34rem;height:auto}
figcaption{font-size:.85rem;color:var(--muted);max-width:46rem;margin-top:.4rem}
@media print{:root{color-scheme:light}h2{break-after:avoid}figure,tr{break-inside:avoid}}
""".strip()
