"""A tiny OIDC identity provider on loopback: the token endpoint over HTTPS, the signing keys over HTTP (for Kafka)."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from demo.broker import Certificate

CLIENT_ID, CLIENT_SECRET = "perf-client", "a-client-secret-1701"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(number: int) -> str:
    return _base64(number.to_bytes((number.bit_length() + 7) // 8, "big"))


class IdentityProvider:
    """Gives a signed token to who knows the client's secret. `certificate` is the token endpoint's."""

    def __init__(self, certificate: Certificate) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.certificate = certificate
        self.lifetime_s = 300
        self.requests: list[str] = []
        self._servers = [self._serve(certificate), self._serve(None)]
        self.token_url = f"https://localhost:{self._servers[0].server_address[1]}/token"
        self.jwks_url = f"http://127.0.0.1:{self._servers[1].server_address[1]}/keys"

    def close(self) -> None:
        """Stop serving."""
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _serve(self, certificate: Certificate | None) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
                file.write(certificate.private_key_pem + certificate.chain_pem)
                file.flush()
                context.load_cert_chain(file.name)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                numbers = provider._key.public_key().public_numbers()
                key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1"}
                self._answer(200, {"keys": [{**key, "n": _number(numbers.n), "e": _number(numbers.e)}]})

            def do_POST(self) -> None:
                provider.requests.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
                wanted = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
                if self.headers["Authorization"] != f"Basic {wanted}":
                    self._answer(401, {"error": "invalid_client"})
                else:
                    self._answer(200, {"access_token": provider._token(), "token_type": "Bearer"})

            def _answer(self, status: int, content: dict[str, Any]) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _token(self) -> str:
        now_s = int(time.time())
        claims = {"sub": CLIENT_ID, "iat": now_s, "exp": now_s + self.lifetime_s}
        parts = [{"alg": "RS256", "typ": "JWT", "kid": "1"}, claims]
        signed = ".".join(_base64(json.dumps(part).encode()) for part in parts)
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_base64(signature)}"
