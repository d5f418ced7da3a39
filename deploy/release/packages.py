"""The artefacts, each made of the same parts: the binary of an architecture, and what belongs beside it."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from archives import OciLayout, Tree, gzipped, zipped

DESCRIPTION = "The egress proxy that signs an application's calls to bank APIs"
# What Linux, Debian, RPM, OCI and Python call an architecture
DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}
SHELLS = {"bash": "countersign", "zsh": "_countersign", "fish": "countersign.fish"}

# After the files are there. A restart refuses no connection: systemd holds the port.
POST_INSTALL = """\
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload || true
  # Debian says which version was there before, RPM how many there are now.
  case "$1:$2" in
    configure:?* | 2:*) systemctl try-restart countersign.service || true ;;
  esac
fi
"""
PRE_REMOVE = """\
#!/bin/sh
set -e
case "$1" in
  remove | 0)
    if [ -d /run/systemd/system ]; then
      systemctl disable --now countersign.socket countersign.service || true
    fi
    ;;
esac
"""
POST_REMOVE = """\
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload || true
fi
"""


class Release:
    """What all artefacts share."""

    def __init__(self, root, version, commit, epoch, licences, addresses):
        self.root, self.version, self.commit, self.epoch = root, version, commit, epoch
        self.licences, self.addresses = licences, addresses
        self.created = datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

    def text(self, path):
        return (self.root / path).read_bytes()

    def texts(self, folder, pattern):
        """Files that git knows, so that nothing of a working tree slips in."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", folder], cwd=self.root, check=True, stdout=subprocess.PIPE
        ).stdout.decode()
        return sorted(path for path in listed.split("\0") if re.search(pattern, path))


def manuals(run):
    """Every manual page by name, found from the one of the whole."""
    pages, waiting = {}, [()]
    while waiting:
        words = waiting.pop()
        page = run("man", *words)
        name = "-".join(["countersign", *words])
        pages[f"{name}.1"] = page
        mention = re.escape(name.replace("-", "\\-")) + r"\\-([a-z]+)\(1\)"
        waiting += [(*words, word) for word in re.findall(mention, page) if word != "help"]
    return pages


def completions(run):
    """Every completion script by shell."""
    return {shell: run("completions", shell) for shell in SHELLS}


def archive(release, arch, binary, pages, scripts):
    """A tar.gz for people who place files themselves."""
    tree = Tree()
    tree.add("countersign", binary, 0o755)
    tree.add("THIRD-PARTY-LICENCES.txt", release.licences)
    listed = ["LICENSE", "README.md", "SECURITY.md", "proxy.toml"]
    listed += release.texts("docs", r"\.(md|json)$") + release.texts("examples", r"\.toml$")
    listed += release.texts("deploy/systemd", ".") + release.texts("deploy/prometheus", ".") + release.texts("deploy/grafana", ".")
    for path in listed:
        tree.add(path, release.text(path))
    for path in release.texts("certs", "."):
        tree.add(path, release.text(path), 0o755 if path.endswith(".sh") else 0o644)
    for name, page in pages.items():
        tree.add(f"man/man1/{name}", page)
    for shell, script in scripts.items():
        tree.add(f"completions/{SHELLS[shell]}", script)
    folder = f"countersign-{release.version}-{arch}-linux"
    return {f"{folder}.tar.gz": gzipped(tree.below(folder).tar(release.epoch))}


def installed(release, binary, pages, scripts, zsh):
    """The files of a package of the system, and those of them that an administrator edits."""
    tree = Tree()
    tree.add("usr/bin/countersign", binary, 0o755)
    for unit in ["countersign.service", "countersign.socket"]:
        text = release.text(f"deploy/systemd/{unit}").replace(b"/usr/local/bin/", b"/usr/bin/")
        tree.add(f"usr/lib/systemd/system/{unit}", text)
    for name, page in pages.items():
        tree.add(f"usr/share/man/man1/{name}.gz", gzipped(page.encode()))
    places = {"bash": "bash-completion/completions", "zsh": zsh, "fish": "fish/vendor_completions.d"}
    for shell, script in scripts.items():
        tree.add(f"usr/share/{places[shell]}/{SHELLS[shell]}", script)
    documents = "usr/share/doc/countersign"
    tree.add(f"{documents}/copyright", release.text("LICENSE"))
    tree.add(f"{documents}/THIRD-PARTY-LICENCES.txt.gz", gzipped(release.licences.encode()))
    tree.add(f"{documents}/README.md", release.text("README.md"))
    for path in ["proxy.toml", *release.texts("examples", r"\.toml$")]:
        tree.add(f"{documents}/examples/{Path(path).name}", release.text(path))
    tree.add("etc/countersign/proxy.toml", release.text("deploy/systemd/proxy.toml"))
    return tree, ["etc/countersign/proxy.toml"]


def system_packages(release, arch, binary, pages, scripts, nfpm, maintainer):
    """A deb and an rpm, by nfpm."""
    made = {}
    for packager, zsh, name in [
        ("deb", "zsh/vendor-completions", f"countersign_{release.version}-1_{DEBIAN[arch]}.deb"),
        ("rpm", "zsh/site-functions", f"countersign-{release.version}-1.{arch}.rpm"),
    ]:
        tree, edited = installed(release, binary, pages, scripts, zsh)
        with tempfile.TemporaryDirectory() as place:
            place = Path(place)
            contents = []
            for path, (content, mode) in sorted(tree.files.items()):
                source = place / path
                source.parent.mkdir(parents=True, exist_ok=True)
                source.write_bytes(content)
                info = {"mode": mode, "mtime": release.created, "owner": "root", "group": "root"}
                entry = {"src": str(source), "dst": f"/{path}", "file_info": info}
                if path in edited:
                    entry["type"] = "config|noreplace"
                contents.append(entry)
            # Nobody but root sees that there are secrets.
            for folder, mode in [("/etc/countersign", 0o755), ("/etc/countersign/secrets", 0o700)]:
                contents.append({"dst": folder, "type": "dir", "file_info": {"mode": mode, "mtime": release.created}})
            scripts_of = {}
            for step, text in [("postinstall", POST_INSTALL), ("preremove", PRE_REMOVE), ("postremove", POST_REMOVE)]:
                (place / step).write_text(text)
                scripts_of[step] = str(place / step)
            config = {
                "name": "countersign",
                "arch": DEBIAN[arch],
                "platform": "linux",
                "version": release.version,
                "version_schema": "semver",
                "release": "1",
                "section": "net",
                "priority": "optional",
                "maintainer": maintainer,
                "description": f"{DESCRIPTION}\nIt fetches and keeps each bank's token, adds the headers and signatures that the bank expects,\nand replays a call once when the bank refused the token. The application holds no secret.",
                "license": "Apache-2.0",
                "homepage": release.addresses.get("documentation") or release.addresses.get("source") or "",
                "mtime": release.created,
                "contents": contents,
                "scripts": scripts_of,
                "rpm": {"summary": DESCRIPTION, "group": "System Environment/Daemons", "buildhost": "countersign", "compression": "gzip"},
                "deb": {"compression": "gzip"},
            }
            (place / "nfpm.json").write_text(json.dumps(config))
            target = place / name
            subprocess.run(
                [nfpm, "package", "--config", place / "nfpm.json", "--packager", packager, "--target", target],
                check=True,
                stdout=subprocess.DEVNULL,
                env=os.environ | {"SOURCE_DATE_EPOCH": str(release.epoch)},
            )
            made[name] = target.read_bytes()
    return made


def wheel(release, arch, binary):
    """A package of Python that puts the binary on the PATH of a virtual environment."""
    tags = [f"py3-none-manylinux_2_17_{arch}", f"py3-none-manylinux2014_{arch}", f"py3-none-musllinux_1_1_{arch}"]
    details = f"countersign-{release.version}.dist-info"
    metadata = f"Metadata-Version: 2.4\nName: countersign\nVersion: {release.version}\nSummary: {DESCRIPTION}\n"
    metadata += "License-Expression: Apache-2.0\nLicense-File: LICENSE\nLicense-File: THIRD-PARTY-LICENCES.txt\n"
    for label, address in sorted(release.addresses.items()):
        metadata += f"Project-URL: {label}, {address}\n"
    metadata += "Requires-Python: >=3.8\nDescription-Content-Type: text/markdown\n\n"
    metadata += "The binary of countersign, static, for Linux: `countersign --help` once it is installed.\n"
    kind = "Wheel-Version: 1.0\nGenerator: countersign\nRoot-Is-Purelib: false\n" + "".join(f"Tag: {tag}\n" for tag in tags)
    files = [
        (f"countersign-{release.version}.data/scripts/countersign", binary, 0o755),
        (f"{details}/licenses/LICENSE", release.text("LICENSE"), 0o644),
        (f"{details}/licenses/THIRD-PARTY-LICENCES.txt", release.licences.encode(), 0o644),
        (f"{details}/METADATA", metadata.encode(), 0o644),
        (f"{details}/WHEEL", kind.encode(), 0o644),
    ]
    record = ""
    for path, content, _ in files:
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(content)}\n"
    files.append((f"{details}/RECORD", f"{record}{details}/RECORD,,\n".encode(), 0o644))
    platforms = ".".join(tag.removeprefix("py3-none-") for tag in tags)
    return {f"countersign-{release.version}-py3-none-{platforms}.whl": zipped(files, release.epoch)}


def containerfile(text, arguments):
    """What a Containerfile says of the image's config; what it copies is the caller's to know."""
    config = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Labels": {}}
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        word, _, rest = line.partition(" ")
        if word == "LABEL":
            for key, value in re.findall(r'(\S+?)="([^"]*)"', rest):
                config["Labels"][key] = re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], value)
        elif word == "USER":
            config["User"] = rest
        elif word == "WORKDIR":
            config["WorkingDir"] = rest
        elif word in ("ENTRYPOINT", "CMD"):
            config["Entrypoint" if word == "ENTRYPOINT" else "Cmd"] = json.loads(rest)
        elif word == "STOPSIGNAL":
            config["StopSignal"] = rest
        elif word not in ("FROM", "ARG", "COPY", "HEALTHCHECK", "#", "") and not word.startswith("#"):
            raise SystemExit(f"deploy/container/Containerfile: {word} is not known here: teach deploy/release/packages.py")
    return config


def image(release, binaries):
    """An image for every architecture under one name, as deploy/container/build makes it for one."""
    where = "deploy/container"
    arguments = {"VERSION": release.version, "REVISION": release.commit, "CREATED": release.created}
    config = containerfile(release.text(f"{where}/Containerfile").decode(), arguments)
    for key, address in sorted(release.addresses.items()):
        config["Labels"][f"org.opencontainers.image.{key}"] = address
    layout, manifests = OciLayout(), []
    for arch, binary in sorted(binaries.items()):
        tree = Tree()
        tree.add("countersign", binary, 0o555)
        tree.add("LICENSE", release.text("LICENSE"), 0o444)
        tree.add("THIRD-PARTY-LICENCES.txt", release.licences, 0o444)
        for name in ["passwd", "group"]:
            tree.add(f"etc/{name}", release.text(f"{where}/{name}"), 0o444)
        layer = tree.tar(release.epoch, {config["WorkingDir"].lstrip("/"): 0o755})
        content = {
            "created": release.created,
            "architecture": DEBIAN[arch],
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            "history": [{"created": release.created, "created_by": "deploy/release/build"}],
        }
        manifests.append(
            layout.manifest(
                layout.blob("application/vnd.oci.image.config.v1+json", content),
                [layout.blob("application/vnd.oci.image.layer.v1.tar+gzip", gzipped(layer))],
                config["Labels"],
                platform={"architecture": DEBIAN[arch], "os": "linux"},
            )
        )
    named = layout.index(manifests, config["Labels"], annotations={"org.opencontainers.image.ref.name": release.version})
    return {f"countersign-{release.version}-image.oci.tar": layout.tar(named, release.epoch)}


def chart(release):
    """The Helm chart: as `helm package` makes it, and the same in an OCI layout, as `helm push` stores it."""
    folder = "deploy/helm/countersign"
    text = release.text(f"{folder}/Chart.yaml").decode()
    facts = dict(re.findall(r"^(\w+): *(.*)$", text, re.M))
    for key in ["version", "appVersion"]:
        if facts[key].strip('"') != release.version:
            raise SystemExit(f"{folder}/Chart.yaml: {key} is {facts[key]}, and Cargo.toml's version {release.version}")
    tree = Tree()
    ignored = release.text(f"{folder}/.helmignore").decode().split()
    for path in release.texts(folder, "."):
        inner = path.removeprefix(f"{folder}/")
        if not any(inner == rule or inner.startswith(f"{rule.strip('/')}/") for rule in ignored):
            tree.add(f"countersign/{inner}", release.text(path))
    packed = gzipped(tree.tar(release.epoch))
    layout = OciLayout()
    config = {"name": "countersign", "version": release.version, "appVersion": release.version, "apiVersion": "v2"}
    config |= {"type": "application", "description": DESCRIPTION, "kubeVersion": facts["kubeVersion"].strip('"')}
    notes = {"org.opencontainers.image.title": "countersign", "org.opencontainers.image.version": release.version}
    notes |= {"org.opencontainers.image.created": release.created, "org.opencontainers.image.description": DESCRIPTION}
    notes |= {f"org.opencontainers.image.{key}": address for key, address in release.addresses.items()}
    named = layout.manifest(
        layout.blob("application/vnd.cncf.helm.config.v1+json", config),
        [layout.blob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", packed)],
        notes,
    ) | {"annotations": {"org.opencontainers.image.ref.name": release.version}}
    return {
        f"countersign-chart-{release.version}.tgz": packed,
        f"countersign-chart-{release.version}.oci.tar": layout.tar(named, release.epoch),
    }


def nfpm_program(root):
    """Where nfpm is: named, on the PATH, or where tests/run puts it."""
    named = os.environ.get("NFPM") or shutil.which("nfpm") or root / "target/clients/deploy/bin/nfpm"
    if not Path(named).exists():
        raise SystemExit("deploy/release/build: nfpm makes the deb and the rpm and is missing: install it, or name it in NFPM")
    return named
