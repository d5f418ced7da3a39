"""Verifies signed messages of conversations with libraries that others wrote.

The test run holds countersign to the conversations in tests/fixtures/provider; this program holds the conversations to
joserfc, http-message-signatures and oauthlib. Each message is verified as it stands, and must be refused once a byte of it
is another one.

usage: verify.py FOLDER-OF-TESTS
"""

import base64
import datetime
import json
import pathlib
import sys
import tomllib
import urllib.parse

import http_message_signatures
import oauthlib.common
import oauthlib.oauth1.rfc5849.signature as oauth1
import requests
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate
from joserfc import jwe, jws, jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from joserfc.registry import HeaderParameter

tests = pathlib.Path(sys.argv[1])
folder = tests / "fixtures" / "provider" / "custom"


def conversation(name):
    return tomllib.loads((folder / f"{name}.toml").read_text())


def public(setting):
    """The public key of a key setting, as PEM."""
    file = (folder / setting["file"]).read_bytes()
    password = setting.get("password")
    key = load_pem_private_key(file, password.encode() if password else None)
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def calls(talk):
    """The signed messages: method, URL, headers, body."""
    base = talk.get("base_url", "https://bank.example")
    for call in talk.get("call", []):
        for side in ("dressed", "replayed"):
            if side in call:
                url = base + call.get("path", "/")
                yield call.get("method", "GET"), url, dict(call[side]), call.get("body", "").encode()


def other(text):
    """The same with another letter in its middle."""
    at = len(text) // 2
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


def holds(check, *message):
    try:
        check(*message)
    except Exception:
        return False
    return True


def judge(name, check, message, forgeries):
    """Says that a message verifies, and that none of its forgeries does."""
    assert holds(check, *message), f"{name}: it is not verified"
    for number, forged in enumerate(forgeries):
        assert not holds(check, *forged), f"{name}: forgery {number} is verified"
    print(f"{name}: 1 verified, {len(forgeries)} refused")


def jws_detached(name):
    talk = conversation(name)
    key = RSAKey.import_key(public(talk["settings"]["signing_key"]))
    own = {
        "http://openbanking.org.uk/iat": HeaderParameter("time of issue", "int"),
        "http://openbanking.org.uk/iss": HeaderParameter("issuer", "str"),
        "http://openbanking.org.uk/tan": HeaderParameter("trust anchor", "str"),
    }
    registry = jws.JWSRegistry(header_registry=own, algorithms=["RS256"])
    # A chain of certificates takes more than the library's 512 bytes.
    registry.max_header_length = 8192

    def check(signature, body):
        jws.deserialize_compact(signature, key, registry=registry, payload=body)

    for _, _, headers, body in calls(talk):
        signature = headers["x-jws-signature"]
        judge(name, check, (signature, body), [(signature, body + b" "), (other(signature), body)])


def jwt_per_request():
    talk = conversation("jwt-per-request")
    key = RSAKey.import_key(public(talk["settings"]["signing_key"]))
    for method, url, headers, body in calls(talk):

        def check(bearer, method):
            token = jwt.decode(bearer.removeprefix("Bearer "), key, algorithms=["RS256"])
            assert token.header["kid"] == "k1"
            assert token.claims["sub"] == f"{method} {urllib.parse.urlsplit(url).path}"
            assert token.claims["exp"] - token.claims["iat"] == 60

        bearer = headers["authorization"]
        judge("jwt-per-request", check, (bearer, method), [(other(bearer), method), (bearer, "PUT")])


def client_assertion(name, key, algorithm, claims):
    talk = conversation(name)
    body = talk["request"]["body"]
    if body.startswith("{"):
        assertion = json.loads(body)["client_assertion"]
    else:
        assertion = urllib.parse.parse_qs(body)["client_assertion"][0]

    def check(assertion):
        token = jwt.decode(assertion, key(talk["settings"]), algorithms=[algorithm])
        assert claims.items() <= token.claims.items(), token.claims

    judge(name, check, (assertion,), [(other(assertion),)])


def http_signature():
    talk = conversation("http-message-signature")
    key = load_pem_private_key((folder / talk["settings"]["signing_key"]["file"]).read_bytes(), None).public_key()

    class Keys(http_message_signatures.HTTPSignatureKeyResolver):
        def resolve_public_key(self, key_id):
            assert key_id == "k9"
            return key

    # The library refuses old signatures, and these are of the conversations' clock.
    class Verifier(http_message_signatures.HTTPMessageVerifier):
        max_clock_skew = datetime.timedelta(days=365 * 50)

        def validate_created_and_expires(self, *_, **__):
            pass

    def check(method, url, headers, body):
        message = requests.Request(method, url, headers=headers, data=body).prepare()
        verifier = Verifier(
            signature_algorithm=http_message_signatures.algorithms.ED25519, key_resolver=Keys()
        )
        found = verifier.verify(message)
        assert len(found) == 1

    for method, url, headers, body in calls(talk):
        changed = dict(headers, authorization="Bearer third-token")
        forgeries = [(method, url + "2", headers, body), ("PUT", url, headers, body), (method, url, changed, body)]
        judge("http-message-signature", check, (method, url, headers, body), forgeries)


def oauth():
    talk = conversation("oauth1")
    key = public(talk["settings"]["signing_key"]).decode()

    def check(method, url, header):
        request = oauthlib.common.Request(url, method, headers={"Authorization": header})
        parameters = oauth1.collect_parameters(
            uri_query=urllib.parse.urlsplit(url).query, headers=request.headers, exclude_oauth_signature=False
        )
        request.params = [pair for pair in parameters if pair[0] != "oauth_signature"]
        request.signature = dict(parameters)["oauth_signature"]
        request.uri, request.http_method = url, method
        assert oauth1.verify_rsa_sha256(request, key)

    for method, url, headers, _ in calls(talk):
        header = headers["authorization"]
        judge("oauth1", check, (method, url, header), [("GET", url, header), (method, url + "l", header)])


def bank_key():
    """The bank's private key, for which bodies are encrypted."""
    return ECKey.import_key((tests / "fixtures" / "signing" / "p256-sec1.pem").read_text())


def sealed_bodies():
    talk = conversation("sealed-bodies")
    ours = RSAKey.import_key(public(talk["settings"]["signing_key"]))
    registry = jws.JWSRegistry(header_registry={"jti": HeaderParameter("message", "str")}, algorithms=["RS256"])

    def check(message, body):
        opened = jwe.decrypt_compact(message, bank_key(), algorithms=["ECDH-ES+A256KW", "A128CBC-HS256"])
        assert opened.protected["cty"] == "JWT" and opened.protected["kid"] == "bank-2"
        signed = jws.deserialize_compact(opened.plaintext.decode(), ours, registry=registry)
        assert signed.protected["kid"] == "ours-1" and signed.payload.decode() == body

    for call in talk["call"]:
        for side in ("sent_body", "replayed_body"):
            if side in call:
                message, body = call[side], call["body"]
                judge("sealed-bodies", check, (message, body), [(other(message), body), (message, body + " ")])


def encrypted_fields():
    talk = conversation("encrypted-fields")

    def check(message, card):
        opened = jwe.decrypt_compact(message, bank_key(), algorithms=["ECDH-ES", "A128GCM"])
        assert opened.protected["kid"] == "bank-2" and json.loads(opened.plaintext) == card

    for call in talk["call"]:
        card, message = json.loads(call["body"])["card"], json.loads(call["sent_body"])["sealed"]["data"]
        judge("encrypted-fields", check, (message, card), [(other(message), card), (message, {})])


jws_detached("jws-detached")
jws_detached("jws-unencoded")
jwt_per_request()
client_assertion(
    "private-key-jwt",
    lambda settings: RSAKey.import_key(public(settings["signing_key"])),
    "RS256",
    {"sub": "the-client", "aud": ["https://bank.example", "https://bank.example/auth/token"]},
)
client_assertion(
    "client-secret-jwt",
    lambda settings: OctKey.import_key(settings["client_secret"]),
    "HS256",
    {"iss": "c", "sub": "c", "aud": "https://bank.example/token"},
)
http_signature()
oauth()
sealed_bodies()
encrypted_fields()
