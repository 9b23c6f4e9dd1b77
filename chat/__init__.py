"""manywire: the terminal chat in which the wire is a flag.

A room is an append-only log. A member is a cursor. A transport moves a batch of the log's bytes
to the member. Read in this order: frame, log, room, session; then transport, link; then host, client.
"""

__version__ = "0.1.0"
