"""The app of the soak: what it answers says which request it answers, so that a wrong one shows.

    soak_app.py PORT

`/get/N?size=S` S bytes made of N, with a length or, where N is odd, in chunks; `/post/N` the SHA-256 of
what was sent; `/sse/N` events N:0, N:1, ... twenty milliseconds apart, ten of them; `/ws` an echo.
"""

import asyncio
import hashlib
import sys

import ws


def body(number, size):
    piece = f"{number:08d}".encode()
    return (piece * (size // 8 + 1))[:size]


async def serve(reader, writer):
    try:
        while (head := await reader.readuntil(b"\r\n\r\n")) and await answer(head, reader, writer):
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def answer(head, reader, writer):
    lines = head.decode().split("\r\n")
    path = lines[0].split(" ")[1]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if path.startswith("/ws"):
        return await socket(head, reader, writer)
    kind, number = path.split("?")[0].split("/")[1:3]
    number = int(number)
    sent = await read(reader, headers)
    if kind == "get":
        data = body(number, int(path.split("size=")[1]))
        if number % 2:
            out = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            for at in range(0, len(data), 5000):
                piece = data[at : at + 5000]
                # A small answer goes out as one piece, so that counts of it are all alike.
                out += f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
                if len(out) > 5000:
                    writer.write(out)
                    out = b""
            writer.write(out + b"0\r\n\r\n")
        else:
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
    elif kind == "post":
        digest = f"{number} {hashlib.sha256(sent).hexdigest()}".encode()
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(digest)}\r\n\r\n".encode() + digest)
    elif kind == "sse":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in range(10):
            data = f"data: {number}:{event}\n\n".encode()
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.write(b"0\r\n\r\n")
    return True


async def read(reader, headers):
    if headers.get("transfer-encoding"):
        sent = b""
        while size := int(await reader.readline(), 16):
            sent += (await reader.readexactly(size + 2))[:size]
        await reader.readline()
        return sent
    return await reader.readexactly(int(headers.get("content-length", 0)))


async def socket(head, reader, writer):
    held = bytearray(head)

    class Out:
        sendall = staticmethod(writer.write)

    while ws.answer(Out, held):
        await writer.drain()
        piece = await reader.read(65536)
        if not piece:
            break
        held += piece
    return False


async def main(port):
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=512)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
