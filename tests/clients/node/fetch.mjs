// Pays with Node's own fetch: node pay.mjs URL
const key = process.env.KEY;
const headers = key ? { Authorization: `Bearer ${key}` } : {};

headers["Content-Type"] = "application/json";
const body = JSON.stringify({ amount: "12.50" });
const answer = await fetch(process.argv[2], { method: "POST", headers, body });

console.log(answer.status, await answer.text());
