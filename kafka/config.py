"""Environment → librdkafka properties, the table of authentication mechanisms, and redaction.

Nothing here imports confluent_kafka, so that `--help` of every script answers at once.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from .errors import ConfigError, without_secrets
from .java import translated

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
    Variable("KAFKA_SASL_MECHANISM", "PLAIN (default), SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"),
    Variable("KAFKA_CERT", "the cluster's CA certificates: a PEM file's path, or its text (default: the system's CAs)"),
    Variable("PEM_CERT", "the same, but the file may be absent (an optional Kubernetes secret)"),
    Variable("KAFKA_CLIENT_CERT", "mutual TLS: the client's certificate chain, a PEM file's path, or its text"),
    Variable("KAFKA_CLIENT_KEY", "mutual TLS: the client's private key, a PEM file's path, or its text"),
    Variable("KAFKA_CLIENT_KEY_FILE", "a file that holds the private key"),
    Variable("KAFKA_CLIENT_KEY_PASSWORD", "password of the private key (default: it is not encrypted)"),
    Variable("KAFKA_CLIENT_KEY_PASSWORD_FILE", "a file that holds the private key's password"),
    Variable("KAFKA_OAUTH_TOKEN_URL", "OAUTHBEARER: https address of the identity provider's token endpoint"),
    Variable("KAFKA_OAUTH_CLIENT_ID", "OAUTHBEARER: client id (OIDC client credentials)"),
    Variable("KAFKA_OAUTH_CLIENT_SECRET", "OAUTHBEARER: client secret"),
    Variable("KAFKA_OAUTH_CLIENT_SECRET_FILE", "a file that holds the client secret"),
    Variable("KAFKA_OAUTH_SCOPE", "OAUTHBEARER: scope to ask for (default: none)"),
    Variable("KAFKA_OAUTH_EXTENSIONS", "OAUTHBEARER: SASL extensions for the broker, NAME=VALUE,… (default: none)"),
    Variable("KAFKA_OAUTH_CERT", "the token endpoint's CA certificates, as KAFKA_CERT (default: the system's CAs)"),
    Variable("KAFKA_SECURITY_PROTOCOL", "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL (default: by what is given)"),
    Variable("KAFKA_CONFIG_FILE", "a properties file with further settings, librdkafka's or the Java client's"),
)


class Mechanism(NamedTuple):
    """A SASL mechanism: librdkafka property → the variable that gives it; and the properties that it always has."""

    required: Mapping[str, str]
    optional: Mapping[str, str] = {}
    always: Mapping[str, str] = {}
    #: The secret, or a token that is as good, goes over the connection as it is.
    sends_secret: bool = False


_NAMES = frozenset(variable.name for variable in VARIABLES)
_USER_AND_PASSWORD = {"sasl.username": "KAFKA_USER", "sasl.password": "KAFKA_PASSWORD"}

#: A further mechanism is one entry here, and a row of VARIABLES for each variable that is new.
MECHANISMS: Mapping[str, Mechanism] = {
    "PLAIN": Mechanism(_USER_AND_PASSWORD, sends_secret=True),
    "SCRAM-SHA-256": Mechanism(_USER_AND_PASSWORD),
    "SCRAM-SHA-512": Mechanism(_USER_AND_PASSWORD),
    "OAUTHBEARER": Mechanism(
        required={
            "sasl.oauthbearer.token.endpoint.url": "KAFKA_OAUTH_TOKEN_URL",
            "sasl.oauthbearer.client.id": "KAFKA_OAUTH_CLIENT_ID",
            "sasl.oauthbearer.client.secret": "KAFKA_OAUTH_CLIENT_SECRET",
        },
        optional={
            "sasl.oauthbearer.scope": "KAFKA_OAUTH_SCOPE",
            "sasl.oauthbearer.extensions": "KAFKA_OAUTH_EXTENSIONS",
        },
        always={"sasl.oauthbearer.method": "oidc"},
        sends_secret=True,
    ),
}

#: Variable → what stands in its place when it is not set: another variable's value, or a text.
_INSTEAD = {"KAFKA_PASSWORD": "KAFKA_APIKEY"}
_DEFAULTS = {"KAFKA_USER": "token"}

#: Variable → the property that takes its PEM (with .location for a path, .pem for a text), and what must be in it.
_PEM_PROPERTIES = {
    "PEM_CERT": ("ssl.ca", "CERTIFICATE"),
    "KAFKA_CERT": ("ssl.ca", "CERTIFICATE"),  # the later one counts
    "KAFKA_CLIENT_CERT": ("ssl.certificate", "CERTIFICATE"),
    "KAFKA_CLIENT_KEY": ("ssl.key", "PRIVATE KEY"),
    "KAFKA_OAUTH_CERT": ("https.ca", "CERTIFICATE"),
}
_MAY_BE_ABSENT = "PEM_CERT"
_PATH = re.compile(r"[\w./\\:~ -]{1,200}\.(pem|crt|cer|cert|ca|der|properties|conf|config|txt)")
_NOT_SHOWN = "of that name (the value is not shown: it may be a secret itself)"

SECRET_PROPERTIES = frozenset(
    {
        "sasl.password",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.client.credentials.client.secret",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.assertion.private.key.pem",
        "sasl.kerberos.kinit.cmd",  # a command line, which may have one in it
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.password",
    }
)

_SECRET_WORDS = ("password", "passphrase", "secret", "token", "credential", "key", "jaas")
_ALIKE = 0.85  # of difflib: a letter too many, too few or another one
#: librdkafka's and the Java client's properties that sound secret, and are a path, an id, an address or a class.
_NO_SECRETS = frozenset(
    {
        "key.deserializer",
        "key.serializer",
        "sasl.kerberos.keytab",
        "sasl.oauthbearer.assertion.private.key.file",
        "sasl.oauthbearer.client.credentials.client.id",
        "sasl.oauthbearer.token.endpoint.url",
        "ssl.key.location",
        "ssl.keymanager.algorithm",
        "ssl.keystore.certificate.chain",
        "ssl.keystore.location",
        "ssl.keystore.type",
    }
)
_ADDRESS_WITH_SECRET = re.compile(r"://.*[?@]", re.DOTALL)

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

#: Of these a properties file of an application may have its own; in a file they are left out, and that is said.
_OF_APPLICATIONS = frozenset({"bootstrap.servers", "group.id", "auto.offset.reset", "enable.auto.commit"})

#: Properties that can switch the verification of certificates off → the values that do not.
_VERIFICATION = {
    "enable.ssl.certificate.verification": {"true", "t", "1"},
    "ssl.endpoint.identification.algorithm": {"https"},
}

#: librdkafka's second names, which would stand beside the first ones and contradict them.
ALIASES = {
    "sasl.mechanisms": "sasl.mechanism",
    "sasl.oauthbearer.client.credentials.client.id": "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.credentials.client.secret": "sasl.oauthbearer.client.secret",
    "request.required.acks": "acks",
    "queue.buffering.max.ms": "linger.ms",
    "message.timeout.ms": "delivery.timeout.ms",
    "message.send.max.retries": "retries",
    "compression.codec": "compression.type",
    "fetch.message.max.bytes": "max.partition.fetch.bytes",
    "max.in.flight": "max.in.flight.requests.per.connection",
}

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
        """The properties, with secrets replaced, those of addresses included."""
        return {
            name: "(secret)" if is_secret(name) else without_secrets(value) for name, value in self.properties.items()
        }

    def __repr__(self) -> str:
        return f"ClientConfig({self.redacted()})"


def is_secret(name: str) -> bool:
    """Whether a property is a secret, or sounds like one, as a misspelt one does: sasl.pasword, SASL.PASSWORD."""
    name = name.lower()
    if name in _NO_SECRETS:
        return False
    return (
        name in SECRET_PROPERTIES
        or any(word in name for word in _SECRET_WORDS)
        or any(get_close_matches(part, _SECRET_WORDS, 1, _ALIKE) for part in re.split(r"[._]", name))
    )


def client_config(
    environment: Mapping[str, str], *, brokers: str, overrides: Iterable[tuple[str, str]] = ()
) -> ClientConfig:
    """The properties of a connection to `brokers` with the environment's credentials and certificates.

    `overrides` (from --config) come last, after those of KAFKA_CONFIG_FILE.
    Raises ConfigError that names the variable, file or property at fault, never its secret value.
    """
    properties = {**_BASE_PROPERTIES, "bootstrap.servers": brokers, **_sasl(environment), **_tls(environment)}
    if protocol := _value(environment, "KAFKA_SECURITY_PROTOCOL"):
        properties["security.protocol"] = protocol
    from_file = _file_properties(_value(environment, "KAFKA_CONFIG_FILE"))
    for pairs, from_flag in ((from_file, False), (overrides, True)):
        for name, value in translated(_checked_pairs(pairs, from_flag=from_flag)).items():
            _set(properties, name, value)
    properties.setdefault("security.protocol", _protocol(properties))
    _refuse_open_secrets(properties)
    if properties.get("sasl.oauthbearer.method") == "oidc":
        _trust_token_endpoint(properties)
    return ClientConfig(properties)


def _checked_pairs(pairs: Iterable[tuple[str, str]], *, from_flag: bool) -> Iterable[tuple[str, str]]:
    for name, value in pairs:
        if name in _OF_APPLICATIONS and not from_flag:
            log.info("%s in KAFKA_CONFIG_FILE is left out: %s", name, _FIXED_PROPERTIES[name])
        else:
            yield name, _allowed(name, value, from_flag=from_flag)


def _set(properties: dict[str, str], name: str, value: str) -> None:
    """Set a property by its first name; a certificate's path replaces its text, and the reverse."""
    stem, _, kind = name.rpartition(".")
    if kind in ("location", "pem"):
        properties.pop(f"{stem}.{'pem' if kind == 'location' else 'location'}", None)
    properties[ALIASES.get(name, name)] = pem_text(value) if kind == "pem" else value


def _protocol(properties: Mapping[str, str]) -> str:
    """Plain text only where nothing was given that asks for more."""
    if any(name.startswith("sasl.") for name in properties):
        return "SASL_SSL"
    return "SSL" if any(name.startswith("ssl.") for name in properties) else "PLAINTEXT"


def _sasl(environment: Mapping[str, str]) -> dict[str, str]:
    chosen = _value(environment, "KAFKA_SASL_MECHANISM")
    name = chosen or "PLAIN"
    if name not in MECHANISMS:
        raise ConfigError(f"KAFKA_SASL_MECHANISM={name} is not known: one of {', '.join(MECHANISMS)}")
    mechanism = MECHANISMS[name]
    variables = {**mechanism.required, **mechanism.optional}
    _refuse_variables_of_others(environment, name, set(variables.values()))
    given = {key: _sasl_value(environment, variable) for key, variable in variables.items()}
    if not chosen and not any(given.values()):
        return {}
    given = {key: value or _DEFAULTS.get(variables[key], "") for key, value in given.items()}
    missing = [variable for key, variable in mechanism.required.items() if not given[key]]
    if missing:
        named = " and ".join(
            f"{variable} or {_INSTEAD[variable]}" if variable in _INSTEAD else variable for variable in missing
        )
        raise ConfigError(f"the SASL mechanism {name} needs {named}, which is not set")
    return {"sasl.mechanism": name, **mechanism.always, **{key: value for key, value in given.items() if value}}


def _sasl_value(environment: Mapping[str, str], variable: str) -> str:
    instead = _secret(environment, _INSTEAD[variable]) if variable in _INSTEAD else ""
    return _secret(environment, variable) or instead


def _refuse_variables_of_others(environment: Mapping[str, str], name: str, used: set[str]) -> None:
    """Credentials of another mechanism than the one chosen would be left out silently."""
    for other, mechanism in MECHANISMS.items():
        for variable in {**mechanism.required, **mechanism.optional}.values():
            if variable not in used and (environment.get(variable) or environment.get(f"{variable}_FILE")):
                raise ConfigError(
                    f"{variable} is set, which the SASL mechanism {name} does not use: "
                    f"unset it, or set KAFKA_SASL_MECHANISM={other}"
                )


def _tls(environment: Mapping[str, str]) -> dict[str, str]:
    """CA certificates, client certificate and key."""
    properties: dict[str, str] = {}
    given = set[str]()
    for variable, (stem, label) in _PEM_PROPERTIES.items():
        value = _secret(environment, variable)
        if value:
            given.add(variable)
        if variable == _MAY_BE_ABSENT and value and not _is_pem_text(value) and not _is_there(Path(value)):
            place = _place(value)
            log.warning("PEM_CERT: there is no file %s, so the system's CA certificates are used for TLS", place)
        elif value:
            _set(properties, *_pem_property(variable, value, stem, label))
    password = _secret(environment, "KAFKA_CLIENT_KEY_PASSWORD")
    if password:
        properties["ssl.key.password"] = password
    pair = given & {"KAFKA_CLIENT_CERT", "KAFKA_CLIENT_KEY"}
    if len(pair) == 1 or (password and not pair):
        raise ConfigError("mutual TLS needs both KAFKA_CLIENT_CERT and KAFKA_CLIENT_KEY")
    return properties


def _pem_property(variable: str, value: str, stem: str, label: str) -> tuple[str, str]:
    """The property for a path or a PEM text. Raises ConfigError unless what it must hold is there and readable."""
    is_text = _is_pem_text(value)
    if label == "PRIVATE KEY" and not is_text and not _is_there(Path(value)):  # which a key without its frame is, too
        raise ConfigError(f"{variable}: there is no such file (the value is not shown: it may be the key itself)")
    text, place = (pem_text(value), "the PEM text") if is_text else (_read(variable, value), value)
    if not re.search(rf"-----BEGIN [A-Z0-9 ]*{label}-----", text):
        raise ConfigError(f"{variable}: {place} holds no PEM {label.lower()} (-----BEGIN {label}-----)")
    if label == "CERTIFICATE":
        _check_certificates(variable, place, text)
    return (f"{stem}.pem", text) if is_text else (f"{stem}.location", value)


def _check_certificates(variable: str, place: str, text: str) -> None:
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text.encode("ascii", "replace").decode())
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"{variable}: {place} is damaged: one of its certificates cannot be read") from error


def _is_pem_text(value: str) -> bool:
    return value.lstrip().startswith("-----BEGIN")


def pem_text(value: str) -> str:
    r"""PEM with real line ends, whether they came as such, as `\n`, or as the blanks of a joined properties line."""
    text = value.replace("\\r", "").replace("\\n", "\n")

    def lines(match: re.Match[str]) -> str:
        begin, _, body, end = match.groups()
        body = body if ":" in body else "\n".join(["", *body.split(), ""])  # old encrypted keys have header lines
        return f"{begin}{body}{end}\n"

    return re.sub(r"(-----BEGIN ([A-Z0-9 ]+)-----)(.*?)(-----END \2-----)\s*", lines, text, flags=re.DOTALL).lstrip()


def _trust_token_endpoint(properties: dict[str, str]) -> None:
    """librdkafka's wheel looks for the system's CAs at one distribution's path only (seen: not Debian's)."""
    import ssl

    found = ssl.get_default_verify_paths()
    system = found.cafile or found.capath
    if system and not properties.keys() & {"https.ca.location", "https.ca.pem"}:
        properties["https.ca.location"] = system


def _value(environment: Mapping[str, str], name: str) -> str:
    """A variable's value, "" where it is not set. Raises ConfigError, without the value, when it is in quotes."""
    return _unquoted(name, environment.get(name) or "")


def _unquoted(name: str, value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        raise ConfigError(f"{name} still has its quotes (docker --env-file keeps them): give it without quotes")
    return value


def _secret(environment: Mapping[str, str], name: str) -> str:
    """A variable's value, or the text of the file that its _FILE variant names, where VARIABLES has one."""
    value, path = _value(environment, name), _value(environment, f"{name}_FILE") if f"{name}_FILE" in _NAMES else ""
    if value and path:
        raise ConfigError(f"{name} and {name}_FILE are both set: give one of them")
    if path:
        value = _read(f"{name}_FILE", path)
        if not value.strip():
            raise ConfigError(f"{name}_FILE: {path} is empty")
    return _unquoted(name, value.strip("\r\n"))  # secrets made from files often end in a line end


def _read(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        reason = os.strerror(error.errno or 0)
    names_secret = name.endswith("_FILE") and name != "KAFKA_CONFIG_FILE"
    place = _NOT_SHOWN if names_secret and not _is_there(Path(path)) else _place(path)
    raise ConfigError(f"{name}: cannot read the file {place}: {reason}")  # not from the error, whose text has the path


def _place(value: str) -> str:
    """What may be said of a path: itself where it is surely one, since a secret may have come in its place."""
    path = Path(value)
    in_a_folder = path.parent.name and _is_there(path.parent)
    return value if _is_there(path) or in_a_folder or _PATH.fullmatch(value) else _NOT_SHOWN


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long, as keys are
        return False


def _file_properties(path: str) -> Iterable[tuple[str, str]]:
    """`name=value` lines; a backslash at a line's end joins the next one, as in the Java client's files."""
    text = _read("KAFKA_CONFIG_FILE", path) if path else ""
    joined = ""
    for number, line in enumerate(text.splitlines(), start=1):
        joined += line.strip()
        if joined[:1] in ("", "#", "!"):
            joined = ""
            continue
        if re.search(r"(?<!\\)(\\\\)*\\$", joined):
            joined = joined[:-1]
            continue
        match = re.fullmatch(r"([A-Za-z0-9._]+)\s*[=:]\s*(.*)", joined)
        if not match:  # the line is not shown: it may hold a secret
            raise ConfigError(f"KAFKA_CONFIG_FILE: {path}, line {number}: not of the form property=value")
        yield match[1], match[2]
        joined = ""


def _allowed(name: str, value: str, *, from_flag: bool) -> str:
    if from_flag and is_secret(name):
        raise ConfigError(f"--config {name}: secrets come from variables or files only, flags are visible to everyone")
    if from_flag and _ADDRESS_WITH_SECRET.search(value):
        raise ConfigError(
            f"--config {name}: the address has a user, password or query in it, which may be secret, and flags are "
            "visible to everyone: give KAFKA_OAUTH_TOKEN_URL, KAFKA_OAUTH_CLIENT_ID and KAFKA_OAUTH_CLIENT_SECRET, or "
            "KAFKA_CONFIG_FILE"
        )
    if name in _FIXED_PROPERTIES:
        raise ConfigError(f"the property {name} cannot be set: {_FIXED_PROPERTIES[name]}")
    if name in ("acks", "request.required.acks") and not re.fullmatch("all|-1|[1-9][0-9]{0,3}", value):
        raise ConfigError(f"the property {name}={value} is not allowed: it takes all, -1, or a number from 1 on")
    if name in _VERIFICATION and value.strip().lower() not in _VERIFICATION[name]:
        raise ConfigError(f"the property {name}={value} cannot be set: certificates are always verified")
    return value


def _refuse_open_secrets(properties: Mapping[str, str]) -> None:
    name, protocol = properties.get("sasl.mechanism", "").upper(), properties["security.protocol"].upper()
    if name in MECHANISMS and MECHANISMS[name].sends_secret and not protocol.endswith("SSL"):
        raise ConfigError(f"security.protocol={protocol} with SASL {name} would send the secret in clear: use SASL_SSL")
    if address := properties.get("sasl.oauthbearer.token.endpoint.url"):
        _refuse_open_address(address, properties)


def _refuse_open_address(address: str, properties: Mapping[str, str]) -> None:
    """The token endpoint's address gets into librdkafka's log, and the client secret is sent to it."""
    if not address.lower().startswith("https://"):
        raise ConfigError("the token endpoint has no https address, and another would send the client secret in clear")
    if "@" in address:
        raise ConfigError(
            "the token endpoint's address has a user or password in it: give KAFKA_OAUTH_CLIENT_ID and "
            "KAFKA_OAUTH_CLIENT_SECRET instead (any other @ is written %40)"
        )
    logs = [name for name in ("debug", "log_level") if properties.get(name, "") != _BASE_PROPERTIES.get(name, "")]
    if "?" in address and logs:
        raise ConfigError(f"{logs[0]} would show the query of the token endpoint's address, which may be a secret")
