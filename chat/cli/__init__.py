"""The commands: arguments in, exit codes out. `chat.cli.main` is where `chat` starts.

What may enter: one file for each command or group of them. It imports every layer, but heavy
modules only inside functions.
"""
