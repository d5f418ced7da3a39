#!/usr/bin/env python3
"""Makes first inputs for the fuzzer out of the project's own files: tests/fuzz/seeds.py FOLDER

Writes FOLDER/TARGET/NAME. Texts of configs and profiles, addresses, paths and conversations with banks are those of
tests/fixtures, docs, src/provider/profiles and the tests beside the code; audit logs are chained here. README.md says
how the kept corpus comes of it.
"""

import hashlib
import json
import pathlib
import re
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = pathlib.Path(sys.argv[1])


def put(target, data):
    data = data if isinstance(data, bytes) else data.encode()
    folder = OUT / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def read(path):
    return (ROOT / path).read_text()


def bare(text):
    """A TOML text without comments of their own lines and empty lines."""
    return "".join(line + "\n" for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))


def fenced(path):
    return re.findall(r"^```toml\n(.*?)^```", read(path), re.M | re.S)


def literals(path):
    """The texts of a Rust file, plain and raw."""
    code = read(path)
    for hashes, raw in re.findall(r'\br(#*)"(.*?)"\1', code, re.S):
        yield raw
    for text in re.findall(r'(?<![\w#])"((?:[^"\\\n]|\\.)*)"', code):
        yield re.sub(
            r"\\(x..|u\{.*?\}|.)",
            lambda found: {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}.get(found[1])
            or (chr(int(re.sub(r"[xu{}]", "", found[1]), 16)) if found[1][0] in "xu" else found[1]),
            text,
        )


BASE = """[[listener]]
name = "gateway"
bind = "127.0.0.1:8443"
clients = ["erp"]
[provider.bank]
profile = "oauth2"
base_url = "https://api.bank.example/v1"
token_url = "https://login.bank.example/token"
client_id = "app"
client_secret = "c4n4ry-literal-secret"
tls = { ca = "bank.pem" }
[client.erp]
key_sha256 = ["8f1d3c6b5a7e90241bd4c0f6a2e8751993d60b4c7fe2a815d03b9c6e47f1a258"]
"""
ROUTE = '[[route]]\nname = "bank"\npath = "/bank"\nprovider = "bank"\n'

# ── config ──
for path in sorted((ROOT / "tests/fixtures/config").glob("*.toml")):
    put("config", bare(path.read_text()))
put("config", bare(read("proxy.toml")))
put("config", BASE + ROUTE)
for page in sorted((ROOT / "docs").glob("*.md")):
    for block in fenced(page):
        put("config", bare(block))
        put("config", BASE + bare(block))
        put("config", BASE + ROUTE + bare(block))
for more in [
    'vars = { account = { header = "x-account", pattern = "[0-9]{3}" } }\nallow = ["GET /v1/*"]\nmethods = ["GET"]\n',
    'rate_limit = "10/s"\nreplay_limit = "1MiB"\nheaders = { channel = "x" }\nsettings = { scope = "a" }\n',
    '[admin]\nbind = "127.0.0.1:9901"\n[admin.token.oncall]\nvalue = "c4n4ry-literal-token"\nrole = "operate"\n',
    '[store]\nurl = "file:var/x.redb"\nkeys = [{ file = "store.b64" }]\n[audit]\nto = "x.log"\nkey = { file = "a.secret" }\n',
    '[tracing]\nsample = 0.5\n[tracing.otlp]\nurl = "http://127.0.0.1:4318"\n[log]\nformat = "json"\naccess = "off"\n',
    '[[listener]]\nname = "egress"\nmode = "forward"\nbind = "127.0.0.1:3128"\nintercept = { ca_cert = "ca.crt", ca_key = "ca.key" }\n',
]:
    put("config", BASE + ROUTE + more)

# ── profile ──
for path in sorted((ROOT / "src/provider/profiles").glob("*.toml")):
    put("profile", bare(path.read_text()))
put("profile", bare(read("src/provider/profiles/meed.toml")).replace("/v1/oauth", "/{client_secret}"))
for block in fenced("docs/adding-a-provider.md"):
    put("profile", bare(block))

# ── what banks answer ──
conversations = sorted((ROOT / "tests/fixtures/provider").glob("*/*.toml"))


def answer(bank, said):
    body = said.get("body", json.dumps(said["json"], separators=(",", ":"), default=str) if "json" in said else "")
    headers = {"content-type": "application/json"} if "json" in said else {}
    headers.update(said.get("headers", {}))
    fields = [(name, value) for name, many in headers.items() for value in (many if isinstance(many, list) else [many])]
    head = "".join(f"{name}: {value}\n" for name, value in fields)
    return f"{bank} {said['status']}\n{head}\n{body}"


for path in conversations:
    play = tomllib.loads(path.read_text())
    bank = path.parent.name
    if "profile" in play:
        put("profile", bare(play["profile"]))
        bank = "xml" if 'format = "xml"' in play["profile"] else "oauth2"
    consent = play.get("consent", {})
    for said in play.get("answer", []) + sum((consent.get(key, []) for key in ["authorized", "exchanged", "refreshed"]), []):
        put("token_answer", answer(bank, said))
    for back in consent.get("callback", []):
        put("token_answer", f"{bank} 200\n\n{back['query']}")
    for said in play.get("resource", []):
        put("refusal", answer(bank, said))
        for name, value in said.get("headers", {}).items():
            if name.lower() == "www-authenticate":
                put("challenge", value if isinstance(value, str) else "\n".join(value))

# ── challenges, paths, authorities ──
for text in literals("src/provider/challenge.rs"):
    if re.search(r"(?i)bearer|basic|negotiate", text):
        put("challenge", text)
put("challenge", 'Basic realm="x"\nBearer error=a, Digest a="b\\"c", Bearer error="invalid_token"')
for path in ["src/route/path.rs", "src/route/properties.rs", "src/route/table.rs"]:
    for text in literals(path):
        if text.startswith("/") and len(text) < 200:
            put("path", text)
            put("path", "/bank" + text)
            put("path", "/bank/deep" + text)
for text in ["/bank/oauth/token", "/a/oauth%2ftoken", "/OAuth/%74oken;x", "/bank/v1/x?a=b", "*"]:
    put("path", text)
for name in ["malformed", "well-formed"]:
    for line in read(f"tests/fixtures/egress/{name}.txt").splitlines():
        if line and not line.startswith("# "):
            text = re.sub(r"\\x(..)|\\u\{(.*?)\}", lambda found: chr(int(found[1] or found[2], 16)), line)
            put("authority", text.split(" ")[0] if name == "well-formed" else text)
            put("authority", text.split(" ")[0] + ":443\n" + text.split(" ")[0].upper())
for name in ["public", "forbidden"]:
    for line in read(f"tests/fixtures/egress/{name}.txt").splitlines():
        if line and not line.startswith("# "):
            address = line.split(" ")[0]
            put("authority", f"[{address}]:443" if ":" in address else f"{address}:443\n{address}")

# ── records ──
KEY = {"group": False, "owner": "erp", "provider": "scb", "user": "alice"}
put("sealed_record", json.dumps({"v": 1, "spent": 1550131385000}))
pending = {"key": KEY, "client": "erp", "realm": [7] * 32, "verifier": "v" * 43, "started": 1550131385000}
put("sealed_record", json.dumps({"v": 1, "pending": pending | {"return_to": "https://erp.example/back"}}))
put("sealed_record", json.dumps({"v": 2, "pending": pending}))
tokens = {
    "v": 1, "key": KEY | {"group": True}, "realm": [0] * 32, "generation": 3,
    "access": {"token": "t", "issued": 1550131385000, "expires": 1550133185000},
    "refresh": {"token": "r", "issued": 1550131385000, "expires": None},
    "captured": [["resource_owner", "owner"]], "consented": 1550131385000, "last_call": 0,
}  # fmt: skip
put("sealed_record", json.dumps(tokens))
put("sealed_record", json.dumps(tokens | {"access": {"token": "t", "issued": 0}, "captured": []}))
put("sealed_record", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=")
put("sealed_record", b"\1" + hashlib.sha256(b"countersign store key id\0" + b"\1" * 32).digest()[:8] + bytes(60))
put("sealed_record", b"\2" + bytes(60))
for length in [0, 1, 7, 8, 24, 100]:
    put("sealed_record", bytes(range(length)))


def chained(objects, first=1, torn=None):
    """An audit log of these records, without a key; `torn`: a piece of a record before the last one."""
    head, lines = bytes(32), []
    for seq, said in enumerate(objects, first):
        if torn is not None and seq == first + len(objects) - 1:
            said = said | {"torn": {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}}
            lines.append(torn)
        body = f'{{"seq":{seq},'.encode() + json.dumps(said, separators=(",", ":")).encode()[1:-1]
        head = hashlib.sha256(head + body).digest()
        lines.append(body + b',"chain":"' + head.hex().encode() + b'"}')
    return b"".join(line + b"\n" for line in lines)


NIL = {"instance": "00000000-0000-0000-0000-000000000000", "time": "2019-02-14T08:03:05Z"}
OPENED = {"kind": "open"} | NIL | {"format": 1, "method": "sha256", "why": "new", "before": "0" * 64}
START = {"kind": "start"} | NIL | {"version": "0.1.0", "config": "0123456789abcdef"}
CALL = {"kind": "call"} | NIL | {"duration_ms": 1, "method": "GET", "path": "/x", "replayed": False, "complete": True}
GAP = {"kind": "gap"} | NIL | {"lost": 3}
ACTION = {"kind": "action"} | NIL | {"actor": "admin", "action": "reload", "target": {}, "outcome": "ok"}
whole = chained([OPENED, START, CALL, GAP, ACTION, {"kind": "stop"} | NIL])
put("audit_log", whole)
put("audit_log", whole[:-1])
put("audit_log", whole[:-20])
put("audit_log", whole.replace(b'"lost":3', b'"lost":4'))
put("audit_log", b"".join(whole.splitlines(True)[:2] + whole.splitlines(True)[3:]))
put("audit_log", b"".join(whole.splitlines(True)[1:]))
put("audit_log", b"".join(whole.splitlines(True)[:3] + whole.splitlines(True)[1:2]))
put("audit_log", chained([OPENED, START, {"kind": "recovered"} | NIL], torn=b'{"seq":3,"kind":"call","inst'))
put("audit_log", chained([OPENED | {"torn": {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}}, START], 7))
put("audit_log", chained([OPENED | {"method": "hmac-sha256", "key": "0123456789abcdef"}, START]))
put("audit_log", chained([OPENED | {"format": 2}, START]))
put("audit_log", chained([OPENED, OPENED]))
put("audit_log", chained([OPENED], 2**64 - 1) + chained([START], 2**64 - 1))
put("audit_log", chained([OPENED, CALL | {"path": "/\u0000\"\\\u2028"}]))
for text in ["", "\n", "a\r\nb", '","chain":"', '"}\n{"seq":1,', "\u2028\ud7ff\x1b[0m", "x" * 5000]:
    put("audit_log", text)
