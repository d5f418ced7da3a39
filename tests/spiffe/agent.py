"""An agent that serves the SPIFFE Workload API, of the libraries that gRPC and SPIFFE publish.

    agent.py FOLDER

Listens on the socket `agent.sock` of FOLDER, writes the CA of its trust domain to `ca.crt` there, prints `0`, and then answers
each line of its input with one line of JSON:

    ca                 from now on another CA signs; its certificate is sent beside the old one's, and in `ca.crt`
    fault NAME         from now on calls meet a fault: `none`, `refuses`, `hangs`, `megabytes`, `broken`, `empty`
    issue ID FILE      writes a certificate of this SPIFFE ID to FILE.crt, its key to FILE.key
    key                the private key of the identity that is given first, in base64
    hang-up            ends the open streams
    rotate             gives new certificates
    calls              the number of calls so far
    serial             the serial number of the certificate that is given first, in hexadecimal

Ends with its input.
"""

import base64
import datetime
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from spiffe._proto import workload_pb2, workload_pb2_grpc

DOMAIN = "spiffe://corp.example"
IDENTITIES = [f"{DOMAIN}/countersign", f"{DOMAIN}/bank-client"]
DER = serialization.Encoding.DER
PEM = serialization.Encoding.PEM
PKCS8 = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def certificate(uri, key, issuer, is_ca):
    """A certificate of a SPIFFE ID, which ends in an hour; `issuer` is a pair of a certificate and a key, or absent."""
    now = datetime.datetime.now(datetime.timezone.utc)
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "corp" + ("-ca" if is_ca else ""))])
    names = [x509.UniformResourceIdentifier(uri)]
    if not is_ca:
        names.append(x509.DNSName("localhost"))
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer[0].subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(not is_ca, False, False, False, False, is_ca, is_ca, False, False), critical=True)
    )
    if not is_ca:
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    signer = issuer[1] if issuer else key
    return builder.sign(signer, hashes.SHA256())


class Agent(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    def __init__(self, folder):
        self.folder, self.changed = folder, threading.Condition()
        self.generation = self.calls = self.hung_up = 0
        self.fault, self.authorities = "none", []
        self.another_ca()

    def another_ca(self):
        key = ec.generate_private_key(ec.SECP256R1())
        self.authorities.append((certificate(DOMAIN, key, None, True), key))
        bundle = b"".join(ca.public_bytes(PEM) for ca, _ in self.authorities)
        (self.folder / "ca.crt").write_bytes(bundle)
        self.rotate()

    def issue(self, uri):
        key = ec.generate_private_key(ec.SECP256R1())
        return certificate(uri, key, self.authorities[-1], False), key

    def rotate(self):
        with self.changed:
            self.identities = [(uri, *self.issue(uri)) for uri in IDENTITIES]
            self.generation += 1
            self.changed.notify_all()

    def response(self):
        bundle = b"".join(ca.public_bytes(DER) for ca, _ in self.authorities)
        if self.fault == "broken":
            bundle = b"canary of an agent's own bytes"
        if self.fault == "megabytes":
            bundle *= 20_000
        svids = [
            workload_pb2.X509SVID(
                spiffe_id=uri,
                x509_svid=leaf.public_bytes(DER),
                x509_svid_key=key.private_bytes(DER, *PKCS8),
                bundle=bundle,
            )
            for uri, leaf, key in self.identities
        ]
        return workload_pb2.X509SVIDResponse(svids=[] if self.fault == "empty" else svids)

    def FetchX509SVID(self, request, context):  # noqa: N802 (the name of the call)
        self.calls += 1
        metadata = dict(context.invocation_metadata())
        if metadata.get("workload.spiffe.io") != "true":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        if self.fault == "refuses":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued: canary of an agent's own words")
        sent, hung_up = 0, self.hung_up
        while context.is_active() and hung_up == self.hung_up:
            with self.changed:
                if sent == self.generation or self.fault == "hangs":
                    self.changed.wait(0.05)
                    continue
                sent, response = self.generation, self.response()
            yield response

    def command(self, line):
        """Does what a line says, and returns the answer."""
        word, *rest = line.split()
        if word == "ca":
            self.another_ca()
        elif word == "fault":
            self.fault = rest[0]
        elif word == "issue":
            leaf, key = self.issue(rest[0])
            (self.folder / f"{rest[1]}.crt").write_bytes(leaf.public_bytes(PEM))
            (self.folder / f"{rest[1]}.key").write_bytes(key.private_bytes(PEM, *PKCS8))
        elif word == "key":
            return base64.b64encode(self.identities[0][2].private_bytes(DER, *PKCS8)).decode()
        elif word == "hang-up":
            self.hung_up += 1
        elif word == "rotate":
            self.rotate()
        elif word == "calls":
            return self.calls
        elif word == "serial":
            return f"{self.identities[0][1].serial_number:x}"
        return True


def main():
    folder = Path(sys.argv[1])
    agent, server = Agent(folder), grpc.server(ThreadPoolExecutor(max_workers=16))
    workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(agent, server)
    server.add_insecure_port(f"unix:{folder / 'agent.sock'}")
    server.start()
    print(0, flush=True)
    for line in sys.stdin:
        print(json.dumps(agent.command(line)), flush=True)
    server.stop(None)


main()
