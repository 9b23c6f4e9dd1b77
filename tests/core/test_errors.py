"""Errors: one clear line each, a class that says whose fault it is, and the exit code of a command."""

from __future__ import annotations

import pytest

from chat.core import errors
from chat.core.errors import (
    AddressError,
    ChatError,
    CodedError,
    DialFailed,
    HostBusy,
    LinkBroken,
    LinkBusy,
    LinkClosed,
    ListenFailed,
    LocalProtocolError,
    NoSuchRoom,
    OtherHost,
    ProtocolError,
    Refused,
    RemoteProtocolError,
    RequestFailed,
    StoreError,
    StoreFull,
    Text,
    TransportError,
    UnknownScheme,
    Untrusted,
    WrongValue,
    reason,
)

RAISED = [
    (ChatError("x"), ChatError, 1),
    (AddressError("x"), ChatError, 2),
    (UnknownScheme("x", []), AddressError, 2),
    (TransportError("x"), ChatError, 4),
    (ListenFailed("x"), TransportError, 1),
    (DialFailed("x"), TransportError, 4),
    (LinkClosed("x"), TransportError, 4),
    (LinkBroken("x"), TransportError, 4),
    (LinkBusy("x"), TransportError, 4),
    (ProtocolError("x"), ChatError, 1),
    (LocalProtocolError("x"), ProtocolError, 1),
    (RemoteProtocolError("x"), ProtocolError, 1),
    (Refused("banned", "x"), CodedError, 3),
    (CodedError("no-such-code", "x"), ChatError, 1),
    (NoSuchRoom("no-room", room="x"), Refused, 4),
    (HostBusy("busy"), Refused, 4),
    (Untrusted("host-proof"), Refused, 3),
    (OtherHost("other-host"), Untrusted, 3),
    (RequestFailed("no-programs"), CodedError, 1),
    (StoreError("x"), ChatError, 1),
    (StoreFull("x"), StoreError, 1),
]


@pytest.mark.parametrize(("error", "parent", "code"), RAISED, ids=[type(row[0]).__name__ for row in RAISED])
def test_each_error_has_its_place_and_its_exit_code(error: ChatError, parent: type[ChatError], code: int) -> None:
    assert isinstance(error, parent)
    assert error.exit_code == code


def test_no_error_is_left_out_of_the_table() -> None:
    made = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, ChatError)}
    assert made == {type(error) for error, _, _ in RAISED}


def test_exit_codes_are_the_documented_ones() -> None:
    codes = (errors.DONE, errors.FAILED, errors.USAGE, errors.REFUSED, errors.UNREACHABLE, errors.INTERRUPTED)
    assert codes == (0, 1, 2, 3, 4, 130)


def test_an_unknown_scheme_names_the_nearest_that_there_is() -> None:
    assert str(UnknownScheme("nast", ["tcp", "memory", "nats"])) == "unknown transport 'nast'; did you mean 'nats'?"


def test_an_unknown_scheme_like_no_other_lists_what_there_is() -> None:
    assert str(UnknownScheme("qqq", iter(["tcp", "pipe"]))) == "unknown transport 'qqq'; installed: pipe, tcp"
    assert str(UnknownScheme("tcp", [])) == "unknown transport 'tcp'; installed: none"


def test_an_unknown_scheme_cannot_write_to_the_terminal() -> None:
    assert "\x1b" not in str(UnknownScheme("\x1b[2J", []))


def test_what_varies_is_put_in_and_known_apart() -> None:
    error = NoSuchRoom("no-room", "room {room!r} is closed: {why}", room="a{b}", why=Text("{count} left", count=2))
    assert str(error) == error.words == "room 'a{b}' is closed: 2 left"
    assert (error.words.template, error.words.fields["room"]) == ("room {room!r} is closed: {why}", "a{b}")
    assert type(str(error)) is str
    assert str(StoreError(error.words)) == str(error)
    assert StoreError(error.words).words is error.words


def test_a_text_without_fields_is_taken_as_it_is() -> None:
    assert str(ChatError("{a} and {0")) == "{a} and {0"
    assert str(WrongValue("100 % of {}")) == "100 % of {}"


def test_a_wrong_value_is_python_s_too() -> None:
    with pytest.raises(ValueError, match="3 is odd"):
        raise WrongValue("{number} is odd", number=3)


def test_the_reason_of_the_system_is_in_small_letters_and_ours_as_we_wrote_it() -> None:
    assert reason(PermissionError(13, "Permission denied", "/A")) == "permission denied"
    assert reason(OSError("Odd")) == "odd"
    assert reason(OSError()) == ""
    ours = Text("{folder} is not ours", folder="/A")
    assert reason(PermissionError(1, ours)) is ours
    assert reason(ConnectionError(ours)) is ours


def test_a_refusal_has_a_word_for_programs() -> None:
    refusal = Refused("banned", "you are banned from this room")
    assert (refusal.code, str(refusal)) == ("banned", "you are banned from this room")
    known = NoSuchRoom("no-room", room="a{b}")
    assert str(known) == "this host has no room 'a{b}'; ask its owner for an invite"
    assert (known.code, known.fields) == ("no-room", {"room": "a{b}"})


def test_a_reason_of_the_system_may_be_named_by_its_code() -> None:
    error = RequestFailed("program-name", why="ENOENT", line="x")
    assert str(error) == "no such file or directory; name the program: NAME=x"
    assert isinstance(error.words.fields["why"], Text)
    assert error.fields == {"why": "ENOENT", "line": "x"}
    assert "ENODEV" in str(RequestFailed("program-name", why="ENODEV", line="x"))
