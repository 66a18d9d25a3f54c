"""The Java client's words → librdkafka's: translated where it has the same thing, else refused with what to do."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping

from .errors import ConfigError

log = logging.getLogger("kafka")

#: The same meaning and unit under another name.
_RENAMED = {
    "ssl.truststore.certificates": "ssl.ca.pem",
    "ssl.keystore.certificate.chain": "ssl.certificate.pem",
    "ssl.keystore.key": "ssl.key.pem",
    "max.request.size": "message.max.bytes",
    "send.buffer.bytes": "socket.send.buffer.bytes",
    "receive.buffer.bytes": "socket.receive.buffer.bytes",
}

_WITHOUT_MEANING = re.compile(
    r"(key|value)\.(de)?serializer|interceptor\.classes|metric(s|\.reporters).*|ssl\.(protocol|enabled\.protocols|provider"
    r"|keymanager\.algorithm|trustmanager\.algorithm|secure\.random\.implementation)|ssl\.(trust|key)store\.type"
    r"|ssl\.truststore\.password|sasl\.login\.(refresh|retry|connect|read)\..*"
)

#: No such thing in librdkafka, or with another unit → what to use.
_INSTEAD = {
    "buffer.memory": "queue.buffering.max.kbytes (in KiB)",
    "max.block.ms": "nothing: a full queue waits until there is room",
    "partitioner.class": "partitioner, for example partitioner=murmur2_random",
    "sasl.client.callback.handler.class": "no handlers in Java; OAUTHBEARER by the variables KAFKA_OAUTH_…",
    "sasl.oauthbearer.jwt.retriever.class": "sasl.oauthbearer.method=oidc",
    "ssl.engine.factory.class": "ssl.ca.location, ssl.certificate.location and ssl.key.location",
}

_USER_AND_PASSWORD = {"username": "sasl.username", "password": "sasl.password"}
#: Login module of sasl.jaas.config → its options → librdkafka's properties. (oauth.… are Strimzi's and Event Streams'.)
_LOGIN_OPTIONS = {
    "PlainLoginModule": _USER_AND_PASSWORD,
    "ScramLoginModule": _USER_AND_PASSWORD,
    "OAuthBearerLoginModule": {
        "clientId": "sasl.oauthbearer.client.id",
        "clientSecret": "sasl.oauthbearer.client.secret",
        "scope": "sasl.oauthbearer.scope",
        "oauth.client.id": "sasl.oauthbearer.client.id",
        "oauth.client.secret": "sasl.oauthbearer.client.secret",
        "oauth.scope": "sasl.oauthbearer.scope",
        "oauth.token.endpoint.uri": "sasl.oauthbearer.token.endpoint.url",
    },
}
_LOGIN = re.compile(r"([\w.$]+)\s+(?:required|requisite|sufficient|optional)\b(.*);", re.DOTALL)
_LOGIN_OPTION = re.compile(r"""\s*([\w.]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([^\s"';]+))""", re.DOTALL)
_TO_PEM = "keytool -importkeystore -srckeystore {path} -destkeystore store.p12 -deststoretype PKCS12"


def translated(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The properties in librdkafka's words; its own stay as they are. Raises ConfigError, which shows no secret."""
    given = dict(pairs)
    result: dict[str, str] = {}
    for name, value in given.items():
        if name in _INSTEAD:
            raise ConfigError(f"{name} is a property of the Java client; librdkafka has {_INSTEAD[name]}")
        if name in _TRANSLATIONS:
            result.update(_TRANSLATIONS[name](value, given))
        elif has_no_meaning(name):
            log.info("%s is a property of the Java client and has no meaning here", name)
        else:
            result[_RENAMED.get(name, name)] = value
    return result


def _login(value: str, _given: Mapping[str, str]) -> dict[str, str]:
    """sasl.jaas.config: a login module with its options, escaped once by the properties file and once by JAAS."""
    match = _LOGIN.fullmatch(_unescaped(value).strip())
    module = match[1].rpartition(".")[2] if match else ""
    if match is None or module not in _LOGIN_OPTIONS:
        raise ConfigError(
            f"sasl.jaas.config: only {', '.join(_LOGIN_OPTIONS)} are understood, in the form MODULE required "
            'name="value" …; Kerberos (GSSAPI) is not part of this client; librdkafka has sasl.username and '
            "sasl.password, or sasl.oauthbearer.…"
        )
    known, result = _LOGIN_OPTIONS[module], {}
    if _LOGIN_OPTION.sub("", match[2]).strip():
        raise ConfigError('sasl.jaas.config: the options are not of the form name="value"')
    for option, double, single, bare in _LOGIN_OPTION.findall(match[2]):
        if option not in known:
            raise ConfigError(f"sasl.jaas.config: the option {option} of {module} has no equivalent in librdkafka")
        result[known[option]] = bare or _unescaped(double or single)
    return result | ({"sasl.oauthbearer.method": "oidc"} if module == "OAuthBearerLoginModule" else {})


def _unescaped(text: str) -> str:
    named = {"n": "\n", "t": "\t", "r": "\r"}
    return re.sub(r"\\(.)", lambda match: named.get(match[1], match[1]), text, flags=re.DOTALL)


def _truststore(path: str, given: Mapping[str, str]) -> dict[str, str]:
    kind = given.get("ssl.truststore.type", "JKS").upper()
    if kind == "PEM":
        return {"ssl.ca.location": path}
    first = "" if kind == "PKCS12" else f"{_TO_PEM.format(path=path)}, then "
    store = path if kind == "PKCS12" else "store.p12"
    raise ConfigError(
        f"ssl.truststore.location: librdkafka reads no {kind} store. Make a PEM file of it ({first}openssl pkcs12 -in "
        f"{store} -nokeys -out ca.pem) and give it as KAFKA_CERT or ssl.ca.location; a file that is PEM already needs "
        "ssl.truststore.type=PEM"
    )


def _keystore(path: str, given: Mapping[str, str]) -> dict[str, str]:
    """Without a type it is librdkafka's own property, a PKCS#12 file; the Java client would take it for JKS."""
    kind = given.get("ssl.keystore.type", "JKS" if path.lower().endswith(".jks") else "PKCS12").upper()
    if kind == "PEM":  # Java has key and certificates in one file
        return {"ssl.certificate.location": path, "ssl.key.location": path}
    if kind == "PKCS12":
        return {"ssl.keystore.location": path}
    raise ConfigError(
        f"ssl.keystore.location: librdkafka reads no {kind} store. Make a PKCS#12 file of it "
        f"({_TO_PEM.format(path=path)}) and give that, with ssl.keystore.type=PKCS12"
    )


def _handler(name: str, _given: Mapping[str, str]) -> dict[str, str]:
    if name.endswith(("OAuthBearerLoginCallbackHandler", "JaasClientOauthLoginCallbackHandler")):
        return {"sasl.oauthbearer.method": "oidc"}
    raise ConfigError(
        "sasl.login.callback.handler.class: only the handlers of OIDC client credentials are understood; "
        "librdkafka has sasl.oauthbearer.method=oidc"
    )


def has_no_meaning(name: str) -> bool:
    """Whether the property concerns the Java client only, and may stay in a file that both use."""
    return _WITHOUT_MEANING.fullmatch(name) is not None


_TRANSLATIONS: Mapping[str, Callable[[str, Mapping[str, str]], dict[str, str]]] = {
    "sasl.jaas.config": _login,
    "sasl.login.callback.handler.class": _handler,
    "ssl.truststore.location": _truststore,
    "ssl.keystore.location": _keystore,
}
#: All names that are dealt with here.
NAMES = frozenset({*_RENAMED, *_INSTEAD, *_TRANSLATIONS})
