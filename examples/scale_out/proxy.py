"""Several FFAvatar servers behind one address: a small reverse proxy, the standard library alone.

    ffavatar serve --port 8461 --folder a --no-browser &
    ffavatar serve --port 8462 --folder b --no-browser &
    python examples/scale_out/proxy.py --port 8460 127.0.0.1:8461 127.0.0.1:8462

A server keeps its own photos, jobs and avatars, so each client stays with one server: a cookie says which. A new
client gets the server with the fewest open connections. One connection goes to one server and is passed on byte by
byte: uploads, event streams and ranges need nothing special, and Host and Origin reach the servers, which check them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re

COOKIE = "ffavatar_home"
LONGEST_HEAD = 32 * 1024
HEAD_S, CONNECT_S = 20.0, 5.0  # for a client to say what it wants; for a server to answer at all
DETAIL = b'{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"No server answers; try later."}'
UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 5\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(DETAIL), DETAIL)
)


class Proxy:
    """Passes connections on to ``servers``, pairs of host and port."""

    def __init__(self, servers: list[tuple[str, int]]) -> None:
        self.servers = servers
        self.open = [0] * len(servers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection, from its first byte to its last."""
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_S)
            await self.pass_on(head, reader, writer)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, ConnectionError):
            pass
        finally:
            with contextlib.suppress(ConnectionError):
                writer.close()
                await writer.wait_closed()

    def order(self, head: bytes) -> list[int]:
        """Numbers of the servers to try: the client's own alone, or for a new client all, the least busy first."""
        found = re.search(rb"(?im)^cookie:.*\b" + COOKIE.encode() + rb"=(\d{1,4})\b", head)
        if found and int(found[1]) < len(self.servers):
            return [int(found[1])]
        return sorted(range(len(self.servers)), key=self.open.__getitem__)

    async def pass_on(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect to a server, give it the request and its answer a cookie, and let the rest flow both ways."""
        for number in self.order(head):
            try:
                server = await asyncio.wait_for(asyncio.open_connection(*self.servers[number]), CONNECT_S)
                break
            except (OSError, TimeoutError):
                continue
        else:
            writer.write(UNAVAILABLE)
            await writer.drain()
            return
        self.open[number] += 1
        try:
            server[1].write(head)
            cookie = f"{COOKIE}={number}; Path=/; HttpOnly; SameSite=Strict"
            await asyncio.gather(flow(reader, server[1]), flow(server[0], writer, cookie))
        finally:
            self.open[number] -= 1
            server[1].close()


async def flow(source: asyncio.StreamReader, sink: asyncio.StreamWriter, cookie: str | None = None) -> None:
    """Bytes from one side to the other until it ends; with ``cookie`` the first answer's head gets one."""
    try:
        if cookie is not None:
            while (head := await source.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 1"):
                sink.write(head)  # "100 Continue": the answer proper is still to come
            sink.write(head[:-2] + f"Set-Cookie: {cookie}\r\n\r\n".encode())
        while piece := await source.read(65536):
            sink.write(piece)
            await sink.drain()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        pass
    finally:
        with contextlib.suppress(OSError, RuntimeError):
            sink.write_eof() if sink.can_write_eof() and cookie is None else sink.close()


async def main() -> None:
    """Listen until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="+", help="HOST:PORT of each server")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8460)
    given = parser.parse_args()
    servers = [(host, int(port)) for host, _, port in (server.rpartition(":") for server in given.servers)]
    listening = await asyncio.start_server(Proxy(servers).serve, given.host, given.port, limit=LONGEST_HEAD)
    port = listening.sockets[0].getsockname()[1]
    print(f"http://{given.host}:{port}/ in front of {len(servers)} servers", flush=True)
    async with listening:
        await listening.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
