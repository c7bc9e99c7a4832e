"""Many files as one object: a tar that is packed during its upload and checked during its download."""

import shutil
import tarfile
from pathlib import Path
from typing import Any, Final

from clepdg.store.record import Damaged, Record
from clepdg.store.tar_reader import read_members

TAR: Final = "files.tar"
OVERHEAD: Final = 8192  # bytes of headers and padding of one member


def pack(folder: Path, record: Record, sink: Any) -> None:
    """Pack a record's files into a binary file and close it.

    After an error the file is discarded.
    """
    try:
        with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for name, (size, _) in record.files.items():
                member = tarfile.TarInfo(name)
                member.size = size
                with (folder / name).open("rb") as file:
                    tar.addfile(member, file)
    except BaseException:
        sink.discard()
        raise
    sink.close()


def unpack(source: Any, record: Record, folder: Path) -> None:
    """Unpack a record's files, and only these, into a folder.

    Raises:
        Damaged: the tar holds anything else. The caller checks the bytes of the files.
    """
    waiting = {name: size for name, (size, _) in record.files.items()}
    with source:
        if source.size > record.bytes + OVERHEAD * (len(waiting) + 2):
            raise Damaged(f"{TAR}: {source.size} bytes")
        try:
            for member in read_members(source):
                name = member.info.name
                if member.data is None or waiting.pop(name, None) != member.info.size:
                    raise Damaged(f"{TAR} holds {name[:200]!r}, which is not of the output")
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with (folder / name).open("xb") as file:
                    shutil.copyfileobj(member.data, file, 1 << 20)
        except (tarfile.TarError, EOFError, ValueError, RecursionError) as error:
            raise Damaged(f"{TAR} is damaged: {error}") from error
    if waiting:
        raise Damaged(f"{TAR} lacks {next(iter(waiting))!r}")
