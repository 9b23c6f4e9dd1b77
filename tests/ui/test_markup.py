"""Light markdown: what it marks, what it leaves alone, that no character is lost, and that its time is linear."""

# ruff: noqa: RUF001 - Chinese has punctuation of its own

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chat.core.text import visible
from chat.ui.markup import highlight, parse, without_delimiters

if TYPE_CHECKING:
    from types import FrameType

    from chat.ui.markup import Fragment


def compact(text: str, me: str = "") -> str:
    """What a text means, as a text: each fragment with its roles in front, markers left out."""
    return "\n".join(
        "".join(f"‹{roles}:{part}›" if roles else part for roles, part in line)
        for line in without_delimiters(parse(text, me))
    )


def joined(lines: list[list[Fragment]]) -> str:
    return "\n".join("".join(part for _, part in line) for line in lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a **bold** word", "a ‹bold:bold› word"),
        ("an *italic* and an _italic_ word", "an ‹italic:italic› and an ‹italic:italic› word"),
        ("**both *of* them**", "‹bold:both ›‹bold italic:of›‹bold: them›"),
        ("*(in brackets)*, **with**.", "‹italic:(in brackets)›, ‹bold:with›."),
        ("`a * b` and ``a ` b``", "‹code:a * b› and ‹code:a ` b›"),
        ("**bold `co**de` bold**", "‹bold:bold ›‹bold code:co**de›‹bold: bold›"),
        ("你**好**吗，*真的*", "你‹bold:好›吗，‹italic:真的›"),
        (
            "> to\n>\n> **me**\nx",
            "‹quote quote-mark:▌ ›‹quote:to›\n‹quote quote-mark:▌›‹quote:›\n‹quote quote-mark:▌ ›‹quote bold:me›\nx",
        ),
        ("- one\n- *two*", "‹item-mark:• ›one\n‹item-mark:• ›‹italic:two›"),
        ("* one\n* *two* *", "‹item-mark:• ›one\n‹item-mark:• ›‹italic:two› *"),
    ],
)
def test_what_is_marked(text: str, expected: str) -> None:
    assert compact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2*3*4",
        "2 * 3 * 4",
        "snake_case_name and __init__.py",
        "a*b* begins in a word",
        "it ends in a *word*s",
        "a_b_ and _a_b",
        "**not closed",
        "not opened**",
        "a * not closed*",
        "*not closed *",
        "*over\nlines*",
        "****",
        "***three***",
        "` not closed",
        "``not closed`",
        "```\nnot closed",
        "```\n```",
        ">not quoted",
        "-not an item",
        "1 > 2",
        "a - b",
        "http:// is no link, nor is http:/a, nor xhttp://a",
        "javascript://a ftp://b file:///c",
        "[text](elsewhere)",
        "<b>bold</b> &amp;",
    ],
)
def test_what_is_not_well_formed_stands_as_it_was_typed(text: str) -> None:
    assert compact(text) == text
    assert all(roles == "" for line in parse(text) for roles, _ in line)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see http://a.b/c?d=e#f.", "see ‹link:http://a.b/c?d=e#f›."),
        ("(https://a.b/c_(d))", "(‹link:https://a.b/c_(d)›)"),
        ("https://a.b/c_d_e, **https://x**", "‹link:https://a.b/c_d_e›, ‹bold link:https://x›"),
        (
            "看https://例子/a，b",
            "看https://例子/a，b",
        ),  # not ASCII: no link; letters that look alike cannot hide in one
        ("看http://a.b/c，然后", "看‹link:http://a.b/c›，然后"),
        ("join chat://h:1/lobby#x.y!", "join ‹link:chat://h:1/lobby#x.y›!"),
        ("http://[2001:db8::1]/a]", "‹link:http://[2001:db8::1]/a›]"),
    ],
)
def test_links(text: str, expected: str) -> None:
    assert compact(text) == expected


def test_who_reads_is_told_where_they_are_addressed() -> None:
    assert compact("ann: @Ann, anna, **ann** `ann`", "ann") == (
        "‹mention:ann›: ‹mention:@Ann›, anna, ‹bold mention:ann› ‹code:ann›"
    )
    assert compact("你好@小明你来", "小明") == "你好‹mention:@小明›你来"
    assert compact("ann", "") == "ann"
    assert compact("(a+b) a", "a+") == "(a+b) a"  # a nickname is no pattern


def test_a_block_of_code_keeps_its_lines_and_is_coloured_in_a_language_that_is_known() -> None:
    text = "so:\n```python\nif x == 'y':  # **why**\n\n    return 12.5\n```\nend"
    assert parse(text)[1] == [("fence", "```python")]
    assert compact(text) == (
        "so:\n‹code code-keyword:if›‹code: x == ›‹code code-string:'y'›‹code::  ›‹code code-comment:# **why**›\n"
        "‹code:›\n‹code:    ›‹code code-keyword:return›‹code: ›‹code code-number:12.5›\nend"
    )
    assert compact("```\nif x\n```") == "‹code:if x›"
    assert compact("```klingon\nif x\n```") == "‹code:if x›"
    assert compact('```js\na = "b\\"c" + \'d // not closed\n```') == (
        '‹code:a = ›‹code code-string:"b\\"c"›‹code: + \'d ›‹code code-comment:// not closed›'
    )


ROLES = {
    *("bold", "italic", "code", "link", "mention"),
    *("quote", "quote-mark", "item-mark"),  # a quoted line; its "> "; the "- " or "* " of a list
    *("delimiter", "fence"),  # inside a line; a line of its own
    *("code-comment", "code-string", "code-number", "code-keyword"),
}
PARTS = st.lists(
    st.sampled_from(
        [*"*_`>-ab \n你\"'#\\", "**", "```", "```py\n", "\n```\n", "> ", "- ", "http://", "ann", "@ann", "chat://x"]
    )
).map("".join)


@given(PARTS | st.text(max_size=60), st.sampled_from(["", "ann", "a", "你"]))
@example("```py\n\n```", "")
@example("**_`a`_**\n> *a* `b`", "a")
def test_the_fragments_are_the_text_and_the_roles_are_known(text: str, me: str) -> None:
    text = visible(text)
    lines = parse(text, me)
    assert joined(lines) == text
    assert {role for line in lines for roles, _ in line for role in roles.split()} <= ROLES
    shown = list(without_delimiters(lines))
    assert shown
    assert all(line for line in shown)
    assert "\n" not in "".join(part for line in shown for _, part in line)


@given(st.text(max_size=60).map(lambda text: text.replace("\n", "")), st.sampled_from(["python", "c", "sql", "?"]))
def test_colouring_loses_nothing(line: str, language: str) -> None:
    ((*fragments,),) = highlight([line], language)
    assert "".join(part for _, part in fragments) == line


HOSTILE = {
    "stars": "*a ",
    "pairs": "*a* ",
    "nested": "**a *b _c ",
    "runs": "*_",
    "underscores": "_a",
    "ticks": "`a",
    "tick runs": "`" * 3 + "x",
    "links": "http://a ",
    "brackets": "http://a)](",
    "half links": "http:/",
    "names": "ann ",
    "quotes": "> a\n",
    "fences": "```\n",
    "open fences": "```py\n",
    "strings": "```py\n" + "'a\\",
    "escapes": "\\'",
    "comments": "/#-",
}


def lines_run(text: str) -> int:
    """How many lines of Python it takes to parse a text."""
    count = 0

    def trace(_frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        parse(text, "ann")
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("name", HOSTILE)
def test_the_steps_taken_grow_no_faster_than_the_text(name: str) -> None:
    part = HOSTILE[name]
    small, large = (
        "```py\n" * (name in ("escapes", "comments")) + part * (size // len(part)) + "\n```" for size in (1_000, 4_000)
    )
    assert lines_run(large) <= 5 * lines_run(small) + 200


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_takes_quadratic_time(name: str) -> None:
    """Inside regular expressions and searches too: eight times the text, and far less than 64 times the processor."""
    part = HOSTILE[name]

    def cost(size: int) -> float:
        text = part * (size // len(part))
        spent = []
        for _ in range(5):
            before = time.process_time()
            parse(text, "ann")
            spent.append(time.process_time() - before)
        return min(spent)

    assert cost(32_768) < 30 * cost(4_096) + 0.002
