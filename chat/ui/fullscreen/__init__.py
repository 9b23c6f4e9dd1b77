"""The full-screen face, drawn with prompt_toolkit."""
