"""An app on Python's http.server that writes down what it sees: seen_app.py HOST PORT FILE.

A line of JSON for each request of which it has the whole body, before it answers. The target is that of the request
line: http.server itself takes several slashes at its beginning for one.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

out = open(sys.argv[3], "a", encoding="ascii", buffering=1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def body(self):
        """How long the body is; as lenient as programs are that decode chunks by hand."""
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            length = int(self.headers.get("Content-Length", 0))
            return length, len(self.rfile.read(length)) == length
        total = 0
        while True:
            line = self.rfile.readline()
            if not line:
                return total, False
            size = int(line.split(b";")[0].strip(), 16)
            total += size
            if len(self.rfile.read(size)) < size:
                return total, False
            while size == 0 and line not in (b"\r\n", b"\n", b""):
                line = self.rfile.readline()
            if size == 0:
                return total, line != b""
            self.rfile.readline()

    def answer(self):
        bytes_, is_whole = self.body()
        if not is_whole:
            self.close_connection = True
            return
        seen = {
            "method": self.command,
            "target": self.requestline.split()[1],
            "host": self.headers.get("Host", ""),
            "bytes": bytes_,
            "fields": [[name.lower(), value] for name, value in self.headers.items()],
        }
        out.write(json.dumps(seen) + "\n")
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"seen\n")

    def log_message(self, *_):
        pass


ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
