"""One WebSocket, kept open: sends a word five times a second and waits for its echo.

usage: websocket.py HOST PORT

Prints "open", "echo" for each that comes back, and at the end "closed CODE REASON",
or what else ended it.
"""
import base64
import os
import socket
import struct
import sys
import time


def say(*words):
    print(*words, flush=True)


def read(wire, length):
    data = b""
    while len(data) < length:
        more = wire.recv(length - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def frame(opcode, data):
    mask = os.urandom(4)
    return bytes([0x80 | opcode, 0x80 | len(data)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data))


host, port = sys.argv[1], int(sys.argv[2])
wire = socket.create_connection((host, port), timeout=10)
key = base64.b64encode(os.urandom(16)).decode()
wire.sendall(
    f"GET /socket HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: http://{host}:{port}\r\nConnection: Upgrade\r\n"
    f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
)
head = b""
while not head.endswith(b"\r\n\r\n"):
    head += read(wire, 1)
if b" 101 " not in head.split(b"\r\n")[0]:
    say("refused", head.split(b"\r\n")[0].decode())
    sys.exit(1)
say("open")
try:
    while True:
        wire.sendall(frame(1, b"tick"))
        first, length = read(wire, 2)
        if length == 126:
            length = struct.unpack(">H", read(wire, 2))[0]
        data = read(wire, length)
        if first & 0x0F == 8:
            code = struct.unpack(">H", data[:2])[0] if data else 1005
            say("closed", code, data[2:].decode())
            break
        say("echo")
        time.sleep(0.2)
except (EOFError, OSError) as error:
    say("ended", type(error).__name__)
