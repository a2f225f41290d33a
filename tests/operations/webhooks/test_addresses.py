"""Hold that nothing is sent into the network."""

from __future__ import annotations

import socket

import pytest

from operations.webhooks import addresses
from operations.webhooks.addresses import NotAllowed


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "0.1.2.3", "::1", "::", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "64:ff9b::a00:1",
        "2002:7f00:1::", "ff02::1",
    ],
)  # fmt: skip
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not addresses.is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_other_addresses_are_public(address: str) -> None:
    assert addresses.is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://crm.example/", "ftp://crm.example/", "https://", "https://ann:secret@crm.example/", "crm.example/hook",
        "https://crm.example:port/", "https://crm.example/#here", "https://[::1", f"https://crm.example/{'x' * 2_000}",
    ],
)  # fmt: skip
def test_urls_of_another_form_are_refused(url: str) -> None:
    with pytest.raises(NotAllowed):
        addresses.check(url, allow_private=False)


def test_a_name_with_one_address_inside_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked_up(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", (address, 443)) for address in ("93.184.216.34", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    with pytest.raises(NotAllowed, match=r"crm\.example lies at 10\.0\.0\.1, which is not public"):
        addresses.target("https://crm.example/hook", allow_private=False)
    target = addresses.target("https://crm.example/hook?a=1", allow_private=True)
    assert (target.address, target.port, target.path) == ("93.184.216.34", 443, "/hook?a=1")
