"""A server of a stream that breaks off, falls silent, or is not there."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def server(*bodies: list[bytes | float]) -> Iterator[str]:
    """Answers each request with the next of these, in pieces without a length, pauses in between; then with 404."""
    remaining = list(bodies)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not remaining:
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            for piece in remaining.pop(0):
                if isinstance(piece, float):
                    time.sleep(piece)
                else:
                    self.wfile.write(piece)

        def log_message(self, *_: object) -> None:
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{served.server_port}/live.ts"
    finally:
        served.shutdown()
        served.server_close()
