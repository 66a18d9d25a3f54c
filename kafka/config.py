"""Environment → librdkafka properties, the table of authentication mechanisms, and redaction.

Nothing here imports confluent_kafka, so that `--help` of every script answers at once.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .errors import ConfigError

log = logging.getLogger("kafka")


class Variable(NamedTuple):
    """An environment variable of the connection, for --help and the README."""

    name: str
    meaning: str


VARIABLES = (
    Variable("KAFKA_APIKEY", "API key of IBM Event Streams: SASL PLAIN over TLS as the user `token`"),
    Variable("KAFKA_APIKEY_FILE", "a file that holds the API key"),
    Variable("KAFKA_USER", "SASL user name (default: token)"),
    Variable("KAFKA_PASSWORD", "SASL password (default: the API key)"),
    Variable("KAFKA_PASSWORD_FILE", "a file that holds the password"),
    Variable("KAFKA_SASL_MECHANISM", "PLAIN (default), SCRAM-SHA-256 or SCRAM-SHA-512"),
    Variable("KAFKA_CERT", "path of the PEM file with the cluster's CA certificate (default: the system's CAs)"),
    Variable("PEM_CERT", "the same, but may be absent on disk (an optional Kubernetes secret)"),
    Variable("KAFKA_CONFIG_FILE", "a properties file with further librdkafka settings"),
)


@dataclass(frozen=True)
class Credentials:
    """A SASL user and the secret that goes with it."""

    user: str
    secret: str = field(repr=False)


def _user_and_password(credentials: Credentials) -> dict[str, str]:
    return {"sasl.username": credentials.user, "sasl.password": credentials.secret}


#: SASL mechanism → its librdkafka properties. A further mechanism is one entry here.
MECHANISMS: Mapping[str, Callable[[Credentials], dict[str, str]]] = {
    "PLAIN": _user_and_password,
    "SCRAM-SHA-256": _user_and_password,
    "SCRAM-SHA-512": _user_and_password,
}

SECRET_PROPERTIES = frozenset(
    {
        "sasl.password",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.client.credentials.client.secret",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.assertion.private.key.pem",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.password",
    }
)

#: The counts and the exit code depend on these; another value would make them lies.
_FIXED_PROPERTIES = {
    "delivery.report.only.error": "it is chosen by --rate",
    "enable.auto.commit": "offsets are committed only for messages that were measured",
    "enable.auto.offset.store": "offsets are committed only for messages that were measured",
    "auto.commit.enable": "offsets are committed only for messages that were measured",
    "auto.offset.reset": "use --from",
    "group.id": "use --group",
    "isolation.level": "use --isolation",
    "partition.assignment.strategy": "samples are counted once only where partitions change hands as a whole",
    "group.protocol": "samples are counted once only where partitions change hands as a whole",
    "bootstrap.servers": "use --brokers or KAFKA_BROKERS",
    "metadata.broker.list": "use --brokers or KAFKA_BROKERS",
}

#: Properties that can switch the verification of certificates off → the values that do not.
_VERIFICATION = {
    "enable.ssl.certificate.verification": {"true", "t", "1"},
    "ssl.endpoint.identification.algorithm": {"https"},
}

#: librdkafka's second names, which would stand beside the first ones and contradict them.
_ALIASES = {"sasl.mechanisms": "sasl.mechanism", "request.required.acks": "acks"}

_BASE_PROPERTIES = {
    "client.id": "kafka-performance-test",
    "log_level": "2",  # error_cb tells each cause once; librdkafka's own lines repeat it every 50 ms
    "reconnect.backoff.max.ms": "2000",
}


@dataclass(frozen=True)
class ClientConfig:
    """librdkafka properties of one connection. Its repr and `redacted()` never show a secret."""

    properties: Mapping[str, str]

    def redacted(self) -> dict[str, str]:
        """The properties, with secrets replaced."""
        return {name: "(secret)" if name in SECRET_PROPERTIES else value for name, value in self.properties.items()}

    def __repr__(self) -> str:
        return f"ClientConfig({self.redacted()})"


def client_config(
    environment: Mapping[str, str], *, brokers: str, overrides: Iterable[tuple[str, str]] = ()
) -> ClientConfig:
    """The properties of a connection to `brokers` with the environment's credentials and certificates.

    `overrides` (from --config) come last, after those of KAFKA_CONFIG_FILE.
    Raises ConfigError that names the variable, file or property at fault, never its secret value.
    """
    certificate = _certificate(environment)
    sasl = _sasl(environment)
    properties = {**_BASE_PROPERTIES, "bootstrap.servers": brokers, **sasl}
    if certificate:
        properties["ssl.ca.location"] = certificate
    for name, value in _file_properties(_value(environment, "KAFKA_CONFIG_FILE")):
        properties[_ALIASES.get(name, name)] = _allowed(name, value, from_flag=False)
    for name, value in overrides:
        properties[_ALIASES.get(name, name)] = _allowed(name, value, from_flag=True)
    properties.setdefault("security.protocol", _protocol(properties))
    _refuse_open_secrets(properties)
    return ClientConfig(properties)


def _protocol(properties: Mapping[str, str]) -> str:
    """Plain text only where nothing was given that asks for more."""
    if any(name.startswith("sasl.") for name in properties):
        return "SASL_SSL"
    return "SSL" if any(name.startswith("ssl.") for name in properties) else "PLAINTEXT"


def _sasl(environment: Mapping[str, str]) -> dict[str, str]:
    api_key = _secret(environment, "KAFKA_APIKEY")
    password = _secret(environment, "KAFKA_PASSWORD") or api_key
    mechanism = _value(environment, "KAFKA_SASL_MECHANISM") or "PLAIN"
    if mechanism not in MECHANISMS:
        raise ConfigError(f"KAFKA_SASL_MECHANISM={mechanism} is not known: one of {', '.join(MECHANISMS)}")
    if not password:
        for name in ("KAFKA_USER", "KAFKA_SASL_MECHANISM"):
            if environment.get(name):
                raise ConfigError(f"{name} is set, but neither KAFKA_PASSWORD nor KAFKA_APIKEY is")
        return {}
    credentials = Credentials(_value(environment, "KAFKA_USER") or "token", password)
    return {"sasl.mechanism": mechanism, **MECHANISMS[mechanism](credentials)}


def _value(environment: Mapping[str, str], name: str) -> str:
    """A variable's value, "" where it is not set. Raises ConfigError, without the value, when it is in quotes."""
    return _unquoted(name, environment.get(name) or "")


def _unquoted(name: str, value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        raise ConfigError(f"{name} still has its quotes (docker --env-file keeps them): give it without quotes")
    return value


def _secret(environment: Mapping[str, str], name: str) -> str:
    value, path = _value(environment, name), _value(environment, f"{name}_FILE")
    if value and path:
        raise ConfigError(f"{name} and {name}_FILE are both set: give one of them")
    if path:
        value = _read(f"{name}_FILE", path)
        if not value.strip():
            raise ConfigError(f"{name}_FILE: {path} is empty")
    return _unquoted(name, value.strip("\r\n"))  # secrets made from files often end in a line end


def _certificate(environment: Mapping[str, str]) -> str | None:
    path = _value(environment, "KAFKA_CERT")
    if path:
        return _checked_pem("KAFKA_CERT", path)
    path = _value(environment, "PEM_CERT")
    if path and Path(path).exists():
        return _checked_pem("PEM_CERT", path)
    if path:
        log.warning("PEM_CERT: there is no file %s, so the system's CA certificates are used for TLS", path)
    return None


def _checked_pem(name: str, path: str) -> str:
    if "-----BEGIN CERTIFICATE-----" not in _read(name, path):
        raise ConfigError(f"{name}: {path} holds no PEM certificate (-----BEGIN CERTIFICATE-----)")
    return path


def _read(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"{name}: cannot read {path}: {os.strerror(error.errno or 0)}") from error


def _file_properties(path: str) -> Iterable[tuple[str, str]]:
    if not path:
        return
    for number, line in enumerate(_read("KAFKA_CONFIG_FILE", path).splitlines(), start=1):
        text = line.strip()
        if not text or text[0] in "#!":
            continue
        match = re.fullmatch(r"([A-Za-z0-9._]+)\s*[=:]\s*(.*)", text)
        if not match:  # the line is not shown: it may hold a secret
            raise ConfigError(f"KAFKA_CONFIG_FILE: {path}, line {number}: not of the form property=value")
        yield match[1], match[2]


def _allowed(name: str, value: str, *, from_flag: bool) -> str:
    if from_flag and name in SECRET_PROPERTIES:
        raise ConfigError(f"--config {name}: secrets come from variables or files only, flags are visible to everyone")
    if name in _FIXED_PROPERTIES:
        raise ConfigError(f"the property {name} cannot be set: {_FIXED_PROPERTIES[name]}")
    if name in ("acks", "request.required.acks") and not re.fullmatch("all|-1|[1-9][0-9]{0,3}", value):
        raise ConfigError(f"the property {name}={value} is not allowed: it takes all, -1, or a number from 1 on")
    if name in _VERIFICATION and value.strip().lower() not in _VERIFICATION[name]:
        raise ConfigError(f"the property {name}={value} cannot be set: certificates are always verified")
    return value


def _refuse_open_secrets(properties: Mapping[str, str]) -> None:
    protocol = properties["security.protocol"].upper()
    if "sasl.password" in properties and properties.get("sasl.mechanism") == "PLAIN" and not protocol.endswith("SSL"):
        raise ConfigError(f"security.protocol={protocol} with SASL PLAIN would send the secret in clear: use SASL_SSL")
