"""A real S3 server: Ceph's radosgw over one monitor and one storage daemon in memory.

Debian has them: radosgw ceph-mon ceph-osd. They are looked for on the PATH, or below TEST_CEPH, where
`dpkg -x` put them without installing anything.
"""

import os
import shutil
import socket
import subprocess
import time
import uuid
from pathlib import Path

PROGRAMS = ("radosgw", "radosgw-admin", "ceph", "ceph-mon", "ceph-osd", "monmaptool")
CONFIG = """
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{mon_port}
auth cluster required = none
auth service required = none
auth client required = none
run dir = {folder}
admin socket = {folder}/$name.asok
pid file = {folder}/$name.pid
log file = {folder}/$name.log
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd crush chooseleaf type = 0
mon allow pool size one = true
plugin dir = {libraries}/ceph
erasure code dir = {libraries}/ceph/erasure-code
osd class dir = {libraries}/rados-classes
[mon]
mon data = {folder}/mon
[osd]
osd objectstore = memstore
osd data = {folder}/osd
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw data = {folder}/rgw
"""


def missing() -> str | None:
    """Return why no server can be started here; None where one can."""
    lacking = [name for name in PROGRAMS if shutil.which(name, path=_environment()["PATH"]) is None]
    return f"no {', '.join(lacking)}: apt-get install radosgw ceph-mon ceph-osd ceph-common" if lacking else None


def _root() -> Path:
    return Path(os.environ.get("TEST_CEPH", "/"))


def _environment() -> dict[str, str]:
    root = _root()
    if root == Path("/"):
        return dict(os.environ)
    libraries = root / "usr/lib/x86_64-linux-gnu"
    return {
        **os.environ,
        "PATH": f"{root / 'usr/bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{libraries}:{libraries / 'ceph'}:{root / 'lib/x86_64-linux-gnu'}",
        "PYTHONPATH": str(root / "usr/lib/python3/dist-packages"),
    }


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Ceph:
    """A cluster of its own below a folder; user and key are both `none`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.environment = folder, _environment()
        self.processes: list[subprocess.Popen[bytes]] = []
        mon_port, port = _free_port(), _free_port()
        self.url = f"http://127.0.0.1:{port}"
        libraries = _root() / "usr/lib/x86_64-linux-gnu"
        fsid, disk = str(uuid.uuid4()), str(uuid.uuid4())
        for name in ("mon", "osd", "rgw"):
            (folder / name).mkdir()
        text = CONFIG.format(fsid=fsid, mon_port=mon_port, port=port, folder=folder, libraries=libraries)
        (folder / "ceph.conf").write_text(text)
        try:
            self.run("monmaptool", "--create", "--addv", "a", f"v1:127.0.0.1:{mon_port}", "--fsid", fsid, "monmap")
            self.run("ceph-mon", "-c", "ceph.conf", "-i", "a", "--mkfs", "--monmap", "monmap")
            self.start("ceph-mon", "-i", "a")
            self.ceph("osd", "new", disk, "0")
            self.run("ceph-osd", "-c", "ceph.conf", "-i", "0", "--mkfs", "--osd-uuid", disk)
            self.start("ceph-osd", "-i", "0")
            user = ("user", "create", "--uid", "lab", "--display-name", "lab")
            keys = ("--access-key", "none", "--secret", "none")
            self.run("radosgw-admin", "-c", "ceph.conf", "-n", "client.rgw", *user, *keys)
            self.start("radosgw", "-n", "client.rgw")
            self._wait(port)
        except BaseException:
            self.stop()
            raise

    def run(self, *words: str) -> None:
        """Run a command to its end."""
        subprocess.run(words, cwd=self.folder, env=self.environment, check=True, capture_output=True, timeout=120)

    def ceph(self, *words: str) -> None:
        """Ask the monitor, which Python's bindings of Debian do."""
        self.run(
            "/usr/bin/python3", str(shutil.which("ceph", path=self.environment["PATH"])), "-c", "ceph.conf", *words
        )

    def start(self, *words: str) -> None:
        """Start a daemon in the foreground of a child process."""
        log = (self.folder / f"{words[0]}.out").open("wb")
        asked = [words[0], "-c", "ceph.conf", *words[1:], "-f"]
        self.processes.append(subprocess.Popen(asked, cwd=self.folder, env=self.environment, stdout=log, stderr=log))

    def _wait(self, port: int) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.2)
        raise TimeoutError((self.folder / "radosgw.out").read_text()[-1000:])

    def stop(self) -> None:
        """End the daemons, the gateway first."""
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)
