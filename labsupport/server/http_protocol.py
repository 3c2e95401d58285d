"""What is not even HTTP is refused in the one shape that every refusal has.

Right means: bytes that cannot be read as a request get 400 with OpenAI's error object, as far as an answer is
still possible, and the connection closes.
"""

from __future__ import annotations

import json
import logging

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from labsupport.server.errors import bad_request

logger = logging.getLogger("labsupport.server")


class HttpProtocol(H11Protocol):
    """The web server's own protocol, but for the answer to what it cannot read."""

    def send_400_response(self, msg: str) -> None:
        """Answer `msg`, the web server's words for what was wrong, and hang up."""
        body = json.dumps(bad_request(msg, code="invalid_http").body).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        try:
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            logger.info("hung up in the middle of an answer: what came next was not HTTP")
        self.transport.close()
