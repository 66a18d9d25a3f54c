"""One bare connection, to tell what librdkafka does not: it has one text for three faults of a certificate, and only
"brokers down" where one side speaks TLS and the other does not, where credentials are missing, or nobody answers.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
from collections.abc import Mapping
from pathlib import Path

_TIMEOUT_S = 2.0
_DEFAULT_PORT = 9092

#: OpenSSL's verification errors (X509_V_ERR_…) → what they mean here and what helps.
_EXPIRED, _NOT_YET_VALID, _WRONG_HOST, _WRONG_ADDRESS = 10, 9, 62, 64
_UNTRUSTED = (
    "no CA certificate given here signed it: fetch the cluster's CA certificate and give it as KAFKA_CERT "
    "(without it the system's CAs count)"
)
_CERTIFICATE_FAULTS = {
    _EXPIRED: "it has expired: the cluster needs a new one (or this machine's clock is wrong)",
    _NOT_YET_VALID: "it is not valid yet: this machine's clock is wrong, or the cluster's certificate",
    _WRONG_HOST: "it is for another host name: use a name that is in it, such as that of the bootstrap address",
    _WRONG_ADDRESS: "it is not for this IP address: use a host name that is in it",
}
_ALERT = "ALERT"
_QUESTION = struct.pack(
    ">ihhihi", 14, 3, 0, 0, -1, 0
)  # Kafka's Metadata request, version 0, without client id and topics
_NO_TLS = "give another port, or neither credentials nor certificate"
_TO_USE_TLS = "give credentials or KAFKA_CERT, or set KAFKA_SECURITY_PROTOCOL to SSL or SASL_SSL"


def tls_fault(properties: Mapping[str, str], address: str) -> str | None:
    """What is wrong between us and `address` (host:port) as far as TLS goes, or None where TLS is not the cause.

    Makes one connection, with verification on and the CA certificates of `properties`, and sends nothing over it.
    """
    protocol = properties["security.protocol"]
    wants_tls = protocol.upper().endswith("SSL")
    try:
        _shake_hands(properties, address)
    except ssl.SSLCertVerificationError as error:
        if wants_tls:
            fault = _CERTIFICATE_FAULTS.get(error.verify_code, _UNTRUSTED)
            return f"the certificate of {address} is refused ({error.verify_message}): {fault}"
    except (ssl.SSLError, ConnectionResetError, BrokenPipeError) as error:
        if _ALERT not in (getattr(error, "reason", None) or ""):  # who sends an alert, speaks TLS
            return (
                f"{address} does not speak TLS, and security.protocol is {protocol}: {_NO_TLS}" if wants_tls else None
            )
    except OSError:  # nobody there, no such name, no answer: librdkafka says that well
        return None
    return None if wants_tls else f"{address} speaks TLS, and security.protocol is {protocol}: {_TO_USE_TLS}"


def closes_at_a_question(properties: Mapping[str, str], address: str) -> bool | None:
    """Whether `address` closes the connection when asked something, as a broker does that waits for credentials.

    None where there is no answer at all: one that is slow, or stands still, leaves the connection open.
    """
    try:
        with _connection(address) as plain:
            wants_tls = properties["security.protocol"].upper().endswith("SSL")
            asked = _with_tls(properties, address, plain) if wants_tls else plain
            with asked:
                asked.sendall(_QUESTION)
                return asked.recv(1) == b""
    except (ConnectionResetError, BrokenPipeError):
        return True
    except ssl.SSLError:
        return False
    except OSError:
        return None


def _shake_hands(properties: Mapping[str, str], address: str) -> None:
    with _connection(address) as connection:
        _with_tls(properties, address, connection).close()


def _connection(address: str) -> socket.socket:
    host, port = _host_and_port(address)
    return socket.create_connection((host, port), timeout=_TIMEOUT_S)


def _with_tls(properties: Mapping[str, str], address: str, connection: socket.socket) -> ssl.SSLSocket:
    return _context(properties).wrap_socket(connection, server_hostname=_host_and_port(address)[0])


def _host_and_port(address: str) -> tuple[str, int]:
    match = re.fullmatch(r"\[?(.*?)\]?(?::(\d+))?", address)
    assert match is not None
    return match[1], int(match[2] or _DEFAULT_PORT)


def _context(properties: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and host name
    location = properties.get("ssl.ca.location")
    if text := properties.get("ssl.ca.pem"):
        context.load_verify_locations(cadata=text)
    elif location and location != "probe":
        context.load_verify_locations(**{"capath" if Path(location).is_dir() else "cafile": location})
    else:
        context.load_default_certs()
    return context
