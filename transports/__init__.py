"""The ways to move bytes between programs that come with manywire; each file is a lesson.

Read in this order: ``memory`` (what every link promises, with no kernel in between), ``tcp`` (the same
between machines, and all that can go wrong there). Each file runs by itself: ``python -m transports.tcp``.

Two rules: a transport never imports another, and it knows nothing of rooms or messages. The promises that
all of them keep are numbered in ``chat.testing``.
"""
