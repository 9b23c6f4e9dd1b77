"""Fixtures of the tests of the host."""

from __future__ import annotations

import pytest

from chat.host import host as host_module
from tests.host.host_fixture import FakeTransport


@pytest.fixture
def no_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """No beats: what the test waits for must happen without one."""
    monkeypatch.setattr(host_module, "BEAT", 3600)
    monkeypatch.setattr("chat.client.connection.BEAT", 3600)


@pytest.fixture
def fake_transport(monkeypatch: pytest.MonkeyPatch) -> FakeTransport:
    """A transport whose links the test drives."""
    transport = FakeTransport()
    monkeypatch.setattr(host_module, "find", lambda _scheme: transport)
    return transport
