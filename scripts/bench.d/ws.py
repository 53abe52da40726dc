"""WebSockets, as far as measuring needs them: an echo server, and many clients in one thread.

    ws.py PORT      an echo server on 127.0.0.1
"""

import base64
import hashlib
import os
import selectors
import socket
import sys
import time

HELLO = (
    "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: {scheme}://{host}\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{headers}\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "
)
PAYLOAD = 64
# A masked text frame; the mask is zero, so that the payload can be compared.
MESSAGE = bytes([0x81, 0x80 | PAYLOAD, 0, 0, 0, 0])
ANSWER = bytes([0x81, PAYLOAD])


def message(number):
    return f"{number:0{PAYLOAD}d}".encode()


class Client:
    """One WebSocket, already open."""

    def __init__(self, host, port, headers=(), scheme="http", source=None):
        self.socket = socket.create_connection((host, port), 20, (source, 0) if source else None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = "".join(f"{line}\r\n" for line in headers)
        self.socket.sendall(HELLO.format(host=f"{host}:{port}", key=key, headers=lines, scheme=scheme).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self.socket.recv(4096)
            if not piece:
                break
            head += piece
        if not head.startswith(b"HTTP/1.1 101"):
            raise OSError(f"no WebSocket: {head[:200]!r}")

    def send(self, number):
        self.sent = message(number)
        self.socket.sendall(MESSAGE + self.sent)

    def receive(self):
        """The echo of what was sent last, or an error."""
        answer = b""
        while len(answer) < len(ANSWER) + PAYLOAD:
            piece = self.socket.recv(4096)
            if not piece:
                raise OSError("the WebSocket ended")
            answer += piece
        if answer != ANSWER + self.sent:
            raise OSError(f"a wrong echo: {answer!r}")

    def close(self):
        self.socket.close()


def echo(clients, seconds):
    """Every client sends as soon as its echo is there. How many echoes, and how long each took."""
    poll = selectors.EpollSelector()
    sent_at, took, number = {}, [], 0
    for client in clients:
        poll.register(client.socket, selectors.EVENT_READ, client)
        client.send(number)
        sent_at[client] = time.perf_counter()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for key, _ in poll.select(1):
            client = key.data
            client.receive()
            now = time.perf_counter()
            took.append(now - sent_at[client])
            number += 1
            client.send(number)
            sent_at[client] = now
    for client in clients:
        client.receive()
    return took


def serve(port):
    """Echoes text and binary frames of less than 64 KiB, answers pings and closes."""
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    listener.setblocking(False)
    poll = selectors.EpollSelector()
    poll.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in poll.select():
            if key.fileobj is listener:
                try:
                    conn, _ = listener.accept()
                except OSError:
                    continue
                conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                poll.register(conn, selectors.EVENT_READ, bytearray())
                continue
            conn, held = key.fileobj, key.data
            try:
                piece = conn.recv(65536)
                held += piece
                if not piece or not answer(conn, held):
                    raise OSError
            except OSError:
                poll.unregister(conn)
                conn.close()


def answer(conn, held):
    """Answers what is complete of what was received. False once the connection is to end."""
    if held.startswith(b"GET "):
        if b"\r\n\r\n" not in held:
            return True
        head, _, rest = bytes(held).partition(b"\r\n\r\n")
        name = b"sec-websocket-key:"
        key = next((line[len(name) :].strip() for line in head.split(b"\r\n") if line.lower().startswith(name)), None)
        if key is None:
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            held[:] = rest
            return True
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        conn.sendall(SWITCH + accept + b"\r\n\r\n")
        held[:] = rest
    out = b""
    while len(held) >= 6:
        opcode, length, start = held[0] & 15, held[1] & 127, 2
        if length == 126:
            length, start = int.from_bytes(held[2:4], "big"), 4
        if len(held) < start + 4 + length:
            break
        mask = held[start : start + 4]
        payload = held[start + 4 : start + 4 + length]
        if any(mask):
            payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        del held[: start + 4 + length]
        if opcode == 8:
            conn.sendall(bytes([0x88, len(payload)]) + bytes(payload))
            return False
        size = bytes([length]) if length < 126 else bytes([126]) + length.to_bytes(2, "big")
        out += bytes([0x8A if opcode == 9 else 0x80 | opcode]) + size + bytes(payload)
    if out:
        conn.sendall(out)
    return True


if __name__ == "__main__":
    serve(int(sys.argv[1]))
