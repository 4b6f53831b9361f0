"""Listening sockets of either kind of address: a node may have IPv4, IPv6, or both."""

import contextlib
import socket

from artesian.train.terms import Address


def listen(address: Address, *, backlog: int) -> socket.socket:
    """Listen at ``address``, an IPv4 or IPv6 one or a name; at all that this machine has where the host is empty.

    A name that means both is listened to at its IPv4 address, as others who are told that address find it there.

    Raises OSError where it cannot be had.
    """
    host, port = address
    if not host and socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):  # built in, and switched off; where it is taken IPv4 tells
            return socket.create_server(
                ("", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True
            )
    family = socket.AF_INET
    if host:
        families = {found[0] for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        family = family if family in families else socket.AF_INET6
    return socket.create_server(address, family=family, backlog=backlog)
