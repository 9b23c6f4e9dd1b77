"""Three faces of one client: full-screen, linear (one line a message), NDJSON (one object a line)."""
