"""Whatever text goes into a page comes out as text."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from feste_dp.report.markup import Markup, escape, join, table, tag


class Reader(HTMLParser):
    """What a browser would see: tags with their attributes, and text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((name, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(markup: str) -> Reader:
    reader = Reader()
    reader.feed(markup)
    reader.close()
    return reader


plain = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Cs", "Cn"]))


@given(text=plain, attribute=plain)
def test_text_and_attributes_come_back_as_they_were(text: str, attribute: str) -> None:
    seen = read(tag("p", {"title": attribute}, text))
    assert seen.tags == [("p", {"title": attribute})]
    assert seen.text == text


@given(text=st.text())
def test_no_text_becomes_a_tag_or_moves_other_text(text: str) -> None:
    seen = read(tag("pre", None, text))
    assert [name for name, _ in seen.tags] == ["pre"]
    assert not set(seen.text) & set("\x1b\x00\u202e\u2066\ud800")


def test_hidden_characters_are_shown() -> None:
    assert escape("a\x1b\u202e\n\t") == "a\\x1b\\u202e\n\t"


def test_attributes_may_be_absent_or_without_a_value() -> None:
    assert (
        tag("input", {"checked": True, "hidden": False, "title": None, "min": 0}) == '<input checked min="0">'
    )


def test_markup_is_put_in_as_it_is_and_lists_one_after_the_other() -> None:
    assert join([Markup("<b>"), ["<", None], Markup("</b>")]) == "<b>&lt;</b>"


def test_an_svg_shape_is_closed() -> None:
    assert tag("path", {"d": "M0 0"}) == '<path d="M0 0"></path>'


def test_a_table_has_a_heading_for_each_column() -> None:
    seen = read(table(["a", "b"], [["1", "2"], ["3", "<4>"]]))
    assert [name for name, _ in seen.tags].count("th") == 2
    assert seen.text == "ab123<4>"
