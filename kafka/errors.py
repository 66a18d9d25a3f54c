"""What can go wrong between this tool and a Kafka cluster, as exceptions that a person can read.

Every exception carries the process exit code that it leads to (the table in README.md, "Exit codes").
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

log = logging.getLogger("kafka")

Client = TypeVar("Client")

#: The identity provider gave no token; an older one may still do, and librdkafka asks again by itself.
_NO_TOKEN = "Failed to acquire SASL OAUTHBEARER token"  # noqa: S105 (a message)
#: librdkafka calls whatever happens at this step a refusal, also a connection that was lost or timed out.
_LOST_AT_HANDSHAKE = re.compile(r"mechanism handshake failed: Local: ")
_STATE_NOTE = re.compile(r" \(after \d+ms in state [A-Z_]+(, \d+ identical error\(s\) suppressed)?\)$")
_USER_OF_URL = re.compile(r"(\w://)[^\s\"?#]*@")
_QUERY_OF_URL = re.compile(r"(\w://[^\s\"?]*\?)[^\s\"]+")


class Fault(Exception):
    """A fault with a sentence for the user. `exit_code` is the process exit code it leads to."""

    exit_code = 1


class ConfigError(Fault):
    """The connection's configuration is wrong; nothing was connected."""

    exit_code = 2


class ConnectError(Fault):
    """The cluster cannot be reached, or refuses the credentials or the certificate."""

    exit_code = 3


class TopicError(Fault):
    """A topic is missing, not authorised, or not as it must be."""

    exit_code = 3


class TopicMissingError(TopicError):
    """The topic does not exist."""


class FatalClientError(Fault):
    """librdkafka declared the client unusable (KafkaError.fatal())."""

    exit_code = 3


def cause(error: KafkaError) -> str:
    """What happened in librdkafka's words, without its internal state notes and the secrets of an address."""
    return without_secrets(_STATE_NOTE.sub("", error.str()))


def is_refusal(error: KafkaError) -> bool:
    """Whether the cluster, or the identity provider, refuses the credentials."""
    return error.name() == "_AUTHENTICATION" and not _LOST_AT_HANDSHAKE.search(error.str())


def without_secrets(text: str) -> str:
    """The text with user, password and query of each address (scheme://…) in it replaced."""
    return _QUERY_OF_URL.sub(r"\1(secret)", _USER_OF_URL.sub(r"\1(secret)@", text))


def new_client(client_class: Callable[[dict[str, Any]], Client], properties: dict[str, Any]) -> Client:
    """A client of confluent_kafka. Raises ConfigError when librdkafka refuses a property."""
    from confluent_kafka import KafkaException

    try:
        return client_class(properties)
    except KafkaException as error:
        reason = cause(error.args[0])
        hint = " (look at KAFKA_CLIENT_KEY and KAFKA_CLIENT_KEY_PASSWORD)" if "ssl.key." in reason else ""
        raise ConfigError(f"librdkafka refuses the configuration: {reason}{hint}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the client refuses the configuration: {error}") from error


class ErrorLog:
    """Takes a client's error_cb: says each error once, keeps the causes, a fatal one, and a refusal of the credentials.

    librdkafka calls it from whatever thread polls, hence the lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: set[str] = set()
        self.errors: list[KafkaError] = []
        self.fatal: KafkaError | None = None
        self._refused: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """Take an error in."""
        text = cause(error)
        with self._lock:
            if error.fatal():
                self.fatal = error
            if is_refusal(error) and not text.startswith(_NO_TOKEN):
                self._refused = error
            if text in self._said:
                return
            self._said.add(text)
            self.errors.append(error)
        if error.name() != "_ALL_BROKERS_DOWN":  # it repeats what was said of each, without the cause
            log.warning("Kafka client: %s", text)

    def fault(self, client: str) -> Fault | None:
        """What the client cannot go on after; it would try again for ever, or until the delivery time-out."""
        if self.fatal:
            return FatalClientError(f"the {client} cannot go on: {cause(self.fatal)}")
        if self._refused:
            return ConnectError(f"the {client} cannot go on: the cluster refuses it: {cause(self._refused)}")
        return None
