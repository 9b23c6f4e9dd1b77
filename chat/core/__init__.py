"""The core: wire, log, room, session, status, text and errors, as a host and its members share them.

What may enter: pure logic. No clock, socket, disk or event loop; time and randomness are arguments. It imports no other
folder of `chat`.
"""
