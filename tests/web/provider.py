"""A provider of identities that does what a test tells it to, also what no honest one does."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

CLIENT, SECRET = "orrery", "the secret of the client"
MARA = {"sub": "7f3a", "preferred_username": "mara", "email": "mara@example.org", "email_verified": True}


class Provider:
    """It lets the person in who is named, without asking; PKCE, secret and address of the client are checked for real.

    Parameters
    ----------
    person : claims of who signs in.
    """

    def __init__(self, **person: Any) -> None:
        self.person: dict[str, Any] = {**MARA, **person}
        self.told: dict[str, Any] | None = None
        """What is told at the userinfo endpoint; nothing where there is none."""
        self.change: Callable[[dict[str, Any]], dict[str, Any]] = dict
        """What becomes of the claims of an id token."""
        self.sign: Callable[[dict[str, Any]], Any] = self.signed
        self.called: str = ""
        """What it calls itself, where that is not its address."""
        self.methods = ["client_secret_basic"]
        self.key: Any = RSAKey.generate_key(2048, parameters={"kid": "one"})
        self.alg = "RS256"
        self.asked: list[dict[str, str]] = []
        self._codes: dict[str, dict[str, str]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                outer.get(self, parts.path, dict(parse_qsl(parts.query)))

            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status, found = outer.token(dict(parse_qsl(form)), self.headers.get("authorization", ""))
                self.say(found, status)

            def say(self, found: Any, status: int = 200) -> None:
                body = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def get(self, handler: Any, path: str, query: dict[str, str]) -> None:
        if path == "/.well-known/openid-configuration":
            places = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
            places |= {"userinfo_endpoint": "userinfo"} if self.told is not None else {}
            handler.say(
                {
                    "issuer": self.called or self.issuer,
                    **{name: f"{self.issuer}/{place}" for name, place in places.items()},
                    "token_endpoint_auth_methods_supported": self.methods,
                }
            )
        elif path == "/keys":
            handler.say({"keys": [self.key.as_dict(private=False)]})
        elif path == "/userinfo":
            handler.say(self.told or {})
        elif path == "/authorize":
            self.asked.append(query)
            code = secrets.token_urlsafe(16)
            self._codes[code] = query
            answer = {"code": code, "state": query["state"], "session_state": "whatever"}
            handler.send_response(302)
            handler.send_header("Location", f"{query['redirect_uri']}?{urlencode(answer)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        else:
            handler.say({}, 404)

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        asked = self._codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        shown = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        if self.methods == ["client_secret_post"]:
            shown = f"{form.get('client_id')}:{urlencode({'': form.get('client_secret', '')})[1:]}"
        fits = asked is not None and (
            asked["code_challenge_method"] == "S256"
            and asked["code_challenge"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            and asked["redirect_uri"] == form["redirect_uri"]
            and shown.replace("+", "%20") == f"{CLIENT}:{SECRET.replace(' ', '%20')}"
        )
        if asked is None or not fits:
            return 400, {"error": "invalid_grant", "error_description": "<b>whatever a stranger wrote</b>"}
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "exp": now + 300, "iat": now, "nonce": asked["nonce"]}
        signed = self.sign(self.change({**claims, **self.person}))
        return 200, {"access_token": "opens-userinfo", "token_type": "Bearer"} | (
            {"id_token": signed} if signed else {}
        )

    def signed(self, claims: dict[str, Any], **header: Any) -> str:
        return jwt.encode({"alg": self.alg, "kid": self.key.kid, **header}, claims, self.key, algorithms=[self.alg])

    def renew(self, alg: str = "RS256") -> None:
        """Sign with another key from now on."""
        self.alg, about = alg, {"kid": secrets.token_hex(4)}
        made = {"RS256": lambda: RSAKey.generate_key(2048, parameters=about)}
        made["ES256"] = lambda: ECKey.generate_key("P-256", parameters=about)
        self.key = made[alg]()
