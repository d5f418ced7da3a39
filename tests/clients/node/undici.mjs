// Pays with undici: node pay.mjs URL
import { EnvHttpProxyAgent, request } from "undici";

const key = process.env.KEY;
const headers = key ? { Authorization: `Bearer ${key}` } : {};

headers["Content-Type"] = "application/json";
const body = JSON.stringify({ amount: "12.50" });
const dispatcher = new EnvHttpProxyAgent();
const answer = await request(process.argv[2], { method: "POST", headers, body, dispatcher });

console.log(answer.statusCode, await answer.body.text());
