import asyncio
from websockets.asyncio.client import connect
async def main():
    cs=[await connect("ws://127.0.0.1:14340/x",compression=None,ping_interval=None) for _ in range(500)]
    import subprocess
    print(subprocess.run("grep VmRSS /proc/$(cat mesh/web.pid)/status /proc/$(cat mesh/orders.pid)/status",shell=True,capture_output=True,text=True).stdout)
    for c in cs: await c.close()
asyncio.run(main())
