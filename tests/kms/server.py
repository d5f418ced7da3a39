"""AWS KMS and Secrets Manager for the tests: moto behind TLS, with keys that are given, and with its check of signatures.

    server.py PORT CERTIFICATE KEY [ALIAS=KEY.pem ...]

One user may use the keys: access key `AKIAIOSFODNN7EXAMPLE` with the secret of AWS's own examples. A request that is not
signed by it is refused, as AWS refuses it. moto lacks one thing that is used here: it signs a digest as if it were a
message. That is mended below, by the library that moto signs with. A symmetric key `alias/store` has made a data key, which
stands in the file `data-key`, and wrapped in `data-key.wrapped`, both in base64. If there is a file `bank.secret`, its text
is the field `client_secret` of a secret `bank`, which had another one before; a role `bank` may read it, too, for the web
identity in the file `web-identity`. moto takes any: that is mended below. The server ends with its standard input.
"""

import base64
import contextlib
import json
import os
import sys
import threading
import uuid

os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "0"
os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "false"

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from moto.core.authorization import ActionAuthenticatorMixin
from moto.iam import models as iam
from moto.kms import models as kms
from moto.kms.responses import KmsResponse
from moto.secretsmanager import models as secretsmanager
from moto.server import DomainDispatcherApplication, create_backend_app
from moto.sts.exceptions import STSValidationError
from moto.sts.responses import TokenResponse
from werkzeug.serving import WSGIRequestHandler, make_server

ACCOUNT, REGION = "123456789012", "eu-central-1"
ACCESS_KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
HASHES = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}


class GivenKey:
    """A private key, where moto has one that it made."""

    def __init__(self, private):
        self.private = private

    def public_key(self):
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.private.public_key().public_bytes(serialization.Encoding.DER, form)

    def sign(self, digest, algorithm):
        hashed = Prehashed(HASHES[algorithm.rsplit("_", 1)[1]]())
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            return self.private.sign(digest, ec.ECDSA(hashed))
        if "PSS" in algorithm:
            function = HASHES[algorithm.rsplit("_", 1)[1]]()
            return self.private.sign(digest, padding.PSS(padding.MGF1(function), function.digest_size), hashed)
        return self.private.sign(digest, padding.PKCS1v15(), hashed)


def spec(private):
    if isinstance(private, rsa.RSAPrivateKey):
        return f"RSA_{private.key_size}"
    return {"secp256r1": "ECC_NIST_P256", "secp384r1": "ECC_NIST_P384"}[private.curve.name]


def only_digests(self):
    assert self._get_param("MessageType") == "DIGEST", "messages do not leave the process"
    return sign(self)


sign = KmsResponse.sign
KmsResponse.sign = only_digests

users, keys = iam.iam_backends[ACCOUNT]["aws"], kms.kms_backends[ACCOUNT][REGION]
users.create_user(REGION, "countersign")
users.put_user_policy(
    "countersign",
    "sign",
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["kms:Decrypt","kms:GetPublicKey","kms:Sign","secretsmanager:GetSecretValue"],"Resource":"*"}]}',
)
access = users.users["countersign"].create_access_key("active")
access.access_key_id, access.secret_access_key = ACCESS_KEY, SECRET
users.access_keys = {ACCESS_KEY: access}

if os.path.exists("bank.secret"):
    with open("bank.secret") as file:
        current = file.read()
    secrets = secretsmanager.secretsmanager_backends[ACCOUNT][REGION]
    for value in ["the-secret-before", current]:
        text = json.dumps({"client_secret": value})
        if value == current:
            secrets.put_secret_value("bank", text, None, str(uuid.uuid4()), ["AWSCURRENT"])
        else:
            secrets.create_secret("bank", text, None, None, [], None, str(uuid.uuid4()), [], False)
    users.create_role("bank", "{}", "/", None, "", [], "3600")
    allowed = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"secretsmanager:GetSecretValue","Resource":"*"}]}'
    users.put_role_policy("bank", "read", allowed)

normal = ActionAuthenticatorMixin._authenticate_and_authorize_normal_action
assume = TokenResponse.assume_role_with_web_identity


def except_web_identities(self, resource="*"):
    if self._get_action() != "AssumeRoleWithWebIdentity":
        normal(self, resource)


def for_the_web_identity(self):
    with open("web-identity") as file:
        if self._get_param("WebIdentityToken") != file.read().strip():
            raise STSValidationError("the identity is not known")
    return assume(self)


ActionAuthenticatorMixin._authenticate_and_authorize_normal_action = except_web_identities
TokenResponse.assume_role_with_web_identity = for_the_web_identity

for given in sys.argv[4:]:
    alias, path = given.split("=", 1)
    with open(path, "rb") as file:
        private = serialization.load_pem_private_key(file.read(), None)
    key = keys.create_key(None, "SIGN_VERIFY", spec(private), "", [])
    key.private_key = GivenKey(private)
    keys.create_alias(key.id, f"alias/{alias}")
encrypting = keys.create_key(None, "ENCRYPT_DECRYPT", "RSA_2048", "", [])
keys.create_alias(encrypting.id, "alias/encrypting")
wrapping = keys.create_key(None, "ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT", "", [])
keys.create_alias(wrapping.id, "alias/store")
made = keys.generate_data_key(wrapping.id, {}, 32, "AES_256")
for name, octets in zip(["data-key", "data-key.wrapped"], made):
    with open(name, "wb") as file:
        file.write(base64.b64encode(octets))


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass


app = DomainDispatcherApplication(create_backend_app)
server = make_server("127.0.0.1", int(sys.argv[1]), app, True, request_handler=Quiet, ssl_context=tuple(sys.argv[2:4]))
print(f"listening on {server.server_port}", flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
with contextlib.suppress(KeyboardInterrupt):
    sys.stdin.read()
