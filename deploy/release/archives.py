"""Archives whose bytes follow from their content: sorted, owned by root, one time for all, no machine's name in them."""

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from datetime import datetime, timezone


class Tree:
    """Files by path, with a mode each; the folders above them come by themselves."""

    def __init__(self, files=()):
        self.files = {}
        for path, (content, mode) in dict(files).items():
            self.add(path, content, mode)

    def add(self, path, content, mode=0o644):
        content = content.encode() if isinstance(content, str) else content
        self.files[path] = (content, mode)

    def below(self, folder):
        """The same files in a folder."""
        return Tree({f"{folder}/{path}": file for path, file in self.files.items()})

    def folders(self):
        parts = [path.split("/")[:-1] for path in self.files]
        return sorted({"/".join(part[:end]) for part in parts for end in range(1, len(part) + 1)})

    def tar(self, epoch, folder_modes=None):
        """An uncompressed tar, as bytes. `folder_modes`: modes of folders, empty ones too, by path."""
        modes = dict.fromkeys(self.folders(), 0o755) | (folder_modes or {})
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for path in sorted([*modes, *self.files]):
                entry = tarfile.TarInfo(path)
                entry.mtime, entry.uname, entry.gname = epoch, "root", "root"
                if path in modes:
                    entry.type, entry.mode = tarfile.DIRTYPE, modes[path]
                    tar.addfile(entry)
                else:
                    content, entry.mode = self.files[path]
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
        return out.getvalue()


def gzipped(content):
    """Compressed, without a time and a name."""
    return gzip.compress(content, compresslevel=6, mtime=0)


def zipped(files, epoch):
    """A zip archive of `(path, content, mode)`, in this order."""
    when = datetime.fromtimestamp(max(epoch, 315532800), timezone.utc).timetuple()[:6]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, content, mode in files:
            entry = zipfile.ZipInfo(path, when)
            entry.external_attr, entry.create_system = (0o100000 | mode) << 16, 3
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return out.getvalue()


class OciLayout:
    """An OCI image layout in a tar: blobs by digest, and one index over them."""

    def __init__(self):
        self.tree, self.manifests = Tree(), []
        self.tree.add("oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}))

    def blob(self, media_type, content, **more):
        """Keeps a blob and answers its descriptor."""
        if not isinstance(content, bytes):
            content = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        digest = hashlib.sha256(content).hexdigest()
        self.tree.add(f"blobs/sha256/{digest}", content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content), **more}

    def manifest(self, config, layers, annotations, **more):
        content = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
            "annotations": annotations,
        }
        return self.blob(content["mediaType"], content, **more)

    def index(self, manifests, notes, **more):
        """One name for several platforms."""
        content = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests,
            "annotations": notes,
        }
        return self.blob(content["mediaType"], content, **more)

    def tar(self, named, epoch):
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [named]}
        self.tree.add("index.json", json.dumps(index, sort_keys=True))
        return self.tree.tar(epoch)
