"""T1-T6 and L1-L13: a transport, its listener and its links."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing, asynccontextmanager, suppress
from functools import wraps
from itertools import cycle
from typing import TYPE_CHECKING

from chat.core.errors import DialFailed, LinkBroken, LinkBusy, LinkClosed, ListenFailed
from chat.testing.kit import (
    MANY,
    Kit,
    begin,
    cancel_after,
    carry,
    check_nothing_left,
    check_same,
    clause,
    connect,
    fail,
    pattern,
    raises,
    receive_exactly,
    receive_some,
    resources,
    send,
    send_all,
    send_pattern,
    settle,
    still_waits,
    within,
)
from chat.transport import Address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from chat.transport import Link, Listener

    LinkCheck = Callable[[Kit, Link, Link], Awaitable[None]]


def _link_clause(name: str) -> Callable[[LinkCheck], LinkCheck]:
    """Register a check of a pair, to be run from both ends, each with a new pair."""

    def register(check: LinkCheck) -> LinkCheck:
        @clause(name)
        @wraps(check)
        async def check_both_ends(kit: Kit) -> None:
            async with kit.pair() as (dialled, accepted):
                await check(kit, dialled, accepted)
            async with kit.pair() as (dialled, accepted):
                await check(kit, accepted, dialled)

        return check

    return register


@asynccontextmanager
async def _linked(kit: Kit, listener: Listener) -> AsyncIterator[tuple[Link, Link]]:
    """Both ends of a link, dialled and accepted, while the listener stays open."""
    dialled, accepted = await connect(kit.transport, listener)
    async with aclosing(dialled), aclosing(accepted):
        yield dialled, accepted


# -- T: transports and listeners ------------------------------------------------------------------------


@clause("T1")
async def address_can_be_dialled(kit: Kit) -> None:
    """A listener's address can be written down, read again and dialled."""
    async with kit.listening() as listener:
        written = str(listener.address)
        if Address.parse(written) != listener.address:
            fail(f"{listener.address!r} is another address when written as {written!r} and read again")
        if listener.address.scheme != kit.transport.scheme:
            fail(f"{written!r} does not begin with {kit.transport.scheme!r}")
        async with _linked(kit, listener) as (dialled, accepted):
            await carry(dialled, accepted, b"hello")


@clause("T2")
async def dialling_nobody_fails(kit: Kit) -> None:
    """Dialling an address with no listener raises DialFailed within the time unit, and leaks nothing."""
    async with kit.listening() as listener:
        pass
    await settle()
    before = resources(kit)
    for _ in range(3):
        dialling = kit.transport.dial(listener.address)
        await raises(DialFailed, dialling, kit, f"dialling {listener.address} after its listener was closed")
    await check_nothing_left(kit, before)


@clause("T3")
async def listening_twice_fails(kit: Kit) -> None:
    """Listening twice on one address raises ListenFailed, and the first listener still works."""
    async with kit.listening() as listener:
        listening = kit.transport.listen(listener.address, kit.site)
        await raises(ListenFailed, listening, kit, f"listen, so that two listeners share {listener.address},")
        async with _linked(kit, listener) as (dialled, accepted):
            await carry(dialled, accepted, b"hello")


@clause("T4")
async def two_dialers_get_two_links(kit: Kit) -> None:
    """Two diallers get separate links: no bytes cross over."""
    async with (
        kit.listening() as listener,
        _linked(kit, listener) as (near_one, far_one),
        _linked(kit, listener) as (near_two, far_two),
    ):
        await asyncio.gather(
            carry(near_one, far_one, pattern(0, 10_000)),
            carry(far_one, near_one, pattern(20_000, 10_000)),
            carry(near_two, far_two, pattern(40_000, 10_000)),
            carry(far_two, near_two, pattern(60_000, 10_000)),
        )


@clause("T5")
async def closing_a_listener(kit: Kit) -> None:
    """Closing a listener wakes accept with LinkClosed, leaves its links open, and frees its address."""
    async with kit.listening() as listener, _linked(kit, listener) as (dialled, accepted):
        accepting = begin(listener.accept())
        await settle()
        await listener.aclose()
        await listener.aclose()
        await raises(LinkClosed, accepting, kit, "accept, woken by the close,")
        await raises(LinkClosed, listener.accept(), kit, "accept after the close")
        await carry(dialled, accepted, b"hello")
        await carry(accepted, dialled, b"hello")
        again = await kit.transport.listen(listener.address, kit.site)
        await again.aclose()


@clause("T6")
async def cancelled_dial_and_accept(kit: Kit) -> None:
    """A cancelled dial or accept leaks nothing and loses no peer."""
    async with kit.listening() as listener:
        async with _linked(kit, listener):
            pass
        await settle()
        before = resources(kit)
        for turns in range(12):  # cancelled a little later every time
            password = b"%2d" % turns
            calling = begin(_dial_and_say(kit, listener, password))
            early = await cancel_after(turns, listener.accept())
            gave_up = await cancel_after(turns, kit.transport.dial(listener.address))
            if gave_up is not None:
                await gave_up.aclose()
            said = None
            while said != password:  # the others are those who gave up
                async with aclosing(early or await listener.accept()) as link:
                    early, said = None, await receive_some(link, 2)
            await (await calling).aclose()
        await listener.aclose()  # who gave up may still wait in it
        await check_nothing_left(kit, before)


# -- L: links ---------------------------------------------------------------------------------------------


@_link_clause("L1")
async def bytes_unchanged(_kit: Kit, near: Link, far: Link) -> None:
    """Bytes arrive unchanged and in order, in pieces of any size from 0 to 1 MiB, in both directions at once."""
    for size in (0, 1, 4_095, 4_096, 4_097, 65_535, 65_536, 65_537, MANY):
        await asyncio.gather(carry(near, far, pattern(0, size)), carry(far, near, pattern(MANY, size)))


@_link_clause("L2")
async def send_takes_any_buffer(kit: Kit, near: Link, far: Link) -> None:
    """``send`` takes any buffer, keeps no reference to it, and transmits nothing for an empty one."""
    data = pattern(0, 600)
    for piece in (data[:100], bytearray(data[100:200]), memoryview(data)[200:300], memoryview(bytearray(data))[300:]):
        if near.send(b""):
            fail("send took something of nothing")
        await send_all(near, piece)
    check_same(await receive_exactly(far, len(data)), data)
    taken = await kit.clog(near)  # it overwrites each piece once send has returned
    check_same(await receive_exactly(far, taken), pattern(0, taken))
    waiting = begin(far.receive())
    await settle()
    if near.send(b""):
        fail("send took something of nothing")
    await still_waits(waiting, "when nothing was sent")
    await send_all(near, b"x")
    check_same(await waiting, b"x")


@_link_clause("L3")
async def send_never_waits(kit: Kit, near: Link, far: Link) -> None:
    """``send`` never waits: a full link takes 0. What it took arrives without another call."""
    taken = await kit.clog(near)
    check_same(await receive_exactly(far, taken), pattern(0, taken))


@_link_clause("L4")
async def writable_sleeps_and_wakes(kit: Kit, near: Link, far: Link) -> None:
    """``writable`` sleeps while the link is full, wakes when there is room, and returns at once if there is."""
    await near.writable()
    taken, waiting = await _sleeping_writer(kit, near)
    check_same(await receive_exactly(far, taken), pattern(0, taken))
    await within(kit, waiting, "writable, with all read at the other end,")
    await send_all(near, b"x")
    check_same(await receive_exactly(far, 1), b"x")


@_link_clause("L5")
async def the_end(kit: Kit, near: Link, far: Link) -> None:
    """``receive`` returns ``b""`` at the end of the stream, never before it, and always after it."""
    waiting = begin(far.receive())
    await still_waits(waiting, "before anything was sent")
    await send_all(near, b"hello")
    got = await waiting
    check_same(got + await receive_exactly(far, 5 - len(got)), b"hello")
    await near.aclose()
    for _ in range(5):
        rest = await within(kit, far.receive(), "receive, after the peer closed,")
        if rest:
            fail(f"receive invented {rest!r} at the end")


@clause("L6")
async def what_was_sent_arrives(kit: Kit) -> None:
    """Bytes sent before ``aclose`` reach a peer that reads, even from a full link with unread bytes."""
    for dialler_closes in (True, False):
        async with kit.pair() as ends:
            near, far = ends if dialler_closes else reversed(ends)
            taken = await kit.clog(near)
            await kit.clog(far)  # and nobody reads that
            await near.aclose()
            with suppress(LinkBroken):  # the peer has left
                far.send(pattern(0, 10_000))
            check_same(await within(kit, receive_some(far), "reading to the end"), pattern(0, taken))


@clause("L7")
async def vanished_peer(kit: Kit) -> None:
    """A vanished peer shows within the time unit, as the end or as LinkBroken: no hang, no invented bytes."""
    for dials in (True, False):
        async with kit.doomed(dials=dials, sends=False) as (link, vanish):
            waiting = begin(receive_some(link))
            await still_waits(waiting, "before its peer was gone")
            vanish()
            check_same(await within(kit, waiting, "receive, with the peer gone,"), b"")
        async with kit.doomed(dials=dials, sends=True) as (link, vanish):
            got = await receive_some(link, 200_000)
            await kit.clog(link)
            sending = begin(send_pattern(link))
            await settle()
            vanish()
            got += await within(kit, receive_some(link), "reading what the peer left")
            check_same(got, pattern(0, len(got)))
            await raises(LinkBroken, sending, kit, "sending to a peer that is gone")


@_link_clause("L8")
async def closed_link(kit: Kit, near: Link, far: Link) -> None:
    """After ``aclose`` every call raises LinkClosed, but ``aclose`` itself may be called again."""
    await send_all(far, b"never read")
    await near.aclose()
    await near.aclose()
    for piece in (b"x", b""):
        try:
            near.send(piece)
        except LinkClosed:
            continue
        fail("send works on a closed link")
    await raises(LinkClosed, near.receive(), kit, "receive after aclose")
    await raises(LinkClosed, near.writable(), kit, "writable after aclose")


@_link_clause("L9")
async def aclose_wakes(kit: Kit, near: Link, _far: Link) -> None:
    """``aclose`` wakes all waits on the link with LinkClosed, and does not wait for the peer."""
    receiving = begin(near.receive())
    _, sending = await _sleeping_writer(kit, near)
    await within(kit, near.aclose(), "aclose of a full link")
    await raises(LinkClosed, receiving, kit, "receive, woken by aclose,")
    await raises(LinkClosed, sending, kit, "writable, woken by aclose,")


@_link_clause("L10")
async def second_reader(kit: Kit, near: Link, far: Link) -> None:
    """A second ``receive``, or ``writable``, while one waits raises LinkBusy and does not disturb the first."""
    first = begin(near.receive())
    await settle()
    await raises(LinkBusy, near.receive(), kit, "a second receive")
    await send_all(far, b"x")
    check_same(await within(kit, first, "the first receive"), b"x")
    taken, first_writer = await _sleeping_writer(kit, near)
    await raises(LinkBusy, near.writable(), kit, "a second writable")
    check_same(await receive_exactly(far, taken), pattern(0, taken))
    await within(kit, first_writer, "the first writable")


@_link_clause("L11")
async def cancelled_waits(_kit: Kit, near: Link, far: Link) -> None:
    """Cancelling ``receive`` or ``writable`` loses no byte and leaves the link as good as before."""
    data, got = pattern(0, MANY), bytearray()
    turns = cycle(range(5))

    async def send_with_cancelled_waits() -> None:
        rest = memoryview(data)
        while rest:
            taken = send(near, rest)
            rest = rest[taken:]
            if not taken:
                await cancel_after(next(turns), near.writable())

    async def receive_with_cancelled_waits() -> None:
        while len(got) < len(data):
            piece = await cancel_after(next(turns), far.receive())
            if piece == b"":
                fail(f"the stream ended after {len(got)} bytes of {len(data)}")
            got.extend(piece or await far.receive())

    await asyncio.gather(send_with_cancelled_waits(), receive_with_cancelled_waits())
    check_same(bytes(got), data)


@clause("L12")
async def no_thread_no_blocking(kit: Kit) -> None:
    """No thread, no blocking call: whatever waits, the loop runs and others are served."""
    async with kit.listening() as listener:
        before = set(threading.enumerate())
        async with _linked(kit, listener) as (dialled, accepted):
            await carry(dialled, accepted, pattern(0, MANY))
            await carry(accepted, dialled, pattern(0, MANY))
            waits = [(await _sleeping_writer(kit, link))[1] for link in (dialled, accepted)]
            async with _linked(kit, listener) as (other, other_accepted):
                accepting = begin(listener.accept())
                await carry(other, other_accepted, pattern(0, MANY))
                if extra := set(threading.enumerate()) - before:
                    fail(f"threads were started: {sorted(thread.name for thread in extra)}")
                if accepting.done():
                    fail("accept returned where nobody had dialled")
            for task in (accepting, *waits):
                task.cancel()


@clause("L13")
async def nothing_left(kit: Kit) -> None:
    """After everything is closed, there are the same descriptors, tasks, threads and files as before."""
    await _whole_life(kit)  # the first may import, and fill caches
    await settle()
    before = resources(kit)
    await _whole_life(kit)
    await check_nothing_left(kit, before)


async def _whole_life(kit: Kit) -> None:
    async with kit.listening() as listener:
        async with _linked(kit, listener) as (dialled, accepted):
            await carry(dialled, accepted, pattern(0, MANY))
            await cancel_after(3, accepted.receive())
            await kit.clog(dialled)
            await kit.clog(accepted)
            await cancel_after(3, accepted.writable())
        unaccepted = begin(kit.transport.dial(listener.address))
        await settle()
    with suppress(DialFailed):
        await (await unaccepted).aclose()


async def _dial_and_say(kit: Kit, listener: Listener, data: bytes) -> Link:
    link = await kit.transport.dial(listener.address)
    await send_all(link, data)
    return link


async def _sleeping_writer(kit: Kit, link: Link) -> tuple[int, asyncio.Task[None]]:
    """Fill a link and wait for ``writable``; return how many bytes of ``pattern`` it took, and the wait."""
    taken = await kit.clog(link)
    while True:
        waiting = begin(link.writable())
        await settle()
        if not waiting.done():
            return taken, waiting
        waiting.result()
        before, taken = taken, await kit.clog(link, taken)  # the kernel may have found room after all
        if taken == before:
            fail("writable returned from a full link: whoever trusts it turns in circles")
