# SPDX-License-Identifier: MIT OR Apache-2.0
"""A file system that stops to answer, as that of a server which is gone: FUSE, spoken here.

It needs root, and FUSE in the kernel. While it does not answer it does not take what it is asked, either: Linux lets no
signal end a wait for what a FUSE server has taken.
"""

import ctypes
import errno
import os
import select
import stat
import struct
import tempfile
import threading
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
FUSE_DEVICE = os.makedev(10, 229)
MS_NOSUID, MS_NODEV, MNT_FORCE, MNT_DETACH = 2, 4, 1, 2

# <linux/fuse.h>
LOOKUP, FORGET, GETATTR, OPEN, READ, STATFS, RELEASE, FLUSH, INIT = 1, 2, 3, 14, 15, 17, 18, 25, 26
OPENDIR, READDIR, RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET = 27, 28, 29, 36, 38, 42
IN_HEADER = struct.Struct("<IIQQIIII")
OUT_HEADER = struct.Struct("<IiQ")
ROOT = 1

TIMEOUT_S = 45


class HangingFileSystem:
    """A directory with these files (contents by name). It answers until hold() is called, and again after answer()."""

    def __init__(self, files):
        self.files = dict(files)
        self._changed = threading.Condition()
        self._holds = self._is_over = False
        self._version = 1
        self._open = 0  # Files that are open.

    def __enter__(self):
        self._parent = tempfile.TemporaryDirectory(prefix="mayfly-far-")
        self.directory = Path(self._parent.name) / "far"
        self.directory.mkdir()
        # A container's /dev need not have it.
        device = Path(self._parent.name) / "fuse"
        os.mknod(device, 0o600 | stat.S_IFCHR, FUSE_DEVICE)
        try:
            self._fd = os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except PermissionError:  # The directory's file system has no devices.
            self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        options = f"fd={self._fd},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},allow_other"
        if LIBC.mount(b"far", bytes(self.directory), b"fuse.far", MS_NOSUID | MS_NODEV, options.encode()) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"cannot mount FUSE, which this test needs: {os.strerror(code)}")
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_):
        # Ends all that wait, with an error, and the thread.
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        LIBC.umount2(bytes(self.directory), MNT_FORCE | MNT_DETACH)
        self._thread.join()
        os.close(self._fd)
        self._parent.cleanup()

    def write(self, name, content):
        """Another file by that name."""
        with self._changed:
            self.files[name] = content
            self._version += 1

    def hold(self):
        """Answers nothing from now on, which begins while no file is open: a process that ends tells the file system
        that it closes its files, and Linux lets no signal end its wait for the answer to that.
        """
        with self._changed:
            is_closed = self._changed.wait_for(lambda: self._holds or self._open == 0, TIMEOUT_S)
            assert is_closed, f"{self._open} files stay open"
            self._holds = True

    def answer(self):
        """Answers what was asked meanwhile, and all that comes."""
        with self._changed:
            self._holds = False
            self._changed.notify_all()

    def is_asked(self):
        """Whether something waits for an answer."""
        return bool(select.select([self._fd], [], [], 0)[0])

    def _serve(self):
        while True:
            select.select([self._fd], [], [])
            with self._changed:
                self._changed.wait_for(lambda: not self._holds or self._is_over)
                try:
                    request = os.read(self._fd, 1 << 18)
                except OSError as error:
                    if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                        continue
                    return  # ENODEV: it is unmounted.
                self._answer(request)

    def _answer(self, request):
        length, opcode, unique, node, *_ = IN_HEADER.unpack_from(request)
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT, DESTROY):
            return
        if opcode == OPEN:
            self._open += 1
        if opcode == RELEASE:
            self._open -= 1
            self._changed.notify_all()
        try:
            error, body = 0, self._reply(opcode, node, request[IN_HEADER.size : length])
        except OSError as refused:
            error, body = -refused.errno, b""
        try:
            os.write(self._fd, OUT_HEADER.pack(OUT_HEADER.size + len(body), error, unique) + body)
        except OSError:
            pass  # The client is gone.

    def _reply(self, opcode, node, body):
        if opcode == INIT:
            return struct.pack("<IIIIHHIIHHI28x", 7, 31, 65536, 0, 16, 12, 1 << 17, 1, 0, 0, 0)
        if opcode == LOOKUP:
            name = body.rstrip(b"\0").decode()
            if node != ROOT or name not in self.files:
                raise OSError(errno.ENOENT, name)
            # Nothing is remembered: each look asks again.
            return struct.pack("<QQQQII", self._node(name), 0, 0, 0, 0, 0) + self._attributes(self._node(name))
        if opcode == GETATTR:
            return struct.pack("<QII", 0, 0, 0) + self._attributes(node)
        if opcode in (OPEN, OPENDIR):
            return struct.pack("<QII", 0, 0, 0)
        if opcode == READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            return self._content(node)[offset : offset + size]
        if opcode == STATFS:
            return struct.pack("<QQQQQIIII24x", 0, 0, 0, 0, 0, 4096, 255, 4096, 0)
        if opcode in (RELEASE, RELEASEDIR, FLUSH, READDIR):
            return b""
        raise OSError(errno.ENOSYS, "not served")

    def _node(self, name):
        # A file with other content is another file.
        return 2 + self._version * 100 + sorted(self.files).index(name)

    def _content(self, node):
        return self.files[sorted(self.files)[(node - 2) % 100]]

    def _attributes(self, node):
        mode, size = (stat.S_IFDIR | 0o755, 0) if node == ROOT else (stat.S_IFREG | 0o755, len(self._content(node)))
        times = (self._version,) * 3
        return struct.pack("<QQQQQQIIIIIIIIII", node, size, size // 512, *times, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
