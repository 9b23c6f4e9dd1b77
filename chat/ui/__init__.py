"""The faces: full screen, plain lines and NDJSON, over one table of commands."""
