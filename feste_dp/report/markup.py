"""HTML in which everything is escaped unless it was made here. Knows no page."""

import html
import re
from collections.abc import Iterable, Mapping

# what could reorder or hide text, or is no character of HTML
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_VOID = frozenset({"input", "meta", "link"})


class Markup(str):
    """A piece of HTML that is safe to put into a page as it is."""


Child = str | Markup | Iterable["Child"] | None


def tag(name: str, attributes: Mapping[str, object] | None = None, *children: Child) -> Markup:
    """<name attributes>children</name>. An attribute that is None or False is left out, True has no value."""
    written = []
    for key, value in (attributes or {}).items():
        if value is True:
            written.append(f" {key}")
        elif value is not None and value is not False:
            written.append(f' {key}="{escape(str(value))}"')
    opened = f"<{name}{''.join(written)}>"
    if name in _VOID:
        return Markup(opened)
    return Markup(f"{opened}{join(children)}</{name}>")


def join(children: Child) -> Markup:
    """The children one after the other; strings that are no Markup are escaped."""
    if children is None:
        return Markup("")
    if isinstance(children, Markup):
        return children
    if isinstance(children, str):
        return escape(children)
    return Markup("".join(map(join, children)))


def escape(text: str) -> Markup:
    r"""Text as HTML shows it: no markup, and what could move or hide other text as \x1b or \u202e."""

    def visible(found: re.Match[str]) -> str:
        code = ord(found[0])
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"

    return Markup(html.escape(_UNSAFE.sub(visible, text.replace("\r\n", "\n"))))


def table(
    head: Iterable[Child], rows: Iterable[Iterable[Child]], attributes: Mapping[str, object] | None = None
) -> Markup:
    """A table in a box of its own that scrolls sideways where it is too wide."""
    body = [tag("tr", None, [tag("td", None, cell) for cell in row]) for row in rows]
    content = tag(
        "table",
        attributes,
        tag("thead", None, tag("tr", None, [tag("th", {"scope": "col"}, cell) for cell in head])),
        tag("tbody", None, body),
    )
    return tag("div", {"class": "scroll", "tabindex": "0"}, content)


def section(key: str, title: str, *children: Child, lead: Child = None) -> Markup:
    """A titled part of a page; a live page exchanges it whole when it changes."""
    return tag(
        "section",
        {"id": key, "aria-labelledby": f"{key}-title"},
        tag("h2", {"id": f"{key}-title"}, title),
        tag("p", {"class": "lead"}, lead) if lead else None,
        *children,
    )


def disclosure(key: str, summary: Child, *children: Child, opened: bool = False) -> Markup:
    """What is shown on demand; a live page keeps it open."""
    return tag("details", {"data-key": key, "open": opened}, tag("summary", None, summary), *children)
