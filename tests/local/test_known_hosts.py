"""Trust on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.core.errors import ChatError, Refused
from chat.local.identity import fingerprint, host_hash
from chat.local.known_hosts import KnownHosts
from chat.local.words import words
from chat.transport import Address
from tests.local.processes import mode, python, run_at_once
from tests.local.test_invite import addresses

if TYPE_CHECKING:
    from pathlib import Path

KEY, OTHER = b"\x01" * 32, b"\x02" * 32
HERE, THERE = Address("tcp", "192.0.2.1:7711"), Address("tcp", "192.0.2.1:77")


def test_trust_on_first_use(tmp_path: Path) -> None:
    path = tmp_path / "new" / "known_hosts"
    assert not KnownHosts(path).check(HERE, KEY, learn=False)
    assert not KnownHosts(path).check(HERE, KEY)
    assert KnownHosts(path).check(HERE, KEY)
    assert not KnownHosts(path).check(THERE, OTHER)
    assert KnownHosts(path).check(HERE, KEY)
    assert mode(path) == 0o600
    assert path.read_text() == f"{HERE} {fingerprint(KEY)}\n{THERE} {fingerprint(OTHER)}\n"


def test_a_changed_key_is_refused_until_its_line_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    hosts = KnownHosts(path)
    hosts.check(THERE, KEY)
    hosts.check(HERE, KEY)
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            hosts.check(HERE, OTHER)
        message = str(caught.value)
        assert caught.value.code == "host-key-changed"
        assert "\n" not in message
        told = f"chat trust forget {HERE}"
        for part in (words(host_hash(OTHER)), fingerprint(KEY), fingerprint(OTHER), told, f"line 2 of {path}"):
            assert part in message
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:1]))
    assert not hosts.check(HERE, OTHER)
    assert hosts.check(THERE, KEY)


def test_an_invite_replaces_what_was_known(tmp_path: Path) -> None:
    hosts = KnownHosts(tmp_path / "known_hosts")
    assert not hosts.remember(HERE, KEY)
    assert hosts.check(HERE, KEY)
    assert not hosts.remember(HERE, KEY)
    assert hosts.remember(HERE, OTHER)
    assert hosts.check(HERE, OTHER)
    with pytest.raises(Refused):
        hosts.check(HERE, KEY)


def test_a_host_is_forgotten_with_every_line_about_it_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    hosts = KnownHosts(path)
    hosts.check(HERE, KEY)
    hosts.check(THERE, KEY)
    path.write_text(f"# mine\n{path.read_text()}{HERE} {fingerprint(OTHER)}\n")
    assert hosts.known() == {str(HERE): fingerprint(KEY), str(THERE): fingerprint(KEY)}
    assert hosts.find(HERE) == fingerprint(KEY)
    hosts.forget(HERE)
    assert hosts.find(HERE) == ""
    assert path.read_text() == f"# mine\n{THERE} {fingerprint(KEY)}\n"
    assert mode(path) == 0o600
    assert not hosts.check(HERE, OTHER)


def test_which_hosts_are_known(tmp_path: Path) -> None:
    hosts = KnownHosts(tmp_path / "known_hosts")
    assert hosts.hosts() == set()
    hosts.check(HERE, KEY)
    hosts.check(THERE, OTHER)
    (tmp_path / "known_hosts").write_text("# mine\n\n" + (tmp_path / "known_hosts").read_text())
    assert hosts.hosts() == {host_hash(KEY), host_hash(OTHER)}


def test_peoples_own_lines_stay(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"# home\n\n{HERE} {fingerprint(KEY)}")
    path.chmod(0o600)
    hosts = KnownHosts(path)
    assert hosts.check(HERE, KEY)
    assert not hosts.check(THERE, KEY)
    assert path.read_text() == f"# home\n\n{HERE} {fingerprint(KEY)}\n{THERE} {fingerprint(KEY)}\n"


@pytest.mark.parametrize("damage", [b"\xff", b" ", b"\0", b"x" * 5])
def test_a_damaged_file_is_told_and_never_forgotten(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "known_hosts"
    hosts = KnownHosts(path)
    hosts.check(THERE, KEY)
    hosts.check(HERE, KEY)
    content = path.read_bytes()[:-2] + damage + b"\n"
    path.write_bytes(content)
    for use in (hosts.check, hosts.remember):
        with pytest.raises(Refused, match=f"line 2 of {path}") as caught:
            use(HERE, OTHER)
        assert caught.value.code == "known-hosts-damaged"
    assert path.read_bytes() == content
    path.chmod(0o644)
    with pytest.raises(ChatError, match="chmod 600"):
        hosts.check(HERE, KEY)


def test_a_damaged_address_is_no_unknown_host(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    KnownHosts(path).check(HERE, KEY)
    path.write_bytes(path.read_bytes().replace(b"tcp", b"t\xffp"))
    with pytest.raises(Refused, match="line 1"):
        KnownHosts(path).check(HERE, OTHER)


@given(addresses | st.just(Address("queue", "/my files/a\nb")))
def test_any_address_makes_one_good_line(tmp_path_factory: pytest.TempPathFactory, address: Address) -> None:
    hosts = KnownHosts(tmp_path_factory.mktemp("known") / "hosts")
    assert not hosts.check(address, KEY)
    assert hosts.check(address, KEY)


def test_processes_at_one_time_forget_nothing(tmp_path: Path) -> None:
    code = """
from chat.local.known_hosts import KnownHosts
from chat.transport import Address
for port in range(20):
    KnownHosts(Path(sys.argv[1])).check(Address("tcp", f"192.0.2.{sys.argv[2]}:{port}"), bytes(32))
"""
    run_at_once([python(code, tmp_path / "known_hosts", n) for n in range(4)])
    lines = (tmp_path / "known_hosts").read_text().splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(
        f"tcp:192.0.2.{n}:{port}" for n in range(4) for port in range(20)
    )
