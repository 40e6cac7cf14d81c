"""A WebSocket client of the library `websockets`: ws_client.py HOST:PORT. The app is ws_app.py or ws_app.js."""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

target = sys.argv[1]


async def one(number):
    async with connect(f"ws://{target}/chat", proxy=None, max_size=64 << 20, ping_interval=0.2) as connection:
        for turn in range(20):
            await connection.send(f"{number}/{turn}")
            assert await connection.recv() == f"{number}/{turn}"
        await connection.send(b"\x00\xff" * 50_000)
        assert await connection.recv() == b"\x00\xff" * 50_000


async def main():
    await asyncio.gather(*(one(number) for number in range(50)))
    async with connect(f"ws://{target}/chat", proxy=None, max_size=64 << 20) as connection:
        await connection.send("x" * 10_000_000)
        assert len(await connection.recv()) == 10_000_000
        # Longer than a ping's time: pings of both ends and their answers pass.
        await asyncio.sleep(1)
        await (await connection.ping())
        await connection.send("bye")
        try:
            await connection.recv()
            raise AssertionError("it was not closed")
        except ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "as you wish"), closed


asyncio.run(main())
print("as claimed")
