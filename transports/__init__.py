"""The ways to move bytes between programs that come with manywire; each file is a lesson.

Read in this order: ``memory`` (what every link promises, with no kernel in between), ``pipe`` (bytes between a program
and its children), ``localqueue`` (messages between strangers on one machine), ``tcp`` (between machines, and all that
can go wrong there). ``shm`` is none of them: a board, on which nothing is sent and all look. Each file runs by itself:
``python -m transports.tcp``.

Two rules: a transport never imports another, and it knows nothing of rooms or messages. The promises that
all of them keep are numbered in ``chat.testing``.
"""
