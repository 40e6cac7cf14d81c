"""A client that knows nothing of the mesh, one claim per run: client.py CLAIM HOST PORT. The app is app.py of the kind
that the claim names. Fails by an assertion."""

import json
import socket
import ssl
import struct
import sys
import time

claim, host, port = sys.argv[1:]


def connect():
    stream = socket.create_connection((host, int(port)), timeout=20)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def rest(stream):
    text = b""
    while piece := stream.recv(65536):
        text += piece
    return text


def answer(stream):
    """One answer of the app of kind http, with its status."""
    text = b""
    while b"\r\n\r\n" not in text:
        piece = stream.recv(65536)
        assert piece, text
        text += piece
    head, _, body = text.partition(b"\r\n\r\n")
    length = next(int(field.split(b":")[1]) for field in head.split(b"\r\n") if field.lower().startswith(b"content-length"))
    while len(body) < length:
        body += stream.recv(65536)
    return int(head.split(b" ")[1]), body


def request(target="/", more=""):
    return f"GET {target} HTTP/1.1\r\nhost: {host if ':' not in host else f'[{host}]'}:{port}\r\n{more}\r\n".encode()


def slow_request_line():
    """http: a byte each 50 ms."""
    stream, text = connect(), request()
    line = text.index(b"\r\n") + 2
    for byte in text[:line]:
        stream.sendall(bytes([byte]))
        time.sleep(0.05)
    stream.sendall(text[line:])
    status, body = answer(stream)
    assert status == 200 and "x-request-id" in json.loads(body)["fields"], body


def long_heads():
    """http: what is long is a request still, and over the bound it is refused as one."""
    for text in (request("/" + "t" * 9 * 1024), request(more=f"x-long: {'h' * 20 * 1024}\r\n")):
        stream = connect()
        # In two pieces: the line is not all there at first.
        stream.sendall(text[:8192])
        time.sleep(0.02)
        stream.sendall(text[8192:])
        status, body = answer(stream)
        assert status == 200 and "x-request-id" in json.loads(body)["fields"], body
    stream = connect()
    stream.sendall(request(more=f"x-long: {'h' * 80 * 1024}\r\n"))
    text = stream.recv(65536)
    assert text.startswith(b"HTTP/1.1 431 "), text[:200]


def keeps_alive():
    """http: many requests on one connection, and the app's connections are used again."""
    stream = connect()
    for _ in range(20):
        stream.sendall(request())
        status, body = answer(stream)
        assert status == 200, body
    said = json.loads(body)
    assert said["request"] > 10, said


def waits_then_asks():
    """http: silent for three seconds, then a request. What was opened meanwhile serves requests, and goes when unused."""
    streams = [connect() for _ in range(6)]
    time.sleep(3)
    for stream in streams:
        stream.sendall(request())
        status, body = answer(stream)
        assert status == 200 and "x-request-id" in json.loads(body)["fields"], body
    for stream in streams:
        stream.close()
    deadline = time.monotonic() + 10
    while True:
        stream = connect()
        stream.sendall(request())
        said = json.loads(answer(stream)[1])
        stream.close()
        assert said["connections"] <= 2 * len(streams), said
        # One for each address of the pod by which requests come in.
        if said["open"] <= 2:
            return
        assert time.monotonic() < deadline, said
        time.sleep(0.1)


def hello_by_bytes():
    """TLS of its own: the ClientHello byte by byte. The certificate is in cert.pem."""
    context = ssl.create_default_context(cafile="cert.pem")
    context.check_hostname = False
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session, stream, is_first = context.wrap_bio(incoming, outgoing, server_hostname="data"), connect(), True
    while True:
        try:
            session.do_handshake()
            break
        except ssl.SSLWantReadError:
            for byte in (text := outgoing.read()):
                stream.sendall(bytes([byte]))
                time.sleep(0.001 if is_first else 0)
            is_first = False
            incoming.write(stream.recv(65536))
    stream.sendall(outgoing.read())
    assert ("commonName", "data") in [pair for pairs in session.getpeercert()["subject"] for pair in pairs]


def half_close():
    """count: the end of our sending is heard, and the answer to all of it comes after."""
    for size in (0, 1, 65_536, 3_000_000):
        stream = connect()
        stream.sendall(b"\x01" * size)
        stream.shutdown(socket.SHUT_WR)
        assert rest(stream) == b"%d bytes\n" % size, size


def is_reset():
    """reset: the server's reset arrives as one, not as an end."""
    stream = connect()
    stream.sendall(b"\x01")
    try:
        text = stream.recv(1)
        raise AssertionError(f"{text!r} in place of a reset")
    except ConnectionResetError:
        pass


def resets():
    """ends: our reset arrives at the server as one, and our end as an end."""

    def ask():
        stream = connect()
        assert stream.recv(100) == b"220 ends\r\n"
        stream.sendall(b"ask\n")
        return json.loads(rest(stream))

    before = len(ask())
    for is_reset in (True, False):
        stream = connect()
        assert stream.recv(100) == b"220 ends\r\n"
        stream.sendall(b"something\n")
        if is_reset:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()
        deadline = time.monotonic() + 10
        while len(said := ask()[before:]) < (1 if is_reset else 2):
            assert time.monotonic() < deadline, said
            time.sleep(0.02)
    assert said == ["reset", "end"], said


def late():
    """late: the server's first word comes after three seconds; then an echo."""
    stream = connect()
    assert stream.recv(100) == b"220 late\r\n"
    stream.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert stream.recv(100) == b"GET / HTTP/1.1\r\n\r\n", "what comes after is nobody's to look into"


def tunnel():
    """proxy: bytes after CONNECT pass as they are."""
    stream = connect()
    stream.sendall(b"CONNECT example.test:443 HTTP/1.1\r\nHost: example.test:443\r\n\r\n")
    assert stream.recv(65536) == b"HTTP/1.1 200 Connection established\r\n\r\n"
    for text in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 100):
        stream.sendall(text)
        back = b""
        while len(back) < len(text):
            back += stream.recv(65536)
        assert back == text


globals()[claim]()
print("as claimed")
