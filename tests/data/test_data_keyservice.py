"""The key of personal data at a key service: a real process that speaks AWS's protocol, asked by AWS's client."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from audit.store_server import serving
from orrery.app import Orrery
from orrery.audit.rotation import replace_privacy_key
from orrery.data.pseudonyms import Pseudonyms, privacy_key
from orrery.errors import NotAllowed, NotUnderstood
from orrery.settings import Settings

ALIAS = "awskms:///alias/orrery"
WRAPPED = Path("privacy", "key.wrapped")


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def kms(service: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the service, which has one key under an alias; the environment says how to reach it."""
    said = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_KMS": service,
    }
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    httpx.post(f"{service}/moto-api/reset")
    client = boto3.client("kms")
    client.create_alias(AliasName="alias/orrery", TargetKeyId=client.create_key()["KeyMetadata"]["KeyId"])
    return client


def test_what_lies_in_the_home_is_worth_nothing_without_the_service(home: Settings, kms: Any) -> None:
    settings = replace(home, privacy_key=ALIAS)
    with ThreadPoolExecutor(4) as several:  # the first time, all at once
        keys = set(several.map(privacy_key, [settings] * 8))
    (key,) = keys
    assert len(key) == 32 and privacy_key(settings) == key
    assert key not in (home.home / WRAPPED).read_bytes() and not (home.home / "privacy" / "key").exists()
    assert Orrery(settings).privacy.pseudonyms.of("Mara") == Pseudonyms(key).of("Mara")


def test_where_the_service_refuses_nothing_is_made(home: Settings, kms: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(home, privacy_key=ALIAS)
    key = privacy_key(settings)
    other = kms.create_key()["KeyMetadata"]["KeyId"]
    with pytest.raises(NotAllowed, match="does not open"):  # that was not encrypted with this one
        privacy_key(replace(settings, privacy_key=f"awskms:///{other}"))
    (number,) = [one["TargetKeyId"] for one in kms.list_aliases()["Aliases"] if one["AliasName"] == "alias/orrery"]
    kms.delete_alias(AliasName="alias/orrery")
    fresh = replace(settings, home=home.home / "fresh")
    with pytest.raises(NotAllowed, match="does not open"):
        privacy_key(fresh)
    assert not (fresh.home / WRAPPED).exists()
    kms.create_alias(AliasName="alias/orrery", TargetKeyId=number)
    assert privacy_key(settings) == key and privacy_key(fresh) != key
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:9")
    with pytest.raises(NotAllowed, match="does not open"):
        privacy_key(settings)


def test_what_is_no_address_of_a_service_is_refused(home: Settings) -> None:
    for address in ("gcpkms://x", "awskms:///", "awskms://alias/x", "https://kms.example/?token=secret"):
        with pytest.raises(NotUnderstood) as refused:
            privacy_key(replace(home, privacy_key=address))
        assert "secret" not in str(refused.value)


def test_the_service_rotates_its_own_key(home: Settings, kms: Any) -> None:
    settings = replace(home, privacy_key=ALIAS)
    with pytest.raises(NotAllowed, match="key service"):
        replace_privacy_key(settings, Orrery(settings).privacy)
