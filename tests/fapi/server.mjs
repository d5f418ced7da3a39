// An authorization server (npm oidc-provider, in its FAPI 2.0 profile) and an API behind it, for one test.
//
//   node server.mjs FOLDER
//
// FOLDER has server.crt and server.key of the server, client-ca.crt of its clients' CA, and client-public.pem of the key
// by which clients sign. It prints one line with its port, then answers each command on standard input with one line:
//
//   nonce    the API wants another nonce from now on
//   shift    the authorization server's clock is five minutes ahead: the nonces that it gave are over
//   revoke   every token that was issued so far is refused by the API
//   state    what was seen, as JSON
import { createHash, createPublicKey, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { createInterface } from 'node:readline';
import { join } from 'node:path';
import { calculateJwkThumbprint, EmbeddedJWK, jwtVerify } from 'jose';
import { Provider } from 'oidc-provider';

const file = (name) => readFileSync(join(process.argv[2], name));
const hash = (data) => createHash('sha256').update(data).digest('base64url');

// The library's own clock, and nothing else's.
const clock = Date.now;
let ahead = 0;
Date.now = () => clock() + ahead;

const seen = { payments: {}, issued: 0, challenged: 0, refused: 0, tokenNonces: 0, wrong: [] };
const issued = new Set();
const revoked = new Set();
const proofs = new Set();
let nonce = 1;

const jwk = { ...createPublicKey(file('client-public.pem')).export({ format: 'jwk' }), use: 'sig', alg: 'PS256', kid: 'key-1' };
const client = (name, authentication, binding) => ({
  client_id: name,
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
  ...authentication,
  ...binding,
});
const signs = { token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: 'PS256', jwks: { keys: [jwk] } };
const shows = { token_endpoint_auth_method: 'tls_client_auth', tls_client_auth_subject_dn: 'CN=erp' };
const proves = { dpop_bound_access_tokens: true };
const bound = { tls_client_certificate_bound_access_tokens: true };

const certificate = (ctx) => {
  const shown = ctx.req.socket.getPeerCertificate();
  return shown.raw && `-----BEGIN CERTIFICATE-----\n${shown.raw.toString('base64')}\n-----END CERTIFICATE-----`;
};

function configure() {
  return {
    clients: [
      client('jwt-dpop', signs, proves),
      client('jwt-mtls', signs, bound),
      client('tls-dpop', shows, proves),
      client('tls-mtls', shows, bound),
    ],
    clientAuthMethods: ['private_key_jwt', 'tls_client_auth'],
    enabledJWA: {
      clientAuthSigningAlgValues: ['PS256', 'ES256', 'EdDSA'],
      dPoPSigningAlgValues: ['ES256', 'EdDSA'],
    },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => true },
      fapi: { enabled: true, profile: '2.0' },
      mTLS: {
        enabled: true,
        certificateBoundAccessTokens: true,
        tlsClientAuth: true,
        getCertificate: certificate,
        certificateAuthorized: (ctx) => ctx.req.socket.authorized,
        certificateSubjectMatches: (ctx, property, expected) =>
          property === 'tls_client_auth_subject_dn' && `CN=${ctx.req.socket.getPeerCertificate().subject?.CN}` === expected,
      },
    },
    ttl: { ClientCredentials: 3600 },
  };
}

class Refusal extends Error {
  constructor(challenge) {
    super(challenge);
    this.challenge = challenge;
  }
}

// Whether a request may use its token: the certificate of its connection, or a proof for exactly this request.
async function admit(provider, request) {
  const [scheme, value] = (request.headers.authorization ?? '').split(' ');
  const token = value && (await provider.ClientCredentials.find(value));
  if (!token || revoked.has(value)) throw new Refusal(`${scheme || 'DPoP'} error="invalid_token"`);
  if (token['x5t#S256']) {
    const shown = request.socket.getPeerCertificate().raw;
    if (scheme !== 'Bearer' || !shown || hash(shown) !== token['x5t#S256']) throw new Error('another certificate');
    return;
  }
  if (!token.jkt || scheme !== 'DPoP') throw new Error('a token without a binding, or another scheme');
  const { payload, protectedHeader } = await jwtVerify(request.headers.dpop, EmbeddedJWK, {
    algorithms: ['ES256', 'EdDSA'],
    typ: 'dpop+jwt',
    maxTokenAge: 60,
  });
  if ((await calculateJwkThumbprint(protectedHeader.jwk)) !== token.jkt) throw new Error('a proof by another key');
  const target = new URL(request.url, `https://${request.headers.host}`);
  if (payload.htm !== request.method || payload.htu !== target.origin + target.pathname) throw new Error('a proof for another request');
  if (payload.ath !== hash(value)) throw new Error('a proof for another token');
  if (!payload.jti || proofs.has(payload.jti)) throw new Error('a proof that was used before');
  proofs.add(payload.jti);
  if (payload.nonce !== `api-${nonce}`) {
    seen.challenged += 1;
    throw new Refusal('DPoP error="use_dpop_nonce", error_description="another nonce"');
  }
}

async function api(provider, request, response) {
  const id = new URL(request.url, 'https://api.test').pathname.split('/').pop();
  const answer = (status, headers) => {
    response.writeHead(status, { 'dpop-nonce': `api-${nonce}`, 'content-type': 'application/json', ...headers });
    response.end('{}');
  };
  try {
    await admit(provider, request);
    const attempts = (seen.payments[id] ??= []);
    attempts.push(request.headers['x-payment-id']);
    answer(200, {});
  } catch (error) {
    if (error instanceof Refusal) {
      if (!error.challenge.includes('nonce')) seen.refused += 1;
      answer(401, { 'www-authenticate': error.challenge });
    } else {
      seen.wrong.push(`${request.url}: ${error.message}`);
      answer(403, {});
    }
  }
}

const server = createServer({
  cert: file('server.crt'),
  key: file('server.key'),
  ca: file('client-ca.crt'),
  requestCert: true,
  rejectUnauthorized: false,
});
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  const provider = new Provider(`https://127.0.0.1:${port}`, configure());
  provider.on('grant.success', (ctx) => {
    seen.issued += 1;
    issued.add(ctx.body.access_token);
  });
  provider.on('grant.error', (ctx, error) => {
    if (error.error === 'use_dpop_nonce') seen.tokenNonces += 1;
    else seen.wrong.push(`token endpoint: ${error.error} ${error.error_description ?? ''} ${error.error_detail ?? ''}`);
  });
  const library = provider.callback();
  server.on('request', (request, response) => {
    if (request.url.startsWith('/api/')) request.resume().on('end', () => api(provider, request, response));
    else library(request, response);
  });
  console.log(port);
  createInterface({ input: process.stdin })
    .on('line', (command) => {
      if (command === 'nonce') nonce += 1;
      if (command === 'shift') ahead += 300_000;
      if (command === 'revoke') issued.forEach((token) => revoked.add(token));
      console.log(JSON.stringify(command === 'state' ? seen : { done: command }));
    })
    .on('close', () => process.exit(0));
});
