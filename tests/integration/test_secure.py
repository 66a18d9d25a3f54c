"""Connections to a real broker as users have them, and how each fault of a connection (faults 5 to 8, 25) ends."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from harness import Cluster, Scripts
from identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider

from demo.broker import Certificate, EmbeddedBroker, Security, issue_certificate

pytestmark = pytest.mark.integration

KEY = "a-secret-key-0815"
PASSWORD = "a-secret-password-4711"
KEY_PASSWORD = "a-key-password-1138"
WRONG = "wrong-secret-2342"
QUERY = "a-secret-query-1864"
SERVER = issue_certificate()
SCRIPTS = ("ProducerPerformance.py", "PerfConsumer.py", "test.py")


def issue_client_certificate() -> tuple[str, Certificate]:
    """A root CA, and a client certificate that an intermediate CA under it signed."""
    root = trustme.CA()
    issued = root.create_child_ca().issue_cert("client")
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems).decode()
    root_pem = root.cert_pem.bytes().decode()
    return root_pem, Certificate(
        chain_pem=chain, private_key_pem=issued.private_key_pem.bytes().decode(), ca_pem=root_pem
    )


CLIENT_CA_PEM, CLIENT = issue_client_certificate()


class Secured(NamedTuple):
    """A broker with a SASL_SSL listener and one for mutual TLS, an identity provider, and a topic there."""

    broker: EmbeddedBroker
    provider: IdentityProvider
    topic: str

    def variables(self, **more: str) -> dict[str, str]:
        """What a client of the SASL_SSL listener sets."""
        servers = self.broker.secure_bootstrap_servers
        return {"KAFKA_BROKERS": servers, "TOPIC_NAME": self.topic, "KAFKA_CERT": str(self.broker.ca_path), **more}

    def mutual(self, **more: str) -> dict[str, str]:
        """What a client of the mutual TLS listener sets."""
        return self.variables(**{"KAFKA_BROKERS": self.broker.mutual_tls_bootstrap_servers, **more})

    def oauth(self, **more: str) -> dict[str, str]:
        """What a client with OIDC credentials sets."""
        return self.variables(
            **{
                "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
                "KAFKA_OAUTH_TOKEN_URL": self.provider.token_url,
                "KAFKA_OAUTH_CLIENT_ID": CLIENT_ID,
                "KAFKA_OAUTH_CLIENT_SECRET": CLIENT_SECRET,
                "KAFKA_OAUTH_CERT": SERVER.ca_pem,
                **more,
            }
        )


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    """One secured broker, with a PLAIN and a SCRAM-SHA-512 user, client certificates and OIDC tokens."""
    provider = IdentityProvider(SERVER)
    security = Security(
        plain_users={"token": KEY},
        scram_users={"alice": PASSWORD},
        certificate=SERVER,
        client_ca_pem=CLIENT_CA_PEM,
        jwks_url=provider.jwks_url,
    )
    with EmbeddedBroker(security=security) as broker:
        yield Secured(broker, provider, Cluster(broker.bootstrap_servers).create_topic())
    provider.close()


def encrypted(key_pem: str) -> str:
    """The private key, encrypted with KEY_PASSWORD."""
    key = serialization.load_pem_private_key(key_pem.encode(), password=None)
    encryption = serialization.BestAvailableEncryption(KEY_PASSWORD.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption).decode()


def assert_sent(done: subprocess.CompletedProcess[str]) -> None:
    """The producer got an acknowledgement for each message."""
    assert done.returncode == 0, done.stderr
    assert re.search(r"acknowledged +10\n", done.stdout)


def refused(scripts: Scripts, *command: str, **variables: str) -> str:
    """The error of a script that ends within 10 s in exit code 3."""
    start_s = time.monotonic()
    done = scripts.run(*command, **variables)
    assert time.monotonic() - start_s < 10
    assert done.returncode == 3, done.stderr
    for secret in (KEY, PASSWORD, WRONG, KEY_PASSWORD, CLIENT_SECRET, QUERY):
        assert secret not in done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, done.stderr
    return errors[0]


# ------------------------------------------------------------------------------------------------ connections that work


@pytest.mark.parametrize("certificate", ["KAFKA_CERT", "PEM_CERT"])
def test_api_key(scripts: Scripts, secured: Secured, certificate: str) -> None:
    """With KAFKA_APIKEY and a certificate both scripts work over SASL_SSL."""
    variables = secured.variables(KAFKA_APIKEY=KEY, KAFKA_CERT="") | {certificate: str(secured.broker.ca_path)}
    assert_sent(scripts.run("ProducerPerformance.py", **variables))
    read = scripts.run("PerfConsumer.py", "--count", "10", "--timestamp-field", "id", **variables)
    assert re.search(r"messages read +10\n", read.stdout)


@pytest.mark.parametrize(
    "spelling", [lambda text: text, lambda text: text.replace("\n", "\\n")], ids=["real", "escaped"]
)
def test_certificates_as_text(scripts: Scripts, secured: Secured, spelling: object) -> None:
    """KAFKA_CERT may be the text of several certificates, with real or escaped line ends."""
    assert callable(spelling)
    text = spelling(issue_certificate().ca_pem + SERVER.ca_pem)
    assert_sent(scripts.run("ProducerPerformance.py", **secured.variables(KAFKA_APIKEY=KEY, KAFKA_CERT=text)))


def test_key_from_a_file_and_dotenv(scripts: Scripts, secured: Secured, tmp_path: Path) -> None:
    """KAFKA_APIKEY_FILE with a trailing line end works, and so do variables from a .env file in the folder."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    (tmp_path / ".env").write_text(f'KAFKA_APIKEY_FILE="key"\nKAFKA_CERT="{SERVER.ca_pem}"\nSIZE=10\n')
    assert_sent(scripts.run("ProducerPerformance.py", **secured.variables(KAFKA_CERT="")))


def test_scram_user(scripts: Scripts, secured: Secured) -> None:
    """KAFKA_USER, KAFKA_PASSWORD and SCRAM-SHA-512 authenticate."""
    user = {"KAFKA_USER": "alice", "KAFKA_PASSWORD": PASSWORD, "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512"}
    assert_sent(scripts.run("ProducerPerformance.py", **secured.variables(**user)))


@pytest.mark.parametrize("form", ["paths", "texts", "encrypted", "key file"])
def test_mutual_tls(scripts: Scripts, secured: Secured, tmp_path: Path, form: str) -> None:
    """A client certificate with its intermediate CA and its key authenticate, as paths, as texts, and encrypted."""
    (tmp_path / "chain.pem").write_text(CLIENT.chain_pem)
    (tmp_path / "key.pem").write_text(CLIENT.private_key_pem)
    given = {
        "paths": {"KAFKA_CLIENT_CERT": "chain.pem", "KAFKA_CLIENT_KEY": "key.pem"},
        "texts": {"KAFKA_CLIENT_CERT": CLIENT.chain_pem, "KAFKA_CLIENT_KEY": CLIENT.private_key_pem},
        "encrypted": {
            "KAFKA_CLIENT_CERT": CLIENT.chain_pem,
            "KAFKA_CLIENT_KEY": encrypted(CLIENT.private_key_pem),
            "KAFKA_CLIENT_KEY_PASSWORD": KEY_PASSWORD,
        },
        "key file": {"KAFKA_CLIENT_CERT": "chain.pem", "KAFKA_CLIENT_KEY_FILE": "key.pem"},
    }[form]
    assert_sent(scripts.run("ProducerPerformance.py", **secured.mutual(**given)))


def test_oauthbearer(scripts: Scripts, secured: Secured) -> None:
    """Client credentials get a token from the provider, which the broker verifies by the provider's keys."""
    before = len(secured.provider.requests)
    assert_sent(scripts.run("ProducerPerformance.py", **secured.oauth(KAFKA_OAUTH_SCOPE="kafka")))
    asked = secured.provider.requests[before:]
    assert asked and all("grant_type=client_credentials" in body and "scope=kafka" in body for body in asked)


def test_the_systems_certificates_count_for_the_token_endpoint(scripts: Scripts, secured: Secured) -> None:
    """Without KAFKA_OAUTH_CERT the token endpoint is verified by the CA certificates of the system's OpenSSL."""
    variables = secured.oauth(KAFKA_OAUTH_CERT="", SSL_CERT_FILE=str(secured.broker.ca_path))
    assert_sent(scripts.run("ProducerPerformance.py", **variables))


def test_a_java_clients_file(scripts: Scripts, secured: Secured, tmp_path: Path) -> None:
    """A properties file of the Java client, with a login module and a PEM store, works as KAFKA_CONFIG_FILE."""
    (tmp_path / "client.properties").write_text(
        "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\nssl.truststore.type=PEM\n"
        f"ssl.truststore.location={secured.broker.ca_path}\n"
        "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \\\n"
        f'  username="alice" password="{PASSWORD}";\n'
    )
    variables = secured.variables(KAFKA_CERT="", KAFKA_CONFIG_FILE="client.properties")
    assert_sent(scripts.run("ProducerPerformance.py", **variables))


@pytest.mark.parametrize("kind", ["api key", "mutual", "oauth"])
def test_no_secret_is_in_anything_that_a_run_writes(
    scripts: Scripts, secured: Secured, tmp_path: Path, kind: str
) -> None:
    """stdout, stderr, result and --help of each script are free of every secret, also with librdkafka's debug log."""
    variables = {
        "api key": secured.variables(KAFKA_APIKEY=KEY),
        "mutual": secured.mutual(
            KAFKA_CLIENT_CERT=CLIENT.chain_pem,
            KAFKA_CLIENT_KEY=encrypted(CLIENT.private_key_pem),
            KAFKA_CLIENT_KEY_PASSWORD=KEY_PASSWORD,
        ),
        "oauth": secured.oauth(),
    }[kind]
    secrets = [KEY, KEY_PASSWORD, CLIENT_SECRET, *variables.get("KAFKA_CLIENT_KEY", "").splitlines()[1:-1]]
    folder = tmp_path / "written"
    folder.mkdir()
    debug = ("--config", "debug=security,conf,broker", "--config", "log_level=7")
    for command in (
        ("ProducerPerformance.py", *debug, "--result", str(folder / "producer.json")),
        ("PerfConsumer.py", *debug, "--count", "1", "--result", str(folder / "consumer.json")),
        ("PerfTopics.py", "check", *debug, "--input", secured.topic, "--output", secured.topic),
        ("test.py", *debug, "--count", "1"),
        ("PerfConsumer.py", "--help"),
    ):
        done = scripts.run(*command, PERF_DEBUG="1", **variables)
        assert done.returncode in (0, 5), done.stderr  # 5: the data has no timestamp_start
        (folder / f"{command[0]}.{len(list(folder.iterdir()))}").write_text(done.stdout + done.stderr)
    written = "".join(path.read_text() for path in folder.iterdir())
    assert "sasl" in written and "exit_code" in written
    assert not [secret for secret in secrets if secret in written]


@pytest.mark.parametrize("code", [0, 3])
def test_the_query_of_the_token_endpoint_is_in_nothing_that_a_run_writes(
    scripts: Scripts, secured: Secured, tmp_path: Path, code: int
) -> None:
    """It reaches the identity provider, and stands in no result and no message, also where no token is given."""
    address = f"{secured.provider.token_url}?code={QUERY}"
    variables = secured.oauth(KAFKA_OAUTH_TOKEN_URL=address) | ({"KAFKA_OAUTH_CERT": CLIENT_CA_PEM} if code else {})
    done = scripts.run("ProducerPerformance.py", "--result", str(tmp_path / "r"), PERF_DEBUG="1", **variables)
    assert done.returncode == code, done.stderr
    written = done.stdout + done.stderr + ("" if code else (tmp_path / "r").read_text())
    assert QUERY not in written
    assert code or f"{secured.provider.token_url}?(secret)" in written


@pytest.mark.parametrize(
    "name",
    [
        "KAFKA_APIKEY_FILE", "KAFKA_PASSWORD_FILE", "KAFKA_CLIENT_KEY_FILE", "KAFKA_CLIENT_KEY", "KAFKA_CERT",
        "PEM_CERT", "KAFKA_CLIENT_CERT", "KAFKA_OAUTH_CERT", "KAFKA_CONFIG_FILE",
    ],
)  # fmt: skip
def test_a_secret_in_place_of_its_file_is_not_printed(scripts: Scripts, name: str) -> None:
    """The secret itself, where a variable takes a path, is in no line of output, nor in a traceback asked for."""
    done = scripts.run("PerfConsumer.py", PERF_DEBUG="1", KAFKA_BROKERS="localhost:1", **{name: KEY})
    assert done.returncode == (3 if name == "PEM_CERT" else 2)
    assert name in done.stderr
    assert KEY not in done.stdout + done.stderr


def test_passwords_in_addresses_are_not_printed(scripts: Scripts) -> None:
    """user:password@ in the brokers or in the token endpoint's address ends in exit code 2, and is not repeated."""
    oauth = {"KAFKA_SASL_MECHANISM": "OAUTHBEARER", "KAFKA_OAUTH_TOKEN_URL": f"https://me:{PASSWORD}@localhost/token"}
    for given in ({"KAFKA_BROKERS": f"me:{PASSWORD}@localhost:1"}, {"KAFKA_BROKERS": "localhost:1", **oauth}):
        done = scripts.run("PerfConsumer.py", KAFKA_OAUTH_CLIENT_ID="x", KAFKA_OAUTH_CLIENT_SECRET="y", **given)
        assert done.returncode == 2
        assert PASSWORD not in done.stdout + done.stderr


# --------------------------------------------------------------------------------------------- row 5: certificates


def test_row_5_wrong_certificate_authority(scripts: Scripts, secured: Secured) -> None:
    """Another CA than the broker's is told as that; exit code 3."""
    error = refused(scripts, "PerfConsumer.py", **secured.variables(KAFKA_APIKEY=KEY, KAFKA_CERT=CLIENT_CA_PEM))
    assert "no CA certificate given here signed it" in error
    assert secured.broker.secure_bootstrap_servers in error


def test_row_5_wrong_host(scripts: Scripts, secured: Secured) -> None:
    """A host that the certificate is not for is told as that; exit code 3."""
    address = secured.broker.secure_bootstrap_servers.replace("localhost", "127.0.0.1")
    error = refused(scripts, "PerfConsumer.py", **secured.variables(KAFKA_APIKEY=KEY, KAFKA_BROKERS=address))
    assert "not valid for '127.0.0.1'" in error
    assert "use a host name that is in it" in error


def test_row_5_expired_certificate(scripts: Scripts) -> None:
    """An expired certificate is told as that, to each script; exit code 3."""
    expired = issue_certificate(not_after=datetime.now(timezone.utc) - timedelta(days=1))
    with EmbeddedBroker(security=Security(plain_users={"token": KEY}, certificate=expired)) as broker:
        address = broker.secure_bootstrap_servers
        for command in (*((script,) for script in SCRIPTS), ("PerfTopics.py", "create", "some-topic")):
            error = refused(scripts, *command, KAFKA_BROKERS=address, KAFKA_APIKEY=KEY, KAFKA_CERT=expired.ca_pem)
            assert "certificate has expired" in error


# -------------------------------------------------------------------------------- row 6: files of certificates


@pytest.mark.parametrize("name", ["KAFKA_CERT", "KAFKA_CLIENT_CERT", "KAFKA_OAUTH_CERT"])
@pytest.mark.parametrize("kind", ["missing", "empty", "directory", "no PEM", "damaged"])
def test_row_6_certificate_file(scripts: Scripts, tmp_path: Path, name: str, kind: str) -> None:
    """A certificate file that cannot be used is named before anything is connected; exit code 2."""
    path = tmp_path / "given.pem"
    text = {"empty": "", "no PEM": "hello", "damaged": SERVER.ca_pem[:300] + "\n-----END CERTIFICATE-----\n"}
    if kind == "directory":
        path.mkdir()
    elif kind != "missing":
        path.write_text(text[kind])
    done = scripts.run("PerfConsumer.py", KAFKA_BROKERS="localhost:1", **{name: str(path)})
    assert done.returncode == 2
    assert f"error: {name}: " in done.stderr
    assert str(path) in done.stderr


def test_row_6_an_encrypted_key_without_its_password(scripts: Scripts) -> None:
    """An encrypted key does not make the client ask on a terminal; exit code 2 and the property named."""
    given = {"KAFKA_CLIENT_CERT": CLIENT.chain_pem, "KAFKA_CLIENT_KEY": encrypted(CLIENT.private_key_pem)}
    for password in ("", WRONG):
        done = scripts.run("PerfConsumer.py", KAFKA_BROKERS="localhost:1", **given, KAFKA_CLIENT_KEY_PASSWORD=password)
        assert done.returncode == 2
        assert "KAFKA_CLIENT_KEY_PASSWORD" in done.stderr
        assert WRONG not in done.stderr


# -------------------------------------------------------------------------------------- row 7: credentials


@pytest.mark.parametrize("script", SCRIPTS)
def test_row_7_wrong_key(scripts: Scripts, secured: Secured, script: str) -> None:
    """A wrong API key ends within 10 s in exit code 3 with the cause, and the key is not printed."""
    error = refused(scripts, script, **secured.variables(KAFKA_APIKEY=WRONG))
    assert "SASL authentication error: Authentication failed" in error


def test_row_7_wrong_scram_password(scripts: Scripts, secured: Secured) -> None:
    """A wrong SCRAM password is told as invalid credentials; exit code 3."""
    user = {"KAFKA_USER": "alice", "KAFKA_PASSWORD": WRONG, "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512"}
    assert "invalid credentials" in refused(scripts, "PerfConsumer.py", **secured.variables(**user))


def test_row_7_wrong_mechanism(scripts: Scripts, secured: Secured) -> None:
    """A mechanism that the broker does not have is told with those that it has; exit code 3."""
    variables = secured.variables(KAFKA_APIKEY=KEY, KAFKA_SASL_MECHANISM="SCRAM-SHA-256")
    error = refused(scripts, "PerfConsumer.py", **variables)
    assert "SCRAM-SHA-256" in error
    assert "PLAIN,SCRAM-SHA-512,OAUTHBEARER" in error


def test_row_7_wrong_client_secret(scripts: Scripts, secured: Secured) -> None:
    """A client secret that the identity provider refuses is told with its answer; exit code 3."""
    error = refused(scripts, "PerfConsumer.py", **secured.oauth(KAFKA_OAUTH_CLIENT_SECRET=WRONG))
    assert "OAUTHBEARER token" in error
    assert "invalid_client" in error


def test_row_7_wrong_certificate_authority_of_the_token_endpoint(scripts: Scripts, secured: Secured) -> None:
    """A token endpoint whose certificate is not trusted gets no secret; exit code 3."""
    before = len(secured.provider.requests)
    error = refused(scripts, "PerfConsumer.py", **secured.oauth(KAFKA_OAUTH_CERT=CLIENT_CA_PEM))
    assert "OAUTHBEARER token" in error
    assert len(secured.provider.requests) == before


@pytest.mark.parametrize("listener", ["secure_bootstrap_servers", "mutual_tls_bootstrap_servers"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_row_7_plain_client_on_a_tls_port(scripts: Scripts, secured: Secured, script: str, listener: str) -> None:
    """A client without TLS on a TLS port is told that the port speaks TLS, and what to give; exit code 3."""
    address = getattr(secured.broker, listener)
    error = refused(scripts, script, KAFKA_BROKERS=address, TOPIC_NAME=secured.topic)
    assert f"{address} speaks TLS" in error
    assert "KAFKA_CERT" in error


@pytest.mark.parametrize("given", [{"KAFKA_APIKEY": KEY}, {}], ids=["SASL_SSL", "SSL"])
def test_row_7_tls_client_on_a_plain_port(scripts: Scripts, secured: Secured, given: dict[str, str]) -> None:
    """A client with TLS on a port without is told that the port does not speak TLS; exit code 3."""
    address = secured.broker.bootstrap_servers
    error = refused(scripts, "ProducerPerformance.py", **secured.variables(KAFKA_BROKERS=address, **given))
    assert f"{address} does not speak TLS" in error


def test_row_7_no_credentials(scripts: Scripts, secured: Secured) -> None:
    """TLS without credentials where the broker asks for them is told as that; exit code 3."""
    error = refused(scripts, "PerfConsumer.py", **secured.variables())
    assert "asks for credentials" in error
    assert "KAFKA_APIKEY" in error


@pytest.mark.parametrize("given", ["none", "of another CA"])
def test_row_7_no_client_certificate_under_tls_1_2(scripts: Scripts, given: str) -> None:
    """TLS 1.2 refuses a client certificate in the handshake: it is told as under 1.3; exit code 3."""
    security = Security(certificate=SERVER, client_ca_pem=CLIENT_CA_PEM)
    older = {"ssl.enabled.protocols": "TLSv1.2", "ssl.protocol": "TLSv1.2"}
    other = {"KAFKA_CLIENT_CERT": SERVER.chain_pem, "KAFKA_CLIENT_KEY": SERVER.private_key_pem}
    with EmbeddedBroker(security=security, properties=older) as broker:
        address = broker.mutual_tls_bootstrap_servers
        variables = {"KAFKA_BROKERS": address, "KAFKA_CERT": SERVER.ca_pem, **(other if given != "none" else {})}
        error = refused(scripts, "PerfConsumer.py", **variables)
        assert "KAFKA_CLIENT_CERT and KAFKA_CLIENT_KEY" in error
        plain = refused(scripts, "PerfConsumer.py", KAFKA_BROKERS=address)
        assert f"{address} speaks TLS" in plain


@pytest.mark.parametrize("given", ["none", "of another CA"])
def test_row_7_no_client_certificate(scripts: Scripts, secured: Secured, given: str) -> None:
    """Without a client certificate that the broker trusts the variables for it are named; exit code 3."""
    other = {"KAFKA_CLIENT_CERT": SERVER.chain_pem, "KAFKA_CLIENT_KEY": SERVER.private_key_pem}
    error = refused(scripts, "PerfConsumer.py", **secured.mutual(**(other if given != "none" else {})))
    assert "KAFKA_CLIENT_CERT and KAFKA_CLIENT_KEY" in error
