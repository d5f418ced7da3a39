# Pays with urllib: python3 pay.py URL
import json
import os
import sys
import urllib.request

key = os.environ.get("KEY")
headers = {"Authorization": f"Bearer {key}"} if key else {}

headers["Content-Type"] = "application/json"
body = json.dumps({"amount": "12.50"}).encode()
asked = urllib.request.Request(sys.argv[1], data=body, headers=headers)

with urllib.request.urlopen(asked) as answer:
    print(answer.status, answer.read().decode())
