"""The host: one event loop that admits peers, orders and stores messages, and sends them to everybody.

What may enter: what serves a room, and the programs that a host starts. It imports `core`, `transport`, `local`, and
`client` for those programs. It never imports a face or a command.
"""
