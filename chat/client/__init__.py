"""A member: it dials, keeps unacknowledged messages on disk, and comes back after a lost link."""
