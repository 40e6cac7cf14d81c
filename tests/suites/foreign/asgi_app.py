"""An app on hypercorn (h11 for HTTP/1, h2 for HTTP/2 with prior knowledge): asgi_app.py HOST PORT.

/echo sends the request's body back, any other path says the version and the path.
"""

import asyncio
import sys

from hypercorn.asyncio import serve
from hypercorn.config import Config


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    head = {"type": "http.response.start", "status": 200, "headers": []}
    if scope["path"] == "/echo":
        await send(head)
        is_more = True
        while is_more:
            event = await receive()
            is_more = event.get("more_body", False)
            await send({"type": "http.response.body", "body": event.get("body", b""), "more_body": is_more})
        return
    while (await receive()).get("more_body", False):
        pass
    text = f"{scope['http_version']} {scope['path']}".encode()
    await send(head)
    await send({"type": "http.response.body", "body": text})


config = Config()
config.bind = [":".join(sys.argv[1:3])]
config.keep_alive_timeout = 1
asyncio.run(serve(app, config))
