"""What a machine is told is cloud-config with all files: python3 user_data.py USER_DATA EDGE_TOML, which is written."""

import base64
import sys
from pathlib import Path

import yaml

text = Path(sys.argv[1]).read_text()
assert text.startswith("#cloud-config\n"), "it does not begin as cloud-config does"
told = yaml.safe_load(text)
files = {file["path"]: base64.b64decode(file["content"], validate=True) for file in told["write_files"]}
assert all(file["encoding"] == "b64" and file["permissions"] == "0640" for file in told["write_files"])
names = {path.rsplit("/", 1)[1] for path in files}
assert names == {"edge.toml", "ca.pem", "node.pem", "own.key", "node.key", "store.key", "tickets.key"}, names
assert len(told["runcmd"]) == 1 and told["runcmd"][0].startswith("set -eu\n")
Path(sys.argv[2]).write_bytes(files["/etc/littoral.given/edge.toml"])
