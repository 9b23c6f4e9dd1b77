"""The commands. `chat.cli.main` is where `chat` starts."""
