"""Bytes and text of input files, and how their faults are told."""

import gzip
import zlib
from pathlib import Path


class ReadError(ValueError):
    """A file is not what it has to be; the text names file, line and remedy.

    Parameters
    ----------
    path : Path
    line : int | None
        From 1; None where no line is at fault.
    what : str
        What is wrong.
    then : str
        How to mend it.
    """

    def __init__(self, path: Path, line: int | None, what: str, then: str) -> None:
        super().__init__(f"{path}{'' if line is None else f', line {line}'}: {what}; {then}")


def content_of(path: Path) -> bytes:
    """Return the bytes of a file, unpacked if it is gzipped; ReadError where there are none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReadError(path, None, f"cannot be read ({error.strerror})", "check the path") from error
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (EOFError, zlib.error, OSError) as error:
            raise ReadError(path, None, f"is a damaged gzip file ({error})", "copy or make it again") from error
    if not content.strip():
        raise ReadError(path, None, "is empty", "give a file with at least one history")
    return content


def text_of(path: Path, content: bytes) -> str:
    """Return the text of UTF-8 bytes; ReadError names the first line that is none."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ReadError(path, line, "is not UTF-8", "save the file as UTF-8 text") from error
