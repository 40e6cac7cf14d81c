"""A mail server of the library `aiosmtpd`: mail.py HOST PORT. It says how long a mail was."""

import asyncio
import sys

from aiosmtpd.smtp import SMTP


class Handler:
    async def handle_DATA(self, _server, _session, envelope):
        return f"250 OK {len(envelope.content)}"


async def main(host, port):
    def session():
        return SMTP(Handler(), hostname="data.test", enable_SMTPUTF8=False)

    server = await asyncio.get_running_loop().create_server(session, None if host == "::" else host, int(port))
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
