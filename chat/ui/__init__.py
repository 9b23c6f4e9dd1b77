"""The faces: full screen, plain lines and NDJSON, over one controller and one table of commands.

What may enter: what people see and type. It imports `core`, `transport`, `local` and `client`, never `host`.
"""
