"""An app that knows nothing of the mesh: app.py KIND PORT, on all addresses.

http    HTTP/1.1, any method; says as JSON what it was asked, on which of its connections, and how many are open
count   how many bytes came, once the other end has said that it is done
late    says "220 late" after three seconds, and then repeats what it hears
reset   resets the connection at the first byte
ends    to "ask": how the connections before ended, as "end" or "reset"; says "220 ends" first
proxy   a forward proxy: CONNECT leads to an echo, an absolute target is said back
"""

import asyncio
import json
import socket
import struct
import sys

seen = {"connections": 0, "open": 0, "ends": []}


def abort(writer):
    """Ends with RST in place of FIN."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def head_of(reader):
    """A request line's words and its fields; None if the connection ends before."""
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    line, *fields = text.removesuffix("\r\n\r\n").split("\r\n")
    return line.split(" "), {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}


async def http(reader, writer):
    connection, requests = seen["connections"], 0
    while asked := await head_of(reader):
        (method, target, _version), fields = asked
        await reader.readexactly(int(fields.get("content-length", 0)))
        requests += 1
        said = {
            "pod": socket.gethostname(), "method": method, "target": target[:100], "target_length": len(target),
            "fields": {name: value[:100] for name, value in fields.items()},
            "connection": connection, "request": requests, "open": seen["open"], "connections": seen["connections"],
        }
        body = json.dumps(said).encode() + b"\n"
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
        if method != "HEAD":
            writer.write(body)
        await writer.drain()


async def count(reader, writer):
    total = 0
    while piece := await reader.read(65536):
        total += len(piece)
    writer.write(b"%d bytes\n" % total)


async def late(reader, writer):
    await asyncio.sleep(3)
    writer.write(b"220 late\r\n")
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()


async def reset(reader, writer):
    await reader.read(1)
    abort(writer)


async def ends(reader, writer):
    writer.write(b"220 ends\r\n")
    try:
        while line := await reader.readline():
            if line == b"ask\n":
                writer.write(json.dumps(seen["ends"]).encode() + b"\n")
                return
        seen["ends"].append("end")
    except ConnectionError:
        seen["ends"].append("reset")


async def proxy(reader, writer):
    (method, target, _version), fields = await head_of(reader)
    if method == "CONNECT":
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        return
    body = json.dumps({"proxied": target, "fields": fields}).encode() + b"\n"
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)


async def main(kind, port):
    async def serve(reader, writer):
        seen["connections"] += 1
        seen["open"] += 1
        try:
            await globals()[kind](reader, writer)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            seen["open"] -= 1
            writer.close()

    server = await asyncio.start_server(serve, None, int(port), backlog=1024, limit=1 << 20)
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
