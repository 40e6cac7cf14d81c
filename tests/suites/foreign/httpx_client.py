"""A client of httpx: httpx_client.py HOST:PORT 1.1|2. The app is asgi_app.py, which keeps quiet connections for 1 s."""

import asyncio
import sys

import httpx

target, version = sys.argv[1:]


async def pieces():
    for _ in range(50):
        yield b"p" * 10_000


async def one(client, number):
    answer = await client.get(f"/number/{number}")
    assert answer.status_code == 200, answer.text
    assert answer.text == f"{version} /number/{number}", answer.text
    assert answer.http_version == f"HTTP/{version}", answer.http_version


async def main():
    is_two = version == "2"
    limits = httpx.Limits(max_connections=30)
    async with httpx.AsyncClient(
        base_url=f"http://{target}", http1=not is_two, http2=is_two, limits=limits, trust_env=False, timeout=30
    ) as client:
        for _ in range(3):
            await asyncio.gather(*(one(client, number) for number in range(200)))
            # About when the app's connections end.
            await asyncio.sleep(1)
        answers = await asyncio.gather(*(client.post("/echo", content=pieces()) for _ in range(20)))
        assert all(answer.content == b"p" * 500_000 for answer in answers)


asyncio.run(main())
print("as claimed")
