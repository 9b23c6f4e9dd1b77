"""The panel and the palette: what they show, what typing does there, and that they leave everything as it was."""

from __future__ import annotations

import pytest
from prompt_toolkit.data_structures import Size

from chat.core.bodies import Answer, Notice
from chat.local.settings import Settings
from chat.ui.commands import COMMANDS, SCREEN, essentials, help_groups
from chat.ui.fullscreen.panel import Row, _rank
from tests.ui.fullscreen.stage import IN, Blind, Script, lines, message, run, staged


def test_typing_narrows_the_help_and_leaves_the_draft_alone() -> None:
    async def story() -> None:
        async with staged(Script(IN, *lines(1, 3)).client, Blind(80, 24)) as stage:
            await stage.until("line 3")
            stage.type("half a draft\x1bOP")
            await stage.until("─ Help ─", "TALK", "PEOPLE", "> half a draft")
            stage.type("slow MODE")
            await stage.until("/slow SECONDS|off", "MODERATION", "> slow MODE", gone="TALK")
            stage.type("\x15no such thing")
            await stage.until("nothing here contains that", gone="MODERATION")
            stage.type("\r")
            await stage.until("> half a draft", "line 3", gone="─ Help ─")
            assert stage.face.input.text == "half a draft"
            stage.type(" and more")
            await stage.until("> half a draft and more")

    run(story())


def test_the_talk_goes_on_beneath_and_counts_as_unread_until_it_is_seen() -> None:
    async def story() -> None:
        script = Script(IN, message(1, "before"))
        async with staged(script.client, Blind(100, 24)) as stage:
            await stage.until("before")
            await stage.comes_to(lambda: script.shows.read == 1)
            stage.type("\x1bOP")
            await stage.until("─ Help ─")
            script.happen(message(2, "beneath"))
            await stage.until("beneath")
            assert script.shows.read == 1
            stage.type("\x1b")
            await stage.until("beneath", gone="─ Help ─")
            await stage.comes_to(lambda: script.shows.read == 2)

    run(story())


@pytest.mark.parametrize("size", [(20, 5), (39, 11), (80, 24), (1, 1), (300, 60)])
def test_it_keeps_what_was_typed_at_every_size(size: tuple[int, int]) -> None:
    async def story() -> None:
        screen = Blind(80, 24)
        async with staged(Script(IN, *lines(1, 3)).client, screen) as stage:
            await stage.until("line 3")
            stage.type("\x1bOPreact")
            await stage.until("/react EMOJI")
            screen.size = Size(rows=size[1], columns=size[0])
            stage.face.app._on_resize()
            await stage.redrawn()
            assert all(len(row) <= size[0] for row in stage.rows())
            screen.size = Size(rows=24, columns=80)
            stage.face.app._on_resize()
            await stage.until("/react EMOJI", "> react")
            stage.type("\x1b")
            await stage.until("line 3", gone="/react EMOJI")

    run(story())


def test_a_mistake_is_one_line_above_the_input_until_the_next_key() -> None:
    async def story() -> None:
        async with staged(Script(IN, *lines(1, 3)).client, Blind(80, 24)) as stage:
            await stage.until("line 3")
            rows = stage.pane_rows()
            stage.type("/wohami\r")
            await stage.until("/wohami is not a command and was not sent", "> /wohami")
            assert stage.pane_rows() == rows  # nothing of ours is in the conversation
            stage.type("x")
            await stage.until("> /wohamix", gone="is not a command")

    run(story())


def test_the_palette_goes_to_rooms_and_people_and_begins_commands_and_settings() -> None:
    async def story() -> None:
        garden = Script(IN, room="garden")
        async with staged(Script(IN, *lines(1, 3)).client, opener=lambda _target: garden.client) as stage:
            await stage.until("line 3")
            stage.type("/join garden\r")
            await stage.until("● #garden")
            stage.type("\x0blby\r")
            await stage.until("● #lobby", gone="─ Go to ─")
            stage.type("\x0bsetbell")
            await stage.until("│ /set bell")
            stage.type("\r")
            await stage.until("> /set bell", gone="─ Go to ─")
            stage.type("\x15\x0b")
            await stage.until("│ 小明", "talk in private")
            assert "│ ann " not in "\n".join(stage.rows()[2:20])  # oneself
            stage.type("\x1b[B\x1b[B\x1b[A")
            await stage.comes_to(lambda: stage.face.panel._chosen == 1)
            stage.type("\x1b")
            await stage.until("line 3", gone="─ Go to ─")

    run(story())


def test_nothing_of_a_peers_in_it_is_obeyed() -> None:
    evil = "\x1b]0;pwned\x07\x1b[31m\u202e[ZeroWidthEscape]\x01 class:selected"

    async def story() -> None:
        script = Script(IN, message(1, "hi"))
        script.session.here[(b"e" * 32, evil)] = False
        async with staged(script.client, Blind(120, 30)) as stage:
            for keys in ("/who\r", "\x1b\x0bpwned"):
                stage.type(keys)
                await stage.until("│", "pwned")
                screen = stage.face.app.renderer.last_rendered_screen
                assert screen is not None
                slots = [slot for row in screen.data_buffer.values() for slot in row.values()]
                assert "".join(slot.char for slot in slots).isprintable()
                assert not any(screen.zero_width_escapes.values())

    run(story())


def test_what_is_nearer_together_comes_first_and_the_name_before_what_is_said_of_it() -> None:
    def order(wanted: str, *rows: Row) -> list[str]:
        ranked = [(rank, row.text) for row in rows if (rank := _rank(wanted.split(), row)) is not None]
        return [text for _rank_, text in sorted(ranked)]

    build, bob = Row("#build", "12 unread"), Row("bob", "talk in private")
    assert order("bd", build, Row("#banded")) == ["#banded", "#build"]
    assert order("bob", bob, Row("/mob", "bob's own"))[0] == "bob"
    assert order("zzz", build, bob) == []
    assert order("a" * 200, Row("a" * 5_000)) == ["a" * 5_000]  # and in no time: nothing is tried twice
    assert order("a" * 200 + "b", Row("a" * 5_000)) == []


def test_every_command_is_in_the_help_once() -> None:
    said = [row[0].split(",")[0].split()[0] for _group, rows in help_groups() for row in rows]
    for usage in COMMANDS:
        if usage.only in ("", SCREEN):
            assert said.count(f"/{usage.name}") == 1, usage.name
    assert all(row[0] and row[1] for _group, rows in essentials() for row in rows)


def test_an_answer_for_a_room_that_is_not_in_view_waits_there() -> None:
    async def story() -> None:
        garden = Script(IN, room="garden")
        lobby = Script(IN, *lines(1, 3))
        async with staged(lobby.client, opener=lambda _target: garden.client, settings=Settings()) as stage:
            await stage.until("line 3")
            stage.type("/join garden\r")
            await stage.until("● #garden")
            stage.face.show("an answer", room=stage.face.controller.rooms[0])
            garden.happen(Notice(code="x", text="said here"))
            await stage.until("said here", gone="an answer")
            stage.type("\x1b1")
            await stage.until("● #lobby", "an answer")

    run(story())


def test_an_answer_that_comes_late_takes_no_keys_from_who_types() -> None:
    async def story() -> None:
        script = Script(IN, *lines(1, 3))
        async with staged(script.client, Blind(80, 24)) as stage:
            await stage.until("line 3")
            stage.type("/roles\rmeanwhile")
            await stage.until("> meanwhile")
            members = [(bytes([n]) * 32, f"m{n}", "muted", 0) for n in range(1, 4)]
            script.answers.put_nowait(Answer(members=members))
            await stage.until("m1", "m3", "> meanwhile", gone="─ /roles ─")
            stage.type(" and on")
            await stage.until("> meanwhile and on")

    run(story())
