"""A gRPC app of grpcio: grpc_app.py HOST PORT. Messages are plain bytes; what was seen goes to standard output.

/t.T/Unary           the message back; "big:N": N bytes; "abort": FAILED_PRECONDITION with trailing metadata;
                     "seen": the request's metadata and the time left, as JSON; "hang": until cancelled
/t.T/ClientStream    how many messages of how many bytes
/t.T/ServerStream    "N:BYTES": N messages of so many bytes; "forever": until cancelled; "abort:N": ABORTED after N
/t.T/Bidi            every message back as it comes
"""

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc


def watch(context, name):
    """Says on standard output when a call that hangs was given up."""
    over = threading.Event()
    context.add_callback(over.set)
    over.wait(60)
    print(f"{name} cancelled", flush=True)


def unary(request, context):
    text = request[:32].decode("latin-1")
    if text.startswith("big:"):
        return b"b" * int(text[4:])
    if text == "abort":
        context.set_trailing_metadata((("x-why", "because"), ("x-why-bin", b"\x00\xff")))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today: ümläut %")
    if text == "seen":
        left = context.time_remaining()
        seen = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        binary = {key: value.hex() for key, value in context.invocation_metadata() if isinstance(value, bytes)}
        context.send_initial_metadata((("x-initial", "early"),))
        return json.dumps({"metadata": seen | binary, "left": left}).encode()
    if text == "hang":
        watch(context, "unary")
    return request


def client_stream(requests, _context):
    sizes = [len(message) for message in requests]
    return f"{len(sizes)}:{sum(sizes)}".encode()


def server_stream(request, context):
    first, _, second = request.decode().partition(":")
    if first == "forever":
        context.add_callback(lambda: print("stream cancelled", flush=True))
        while context.is_active():
            yield b"tick"
            time.sleep(0.02)
    elif first == "abort":
        for _ in range(int(second)):
            yield b"one"
        context.abort(grpc.StatusCode.ABORTED, "enough")
    else:
        for _ in range(int(first)):
            yield b"s" * int(second)


def bidi(requests, _context):
    yield from requests


def main(host, port):
    kinds = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
    }
    server = grpc.server(
        ThreadPoolExecutor(64),
        handlers=(grpc.method_handlers_generic_handler("t.T", kinds),),
        options=(("grpc.max_receive_message_length", 64 << 20), ("grpc.so_reuseport", 0)),
    )
    server.add_insecure_port(f"{host}:{port}")
    server.start()
    server.wait_for_termination()


main(*sys.argv[1:])
