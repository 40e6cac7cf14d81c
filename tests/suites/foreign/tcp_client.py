"""A client of bytes, one claim per run: tcp_client.py HOST PORT CLAIM [NUMBER]. The app is tcp_app.py. Fails by an
assertion."""

import asyncio
import smtplib
import sys

host, port, claim, *rest = sys.argv[1:]
number = int(rest[0]) if rest else 0


def mail():
    """smtplib, which waits for the server's first word, sends several mails."""
    with smtplib.SMTP(host, int(port), timeout=30) as smtp:
        for size in (10, 100_000, 1_000_000):
            lines = "\r\n".join(["x" * 70] * (size // 72 + 1))
            assert smtp.sendmail("a@example.org", ["b@example.org"], lines) == {}
        assert smtp.noop()[0] == 250


async def half_close():
    """The end of our sending is heard, and the answer to all of it comes after."""
    for size in (0, 1, 65_536, 5_000_000):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"h" * size)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 30)
        assert answer == b"%d bytes\n" % size, answer
        writer.close()


async def long_lived():
    """Like a shell: short words both ways with rests between them, on one connection."""
    reader, writer = await asyncio.open_connection(host, port)
    for turn in range(60):
        word = b"word %d\n" % turn
        writer.write(word)
        assert await asyncio.wait_for(reader.readline(), 10) == word
        await asyncio.sleep(0.02 if turn % 10 else 0.2)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 10) == b""


async def one_of_many(gate, all_there):
    async with gate:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"first\n")
        assert await asyncio.wait_for(reader.readline(), 60) == b"first\n"
    await all_there.wait()
    writer.write(b"second\n")
    assert await asyncio.wait_for(reader.readline(), 60) == b"second\n"
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 60) == b""
    writer.close()


async def hold():
    """NUMBER connections at once: each is answered, and each once more when all are there. Says when that is."""
    all_there = asyncio.Event()
    gate = asyncio.Semaphore(100)
    tasks = [asyncio.create_task(one_of_many(gate, all_there)) for _ in range(number)]
    while not all(task.done() or task._fut_waiter is not None for task in tasks) or gate.locked() or gate._waiters:
        await asyncio.sleep(0.05)
    failed = [task for task in tasks if task.done()]
    assert not failed, failed[0].exception()
    print("all there", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    all_there.set()
    await asyncio.gather(*tasks)


async def churn():
    """NUMBER short connections, ten at a time; every fifth is broken off under way."""

    async def one(turn):
        async with gate:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"c" * 2000)
            if turn % 5 == 0:
                writer.transport.abort()
                return
            writer.write_eof()
            assert len(await asyncio.wait_for(reader.read(), 30)) == 2000
            writer.close()

    gate = asyncio.Semaphore(10)
    await asyncio.gather(*(one(turn) for turn in range(number)))


async def stuck():
    """NUMBER connections that take nothing of a flood and send as much as is taken. Says so; ends with its input."""
    streams = [await asyncio.open_connection(host, port, limit=1024) for _ in range(number)]
    for _reader, writer in streams:
        writer.transport.set_write_buffer_limits(high=65536)
        writer.write(b"u" * 8_000_000)
    await asyncio.sleep(2)
    print("stuck", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    # One is read to its end: nothing of it is missing.
    reader, _writer = streams[0]
    total = 0
    while piece := await asyncio.wait_for(reader.read(1 << 20), 30):
        total += len(piece)
    assert total == 64 * 1024 * 1024, total
    for _reader, writer in streams:
        writer.transport.abort()


run = globals()[claim]()
if run is not None:
    asyncio.run(run)
print("as claimed")
