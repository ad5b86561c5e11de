"""The certificate that is shown: of files that fit together, and the newest one."""

from __future__ import annotations

import itertools
import os
import socket
import ssl
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from orrery.access.tls import Certificate
from orrery.errors import NotAllowed, NotUnderstood
from orrery.settings import Settings, load

MOMENTS = itertools.count(1)


@pytest.fixture
def settings(home: Settings) -> Settings:
    folder = home.home.parent
    made = replace(home, tls_certificate=str(folder / "chain.pem"), tls_key=str(folder / "key.pem"))
    write(made)
    return made


def write(settings: Settings, key: bytes = b"") -> int:
    """Put a certificate there, and return its number."""
    made = trustme.CA().issue_cert("localhost")
    Path(settings.tls_certificate).write_bytes(made.cert_chain_pems[0].bytes())
    Path(settings.tls_key).write_bytes(key or made.private_key_pem.bytes())
    moment = next(MOMENTS)  # two writes within one tick of the clock are two
    for file in (settings.tls_certificate, settings.tls_key):
        os.utime(file, (moment, moment))
    return x509.load_pem_x509_certificate(made.cert_chain_pems[0].bytes()).serial_number


def shown(certificate: Certificate) -> int:
    """Return the number of the certificate that a client sees."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with certificate.context.wrap_socket(ours, server_side=True) as one:
            one.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    with client.wrap_socket(theirs) as one:
        found = one.getpeercert(binary_form=True)
        one.sendall(b"x")
    thread.join(10)
    assert found is not None
    return x509.load_der_x509_certificate(found).serial_number


def test_a_renewed_certificate_is_shown_and_a_broken_one_never(settings: Settings) -> None:
    first = write(settings)
    certificate = Certificate(settings)
    assert shown(certificate) == first and not certificate.renew()
    second = write(settings)
    assert shown(certificate) == first, "nobody has looked yet"
    assert certificate.renew() and shown(certificate) == second
    write(settings, trustme.CA().issue_cert("localhost").private_key_pem.bytes())  # the key of another one
    with pytest.raises(NotUnderstood):
        certificate.renew()
    assert shown(certificate) == second
    third = write(settings)
    assert certificate.renew() and shown(certificate) == third


def test_what_cannot_be_used_is_refused_without_asking(settings: Settings) -> None:
    good = Path(settings.tls_key).read_bytes()
    sealed = load_pem_private_key(good, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"a password"),
    )
    for key in (b"no key", sealed, Path(settings.tls_certificate).read_bytes()):
        Path(settings.tls_key).write_bytes(key)
        with pytest.raises(NotUnderstood, match="cannot be used"):
            Certificate(settings)
    Path(settings.tls_key).write_bytes(good)
    with pytest.raises(NotUnderstood, match="cannot be used"):
        Certificate(replace(settings, tls_certificate=str(settings.home / "nowhere")))
    for clients in (settings.tls_key, str(settings.home / "nowhere")):
        with pytest.raises(NotUnderstood, match="no issuers"):
            Certificate(settings, clients)
    assert Certificate(settings, settings.tls_certificate).context.verify_mode is ssl.CERT_REQUIRED


def test_half_of_it_is_refused(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {
        "ACCESS": "required",
        "URL": "https://localhost:8443",
        "TLS_CERTIFICATE": "chain.pem",
        "TLS_KEY": "key.pem",
    }

    def loaded(**variables: str) -> Settings:
        with monkeypatch.context() as patch:
            for name, value in {**whole, **variables}.items():
                patch.setenv(f"ORRERY_{name}", value)
            return load(home.home)

    assert loaded(LISTEN="0.0.0.0", SERVING_TLS_PORT="8702").serving_tls_port == 8702
    for variables, kind in (
        ({"ACCESS": "open"}, NotAllowed),
        ({"TLS_KEY": ""}, NotUnderstood),
        ({"TLS_CERTIFICATE": ""}, NotUnderstood),
        ({"URL": ""}, NotUnderstood),
        ({"URL": "", "LISTEN": "0.0.0.0"}, NotAllowed),
        ({"TLS_CERTIFICATE": "", "TLS_KEY": "", "SERVING_TLS_PORT": "8702"}, NotUnderstood),
        ({"TLS_CERTIFICATE": "", "TLS_KEY": "", "GRPC_TLS_PORT": "8702"}, NotUnderstood),
        ({"SERVING_CLIENTS": "issuers.pem"}, NotUnderstood),
        ({"TLS_PORT": "https"}, NotUnderstood),
    ):
        with pytest.raises(kind):
            loaded(**variables)
