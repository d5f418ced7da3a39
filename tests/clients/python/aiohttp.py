# Pays with aiohttp: python3 pay.py URL
import asyncio
import os
import sys

import aiohttp

key = os.environ.get("KEY")
headers = {"Authorization": f"Bearer {key}"} if key else {}


async def pay():
    async with aiohttp.ClientSession(trust_env=True) as session:
        async with session.post(sys.argv[1], json={"amount": "12.50"}, headers=headers) as answer:
            print(answer.status, await answer.text())


asyncio.run(pay())
