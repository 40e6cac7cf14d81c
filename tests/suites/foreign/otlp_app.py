"""An app with spans of its own: otlp_app.py HOST PORT COLLECTOR grpc|http.

It answers every request with its span's IDs, and with the fields that told it of the trace, as JSON. Whatever it is told
in (traceparent, b3, x-b3-*), it takes; traceparent first.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.trace import SpanKind

import otlp_sdk

host, port, collector, protocol = sys.argv[1:]
tracer = otlp_sdk.provider("orders-app", collector, protocol).get_tracer("orders.app")
FIELDS = ("traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled")


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        fields = {name: self.headers[name] for name in FIELDS if name in self.headers}
        told = "tracecontext" if "traceparent" in fields else "b3multi"
        context = otlp_sdk.PROPAGATORS[told]().extract(fields)
        with tracer.start_as_current_span("handle", context=context, kind=SpanKind.SERVER) as span:
            body = json.dumps(otlp_sdk.ids(span) | {"fields": fields}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer((host, int(port)), App).serve_forever()
