"""A client with spans of its own: otlp_client.py URL COLLECTOR grpc|http tracecontext|b3|b3multi.

It calls the URL once within a span of its own, and prints this span's IDs and the answer, as JSON.
"""

import json
import sys
from urllib.request import ProxyHandler, Request, build_opener

from opentelemetry.trace import SpanKind

import otlp_sdk

url, collector, protocol, propagator = sys.argv[1:]
provider = otlp_sdk.provider("shop", collector, protocol)
with provider.get_tracer("shop.app").start_as_current_span("checkout", kind=SpanKind.CLIENT) as span:
    fields = {}
    otlp_sdk.PROPAGATORS[propagator]().inject(fields)
    with build_opener(ProxyHandler({})).open(Request(url, headers=fields), timeout=30) as answer:
        said = json.load(answer)
    print(json.dumps(otlp_sdk.ids(span) | {"sent": fields, "app": said}))
provider.shutdown()
