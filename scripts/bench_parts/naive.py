"""The broadcaster of many tutorials: for each line that comes in, one write for each member.

It stores, numbers and checks nothing. It is what the host is measured against, since it is what people
write first: members times messages steps of Python, and as many system calls.
"""

from __future__ import annotations

import asyncio

writers: set[asyncio.StreamWriter] = set()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Give every line of one member to all of them."""
    writers.add(writer)
    writer.write(b"welcome\n")
    try:
        while line := await reader.readline():
            for other in writers:
                other.write(line)
            for other in list(writers):
                await other.drain()
    except ConnectionError:
        pass  # it left without a word
    finally:
        writers.discard(writer)
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
