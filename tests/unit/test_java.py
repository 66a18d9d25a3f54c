"""The Java client's words in KAFKA_CONFIG_FILE: translated into librdkafka's, or refused with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from demo.broker import issue_certificate
from kafka.config import client_config
from kafka.errors import ConfigError
from kafka.topics import Admin

SECRET = "S3CR3T"
CERTIFICATE = issue_certificate(host_name="client")
LOGIN = "sasl.jaas.config=org.apache.kafka.common.security"


def from_file(folder: Path, text: str) -> Mapping[str, str]:
    """The properties that librdkafka takes for a file with this text."""
    (folder / "client.properties").write_text(text, encoding="utf-8")
    config = client_config({"KAFKA_CONFIG_FILE": str(folder / "client.properties")}, brokers="localhost:1")
    Admin(config)
    return config.properties


def refusal(folder: Path, text: str) -> str:
    """What the user is told of a file with this text; never a secret."""
    with pytest.raises(ConfigError) as caught:
        from_file(folder, text)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def test_the_file_that_ibm_event_streams_offers(tmp_path: Path) -> None:
    """A sample of Event Streams for Java clients works as it is, but for the store of certificates."""
    found = from_file(
        tmp_path,
        "security.protocol=SASL_SSL\nssl.protocol=TLSv1.2\nssl.enabled.protocols=TLSv1.2\nsasl.mechanism=PLAIN\n"
        "ssl.endpoint.identification.algorithm=HTTPS\nkey.serializer=org.apache.kafka.common.StringSerializer\n"
        f'{LOGIN}.plain.PlainLoginModule required username="token" password="{SECRET}";\n',
    )
    assert found["sasl.username"] == "token"
    assert found["sasl.password"] == SECRET
    assert not [name for name in found if "jaas" in name or "serializer" in name or "protocols" in name]


@pytest.mark.parametrize(
    ("written", "password"),
    [
        ('"plain"', "plain"),
        ("'single'", "single"),
        ("bare", "bare"),
        ('"with space; and =signs"', "with space; and =signs"),
        ('"back\\\\\\\\slash"', "back\\slash"),
        ('"quote\\\\"inside"', 'quote"inside'),
        ('"it\'s"', "it's"),
    ],
)
def test_a_jaas_password_is_read_as_java_reads_it(tmp_path: Path, written: str, password: str) -> None:
    """Quotes and the escapes of the properties file and of JAAS are taken off; everything else is the password."""
    text = f'sasl.mechanism=SCRAM-SHA-512\n{LOGIN}.scram.ScramLoginModule required \\\n  username="u" \\\n  password='
    found = from_file(tmp_path, f"{text}{written};\n")
    assert (found["sasl.username"], found["sasl.password"]) == ("u", password)


def test_oauth_for_java(tmp_path: Path) -> None:
    """Client credentials as Kafka's own and as Strimzi's login module take them become the oidc method."""
    url = "https://id.example/token"
    kafka = (
        "sasl.login.callback.handler.class=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler\n"
        f"sasl.oauthbearer.token.endpoint.url={url}\n"
        f'{LOGIN}.oauthbearer.OAuthBearerLoginModule required clientId="me" clientSecret="{SECRET}" scope="kafka";\n'
    )
    strimzi = (
        "sasl.login.callback.handler.class=io.strimzi.kafka.oauth.client.JaasClientOauthLoginCallbackHandler\n"
        f'{LOGIN}.oauthbearer.OAuthBearerLoginModule required oauth.client.id="me" oauth.client.secret="{SECRET}" '
        f'oauth.scope="kafka" oauth.token.endpoint.uri="{url}";\n'
    )
    for text in (kafka, strimzi):
        found = from_file(tmp_path, f"sasl.mechanism=OAUTHBEARER\n{text}")
        assert {name.removeprefix("sasl.oauthbearer."): value for name, value in found.items() if "oauth" in name} == {
            "method": "oidc", "client.id": "me", "client.secret": SECRET, "scope": "kafka", "token.endpoint.url": url,
        }  # fmt: skip


def test_pem_stores(tmp_path: Path) -> None:
    """Stores of type PEM, as files and as texts whose lines are joined, become librdkafka's certificates and key."""
    (tmp_path / "ca.pem").write_text(CERTIFICATE.ca_pem)
    (tmp_path / "me.pem").write_text(CERTIFICATE.private_key_pem + CERTIFICATE.chain_pem)
    found = from_file(
        tmp_path,
        f"ssl.truststore.type=PEM\nssl.truststore.location={tmp_path}/ca.pem\n"
        f"ssl.keystore.type=PEM\nssl.keystore.location={tmp_path}/me.pem\n",
    )
    assert found["ssl.ca.location"] == f"{tmp_path}/ca.pem"
    assert found["ssl.certificate.location"] == found["ssl.key.location"] == f"{tmp_path}/me.pem"
    joined = [text.strip().replace("\n", " \\\n  ") for text in (CERTIFICATE.ca_pem, CERTIFICATE.chain_pem)]
    escaped = CERTIFICATE.private_key_pem.replace("\n", "\\n")
    found = from_file(
        tmp_path,
        f"ssl.truststore.type=PEM\nssl.truststore.certificates={joined[0]}\nssl.keystore.type=PEM\n"
        f"ssl.keystore.certificate.chain={joined[1]}\nssl.keystore.key={escaped}\n",
    )
    assert found["ssl.ca.pem"] == CERTIFICATE.ca_pem
    assert found["ssl.certificate.pem"] == CERTIFICATE.chain_pem
    assert found["ssl.key.pem"] == CERTIFICATE.private_key_pem
    assert found["security.protocol"] == "SSL"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "ssl.truststore.location=/t.jks\nssl.truststore.password=S3CR3T\n",
            "keytool -importkeystore -srckeystore /t.jks",
        ),
        ("ssl.truststore.location=/t.jks\n", "KAFKA_CERT or ssl.ca.location"),
        (
            "ssl.truststore.type=PKCS12\nssl.truststore.location=/t.p12\n",
            "openssl pkcs12 -in /t.p12 -nokeys -out ca.pem",
        ),
        ("ssl.keystore.location=/k.jks\nssl.keystore.password=S3CR3T\n", "ssl.keystore.type=PKCS12"),
        ("ssl.keystore.type=JKS\nssl.keystore.location=/k\n", "-srckeystore /k -destkeystore"),
        ("sasl.jaas.config=com.sun.security.auth.module.Krb5LoginModule required keyTab=x;\n", "Kerberos"),
        ("sasl.jaas.config=S3CR3T\n", "PlainLoginModule"),
        (f'{LOGIN}.scram.ScramLoginModule required username="u" password="S3CR3T" tokenauth="true";\n', "tokenauth"),
        (f'{LOGIN}.plain.PlainLoginModule required username="u" password="S3CR3T;\n', "not of the form"),
        ("sasl.login.callback.handler.class=my.Handler\n", "sasl.oauthbearer.method=oidc"),
        ("sasl.client.callback.handler.class=my.Handler\n", "KAFKA_OAUTH_"),
        ("buffer.memory=33554432\n", "queue.buffering.max.kbytes"),
        ("partitioner.class=my.Partitioner\n", "librdkafka has partitioner"),
        ("ssl.endpoint.identification.algorithm=\n", "always verified"),
    ],
)
def test_what_has_no_equivalent_is_refused_with_what_to_use(tmp_path: Path, text: str, said: str) -> None:
    """A Java word that cannot be translated ends in a sentence with librdkafka's word, and never shows a secret."""
    message = refusal(tmp_path, text)
    assert said in message
    assert text.partition("=")[0] in message or "sasl.jaas.config" in message


def test_a_pkcs12_store_is_librdkafkas_own(tmp_path: Path) -> None:
    """A PKCS#12 key store goes on as it is; librdkafka opens it, and says that this one is not there."""
    message = refusal(
        tmp_path, "ssl.keystore.type=PKCS12\nssl.keystore.location=/no.p12\nssl.keystore.password=S3CR3T\n"
    )
    assert "ssl.keystore.location" in message


def test_java_words_in_flags() -> None:
    """--config translates too, and takes no secret under a Java name."""
    flags = [("ssl.truststore.type", "PEM"), ("ssl.truststore.location", "/ca.pem")]
    assert client_config({}, brokers="b:1", overrides=flags).properties["ssl.ca.location"] == "/ca.pem"
    for name in ("sasl.jaas.config", "ssl.keystore.key"):
        with pytest.raises(ConfigError, match="secrets come from variables or files only") as caught:
            client_config({}, brokers="b:1", overrides=[(name, SECRET)])
        assert SECRET not in str(caught.value)
