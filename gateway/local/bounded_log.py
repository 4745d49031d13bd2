"""A log file that cannot fill the disk: at its limit it becomes `<name>.1` and a new one begins."""

from pathlib import Path

LIMIT_BYTES = 8 * 1024 * 1024
TAIL_BYTES = 4096


class BoundedLog:
    """Appends bytes to `path`; keeps at most two files of `limit` bytes and a little each."""

    def __init__(self, path: Path, *, limit: int = LIMIT_BYTES) -> None:
        self.path = path
        self._limit = limit
        self._file = path.open("ab", buffering=0)
        self._size = path.stat().st_size

    def write(self, data: bytes) -> None:
        """Append, beginning a new file first if this one is full."""
        if self._size >= self._limit:
            self._file.close()
            self.path.replace(self.path.with_name(self.path.name + ".1"))
            self._file = self.path.open("ab", buffering=0)
            self._size = 0
        self._file.write(data)
        self._size += len(data)

    def last_line(self) -> str:
        """The last line that is not blank, or an empty string."""
        text = self.path.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else ""

    def close(self) -> None:
        """Give the file back."""
        self._file.close()
