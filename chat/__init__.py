"""manywire: a terminal chat in which a flag picks the wire.

A room is an append-only log. A member is a cursor in it. A transport moves batches of the log's bytes to the member.

The folders are layers, and each imports only from those below it: core, transport, local, client, then host and ui,
then cli. `i18n` and `ndjson` are at the bottom. Read core first: wire, log, room, session.
"""

__version__ = "0.1.0"
