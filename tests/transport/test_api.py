"""chat.transport: addresses as people write them, and the door by which transports come in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.core.errors import AddressError, UnknownScheme
from chat.transport import Address, registry
from chat.transport.registry import bare_scheme, find, local_scheme, schemes

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # a lone surrogate is no text
SCHEMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp", Address("tcp")),
        ("TCP:", Address("tcp")),
        ("tcp:127.0.0.1:7711", Address("tcp", "127.0.0.1:7711")),
        ("tcp:[::1]:0?tls=0", Address("tcp", "[::1]:0", {"tls": "0"})),
        ("tcp:[fe80::1%eth0]:1", Address("tcp", "[fe80::1%eth0]:1")),
        ("queue:/run/user/1000/a%20b", Address("queue", "/run/user/1000/a b")),
        ("nats:host?subject=a%26b&empty=", Address("nats", "host", {"subject": "a&b", "empty": ""})),
        ("queue?x=1", Address("queue", "", {"x": "1"})),
    ],
)
def test_an_address_is_read(text: str, address: Address) -> None:
    assert Address.parse(text) == address


def test_a_path_is_left_out_where_people_read() -> None:
    assert Address("queue", "/run/user/1000/manywire/4b5d/queue").brief == "queue"
    assert Address("tcp", "example.org:7711", {"tls": "0"}).brief == "tcp:example.org:7711?tls=0"


@pytest.mark.parametrize(
    "text", ["", ":", ":7711", "?tls=0", "t cp", "tcp:a b", "tcp:\x1b[2J", "tcp:\n", "té:1", "a-b:1"]
)
def test_what_is_no_address_is_said_in_one_line(text: str) -> None:
    with pytest.raises(AddressError, match=r"is not an address; write NAME or NAME:PLACE") as raised:
        Address.parse(text)
    assert str(raised.value).isprintable()
    assert raised.value.exit_code == 2


def test_options_that_cannot_be_read() -> None:
    with pytest.raises(AddressError, match=r"the options in 'tcp:a\?tls' cannot be read; write \?name=value"):
        Address.parse("tcp:a?tls")


@given(SCHEMES, TEXT, st.dictionaries(TEXT.filter(bool), TEXT))
def test_an_address_is_read_as_it_was_written(scheme: str, place: str, options: dict[str, str]) -> None:
    address = Address(scheme, place, options)
    written = str(address)
    assert written.isprintable()
    assert " " not in written
    assert Address.parse(written) == address


def test_an_unknown_option_is_told_and_not_ignored() -> None:
    address = Address("tcp", "", {"tsl": "0"})
    with pytest.raises(AddressError, match=r"^tcp has no option 'tsl'; it knows tls, nodelay$"):
        address.allow_options("tls", "nodelay")
    with pytest.raises(AddressError, match=r"^tcp has no option 'tsl'; it has none$"):
        address.allow_options()
    address.allow_options("tsl")


# -- the door ---------------------------------------------------------------------------------------------


def test_what_comes_with_manywire_comes_in_by_the_same_door_as_all() -> None:
    assert {"memory", "tcp"} <= set(schemes())
    for scheme in ("memory", "tcp"):
        assert find(scheme).scheme == scheme
        assert find(scheme).summary


def test_an_unknown_transport_brings_the_nearest_name() -> None:
    with pytest.raises(UnknownScheme, match=r"^unknown transport 'tpc'; did you mean 'tcp'\?$"):
        find("tpc")
    with pytest.raises(UnknownScheme, match=r"^unknown transport 'carrier'; installed: .*memory.*tcp"):
        find("carrier")


@pytest.fixture
def crooked_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed project whose transport needs a library that is not there."""
    metadata = tmp_path / "crooked-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: crooked\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[chat.transports]\ncrooked = crooked:transport\n")
    (tmp_path / "crooked.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._entry_points.cache_clear()
    yield
    registry._entry_points.cache_clear()


@pytest.mark.usefixtures("crooked_door")
def test_a_transport_that_cannot_be_loaded_says_what_it_lacks() -> None:
    with pytest.raises(AddressError, match=r"^crooked cannot be loaded: .*a_library_that_is_not_there"):
        find("crooked")
    assert find("tcp").scheme == "tcp"


@pytest.mark.usefixtures("crooked_door")
def test_transports_say_what_they_are_for_and_a_broken_one_hinders_none() -> None:
    registry.bare_scheme.cache_clear()
    assert "crooked" in schemes()
    assert bare_scheme() == "tcp"
    assert local_scheme() == "queue"


def test_without_a_local_transport_you_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "schemes", lambda: ["memory", "tcp"])
    with pytest.raises(AddressError, match="no transport here connects the processes of one machine"):
        local_scheme()


def test_a_bare_tree_says_how_to_install_it() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from chat.transport.registry import find; find('tcp')"
    told = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False).stderr
    assert "AddressError: no transports are installed; run scripts/chat" in told
