"""An authorization server by PyPI's Authlib, and an API behind it that takes its tokens, for one test.

    python authlib_server.py FOLDER

FOLDER has server.crt and server.key. Prints one line with its port, then answers each command on standard input with one
line: `revoke` (every token that was issued so far is refused by the API) and `state` (what was seen, as JSON).
"""

import json
import os
import sys
import threading
from pathlib import Path

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, grants
from flask import Flask, request
from werkzeug.serving import make_server

seen = {"calls": 0, "refused": 0, "issued": 0}
live = set()


class Application(ClientMixin):
    """The only client."""

    client_id = "erp"

    def get_client_id(self):
        return self.client_id

    def get_default_redirect_uri(self):
        return None

    def get_allowed_scope(self, scope):
        return scope or ""

    def check_redirect_uri(self, redirect_uri):
        return False

    def check_client_secret(self, client_secret):
        return client_secret == "a-secret-that-is-long-enough"

    def check_endpoint_auth_method(self, method, endpoint):
        return method in ("client_secret_basic", "client_secret_post")

    def check_response_type(self, response_type):
        return False

    def check_grant_type(self, grant_type):
        return grant_type == "client_credentials"


class ClientCredentials(grants.ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]


def save(token, _request):
    seen["issued"] += 1
    live.add(token["access_token"])


app = Flask(__name__)
server = AuthorizationServer(
    app,
    query_client=lambda client_id: Application() if client_id == "erp" else None,
    save_token=save,
)
server.register_grant(ClientCredentials)


@app.post("/token")
def token():
    return server.create_token_response()


@app.route("/api/<path:_path>", methods=["GET", "POST"])
def api(_path):
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme == "Bearer" and value in live:
        seen["calls"] += 1
        return {}
    seen["refused"] += 1
    return "", 401, {"www-authenticate": 'Bearer error="invalid_token"'}


folder = Path(sys.argv[1])
http = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=(str(folder / "server.crt"), str(folder / "server.key")))
threading.Thread(target=http.serve_forever, daemon=True).start()
print(http.server_port, flush=True)
for line in sys.stdin:
    command = line.strip()
    if command == "revoke":
        live.clear()
    print(json.dumps(seen if command == "state" else {"done": command}), flush=True)
os._exit(0)
