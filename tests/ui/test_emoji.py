"""Short names of emoji: the table, what is expanded, and what is found by its beginning."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.core.text import visible
from chat.ui import emoji
from chat.ui.emoji import complete, expand, find, reaction


def test_all_that_is_in_the_table_can_be_seen_and_typed() -> None:
    table = emoji._table()
    assert len(table) > 4000
    assert all(re.fullmatch(r"[\w+-]+", name) and name == name.lower() for name in table)
    assert all(visible(picture) == picture and not picture.isalnum() for picture in table.values())


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("smile", "😄"),
        ("+1", "👍"),
        ("-1", "👎"),
        ("heart", "❤️"),
        ("tada", "🎉"),
        ("rocket", "🚀"),
        ("Rocket", "🚀"),
        ("hash", "#️⃣"),
        ("cat", "🐱"),
        ("party", "🥳"),
        ("thumbs_up", "👍"),
        ("拇指向上", "👍"),
        ("红心", "❤️"),
    ],
)
def test_names_that_people_know(name: str, picture: str) -> None:
    assert find(name) == find(f":{name}:") == picture


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("well done :tada:", "well done 🎉"),
        (":tada::rocket:", "🎉🚀"),
        ("你好:+1:", "你好👍"),
        ("(:smile:)", "(😄)"),
        (":nosuchname: :tada:", ":nosuchname: 🎉"),
        (":nosuchname::tada:", ":nosuchname:🎉"),
        ("a `:tada:` b :tada:", "a `:tada:` b 🎉"),
        ("``a ` :tada:`` :tada:", "``a ` :tada:`` 🎉"),
        ("```\n:tada:\n```\n:tada:", "```\n:tada:\n```\n🎉"),
        ("see\n```\n:tada:", "see\n```\n:tada:"),
        ("it's 5` o'clock :tada:", "it's 5` o'clock 🎉"),
        ("` :tada: ``", "` 🎉 ``"),
        ("好:红心:", "好❤️"),
        ("结论:同意:+1:", "结论:同意👍"),
        ("`:红心:` a:红心:", "`:红心:` a:红心:"),
    ],
)
def test_names_become_emoji_outside_of_code(typed: str, sent: str) -> None:
    assert expand(typed) == sent


@pytest.mark.parametrize(
    "text",
    [
        "12:100:30",
        "std::key::x",
        "fe80::100:1",
        "a:tada:b",
        "::tada::",
        "12:100:",
        "::tada:",
        ":tada:x",
        ":tada",
        "tada:",
        ": tada :",
    ],
)
def test_what_only_looks_like_a_name_stays(text: str) -> None:
    assert expand(text) == text


PIECES = (":tada:", ":zz:", ":", "`", "``", "```", " ", "\n", "zz", "1")


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_nothing_but_names_changes(text: str) -> None:
    assert expand(text).replace("🎉", ":tada:") == text
    assert "".join(piece for _, piece in emoji._split(text)) == text


def test_completion_begins_with_what_begins_so() -> None:
    found = [name for name, _ in complete("smil")]
    beginning = [name for name in found if name.startswith("smil")]
    assert found[: len(beginning)] == beginning == sorted(beginning)
    assert complete("thu")[:2] == [("thumbsup", "👍"), ("thumbs_down", "👎")]  # a common one first, and each once
    assert [name for name, _ in complete("", limit=3)] == ["thumbsup", "heart", "joy"]
    assert "smile" in beginning
    assert "sweat_smile" in found[len(beginning) :]
    assert [picture for _, picture in complete("yo")].count("🪀") == 1
    assert ("tada", "🎉") in complete("TAD")
    assert complete("nosuchname") == []
    assert complete("大笑")[0] == ("大笑", "😄")
    assert ("笑哭了", "😂") in complete("哭")
    assert len(complete("")) == 30
    assert len(complete("s", limit=7)) == 7


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (":tada:", "🎉"),
        (":TADA", "🎉"),
        (" 🎉 ", "🎉"),
        ("👍🏽", "👍🏽"),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468\u200d\U0001f469\u200d\U0001f467"),
        ("1\ufe0f\u20e3", "1\ufe0f\u20e3"),
        ("❤", "❤"),
        ("🎉🎉", "🎉🎉"),
        ("\U0001fae9", "\U0001fae9"),  # newer than what Python 3.11 knows
    ],
)
def test_what_one_may_answer_with(typed: str, meant: str) -> None:
    assert reaction(typed) == meant


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (":tadda:", "“:tadda:” is not an emoji; did you mean :tada:?"),
        ("tada", "“tada” is not an emoji; did you mean :tada:?"),
        (":世界:", "“:世界:” is not an emoji; did you mean :世界地图:?"),
        ("们", "“们” is not an emoji; give an emoji or its name, like :tada:"),
        ("🎉 x", "“🎉 x” is not an emoji"),
        ("!?", "“!?” is not an emoji"),
        ("\x1b[31m\n", "“␛[31m” is not an emoji"),
        ("x" * 500, "“xxxxxxxxxxxxxxxxxxx…” is not an emoji"),
    ],
)
def test_what_is_no_emoji_is_told_on_one_line(typed: str, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        reaction(typed)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


def test_the_table_is_not_read_before_somebody_asks() -> None:
    code = "from chat.ui import emoji; print(emoji._table.cache_info().currsize); emoji.expand('12:30'); "
    code += "print(emoji._table.cache_info().currsize); emoji.expand(':x:'); print(emoji._table.cache_info().currsize)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0", "1"]
