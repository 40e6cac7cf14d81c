"""A WebSocket app of the library `websockets`: ws_app.py HOST PORT. It sends every message back; "bye" closes with 4001."""

import asyncio
import sys

from websockets.asyncio.server import serve


async def echo(connection):
    async for message in connection:
        if message == "bye":
            return await connection.close(4001, "as you wish")
        await connection.send(message)


async def main(host, port):
    async with serve(echo, host, int(port), max_size=64 << 20, ping_interval=0.2):
        await asyncio.get_running_loop().create_future()


asyncio.run(main(*sys.argv[1:]))
