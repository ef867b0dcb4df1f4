"""A small server that shows one template with the real static files, and a scripted socket.

The page is the product's own; only the far end of its socket is played: frames come one by one
when the test asks for them (``deliver(n)``), so nothing depends on time.
"""

import json
import mimetypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

CSP = (
    "default-src 'self'; script-src 'self' 'nonce-stage'; style-src 'self';"
    " img-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)

FAKE_SOCKET = """
window.stage = {sockets: [], subscriptions: [], frames: [], next: 0};
window.WebSocket = class {
  constructor(url) {
    this.url = url; this.readyState = 0;
    stage.sockets.push(this);
    setTimeout(() => { this.readyState = 1; this.onopen?.({}); }, 0);
  }
  send(data) {
    stage.subscriptions.push(JSON.parse(data));
    const now = stage.now ?? new Date().toISOString();
    this.onmessage?.({data: JSON.stringify({k: "hello", v: 1, head: 0, now, hb: 20})});
  }
  close(code = 1000) { this.readyState = 3; this.onclose?.({code}); }
};
stage.send = (frame) => {
  const socket = stage.sockets.at(-1);
  if (socket?.readyState === 1) socket.onmessage?.({data: JSON.stringify(frame)});
};
stage.deliver = (count) => {
  for (let i = 0; i < count && stage.next < stage.frames.length; i += 1) {
    stage.send({k: "ev", events: stage.frames[stage.next++]});
  }
};
"""


@dataclass(slots=True)
class Stage:
    """Pages by path (HTML), JSON by path, and the POSTs that were received."""

    pages: dict[str, str] = field(default_factory=dict)
    json: dict[str, Any] = field(default_factory=dict)
    posted: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve(stage: Stage, port: int = 0) -> Iterator[Stage]:
    """Serve ``stage`` on loopback until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            stage.requested.append(self.path)
            if path in stage.pages:
                self._send(200, "text/html; charset=utf-8", stage.pages[path].encode())
            elif path in stage.json:
                self._send(200, "application/json", json.dumps(stage.json[path]).encode())
            elif path.startswith("/static/") and (file := ROOT / path[1:]).is_file():
                kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
                self._send(200, kind, file.read_bytes())
            else:
                self._send(404, "text/plain", b"")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            stage.posted.append((self.path, dict(self.headers.items())))
            self._send(202, "application/json", b"{}")

        def log_message(self, *_: object) -> None:
            pass

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", CSP)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    stage.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield stage
    finally:
        server.shutdown()
        server.server_close()
