# Pays with requests: python3 pay.py URL
import os
import sys

import requests

key = os.environ.get("KEY")
headers = {"Authorization": f"Bearer {key}"} if key else {}

answer = requests.post(sys.argv[1], json={"amount": "12.50"}, headers=headers)

print(answer.status_code, answer.text)
