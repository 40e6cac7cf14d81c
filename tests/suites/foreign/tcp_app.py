"""An app of bytes: tcp_app.py HOST PORT KIND.

echo    every byte back as it comes, the end as well
mail    an SMTP server as far as smtplib goes: it speaks first, line by line
count   how many bytes came, once the other end has said that it is done
flood   FLOOD_BYTES as fast as they are taken, then the end; what comes is read slowly
"""

import asyncio
import sys

FLOOD_BYTES = 64 * 1024 * 1024


async def echo(reader, writer):
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()


async def mail(reader, writer):
    def say(line):
        writer.write(line.encode() + b"\r\n")

    say("220 mail ready")
    is_data, size = False, 0
    while line := await reader.readline():
        word = line.strip().decode().upper()
        if is_data:
            is_data, size = word != ".", size + len(line)
            if not is_data:
                say(f"250 taken {size}")
        elif word == "DATA":
            is_data, size = True, 0
            say("354 go on")
        elif word == "QUIT":
            say("221 bye")
            return
        else:
            say("250 ok")
        await writer.drain()


async def count(reader, writer):
    total = 0
    while piece := await reader.read(65536):
        total += len(piece)
    writer.write(b"%d bytes\n" % total)


async def flood(reader, writer):
    async def read_slowly():
        while await reader.read(4096):
            await asyncio.sleep(0.05)

    reading = asyncio.create_task(read_slowly())
    for _ in range(FLOOD_BYTES // 65536):
        writer.write(b"f" * 65536)
        await writer.drain()
    writer.write_eof()
    await reading


async def main(host, port, kind):
    async def serve(reader, writer):
        try:
            await globals()[kind](reader, writer)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, int(port), backlog=4096)
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
