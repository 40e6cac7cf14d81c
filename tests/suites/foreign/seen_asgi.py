"""An app on hypercorn that writes down what it sees: seen_asgi.py HOST PORT FILE.

h11 reads HTTP/1, h2 reads HTTP/2 with prior knowledge. A line of JSON for each request of which it has the whole body,
before it answers.
"""

import asyncio
import json
import sys

from hypercorn.asyncio import serve
from hypercorn.config import Config

out = open(sys.argv[3], "a", encoding="ascii", buffering=1)


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    total = 0
    while True:
        event = await receive()
        if event["type"] != "http.request":
            return
        total += len(event.get("body", b""))
        if not event.get("more_body", False):
            break
    fields = [[name.decode("latin-1").lower(), value.decode("latin-1")] for name, value in scope["headers"]]
    target = scope["raw_path"].decode("latin-1")
    if scope["query_string"]:
        target += "?" + scope["query_string"].decode("latin-1")
    seen = {
        "method": scope["method"],
        "target": target,
        "host": dict(fields).get("host", ""),
        "bytes": total,
        "fields": fields,
    }
    out.write(json.dumps(seen) + "\n")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"seen\n" if scope["method"] != "HEAD" else b""})


config = Config()
config.bind = [":".join(sys.argv[1:3])]
config.h11_max_incomplete_size = 256 * 1024
asyncio.run(serve(app, config))
