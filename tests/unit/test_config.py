"""Environment → librdkafka properties: what is chosen, what is refused, and that no secret is ever shown."""

from __future__ import annotations

import ctypes
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as RawProducer
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.broker import issue_certificate
from kafka import java
from kafka.config import (
    ALIASES,
    MECHANISMS,
    SECRET_PROPERTIES,
    VARIABLES,
    ClientConfig,
    client_config,
    is_secret,
    pem_text,
)
from kafka.consumer import Consumer
from kafka.errors import ConfigError, ConnectError, ErrorLog, without_secrets
from kafka.producer import Producer
from kafka.topics import Admin

CERTIFICATE, OTHER = (issue_certificate(host_name=name) for name in ("localhost", "client"))
PEM = CERTIFICATE.ca_pem
CHAIN, CLIENT_KEY = OTHER.chain_pem, OTHER.private_key_pem
NOBODY = "localhost:1"
SECRET = "S3CR3T"
JAVA_SECRETS = {"sasl.jaas.config", "ssl.keystore.key", "ssl.truststore.password"}  # which librdkafka does not have

Pairs = Iterable[tuple[str, str]]


def properties(environment: Mapping[str, str] | None = None, *overrides: tuple[str, str]) -> Mapping[str, str]:
    """The librdkafka properties for this environment and these --config flags."""
    return client_config(environment or {}, brokers="broker:9092", overrides=overrides).properties


def refusal(environment: Mapping[str, str] | None = None, *overrides: tuple[str, str]) -> str:
    """What the user is told of a configuration that is refused."""
    with pytest.raises(ConfigError) as caught:
        properties(environment, *overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


def written(path: Path, text: str) -> str:
    """The name of a file with this text."""
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def pem(tmp_path: Path) -> str:
    """A file that looks like a certificate."""
    return written(tmp_path / "ca.pem", PEM)


# ------------------------------------------------------------------------------------------------- what is chosen

KEY = {"KAFKA_APIKEY": "key"}
SCRAM = {"KAFKA_USER": "alice", "KAFKA_PASSWORD": "pw", "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512"}


@pytest.mark.parametrize(
    ("environment", "protocol", "sasl"),
    [
        ({}, "PLAINTEXT", {}),
        (KEY, "SASL_SSL", {"mechanism": "PLAIN", "username": "token", "password": "key"}),
        (SCRAM, "SASL_SSL", {"mechanism": "SCRAM-SHA-512", "username": "alice", "password": "pw"}),
        ({**KEY, "KAFKA_USER": "bob"}, "SASL_SSL", {"mechanism": "PLAIN", "username": "bob", "password": "key"}),
        ({**KEY, "KAFKA_PASSWORD": "pw"}, "SASL_SSL", {"mechanism": "PLAIN", "username": "token", "password": "pw"}),
        ({"KAFKA_APIKEY": "", "KAFKA_USER": "", "PEM_CERT": "", "KAFKA_CERT": ""}, "PLAINTEXT", {}),
        ({"KAFKA_CERT": "PEM"}, "SSL", {}),
        ({"PEM_CERT": "PEM"}, "SSL", {}),
        ({"PEM_CERT": "/absent.pem"}, "PLAINTEXT", {}),
        ({**KEY, "KAFKA_CERT": "PEM"}, "SASL_SSL", {"mechanism": "PLAIN", "username": "token", "password": "key"}),
        (
            {**KEY, "PEM_CERT": "/absent.pem"},
            "SASL_SSL",
            {"mechanism": "PLAIN", "username": "token", "password": "key"},
        ),
    ],
)
def test_the_protocol_follows_from_what_is_given(
    environment: dict[str, str], protocol: str, sasl: dict[str, str], pem: str
) -> None:
    """A secret means SASL over TLS, a certificate alone TLS, nothing plain text; and the certificate is used."""
    given = {name: pem if value == "PEM" else value for name, value in environment.items()}
    found = properties(given)
    assert found["security.protocol"] == protocol
    assert found["bootstrap.servers"] == "broker:9092"
    assert {name: value for name, value in found.items() if name.startswith("sasl.")} == {
        f"sasl.{name}": value for name, value in sasl.items()
    }
    assert found.get("ssl.ca.location") == (pem if pem in given.values() else None)


def test_an_absent_pem_cert_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """PEM_CERT may be absent on disk, and then the user is told which certificates are used instead."""
    with caplog.at_level(logging.WARNING):
        properties({**KEY, "PEM_CERT": "/absent.pem"})
    assert "PEM_CERT: there is no file /absent.pem" in caplog.text


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_each_mechanism_carries_user_and_secret(mechanism: str) -> None:
    """Every entry of the table gives properties that librdkafka takes, with the user and the secret in them."""
    variables = {**MECHANISMS[mechanism].required, **MECHANISMS[mechanism].optional}
    values = {name: f"https://{number}=x" for number, name in enumerate(variables.values())}
    found = client_config({**values, "KAFKA_SASL_MECHANISM": mechanism}, brokers=NOBODY)
    assert found.properties["sasl.mechanism"] == mechanism
    assert {name: found.properties[name] for name in variables} == {
        name: values[variable] for name, variable in variables.items()
    }
    Admin(found)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_each_variable_that_a_mechanism_needs_is_asked_for(mechanism: str) -> None:
    """Without a required variable the configuration is refused, and the variable is named."""
    required = MECHANISMS[mechanism].required.values()
    for left_out in set(required) - {"KAFKA_USER"}:  # which has a default
        given = {name: "https://x" for name in required if name != left_out}
        assert left_out in refusal({**given, "KAFKA_SASL_MECHANISM": mechanism})


def test_kafka_cert_comes_before_pem_cert(tmp_path: Path, pem: str) -> None:
    """With both, KAFKA_CERT is used."""
    other = written(tmp_path / "other.pem", PEM)
    assert properties({"KAFKA_CERT": pem, "PEM_CERT": other})["ssl.ca.location"] == pem


def test_overrides_come_last(tmp_path: Path) -> None:
    """--config comes before KAFKA_CONFIG_FILE, and that before what this tool chooses itself."""
    file = written(tmp_path / "client.properties", "client.id=from-file\nlinger.ms=7\n")
    found = properties({"KAFKA_CONFIG_FILE": file}, ("client.id", "from-flag"))
    assert (found["client.id"], found["linger.ms"]) == ("from-flag", "7")


def test_a_properties_file_is_read_line_by_line(tmp_path: Path) -> None:
    """Comments, blanks, Windows line ends and values with equals signs are understood; nothing is unescaped."""
    text = "# comment\n! another\n\n  linger.ms = 20  \r\nsasl.username=a=b#c\nssl.cipher.suites=\n"
    found = properties({"KAFKA_CONFIG_FILE": written(tmp_path / "client.properties", text)})
    assert (found["linger.ms"], found["sasl.username"], found["ssl.cipher.suites"]) == ("20", "a=b#c", "")


def test_a_properties_file_may_hold_secrets(tmp_path: Path) -> None:
    """A file is no flag: all that a connection needs may stand in it."""
    text = "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.username=u\nsasl.password=p=w\n"
    found = client_config({"KAFKA_CONFIG_FILE": written(tmp_path / "f", text)}, brokers=NOBODY)
    assert found.properties["sasl.password"] == "p=w"
    assert found.redacted()["sasl.password"] == "(secret)"
    Admin(found)


@pytest.mark.parametrize("protocol", ["SASL_SSL", "ssl", "SASL_PLAINTEXT"])
def test_the_protocol_can_be_chosen_where_no_secret_is_exposed(protocol: str) -> None:
    """SCRAM sends no secret in clear, so even SASL_PLAINTEXT is the user's choice."""
    assert properties(SCRAM, ("security.protocol", protocol))["security.protocol"] == protocol


@pytest.mark.parametrize("name", ["KAFKA_APIKEY", "KAFKA_PASSWORD"])
@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\n"])
def test_a_secret_file_may_end_in_a_line_end(tmp_path: Path, name: str, ending: str) -> None:
    """The line end that editors and `kubectl create secret` leave is no part of the secret; blanks are."""
    file = written(tmp_path / "secret", f" pa ss=wörd {ending}")
    assert properties({f"{name}_FILE": file})["sasl.password"] == " pa ss=wörd "


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("name", ["KAFKA_APIKEY", "KAFKA_PASSWORD"])
def test_a_secret_given_twice_is_refused(tmp_path: Path, name: str) -> None:
    """The variable and its file together are ambiguous."""
    message = refusal({name: SECRET, f"{name}_FILE": written(tmp_path / "secret", "x")})
    assert f"{name} and {name}_FILE are both set" in message
    assert SECRET not in message


FILES_OF_SECRETS = sorted(variable.name for variable in VARIABLES if variable.name.endswith("_FILE"))
CERTIFICATES = ["KAFKA_CERT", "KAFKA_CLIENT_CERT", "KAFKA_OAUTH_CERT"]


@pytest.mark.parametrize("name", [*FILES_OF_SECRETS, *CERTIFICATES])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    """A directory is told with the variable, the path and the system's reason."""
    assert (
        refusal({**of_its_mechanism(name), name: str(tmp_path)})
        == f"{name}: cannot read the file {tmp_path}: Is a directory"
    )


@pytest.mark.parametrize("name", ["KAFKA_CONFIG_FILE", *CERTIFICATES])
@pytest.mark.parametrize("path", ["/no/such/ca.pem", "certs/my ca.crt", "C:\\certs\\ca.cer", "TMP/client"])
def test_a_missing_file_is_named_where_its_name_is_surely_one(tmp_path: Path, name: str, path: str) -> None:
    """A certificate's or properties file that is not there is named: by its ending, or its folder, it is a path."""
    path = path.replace("TMP", str(tmp_path))
    assert refusal({name: path}) == f"{name}: cannot read the file {path}: No such file or directory"


#: A secret as it is pasted: a key, a JWT, base64 with slashes (too long for a file's name, too), several lines.
PASTED = [
    SECRET,
    f"eyJhbGciOiJIUzI1NiJ9.{SECRET}.x",
    f"/{SECRET}+/9j/4AAQ==",
    f"//{SECRET}",
    f"MII{SECRET}/" * 100,
    f"MII{SECRET}" * 100,
    f"security.protocol=SSL\nsasl.password={SECRET}\nssl.ca.location=/etc/ca.pem",
]


def of_its_mechanism(name: str) -> dict[str, str]:
    """What must be set for the variable to be looked at."""
    return {"KAFKA_SASL_MECHANISM": "OAUTHBEARER"} if name.startswith("KAFKA_OAUTH_CLIENT") else {}


@pytest.mark.parametrize("name", [*FILES_OF_SECRETS, *CERTIFICATES, "PEM_CERT", "KAFKA_CLIENT_KEY"])
@pytest.mark.parametrize("value", PASTED)
def test_a_secret_in_place_of_its_file_is_not_shown(name: str, value: str, caplog: pytest.LogCaptureFixture) -> None:
    """Who gives the secret where its path is expected is told so, and the value is in no message, cause or log."""
    with caplog.at_level(logging.DEBUG):
        try:
            client_config({**of_its_mechanism(name), name: value}, brokers=NOBODY)
            told = caplog.text
        except ConfigError as error:
            told = f"{error} {error.__cause__} {error.__context__}"
    assert SECRET not in told
    assert name in told and "not shown" in told


@pytest.mark.parametrize("name", [name for name in FILES_OF_SECRETS if name != "KAFKA_CONFIG_FILE"])
def test_a_missing_secret_file_is_not_named(tmp_path: Path, name: str) -> None:
    """What should be a secret's file and is not there may be the secret, even if it looks like a path."""
    assert SECRET not in refusal({**of_its_mechanism(name), name: str(tmp_path / f"{SECRET}.pem")})


@pytest.mark.parametrize("name", ["KAFKA_APIKEY_FILE", "KAFKA_PASSWORD_FILE"])
@pytest.mark.parametrize("text", ["", "\n", "\r\n\r\n"])
def test_an_empty_secret_file_is_no_silent_plain_text(tmp_path: Path, name: str, text: str) -> None:
    """A secret that is not there yet must not make the client connect without authentication."""
    file = written(tmp_path / "secret", text)
    message = refusal({name: file})
    assert name in message and file in message


@pytest.mark.parametrize("name", ["KAFKA_CERT", "PEM_CERT"])
@pytest.mark.parametrize("text", ["", "\n", "hello", PEM.replace("CERTIFICATE", "PRIVATE KEY"), "\x30\x82\x01"])
def test_a_certificate_that_is_no_pem_is_named(tmp_path: Path, name: str, text: str) -> None:
    """An empty file, text, a key, or DER: the variable and the path are told before anything is connected."""
    file = written(tmp_path / "ca.pem", text)
    message = refusal({**KEY, name: file})
    assert message.startswith(f"{name}: {file} holds no PEM certificate")


def test_a_pem_cert_that_is_a_directory_is_named(tmp_path: Path) -> None:
    """PEM_CERT may be absent, but what is there must be a certificate."""
    assert refusal({"PEM_CERT": str(tmp_path)}) == f"PEM_CERT: cannot read the file {tmp_path}: Is a directory"


def test_bytes_that_are_no_text_are_no_certificate(tmp_path: Path) -> None:
    """A binary file gives the same sentence, and no decoding error."""
    file = tmp_path / "ca.der"
    file.write_bytes(bytes(range(256)))
    assert "holds no PEM certificate" in refusal({"KAFKA_CERT": str(file)})


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"KAFKA_SASL_MECHANISM": "GSSAPI", **KEY}, "KAFKA_SASL_MECHANISM=GSSAPI"),
        ({"KAFKA_SASL_MECHANISM": "plain", **KEY}, "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"),
        ({"KAFKA_SASL_MECHANISM": "SCRAM-SHA-512"}, "SCRAM-SHA-512 needs KAFKA_PASSWORD or KAFKA_APIKEY"),
        ({"KAFKA_USER": "alice"}, "PLAIN needs KAFKA_PASSWORD or KAFKA_APIKEY"),
        ({"KAFKA_USER": "alice", "KAFKA_PASSWORD": ""}, "PLAIN needs KAFKA_PASSWORD or KAFKA_APIKEY"),
        ({"KAFKA_OAUTH_CLIENT_ID": "me"}, "set KAFKA_SASL_MECHANISM=OAUTHBEARER"),
        ({**SCRAM, "KAFKA_SASL_MECHANISM": "OAUTHBEARER"}, "KAFKA_USER is set"),
        ({"KAFKA_CLIENT_CERT": CHAIN}, "both KAFKA_CLIENT_CERT and KAFKA_CLIENT_KEY"),
        ({"KAFKA_CLIENT_KEY": CLIENT_KEY}, "both KAFKA_CLIENT_CERT and KAFKA_CLIENT_KEY"),
        ({"KAFKA_CLIENT_KEY_PASSWORD": "x"}, "both KAFKA_CLIENT_CERT and KAFKA_CLIENT_KEY"),
    ],
)
def test_half_of_the_credentials_is_refused(environment: dict[str, str], named: str) -> None:
    """A user without secret, or a mechanism that is not in the table, says what is missing or allowed."""
    assert named in refusal(environment)


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("name", ["KAFKA_APIKEY", "KAFKA_PASSWORD", "KAFKA_USER", "KAFKA_SASL_MECHANISM", "KAFKA_CERT"])
def test_quotes_that_docker_keeps_are_diagnosed(name: str, quote: str) -> None:
    """A value still in its quotes is told as such, and a secret is not shown."""
    message = refusal({**KEY, "KAFKA_PASSWORD": "x", name: f"{quote}{SECRET}{quote}"})
    assert name in message and "quotes" in message
    assert SECRET not in message


def test_quotes_inside_a_secret_are_part_of_it() -> None:
    """Only a pair around the whole value is a mistake."""
    for secret in ("it's", '"', "'a\"", "a'b'", "'"):
        assert properties({"KAFKA_APIKEY": secret})["sasl.password"] == secret


@pytest.mark.parametrize("name", sorted(SECRET_PROPERTIES))
def test_secrets_are_refused_as_flags(name: str) -> None:
    """--config is visible to every user of the machine, so no secret is taken from it, nor repeated."""
    message = refusal({}, (name, SECRET))
    assert f"--config {name}" in message
    assert SECRET not in message


@pytest.mark.parametrize(
    "name",
    [
        "sasl.password", "sasl.oauthbearer.client.secret", "sasl.oauthbearer.client.credentials.client.secret",
        "sasl.oauthbearer.assertion.private.key.pem", "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.config", "ssl.key.pem", "ssl.key.password", "ssl.keystore.password",
        "sasl.kerberos.kinit.cmd",
    ],
)  # fmt: skip
def test_every_secret_of_librdkafka_is_known(name: str) -> None:
    """The properties that librdkafka documents as sensitive are refused as flags and redacted from files."""
    assert SECRET not in repr(ClientConfig({name: SECRET}))
    assert "secrets come from variables or files only" in refusal({}, (name, SECRET))


MISSPELT = (
    "sasl.pasword", "SASL.PASSWORD", "Sasl.Oauthbearer.Config", "sasl.passwd", "ssl.key.pasword", "sasl.pssword",
    "sasl.oauthbearer.client.scret", "apikey", "api_key", "my.token", "ssl.key", "sasl.credentials", "jaas.config",
    "metrics.password", "ssl.key.passphrase",
)  # fmt: skip


@pytest.mark.parametrize("name", MISSPELT)
def test_a_misspelt_secret_is_one(tmp_path: Path, name: str) -> None:
    """In capital letters or with a letter too few it is refused as a flag, redacted from a file, and never repeated."""
    message = refusal({}, (name, SECRET))
    assert message.startswith(f"--config {name}: secrets come from variables or files only")
    assert SECRET not in message
    environment = {"KAFKA_CONFIG_FILE": written(tmp_path / "client.properties", f"{name}={SECRET}\n")}
    config = client_config(environment, brokers=NOBODY)
    assert SECRET not in repr(config)
    if name in config.properties:  # some are left out, as words of the Java client
        with pytest.raises(ConfigError) as caught:
            Admin(config)
        assert name in str(caught.value) and SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["client.id", "sasl.oauthbearer.scope", "no.such.property"])
@pytest.mark.parametrize("value", [f"https://id/t?code={SECRET}", f"https://u:{SECRET}@id/t", f"a://b c/?{SECRET}"])
def test_an_address_with_a_secret_is_refused_as_a_flag(name: str, value: str) -> None:
    """User, password or query of an address may be secret, whatever property it is given for."""
    message = refusal({}, (name, value))
    assert message.startswith(f"--config {name}: ") and "KAFKA_CONFIG_FILE" in message
    assert SECRET not in message


@pytest.mark.parametrize(
    "name",
    [
        "ssl.key.location", "ssl.keystore.location", "sasl.oauthbearer.client.credentials.client.id",
        "sasl.oauthbearer.assertion.private.key.file", "sasl.kerberos.keytab", "ssl.ca.location", "sasl.username",
    ],
)  # fmt: skip
def test_what_only_sounds_secret_is_taken_and_shown(name: str) -> None:
    """A file's name and a user's are no secrets."""
    config = client_config({}, brokers=NOBODY, overrides=[(name, "/some/where")])
    assert "/some/where" in config.redacted().values()


def test_a_token_endpoint_without_a_query_may_be_a_flag() -> None:
    """Only what may be secret is refused."""
    name = "sasl.oauthbearer.token.endpoint.url"
    assert properties(OAUTH, (name, "https://id.example/other"))[name] == "https://id.example/other"
    assert "key.serializer" not in properties({}, ("key.serializer", "org.apache.StringSerializer"))


@pytest.mark.parametrize(
    "name",
    [
        "delivery.report.only.error", "enable.auto.commit", "auto.commit.enable", "enable.auto.offset.store",
        "auto.offset.reset", "group.id", "bootstrap.servers", "metadata.broker.list",
    ],
)  # fmt: skip
def test_what_the_counts_depend_on_is_fixed(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Properties that would make the counts lies are refused from a flag, with what to use instead.

    From a file, too, but those that any application has in its own: they are left out, which is said.
    """
    caplog.set_level(logging.INFO)
    file = written(tmp_path / "client.properties", f"{name}=true\n")
    messages = [refusal({}, (name, "true"))]
    if name in ("enable.auto.commit", "auto.offset.reset", "group.id", "bootstrap.servers"):
        assert properties({"KAFKA_CONFIG_FILE": file}) == properties({})
        assert f"{name} in KAFKA_CONFIG_FILE is left out: " in caplog.text
    else:
        messages.append(refusal({"KAFKA_CONFIG_FILE": file}))
    for message in messages:
        assert f"the property {name} cannot be set: " in message
        assert not message.endswith(": ")


UNACKNOWLEDGED = ("0", "+0", "-0", "00", "0x0", "0b0", "0.0", "0e0", "0all", " 0", "\t0", "0 ", "4294967296")
UNVERIFIED = ("false", "FALSE", "False", "f", "F", "0")


@pytest.mark.parametrize("name", ["acks", "request.required.acks"])
@pytest.mark.parametrize("value", UNACKNOWLEDGED)
def test_acknowledgements_cannot_be_switched_off(tmp_path: Path, name: str, value: str) -> None:
    """Every spelling that librdkafka takes for acks=0 is refused, from a flag and from a file."""
    RawProducer({name: value})  # librdkafka takes it, or this spelling needs no test
    file = written(tmp_path / "client.properties", f"{name}={value}\n")
    assert name in refusal({}, (name, value))
    assert name in refusal({"KAFKA_CONFIG_FILE": file})


@pytest.mark.parametrize("value", ["all", "-1", "1", "2"])
def test_acknowledgements_can_be_chosen(value: str) -> None:
    """Any number of acknowledgements but none."""
    assert properties({}, ("acks", value))["acks"] == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("enable.ssl.certificate.verification", value) for value in UNVERIFIED],
        *[("ssl.endpoint.identification.algorithm", value) for value in ("none", "NONE", "None", " none")],
    ],
)
def test_verification_cannot_be_switched_off(tmp_path: Path, name: str, value: str) -> None:
    """Every spelling that librdkafka takes for no verification is refused, from a flag and from a file."""
    RawProducer({name: value})  # librdkafka takes it, or this spelling needs no test
    file = written(tmp_path / "client.properties", f"{name}={value}\n")
    for message in (refusal({}, (name, value)), refusal({"KAFKA_CONFIG_FILE": file})):
        assert "certificates are always verified" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enable.ssl.certificate.verification", "true"),
        ("enable.ssl.certificate.verification", "1"),
        ("ssl.endpoint.identification.algorithm", "https"),
    ],
)
def test_verification_may_be_switched_on(name: str, value: str) -> None:
    """Saying what holds anyway is allowed."""
    assert properties({}, (name, value))[name] == value


OAUTH = {
    "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
    "KAFKA_OAUTH_TOKEN_URL": "https://id.example/token",
    "KAFKA_OAUTH_CLIENT_ID": "perf",
    "KAFKA_OAUTH_CLIENT_SECRET": SECRET,
}


def test_a_token_is_never_sent_or_fetched_in_clear() -> None:
    """OAUTHBEARER needs TLS to the broker, and https to the token endpoint."""
    assert "in clear" in refusal(OAUTH, ("security.protocol", "SASL_PLAINTEXT"))
    for address in ("http://id.example/token", "HTTP://id.example", "id.example/token", "https//id.example"):
        assert "https address" in refusal({**OAUTH, "KAFKA_OAUTH_TOKEN_URL": address})


@pytest.mark.parametrize("way", ["variable", "flag", "file", "Java's file"])
def test_a_password_in_the_token_endpoints_address_is_refused(tmp_path: Path, way: str) -> None:
    """It would have no effect, and stand in librdkafka's log and the process list: refused, and not repeated."""
    name, address = "sasl.oauthbearer.token.endpoint.url", f"https://user:{SECRET}@id.example/token"
    jaas = f'sasl.jaas.config=a.OAuthBearerLoginModule required oauth.token.endpoint.uri="{address}";'
    file = written(tmp_path / "f", jaas if way == "Java's file" else f"{name}={address}\n")
    message = {
        "variable": lambda: refusal({**OAUTH, "KAFKA_OAUTH_TOKEN_URL": address}),
        "flag": lambda: refusal(OAUTH, (name, address)),
    }.get(way, lambda: refusal({**OAUTH, "KAFKA_CONFIG_FILE": file}))()
    assert "KAFKA_OAUTH_CLIENT_SECRET" in message
    assert SECRET not in message


def test_the_query_of_an_address_may_be_secret() -> None:
    """Some identity providers need one: it reaches librdkafka, but no result, and no log that librdkafka writes."""
    given = {**OAUTH, "KAFKA_OAUTH_TOKEN_URL": f"https://id.example/token?code={SECRET}"}
    config = client_config(given, brokers=NOBODY)
    assert config.properties["sasl.oauthbearer.token.endpoint.url"].endswith(SECRET)
    assert config.redacted()["sasl.oauthbearer.token.endpoint.url"] == "https://id.example/token?(secret)"
    for override in (("debug", "conf"), ("log_level", "3"), ("log_level", "7")):
        assert override[0] in refusal(given, override)
        properties(OAUTH, override)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f'no token from "https://u:{SECRET}@id/t": 401', 'no token from "https://(secret)@id/t": 401'),
        (f"https://u:{SECRET}/{SECRET}@id/t", "https://(secret)@id/t"),
        (f'"https://id/t?a={SECRET}&b={SECRET}" x', '"https://id/t?(secret)" x'),
        ("sasl_ssl://broker:9093/bootstrap: refused? no", "sasl_ssl://broker:9093/bootstrap: refused? no"),
    ],
)
def test_secrets_of_addresses_are_left_out(text: str, shown: str) -> None:
    """User, password and query of an address are replaced, in a property's value and in a message around it."""
    assert without_secrets(text) == shown
    assert ClientConfig({"a.url": text}).redacted() == {"a.url": shown}


# ------------------------------------------------------------------------------------- certificates as path and text


@pytest.mark.parametrize(
    "spelling",
    [
        lambda text: text,
        lambda text: text.strip(),
        lambda text: text.replace("\n", "\\n"),
        lambda text: text.replace("\n", "\\r\\n"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", " "),
        lambda text: f"\n  {text}",
    ],
    ids=["as it is", "stripped", "escaped", "escaped Windows", "Windows", "blanks", "indented"],
)
def test_certificates_may_be_given_as_text(spelling: Callable[[str], str]) -> None:
    """PEM text with real, escaped or lost line ends, and several certificates in it, is what librdkafka takes."""
    two = PEM + OTHER.ca_pem
    environment = {"KAFKA_CERT": two, "KAFKA_CLIENT_CERT": CHAIN, "KAFKA_CLIENT_KEY": CLIENT_KEY}
    found = client_config({name: spelling(text) for name, text in environment.items()}, brokers=NOBODY)
    assert found.properties["ssl.ca.pem"] == two
    assert found.properties["ssl.certificate.pem"] == CHAIN
    assert found.properties["ssl.key.pem"] == CLIENT_KEY
    assert found.properties["security.protocol"] == "SSL"
    Admin(found)


def test_certificate_and_key_from_files(tmp_path: Path) -> None:
    """Paths are handed to librdkafka as paths; a _FILE variable's text and a password as text."""
    chain, key = written(tmp_path / "chain.pem", CHAIN), written(tmp_path / "key.pem", CLIENT_KEY)
    found = properties({"KAFKA_CLIENT_CERT": chain, "KAFKA_CLIENT_KEY": key, "KAFKA_CLIENT_KEY_PASSWORD": "pw"})
    assert (found["ssl.certificate.location"], found["ssl.key.location"]) == (chain, key)
    assert found["ssl.key.password"] == "pw"
    found = properties({"KAFKA_CLIENT_CERT": chain, "KAFKA_CLIENT_KEY_FILE": key})
    assert found["ssl.key.pem"] == CLIENT_KEY
    assert "ssl.key.location" not in found


def test_comments_between_certificates_may_be_in_any_language(tmp_path: Path) -> None:
    """A bundle of CA certificates with names beside them, in letters that are not ASCII, is taken."""
    bundle = written(tmp_path / "bundle.pem", f"# Főtanúsítvány\n{PEM}\n# Zertifikat für alle\n{OTHER.ca_pem}")
    Admin(client_config({"KAFKA_CERT": bundle}, brokers=NOBODY))


def test_old_encrypted_keys_keep_their_header_lines() -> None:
    """The lines of a key as OpenSSL once encrypted it stay apart."""
    key = (
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n"
        "-----END RSA PRIVATE KEY-----\n"
    )
    assert pem_text(key) == pem_text(key.replace("\n", "\\n")) == key


@pytest.mark.parametrize("name", ["KAFKA_CERT", "PEM_CERT", "KAFKA_CLIENT_CERT", "KAFKA_OAUTH_CERT"])
def test_a_damaged_certificate_is_named(tmp_path: Path, name: str) -> None:
    """A certificate cut short is told before anything is connected, as a file with its path and as a text."""
    cut = PEM[:200] + "\n-----END CERTIFICATE-----\n"
    path = written(tmp_path / "ca.pem", cut)
    assert refusal({name: path}).startswith(f"{name}: {path} is damaged")
    assert refusal({name: cut}).startswith(f"{name}: the PEM text is damaged")


def test_a_key_is_never_shown() -> None:
    """A private key in the wrong variable, or damaged, is in no message."""
    for environment in ({"KAFKA_CERT": CLIENT_KEY}, {"KAFKA_CLIENT_KEY": CLIENT_KEY.replace("PRIVATE", "PUBLIC")}):
        assert CLIENT_KEY.splitlines()[1] not in refusal(environment)
    damaged = CLIENT_KEY.splitlines()[0] + f"\n{SECRET}\n" + CLIENT_KEY.splitlines()[-1]
    with pytest.raises(ConfigError) as caught:
        Admin(client_config({"KAFKA_CLIENT_CERT": CHAIN, "KAFKA_CLIENT_KEY": damaged}, brokers=NOBODY))
    assert SECRET not in str(caught.value) + repr(caught.value.__cause__)
    assert "ssl.key.pem" in str(caught.value)


def test_a_certificates_path_replaces_its_text(tmp_path: Path) -> None:
    """A later source replaces a certificate, also where one is a path and the other a text."""
    file = written(tmp_path / "f", "ssl.ca.location=/from/file\n")
    found = properties({"KAFKA_CERT": PEM, "KAFKA_CONFIG_FILE": file})
    assert found["ssl.ca.location"] == "/from/file"
    assert "ssl.ca.pem" not in found


def test_the_token_endpoint_is_verified_by_the_systems_certificates(monkeypatch: pytest.MonkeyPatch, pem: str) -> None:
    """Without KAFKA_OAUTH_CERT the CA certificates that OpenSSL uses here are handed on; with it only that."""
    monkeypatch.setenv("SSL_CERT_FILE", pem)
    assert properties(OAUTH)["https.ca.location"] == pem
    found = properties({**OAUTH, "KAFKA_OAUTH_CERT": PEM})
    assert found["https.ca.pem"] == PEM
    assert "https.ca.location" not in found


def test_the_protocol_can_be_given_as_a_variable() -> None:
    """KAFKA_SECURITY_PROTOCOL decides where nothing else tells, for example TLS by a public CA without credentials."""
    assert properties({"KAFKA_SECURITY_PROTOCOL": "SSL"})["security.protocol"] == "SSL"


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "sasl_plaintext", "PLAINTEXT"])
@pytest.mark.parametrize("mechanism_property", ["sasl.mechanism", "sasl.mechanisms"])
def test_plain_without_tls_is_refused(tmp_path: Path, protocol: str, mechanism_property: str) -> None:
    """SASL PLAIN sends the secret itself, so it is never sent over a connection without TLS."""
    chosen = [(mechanism_property, "PLAIN"), ("security.protocol", protocol)]
    lines = [*chosen, ("sasl.username", "u"), ("sasl.password", SECRET)]
    file = written(tmp_path / "client.properties", "".join(f"{name}={value}\n" for name, value in lines))
    for message in (
        refusal(KEY, ("security.protocol", protocol)),
        refusal(SCRAM, *chosen),
        refusal({"KAFKA_CONFIG_FILE": file}),
    ):
        assert "in clear" in message
        assert SECRET not in message


@pytest.mark.parametrize(("text", "line"), [("nonsense\n", 1), ("a=1\n# b\n\nsasl.password " + SECRET, 4)])
def test_a_bad_line_of_the_properties_file_is_numbered(tmp_path: Path, text: str, line: int) -> None:
    """The variable, the path and the line's number are told, and not what the line holds."""
    file = written(tmp_path / "client.properties", text)
    message = refusal({"KAFKA_CONFIG_FILE": file})
    assert message.startswith(f"KAFKA_CONFIG_FILE: {file}, line {line}: ")
    assert SECRET not in message


# ------------------------------------------------------------------------------------- what librdkafka itself refuses


@pytest.mark.parametrize("override", [("no.such.property", "1"), ("queue.buffering.max.ms", "soon"), ("stats_cb", "x")])
def test_properties_that_librdkafka_refuses_are_configuration_errors(override: tuple[str, str]) -> None:
    """The first client that takes the properties reports what librdkafka says, with exit code 2."""
    with pytest.raises(ConfigError, match=override[0]) as caught:
        Admin(client_config({}, brokers=NOBODY, overrides=[override]))
    assert caught.value.exit_code == 2


def test_properties_that_do_not_go_together_are_configuration_errors() -> None:
    """What only a producer or only a consumer refuses is no defect of this tool either."""
    with pytest.raises(ConfigError, match="acks"):
        Producer(client_config({}, brokers=NOBODY, overrides=[("acks", "1")]), "t", acknowledge_each=True)
    with pytest.raises(ConfigError, match=r"max\.poll\.interval\.ms"):
        config = client_config({}, brokers=NOBODY, overrides=[("max.poll.interval.ms", "10")])
        Consumer(config, "t", partitions=[], start="earliest")


# ---------------------------------------------------------------------------------------------------------- secrecy

#: Recognisable however it is cut, and free of what the properties file or an environment cannot hold.
secrets = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=8).map(
    lambda text: f"{SECRET}{text}{SECRET}"
)
secret_variables = st.sampled_from(
    [
        name
        for secret in (
            "KAFKA_APIKEY",
            "KAFKA_PASSWORD",
            "KAFKA_CLIENT_KEY",
            "KAFKA_CLIENT_KEY_PASSWORD",
            "KAFKA_OAUTH_CLIENT_SECRET",
        )
        for name in (secret, f"{secret}_FILE")
    ]
)
secret_properties = st.sampled_from(sorted(SECRET_PROPERTIES | JAVA_SECRETS))
other_properties = st.sampled_from(
    [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("acks", "0"),
        ("linger.ms", "5"),
        ("a", "b"),
    ]
)
mechanisms = st.sampled_from(["", "PLAIN", "SCRAM-SHA-512", "OAUTHBEARER", "OTHER"])


@settings(max_examples=300)
@given(
    secret=secrets,
    quote=st.sampled_from(["", "", "'", '"']),
    variables=st.sets(secret_variables, max_size=2),
    user=st.sampled_from(["", "alice"]),
    mechanism=mechanisms,
    file_secrets=st.sets(secret_properties, max_size=3),
    separator=st.sampled_from(["=", " = ", ":"]),
    others=st.lists(other_properties, max_size=2),
    flag_secret=st.none() | secret_properties,
)
def test_no_secret_is_ever_shown(  # noqa: PLR0917 (hypothesis gives them by name)
    tmp_path_factory: pytest.TempPathFactory,
    secret: str,
    quote: str,
    variables: set[str],
    user: str,
    mechanism: str,
    file_secrets: set[str],
    separator: str,
    others: Pairs,
    flag_secret: str | None,
) -> None:
    """However a secret comes in, and whatever is wrong besides, it is in no repr, no redacted value and no error."""
    folder = tmp_path_factory.getbasetemp()
    given = f"{quote}{secret}{quote}"
    secret_file = written(folder / "secret", f"{given}\n")
    lines = "".join(f"{name}{separator}{given}\n" for name in sorted(file_secrets))
    environment = {"KAFKA_USER": user, "KAFKA_SASL_MECHANISM": mechanism}
    environment |= {name: secret_file if name.endswith("_FILE") else given for name in variables}
    environment["KAFKA_CONFIG_FILE"] = written(folder / "client.properties", lines)
    overrides = [*others, *([(flag_secret, given)] if flag_secret else [])]
    try:
        found = client_config(environment, brokers="b:1", overrides=overrides)
        shown = [repr(found), str(found), str(found.redacted())]
        meant = variables or [name for name in file_secrets if not java.has_no_meaning(name)]
        assert any(secret in value for value in found.properties.values()) or not meant
    except ConfigError as error:
        shown = [str(error), repr(error), str(error.__cause__), str(error.__context__)]
    assert SECRET not in "".join(shown)


def test_redaction_keeps_everything_else() -> None:
    """A redacted configuration has the same properties, and only secrets are replaced."""
    config = client_config(KEY, brokers="b:1", overrides=[("linger.ms", "5")])
    changed = {name for name, value in config.redacted().items() if value != config.properties[name]}
    assert list(config.redacted()) == list(config.properties)
    assert changed == {"sasl.password"}


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """librdkafka's properties as the library itself documents them: name → description."""
    libraries = list(Path(confluent_kafka.__file__).parent.parent.glob("confluent_kafka.libs/librdkafka*"))
    if not libraries:
        pytest.skip("this build of confluent-kafka has no librdkafka of its own to ask")
    path = tmp_path_factory.mktemp("librdkafka") / "properties"
    c = ctypes.CDLL(None)
    c.fopen.restype = ctypes.c_void_p
    file = ctypes.c_void_p(c.fopen(str(path).encode(), b"w"))
    ctypes.CDLL(str(libraries[0])).rd_kafka_conf_properties_show(file)
    c.fclose(file)
    rows = [line.split("|") for line in path.read_text().splitlines() if line.count("|") > 4]
    found = {row[0].strip(): row[-1].strip() for row in rows}
    assert len(found) > 100
    return found


def test_every_alias_of_librdkafka_is_known(documented: dict[str, str]) -> None:
    """Two names of one property cannot stand beside each other: one of them is refused, or becomes the other."""
    for name, meaning in documented.items():
        if match := re.search(r"Alias for `([^`]+)`", meaning):
            pair = {name, match[1]}
            refused = [one for one in pair if "cannot be set" in outcome(one)]
            assert len(refused) == 2 or any(ALIASES.get(one) in pair for one in pair), pair


def outcome(name: str) -> str:
    """What is said of a --config with this property; "" where it is taken."""
    try:
        properties({}, (name, "1"))
    except ConfigError as error:
        return str(error)
    return ""


def test_every_property_that_sounds_secret_is_treated_as_one(documented: dict[str, str]) -> None:
    """A password, passphrase, secret or private key among librdkafka's properties is redacted and refused as a flag.

    What else sounds so is a path, an id or an address, or cannot be given as a text.
    """
    sounding = {name for name in documented if re.search(r"password|passphrase|secret|key\.pem", name)}
    assert sounding <= SECRET_PROPERTIES
    assert len(sounding) > 5
    assert {name for name in documented if is_secret(name)} - SECRET_PROPERTIES == {
        "ssl_key", "oauthbearer_token_refresh_cb"
    }  # fmt: skip
    assert all(is_secret(name) for name in SECRET_PROPERTIES | JAVA_SECRETS)


def test_the_java_clients_names_are_not_librdkafkas(documented: dict[str, str]) -> None:
    """What is translated, refused or left out as a word of the Java client is no property of librdkafka."""
    shared = {"ssl.keystore.location"}  # looked at because of its type
    assert not (java.NAMES - shared) & documented.keys()
    assert not [name for name in documented if java.has_no_meaning(name)]


def test_every_secret_property_exists_in_librdkafka() -> None:
    """The list of secrets has no misspelt name, which would protect nothing."""
    for name in SECRET_PROPERTIES:
        try:
            RawProducer({name: "x"})
        except KafkaException as error:
            assert "No such configuration property" not in str(error)


def test_the_variables_are_named_once_and_explained() -> None:
    """--help and the README list each connection variable with its meaning."""
    names = [variable.name for variable in VARIABLES]
    assert len(set(names)) == len(names)
    assert all(variable.meaning for variable in VARIABLES)


REFUSED = "SASL PLAIN mechanism handshake failed: {}: broker's supported mechanisms: "


@pytest.mark.parametrize(
    ("text", "is_final"),
    [
        ("SASL authentication error: Authentication failed", True),
        (REFUSED.format("Broker: Unsupported SASL mechanism"), True),
        (REFUSED.format("Local: Broker transport failure"), False),  # librdkafka connects anew
        (REFUSED.format("Local: Timed out"), False),
    ],
)
def test_a_connection_lost_at_the_handshake_is_no_refusal(text: str, is_final: bool) -> None:
    """librdkafka gives both the same code; only a refusal by the cluster ends a run."""
    log = ErrorLog()
    log(KafkaError(KafkaError._AUTHENTICATION, text))
    assert isinstance(log.fault("consumer"), ConnectError) == is_final
