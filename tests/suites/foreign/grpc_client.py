"""A gRPC client of grpcio, one claim per run: grpc_client.py HOST:PORT CLAIM. Fails by an assertion."""

import json
import queue
import sys
import threading
import time

import grpc

target, claim = sys.argv[1:]
channel = grpc.insecure_channel(
    target, options=(("grpc.max_receive_message_length", 64 << 20), ("grpc.enable_http_proxy", 0))
)
unary = channel.unary_unary("/t.T/Unary")
client_stream = channel.stream_unary("/t.T/ClientStream")
server_stream = channel.unary_stream("/t.T/ServerStream")
bidi = channel.stream_stream("/t.T/Bidi")


def error_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("it succeeded")


def kinds():
    """Every kind of call."""
    for number in range(200):
        assert unary(b"%d" % number) == b"%d" % number
    assert client_stream(iter([b"12345"] * 1000)) == b"1000:5000"
    assert [len(message) for message in server_stream(b"1000:100")] == [100] * 1000
    # Each message is sent only when the one before has come back: nothing may wait for more.
    outbox = queue.Queue()
    answers = bidi(iter(outbox.get, None))
    for number in range(200):
        outbox.put(b"%d" % number)
        assert next(answers) == b"%d" % number
    outbox.put(None)
    assert list(answers) == []
    assert answers.code() is grpc.StatusCode.OK


def parallel():
    """Many calls at once, more than one connection's streams."""
    futures = [unary.future(b"%d" % number) for number in range(600)]
    assert [future.result() for future in futures] == [b"%d" % number for number in range(600)]


def big():
    """Messages of 4 MiB and more, both ways, and compressed."""
    message = bytes(range(256)) * (16 * 1024 + 1)
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate):
        sent = [message[:4_000_000]] * 3
        assert client_stream(iter(sent), compression=compression) == b"3:12000000"
        assert unary(message, compression=compression) == message
    assert len(unary(b"big:20000000")) == 20_000_000
    assert [len(answer) for answer in server_stream(b"5:4194304")] == [4_194_304] * 5


def metadata():
    """Metadata of the caller, text and binary, initial and trailing, and the deadline."""
    sent = (("x-text", "some text"), ("x-data-bin", b"\x00\x01\xff"), ("x-twice", "a"), ("x-twice", "b"))
    answer, call = unary.with_call(b"seen", metadata=sent, timeout=30)
    seen = json.loads(answer)
    assert seen["metadata"]["x-text"] == "some text"
    assert seen["metadata"]["x-data-bin"] == "0001ff"
    assert seen["metadata"]["x-twice"] == "b"
    # gRPC's core sends a deadline in tenths of a second, rounded up.
    assert 20 < seen["left"] <= 30.1, seen
    assert ("x-initial", "early") in [tuple(pair) for pair in call.initial_metadata()]


def aborts():
    """A server's error, without an answer and after some of it."""
    error = error_of(lambda: unary(b"abort"))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "not today: ümläut %", error.details()
    trailing = dict(error.trailing_metadata())
    assert trailing["x-why"] == "because" and trailing["x-why-bin"] == b"\x00\xff"
    stream, seen = server_stream(b"abort:3"), []
    error = error_of(lambda: seen.extend(message for message in stream))
    assert error.code() is grpc.StatusCode.ABORTED and error.details() == "enough"
    stream = server_stream(b"abort:3")
    assert [next(stream) for _ in range(3)] == [b"one"] * 3
    error = error_of(lambda: channel.unary_unary("/t.T/NoSuch")(b""))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def deadline():
    """The caller's deadline passes; the app hears of it."""
    error = error_of(lambda: unary(b"hang", timeout=0.5))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def cancels():
    """The caller gives up; the app hears of it."""
    future = unary.future(b"hang")
    stream = server_stream(b"forever")
    assert next(stream) == b"tick"
    time.sleep(0.2)
    future.cancel()
    stream.cancel()
    assert error_of(lambda: next(stream)).code() is grpc.StatusCode.CANCELLED
    # The channel is as good as before.
    assert unary(b"after") == b"after"


def lost():
    """The app dies under a stream and a call: both are UNAVAILABLE. Says when it may die."""
    stream = server_stream(b"forever")
    assert next(stream) == b"tick"
    future = unary.future(b"hang")
    time.sleep(0.2)
    print("now", flush=True)
    error = error_of(lambda: [None for _ in stream])
    assert error.code() is grpc.StatusCode.UNAVAILABLE, error
    error = error_of(future.result)
    assert error.code() is grpc.StatusCode.UNAVAILABLE, error
    error = error_of(lambda: unary(b"x"))
    assert error.code() is grpc.StatusCode.UNAVAILABLE, error


def slow_reader():
    """One stream that is not read holds up no other."""
    stream = server_stream(b"400:65536")
    next(stream)
    done = threading.Event()

    def others():
        for number in range(200):
            assert unary(b"%d" % number) == b"%d" % number
        done.set()

    threading.Thread(target=others, daemon=True).start()
    assert done.wait(30), "others wait for the slow reader"
    assert sum(len(message) for message in stream) == 399 * 65536


globals()[claim]()
print("as claimed")
