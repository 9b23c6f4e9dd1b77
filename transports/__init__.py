"""The transports that come with manywire. Each file is a lesson in one way to move bytes between programs.

Read them in this order: ``memory`` (what every link promises, without a kernel in between), ``pipe`` (bytes between a
program and its children), ``localqueue`` (messages between unrelated programs on one machine), ``tcp`` (between
machines, and everything that can go wrong there). ``shm`` is a board, not a transport: nothing is sent, all read.
Each file runs by itself: ``python -m transports.tcp``.

What may enter: one file per transport. It imports ``chat.transport`` and no other transport, and knows nothing about
rooms or messages. ``chat.testing`` numbers the promises that all of them keep.
"""
