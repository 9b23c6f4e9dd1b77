"""The full-screen face, drawn with prompt_toolkit.

    face          what keys and commands do: navigation (jumps, search), keys
    app           the layout of the screen, and when it is redrawn: bars
    view          a room in the window: viewport
    pane          its messages in rows: conversation (how an entry looks), wrapping
    composer      the input, with its histories and the editor: completer

What may enter: what only a whole screen needs. Everything that other faces do, too, is in `chat.ui`.
"""
