import asyncio, websockets
from websockets.asyncio.server import serve
async def h(ws):
    async for m in ws: await ws.send(m)
async def main():
    async with serve(h, "127.0.0.1", 18080, subprotocols=["chat.v2"], max_size=None) as s: await s.serve_forever()
asyncio.run(main())
