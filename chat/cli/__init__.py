"""The commands: arguments in, exit codes out. `chat.cli.main` is where `chat` starts.

What may enter: commands that belong together in one file. It imports every layer, but heavy modules
only inside functions.
"""
