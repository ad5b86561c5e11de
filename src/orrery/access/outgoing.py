"""Where orrery may connect to when somebody names an address: public ones, unless the address is said to be private.

A name is resolved once, every address that it has must be allowed, and the connection goes to what was checked: a name
that means something else a moment later (DNS rebinding) leads nowhere new. Redirects are not followed.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from orrery.errors import NotAllowed, NotUnderstood, OrreryError

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
OF_CLOUDS = ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254")
"""Addresses, besides link-local ones, at which clouds tell a machine its keys."""


def is_public(address: str) -> bool:
    """Say whether an IP address is one of the public internet, also where it is wrapped in another.

    Examples
    --------
    >>> [is_public(one) for one in ("93.184.216.34", "2606:2800:220:1::1")]
    [True, True]
    >>> [is_public(one) for one in ("127.0.0.1", "169.254.169.254", "fe80::1%eth0", "::ffff:10.0.0.1", "64:ff9b::a0:1")]
    [False, False, False, False, False]
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is None and found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None and not is_public(str(inner)):
            return False
        if found.ipv4_mapped is not None:
            return True
    return found.is_global and not found.is_multicast


def is_elsewhere(address: str) -> bool:
    """Say whether an IP address is another machine's: not this one's, on no link without a router, no cloud's own.

    Examples
    --------
    >>> [is_elsewhere(one) for one in ("93.184.216.34", "10.255.7.7")]
    [True, True]
    >>> [is_elsewhere(one) for one in ("127.0.0.2", "0.0.0.0", "169.254.169.254", "fe80::1%eth0", "::ffff:127.0.0.1")]
    [False, False, False, False, False]
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    inner = None
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        elif inner is None and int(found) >> 32 == 0:
            inner = ipaddress.IPv4Address(int(found))  # the oldest way to write the one in the other
    if inner is not None and not is_elsewhere(str(inner)):
        return False
    if found.is_loopback or found.is_link_local or found.is_unspecified or found.is_multicast:
        return False
    return found not in _ours() and str(found) not in OF_CLOUDS and str(found) != "255.255.255.255"


def _ours() -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return the addresses of this machine."""
    import psutil

    kinds = (socket.AF_INET, socket.AF_INET6)
    found = [one.address for links in psutil.net_if_addrs().values() for one in links if one.family in kinds]
    return {ipaddress.ip_address(address.partition("%")[0]) for address in found}


def elsewhere(host: str, port: int) -> list[str]:
    """Return the addresses of a host, all of them another machine's.

    Raises
    ------
    NotAllowed
        If one of them is this machine's, or on a link without a router.
    OrreryError
        If it has none.
    """
    addresses = resolved(host, port, private=True)
    inner = [one for one in addresses if not is_elsewhere(one)]
    if inner:
        raise NotAllowed(
            f"{host} is {inner[0]}: this machine, or one beside it that no program of a project reaches.",
            safe="Nothing was sent there.",
        )
    return addresses


def only_owner(private: bool, owner: bool) -> None:
    """Refuse that an address within this network is allowed by anybody but who owns this orrery.

    Raises
    ------
    NotAllowed
        If somebody else says so: who may operate a project need not reach what this machine reaches.
    """
    if private and not owner:
        raise NotAllowed(
            "Addresses within this network are allowed by who owns this orrery alone.",
            safe="Nothing was changed.",
            todo="Ask them to set it on the command line, with --private.",
        )


def resolved(host: str, port: int, *, private: bool = False) -> list[str]:
    """Return the addresses of a host, all of them allowed.

    Parameters
    ----------
    private : whether addresses within one's own network are allowed, too.

    Raises
    ------
    NotAllowed
        If one of them is not public.
    OrreryError
        If it has none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise OrreryError(f"The name {host} has no address: {error}.") from None
    addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
    inner = [] if private else [one for one in addresses if not is_public(one)]
    if inner:
        raise NotAllowed(
            f"{host} is {inner[0]}, an address within this network.",
            safe="Nothing was sent there.",
            todo="If that is meant, say --private when it is set.",
        )
    return addresses


def split(url: str, *, schemes: Iterable[str] = ("https",), private: bool = False) -> tuple[str, str, int]:
    """Return scheme, host and port of an address that somebody names; plain http is for private ones only.

    Raises
    ------
    NotUnderstood
        If it is no such address, or holds a name or password.
    """
    parts = urlsplit(url)
    known = {*schemes, *(("http",) if private and "https" in schemes else ())}
    try:
        port = parts.port or {"https": 443, "http": 80, "ssh": 22}.get(parts.scheme, 0)
    except ValueError:
        port = -1
    if parts.scheme not in known or not parts.hostname or port < 0 or not url.isprintable() or " " in url:
        raise NotUnderstood(
            "This is not an address to send to.", todo=f"Give {' or '.join(sorted(known))}://HOST/PATH, without spaces."
        )
    if parts.username or parts.password:
        raise NotUnderstood(
            "An address holds no name and no password.", safe="Nothing was kept of it.", todo="Leave them away."
        )
    return parts.scheme, parts.hostname, port
