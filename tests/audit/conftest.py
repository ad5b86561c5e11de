"""Places outside, as they really are: an object store, a git repository, a time-stamp authority."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import httpx
import pytest

from audit.store_server import serving

BUCKET = "anchors"


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """An object store that speaks S3; gives its address."""
    with serving() as url:
        yield url


@pytest.fixture
def bucket(object_store: str, monkeypatch: pytest.MonkeyPatch) -> boto3.session.Session:
    """A client of a fresh bucket in which every object is kept for a year: nobody can remove it before."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": object_store,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    httpx.post(f"{object_store}/moto-api/reset")
    client = boto3.client("s3", region_name="us-east-1", endpoint_url=object_store)
    client.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
    kept = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 365}}
    client.put_object_lock_configuration(
        Bucket=BUCKET, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": kept}
    )
    return client


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A bare git repository."""
    path = tmp_path / "outside.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(path)], check=True)
    return path


@dataclass
class Authority:
    """A time-stamp authority.

    Parameters
    ----------
    address : where it answers, as orrery takes it.
    certificate : file with the certificate by which its stamps are checked.
    answers : what it answers, where that is not a stamp.
    asked : how often it was asked.
    """

    address: str
    certificate: Path
    answers: bytes | None = None
    asked: int = 0


CONFIG = """
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
accuracy = secs:1
"""
EXTENSIONS = "extendedKeyUsage = critical,timeStamping\nkeyUsage = critical,digitalSignature\n"


def openssl(folder: Path, *words: str) -> None:
    done = subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def certified(folder: Path) -> Path:
    """Make an authority's key, and a certificate authority that vouches for it."""
    folder.mkdir()
    subject = ("req", "-newkey", "rsa:2048", "-nodes")
    openssl(folder, *subject, "-x509", "-days", "30", "-subj", "/CN=Root", "-keyout", "ca.key", "-out", "ca.pem")
    openssl(folder, *subject, "-subj", "/CN=Stamps", "-keyout", "tsa.key", "-out", "tsa.csr")
    (folder / "extensions").write_text(EXTENSIONS)
    signs = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", "extensions")
    openssl(folder, "x509", "-req", "-in", "tsa.csr", *signs, "-out", "tsa.pem")
    (folder / "serial").write_text("01\n")
    (folder / "tsa.cnf").write_text(CONFIG.format(folder=folder))
    return folder


@pytest.fixture(scope="session")
def authority_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certified(tmp_path_factory.mktemp("tsa") / "one")


@pytest.fixture
def authority(authority_files: Path) -> Iterator[Authority]:
    """An authority on loopback."""
    lock = threading.Lock()

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = self.rfile.read(int(self.headers["Content-Length"]))
            authority.asked += 1
            with lock:
                (authority_files / "query").write_bytes(query)
                words = ("ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query", "-out", "answer")
                openssl(authority_files, *words)
                answer = (authority_files / "answer").read_bytes()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(authority.answers if authority.answers is not None else answer)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    authority = Authority(f"tsa+http://127.0.0.1:{server.server_port}", authority_files / "ca.pem")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield authority
    server.shutdown()
    thread.join()
    server.server_close()
