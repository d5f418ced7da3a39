# Pays with httpx over HTTP/2: python3 pay.py URL
import os
import sys

import httpx

key = os.environ.get("KEY")
headers = {"Authorization": f"Bearer {key}"} if key else {}

with httpx.Client(http2=True) as client:
    answer = client.post(sys.argv[1], json={"amount": "12.50"}, headers=headers)

print(answer.status_code, answer.text)
