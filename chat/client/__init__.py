"""A member: it dials, keeps unacknowledged messages on disk, and comes back after a lost link.

What may enter: what every member needs, whether a person, a bot or a command drives it. It imports `core`, `transport`
and `local`. It shows nothing.
"""
