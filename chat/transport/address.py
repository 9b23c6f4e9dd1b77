"""Addresses: where to listen or dial, as people write it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote

from chat.core.errors import AddressError, Text

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or dial: ``SCHEME[:PLACE][?OPTION=VALUE&...]``.

    The transport decides what PLACE means. An address holds no secret: it appears in ``ps`` and in logs.
    """

    scheme: str
    place: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises AddressError."""
        rest, _, query = text.partition("?")
        scheme, _, place = rest.partition(":")
        if not (scheme.isascii() and scheme.isalnum()) or not text.isprintable() or " " in text:
            raise AddressError(
                "{text!r} is not an address; write NAME or NAME:PLACE, like tcp:127.0.0.1:7711", text=text
            )
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
        except ValueError:
            raise AddressError(
                "the options in {text!r} cannot be read; write ?name=value&name=value", text=text
            ) from None
        return cls(scheme.lower(), unquote(place), dict(pairs))

    def __str__(self) -> str:
        # A path may hold characters that would end the place or break the line: written %XX, as in a URL.
        place = "".join(quote(c) if c in " ?%" or not c.isprintable() else c for c in self.place)
        place = f":{place}" if place else ""
        query = "&".join(f"{quote(name)}={quote(value)}" for name, value in self.options.items())
        return f"{self.scheme}{place}{'?' + query if query else ''}"

    @property
    def brief(self) -> str:
        """A short form for people: a path on this machine is long, and says no more than the scheme."""
        return self.scheme if self.place.startswith("/") else str(self)

    def allow_options(self, *names: str) -> None:
        """Raise AddressError for an option that is not one of ``names``: a typo must not be ignored."""
        for name in self.options:
            if name not in names:
                known = Text("it knows {names}", names=", ".join(names)) if names else Text("it has none")
                raise AddressError(
                    "{scheme} has no option {name!r}; {known}", scheme=self.scheme, name=name, known=known
                )
