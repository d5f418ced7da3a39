// Opens encrypted and signed bodies with a library that others wrote (npm jose).
//
//   node verify.mjs < JSON
//
// The input is a list of { message, bank, signer, payload }: a compact message (JWE, with a JWS in it where `signer` is
// given), the JSON Web Keys of the bank (private) and of the signer (public), and the payload. Prints one line for each that was
// opened; it and its forgery, in which one character is another one, are tried.
import { readFileSync } from 'node:fs';
import { compactDecrypt, compactVerify, importJWK } from 'jose';

async function open({ message, bank, signer }) {
  const { plaintext, protectedHeader } = await compactDecrypt(message, await importJWK(bank, 'ECDH-ES'));
  const text = new TextDecoder().decode(plaintext);
  if (!signer) return text;
  if (protectedHeader.cty !== 'JWT') throw new Error('no signed message inside');
  const { payload } = await compactVerify(text, await importJWK(signer, 'RS256'), { algorithms: ['RS256'] });
  return new TextDecoder().decode(payload);
}

for (const given of JSON.parse(readFileSync(0, 'utf8'))) {
  const { message, payload, name } = given;
  if ((await open(given)) !== payload) throw new Error(`${name}: another payload`);
  const middle = message.length >> 1;
  const other = message[middle] === 'A' ? 'B' : 'A';
  const forged = { ...given, message: message.slice(0, middle) + other + message.slice(middle + 1) };
  const refused = await open(forged).then(() => false, () => true);
  if (!refused) throw new Error(`${name}: a forgery is opened`);
  console.log(`${name}: 1 opened, 1 refused`);
}
