#!/bin/sh
# Makes a development CA and a server certificate for localhost, 127.0.0.1 and ::1. For development only.
#
#   certs/make-dev-certs.sh            makes what is missing or has run out
#   certs/make-dev-certs.sh --force    makes everything anew
#
# Leaves ca.crt, ca.key, server.crt and server.key beside this script. None of them belongs in git.
set -eu
umask 077

cd "$(dirname "$0")"
command -v openssl >/dev/null 2>&1 || { echo "make-dev-certs: openssl is not installed" >&2; exit 1; }

if [ "${1-}" = "--force" ]; then
    rm -f ca.crt ca.key server.crt server.key
elif [ $# -gt 0 ]; then
    echo "usage: make-dev-certs.sh [--force]" >&2
    exit 2
fi

# A day left at least, and the key at hand.
good() { [ -s "$1.crt" ] && [ -s "$1.key" ] && openssl x509 -checkend 86400 -noout -in "$1.crt" >/dev/null 2>&1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

if ! good ca; then
    rm -f ca.crt ca.key server.crt server.key
    cat > "$work/ca.cnf" <<'CNF'
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = countersign development CA
[extensions]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
CNF
    openssl ecparam -name prime256v1 -genkey -noout -out "$work/ca.key"
    openssl req -x509 -new -sha256 -days 825 -config "$work/ca.cnf" -key "$work/ca.key" -out "$work/ca.crt"
    mv "$work/ca.key" "$work/ca.crt" .
fi

if ! good server || ! openssl verify -CAfile ca.crt server.crt >/dev/null 2>&1; then
    cat > "$work/server.cnf" <<'CNF'
[req]
prompt = no
distinguished_name = name
[name]
CN = localhost
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
CNF
    openssl ecparam -name prime256v1 -genkey -noout -out "$work/server.key"
    openssl req -new -sha256 -config "$work/server.cnf" -key "$work/server.key" -out "$work/server.csr"
    serial=$(openssl rand -hex 16)
    openssl x509 -req -sha256 -days 397 -in "$work/server.csr" -CA ca.crt -CAkey ca.key -set_serial "0x00$serial" \
        -extfile "$work/server.cnf" -extensions extensions -out "$work/server.crt" 2>"$work/said" || { cat "$work/said" >&2; exit 1; }
    mv "$work/server.key" "$work/server.crt" .
fi

chmod 644 ca.crt server.crt
chmod 600 ca.key server.key
echo "certs: ca.crt (trust this one), server.crt and server.key are in place"
