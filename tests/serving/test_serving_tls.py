"""By TLS the inference server answers beyond loopback: who shows a token, or a certificate where it asks for one."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme

from orrery.access.keys import digest
from orrery.serving.assignment import certificate_mark
from orrery.settings import ACCESS_FILE
from serving.conftest import unused_port
from serving.test_serving_grpc import Caller, tensor

TOKEN = f"orrery_t{1:012x}_{'A' * 43}"
AGE = tensor("age", "FP64", "fp64_contents", [40])


class House:
    """An authority, the certificate that it gave the server, and those of clients."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.authority = folder, trustme.CA()
        self.issuers = folder / "issuers.pem"
        self.authority.cert_pem.write_to_path(str(self.issuers))
        self.certificate, self.key = self.given("server", self.authority.issue_cert("localhost", "127.0.0.1"))

    def given(self, name: str, made: trustme.LeafCert) -> tuple[Path, Path]:
        chain, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        chain.write_bytes(b"".join(one.bytes() for one in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(key))
        return chain, key

    def of(self, name: str, by: trustme.CA | None = None) -> tuple[Path, Path]:
        """Give somebody a certificate with a common name."""
        return self.given(f"of-{name}", (by or self.authority).issue_cert("client.example", common_name=name))

    def trusting(self, shown: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(self.issuers))
        if shown is not None:
            made.load_cert_chain(*shown)
        return made


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


class Secured:
    """A started server with ports for TLS."""

    def __init__(self, server: Any, house: House, **more: Any) -> None:
        self.server, self.house = server, house
        self.port, self.grpc_port = unused_port(), unused_port()
        (server.home / ACCESS_FILE).touch()
        server.start(
            url="https://localhost:8443",
            tls_certificate=str(house.certificate),
            tls_key=str(house.key),
            serving_tls_port=self.port,
            grpc_tls_port=self.grpc_port,
            **more,
        )

    def order(self, *passes: dict[str, Any]) -> None:
        for model in ("m", "n"):
            (self.server.folder / f"artifact-{model}-7").mkdir(exist_ok=True)
        seq = self.server.order(self.server.slot(7), self.server.slot(7, model="n"))
        self.server.control.assignment = {**self.server.control.assignment, "passes": list(passes)}
        self.server.until(lambda: any(one["applied"] == seq for one in self.server.control.reports), 60)

    def http(self, shown: tuple[Path, Path] | None = None) -> httpx.Client:
        return httpx.Client(base_url=f"https://localhost:{self.port}", verify=self.house.trusting(shown), timeout=20)

    def rpc(self, shown: tuple[Path, Path] | None = None) -> Caller:
        key, chain = (shown[1].read_bytes(), shown[0].read_bytes()) if shown else (None, None)
        made = Caller(self.grpc_port)
        made.channel.close()
        credentials = grpc.ssl_channel_credentials(self.house.issuers.read_bytes(), key, chain)
        made.channel = grpc.secure_channel(f"localhost:{self.grpc_port}", credentials)
        return made


@pytest.fixture
def close() -> Iterator[list[Any]]:
    found: list[Any] = []
    yield found
    for one in found:
        one.close()


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_tokens_by_tls(server: Any, house: House, close: list[Any]) -> None:
    secured = Secured(server, house, listen="0.0.0.0")
    secured.order({"hash": digest(TOKEN), "until": time.time() + 3600, "account": "mara"})
    close.append(web := secured.http())
    assert web.get("/v2/health/live").status_code == 200
    assert web.post("/models/m/predict", json={"age": 40}).status_code == 401
    rows = [{"age": 40}] * 20_000  # more than one record of TLS, both ways
    answer = web.post("/models/m/predict", json=rows, headers=bearer(TOKEN))
    assert answer.status_code == 200 and len(answer.json()) > 0
    lines = b"GET /v2/models HTTP/1.1\r\nHost: x\r\n:certificate: mara\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as plain:
        plain.sendall(lines)
        assert b" 400 " in plain.recv(1000).splitlines()[0]
    assert server.predict(authorization=f"Bearer {TOKEN}").status_code == 200  # loopback goes on as it was

    with socket.create_connection(("127.0.0.1", secured.port), timeout=20) as plain:  # in the clear: nothing
        plain.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not plain.recv(1000).startswith(b"HTTP/1.1 200")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(str(house.issuers))
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", secured.port), timeout=20) as plain:
        old.wrap_socket(plain, server_hostname="localhost")

    close.append((rpc := secured.rpc()).channel)
    assert rpc.call("ModelInfer", bearer(TOKEN), model_name="m", inputs=[AGE]).model_version == "7"
    assert rpc.refused("ModelInfer", model_name="m", inputs=[AGE])[0] == "UNAUTHENTICATED"
    assert server.stop() == 0


def test_a_body_that_is_too_large_is_told_so_by_tls_too(server: Any, house: House, close: list[Any]) -> None:
    secured = Secured(server, house, body=10_000)
    secured.order({"hash": digest(TOKEN), "until": time.time() + 3600})
    close.append(web := secured.http())
    answer = web.post("/models/m/predict", content=b" " * 20_000, headers=bearer(TOKEN))
    assert answer.status_code == 413 and answer.headers["connection"] == "close"


def test_who_shows_a_certificate_is_the_account_that_it_names(server: Any, house: House, close: list[Any]) -> None:
    secured = Secured(server, house, serving_clients=str(house.issuers))
    soon = time.time() + 3600
    robot = {"hash": certificate_mark("robot"), "until": soon, "account": "robot", "models": ["n"]}
    old = {"hash": certificate_mark("old"), "until": time.time() - 1, "account": "old"}
    secured.order(robot, old, {"hash": digest(TOKEN), "until": soon, "account": "mara"})
    stranger = trustme.CA()
    for shown in (None, house.of("robot", stranger)):
        with pytest.raises((httpx.TransportError, ssl.SSLError)), secured.http(shown) as web:
            web.get("/v2/models")
        rpc = secured.rpc(shown)
        assert rpc.refused("ServerLive")[0] == "UNAVAILABLE"
        rpc.channel.close()

    close.append(web := secured.http(house.of("robot")))
    assert web.get("/v2/models").json() == {"models": ["n"]}
    said = {"x-request-id": "named", "x-caller": "somebody else"}
    assert web.post("/models/n/predict", json={"age": 40}, headers=said).status_code == 200
    assert web.post("/models/m/predict", json={"age": 40}).status_code == 404
    assert web.post("/models/m/predict", json={"age": 40}, headers=bearer(TOKEN)).status_code == 200  # who shows both
    assert web.get("/v2/models", headers=bearer(TOKEN[:-1])).status_code == 401
    close.append((rpc := secured.rpc(house.of("robot"))).channel)
    asked = {"x-request-id": "too", "x-caller": "somebody else"}
    assert rpc.call("ModelInfer", asked, model_name="n", inputs=[AGE]).model_version == "7"
    assert rpc.refused("ModelInfer", model_name="m", inputs=[AGE])[0] == "NOT_FOUND"
    callers = {row["_id"]: row.get("_caller") for row in server.journal()}
    assert callers["named#0"] == callers["too#0"] == "robot"

    for name in ("old", "nobody", "Robot", "robot "):
        close.append(web := secured.http(house.of(name)))
        answer = web.get("/v2/models")
        assert answer.status_code == 401 and "no account" in answer.text, name
        close.append((rpc := secured.rpc(house.of(name))).channel)
        assert rpc.refused("ModelReady", name="n")[0] == "UNAUTHENTICATED"
    nameless = house.given("nameless", house.authority.issue_cert("client.example"))
    close.append(web := secured.http(nameless))
    assert web.get("/v2/models").status_code == 401
    assert server.http.get("/v2/models").status_code == 401  # on loopback nobody shows a certificate


def test_many_who_never_finish_to_greet_keep_nobody_out(server: Any, house: House, close: list[Any]) -> None:
    secured = Secured(server, house)
    secured.order({"hash": digest(TOKEN), "until": time.time() + 3600})
    silent = [socket.create_connection(("127.0.0.1", secured.port), timeout=20) for _ in range(50)]
    close.extend(silent)
    close.append(web := secured.http())
    assert web.post("/models/m/predict", json={"age": 40}, headers=bearer(TOKEN)).status_code == 200
    assert server.predict(authorization=f"Bearer {TOKEN}").status_code == 200
