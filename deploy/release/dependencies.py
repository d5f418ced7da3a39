"""What the binary is made of besides our own code: a bill of materials (CycloneDX), and the licences of it all."""

import hashlib
import json
import re
import subprocess
import tomllib
import uuid
from datetime import datetime, timezone
from pathlib import Path

LICENCE_FILE = re.compile(r"^(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)

# What is linked in without being a package of Cargo.
BESIDES = """\
The standard library of Rust (https://www.rust-lang.org): MIT OR Apache-2.0.

The GNU C Library (https://www.gnu.org/software/libc), linked statically: LGPL-2.1-or-later. countersign's source is open, so
it can be linked with another version of that library: deploy/release/binary does it.

"""


class Dependencies:
    """The packages that are compiled into the binary, for all its targets together."""

    def __init__(self, root, targets):
        self.root = root
        lock = tomllib.loads((root / "Cargo.lock").read_text())
        self.checksums = {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}
        self.packages, self.edges, self.own = {}, {}, None
        for target in targets:
            command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
            metadata = json.loads(subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE).stdout)
            self.own = metadata["resolve"]["root"]
            self._walk(metadata, linked_by_tree(root, target))

    def _walk(self, metadata, linked_in):
        packages = {package["id"]: package for package in metadata["packages"]}
        nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
        waiting = [self.own]
        seen = set()
        while waiting:
            here = waiting.pop()
            if here in seen:
                continue
            seen.add(here)
            self.packages[here] = packages[here]
            # Not what builds or tests it.
            linked = [d["pkg"] for d in nodes[here]["deps"] if any(kind["kind"] is None for kind in d["dep_kinds"])]
            linked = [one for one in linked if f"{packages[one]['name']} v{packages[one]['version']}" in linked_in]
            self.edges.setdefault(here, set()).update(linked)
            waiting += linked

    def others(self):
        """All but our own, by name and version."""
        found = [package for ident, package in self.packages.items() if ident != self.own]
        return sorted(found, key=lambda package: (package["name"], package["version"]))

    def bill(self, version, commit, epoch):
        """A CycloneDX document."""
        ours = f"pkg:cargo/countersign@{version}"
        reference = {i: ours if i == self.own else purl(package) for i, package in self.packages.items()}
        components = []
        for package in self.others():
            component = {
                "type": "library",
                "bom-ref": purl(package),
                "name": package["name"],
                "version": package["version"],
                "scope": "required",
                "purl": purl(package),
            }
            if checksum := self.checksums.get((package["name"], package["version"])):
                component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
            if package["license"]:
                component["licenses"] = [{"expression": expression(package)}]
            if package["repository"]:
                component["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
            components.append(component)
        edges = sorted((reference[i], sorted(reference[j] for j in below)) for i, below in self.edges.items())
        document = {
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {
                "timestamp": datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "component": {
                    "type": "application",
                    "bom-ref": ours,
                    "name": "countersign",
                    "version": version,
                    "purl": ours,
                    "licenses": [{"license": {"id": "Apache-2.0"}}],
                    "properties": [{"name": "countersign:commit", "value": commit}],
                },
            },
            "components": components,
            "dependencies": [{"ref": ref, "dependsOn": below} for ref, below in edges],
        }
        document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document, sort_keys=True))}"
        return json.dumps(document, indent=1, sort_keys=True) + "\n"

    def licences(self):
        """One text with every licence, each said once, and who is under it."""
        texts, without = {}, []
        for package in self.others():
            label = f"{package['name']} {package['version']} ({package['license'] or 'no licence declared'})"
            folder = Path(package["manifest_path"]).parent
            found = sorted(path for path in folder.iterdir() if path.is_file() and LICENCE_FILE.match(path.name))
            declared = package["license_file"]
            if declared and (folder / declared).resolve() not in [path.resolve() for path in found]:
                found.append(folder / declared)
            for path in found:
                text = re.sub(r"[ \t]+$", "", path.read_text(errors="replace").replace("\r\n", "\n"), flags=re.M)
                key = hashlib.sha256(re.sub(r"\s+", " ", text).strip().encode()).digest()
                texts.setdefault(key, (text.strip("\n"), []))[1].append(label)
            if not found:
                without.append(label)
        out = ["Other people's work in countersign, and its licences. countersign itself is under Apache-2.0 (LICENSE).\n\n"]
        out.append(BESIDES)
        if without:
            out.append("Without a licence file of their own, under what they declare:\n\n")
            out += [f"    {label}\n" for label in without]
        for text, labels in sorted(texts.values(), key=lambda pair: (pair[1], pair[0])):
            out.append(f"\n{'=' * 100}\n\n" + "".join(f"    {label}\n" for label in dict.fromkeys(labels)))
            out.append(f"\n{text}\n")
        return "".join(out)


def linked_by_tree(root, target):
    """What features really take in, as `NAME vVERSION`: `cargo metadata` also has what they might. No macros, which run in the
    compiler."""
    command = ["cargo", "tree", "--locked", "--prefix", "none", "--edges", "normal,no-proc-macro", "--target", target]
    said = subprocess.run([*command, "--format", "{p}"], cwd=root, check=True, stdout=subprocess.PIPE).stdout.decode()
    return {" ".join(line.split()[:2]) for line in said.splitlines() if line}


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version'].replace('+', '%2B')}"


def expression(package):
    # The form of old packages, before SPDX
    return package["license"].replace("/", " OR ")
