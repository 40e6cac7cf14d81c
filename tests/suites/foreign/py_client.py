import asyncio, time, os
from websockets.asyncio.client import connect
async def main():
    async with connect("ws://127.0.0.1:14340/chat", subprotocols=["chat.v1","chat.v2"], max_size=None) as ws:
        print("py subprotocol", ws.subprotocol, "ext", ws.protocol.extensions)
        t=time.time()
        for i in range(1000):
            await ws.send(f"m{i}"); assert await ws.recv()==f"m{i}"
        big=os.urandom(8_000_000); await ws.send(big); assert await ws.recv()==big
        pong=await ws.ping(); await pong
        print("py ok", round(time.time()-t,2))
    print("py close", ws.close_code, ws.close_reason)
    async def one(n):
        async with connect("ws://127.0.0.1:14340/chat") as ws:
            for i in range(20):
                await ws.send(f"{n}-{i}"); assert await ws.recv()==f"{n}-{i}"
    await asyncio.gather(*(one(n) for n in range(100)))
    print("py 100 at once ok")
asyncio.run(main())
