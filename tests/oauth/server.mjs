// An authorization server that others wrote, and an API behind it that takes its tokens, for one test.
//
//   node server.mjs KIND FOLDER
//
// KIND is `mock` (npm oauth2-mock-server) or `oidc` (npm oidc-provider). FOLDER has server.crt and server.key. It prints one
// line with its port, then answers each command on standard input with one line:
//
//   revoke   every token that was issued so far is refused by the API
//   state    what was seen, as JSON
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { createInterface } from 'node:readline';
import { join } from 'node:path';

const [kind, folder] = process.argv.slice(2);
const file = (name) => readFileSync(join(folder, name));
const seen = { calls: 0, refused: 0, issued: 0 };
const live = new Set();

function keep(token) {
  seen.issued += 1;
  live.add(token);
}

// The library's own handler of requests.
async function library(origin) {
  if (kind === 'mock') {
    const { OAuth2Issuer, OAuth2Service } = await import('oauth2-mock-server');
    const issuer = new OAuth2Issuer();
    issuer.url = origin;
    await issuer.keys.generate('RS256');
    const service = new OAuth2Service(issuer);
    service.on('beforeResponse', (answer) => keep(answer.body.access_token));
    return service.requestHandler;
  }
  const { Provider } = await import('oidc-provider');
  const provider = new Provider(origin, {
    clients: [
      {
        client_id: 'erp',
        client_secret: 'a-secret-that-is-long-enough',
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
        token_endpoint_auth_method: 'client_secret_basic',
      },
    ],
    features: { clientCredentials: { enabled: true }, devInteractions: { enabled: false } },
    ttl: { ClientCredentials: 600 },
  });
  provider.on('grant.success', (ctx) => keep(ctx.body.access_token));
  return provider.callback();
}

function api(request, response) {
  const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1];
  if (live.has(token)) {
    seen.calls += 1;
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
  } else {
    seen.refused += 1;
    response.writeHead(401, { 'www-authenticate': 'Bearer error="invalid_token"' }).end();
  }
}

const server = createServer({ cert: file('server.crt'), key: file('server.key') });
server.listen(0, '127.0.0.1', async () => {
  const { port } = server.address();
  const handler = await library(`https://127.0.0.1:${port}`);
  server.on('request', (request, response) => {
    if (request.url.startsWith('/api/')) request.resume().on('end', () => api(request, response));
    else handler(request, response);
  });
  console.log(port);
  createInterface({ input: process.stdin })
    .on('line', (command) => {
      if (command === 'revoke') live.clear();
      console.log(JSON.stringify(command === 'state' ? seen : { done: command }));
    })
    .on('close', () => process.exit(0));
});
