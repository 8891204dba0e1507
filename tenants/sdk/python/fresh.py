# SPDX-License-Identifier: MIT OR Apache-2.0
"""Fresh randomness for an unmodified server.

    PYTHONPATH=.../sdk/python/preload python3 server.py       # or `import fresh` before anything else

The first call of a function of `random` in a request seeds their generator again. A new request shows in the 16 bytes
of AT_RANDOM (getauxval(3)), which Mayfly renews for each, so that the check costs no system call. All of OpenSSL's
random bytes then come from the system. `os.urandom`, `secrets`, `random.SystemRandom` and `uuid.uuid4` are fresh by
themselves. The program has to seed any `random.Random()` of its own. Outside Mayfly this changes nothing: the bytes
stay the same for as long as the process runs.
"""

import ctypes
import random
from pathlib import Path

from mayfly_python import show_openssl

__all__ = []

_AT_RANDOM = 25


def _token():
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.restype, getauxval.argtypes = ctypes.c_void_p, [ctypes.c_ulong]
    address = getauxval(_AT_RANDOM)
    return memoryview((ctypes.c_ubyte * 16).from_address(address)).cast("B")


class _Fresh(random.Random):
    """A generator that seeds itself from the system at its first use in each request."""

    def __new__(cls, _token):
        """Before 3.11 the base class takes a seed here, and a view has no hash."""
        return super().__new__(cls)

    def __init__(self, token):
        self._now, self._seen = token, None
        super().__init__()

    def _look(self):
        if self._now != self._seen:
            self._seen = bytes(self._now)
            super().seed()

    def seed(self, *args, **kwargs):
        """An explicit seed gives a repeatable sequence, until the next request."""
        self._seen = bytes(self._now)
        super().seed(*args, **kwargs)

    def random(self):
        self._look()
        return super().random()

    def getrandbits(self, k):
        self._look()
        return super().getrandbits(k)

    def getstate(self):
        self._look()
        return super().getstate()


def _install():
    fresh = _Fresh(_token())
    for name in random.__all__:
        if hasattr(random._inst, name) and callable(getattr(random._inst, name)) and not name[0].isupper():
            setattr(random, name, getattr(fresh, name))
    random._inst = fresh
    if show_openssl():
        ctypes.CDLL(str(Path(__file__).resolve().parent.parent / "lib/libmayfly-fresh.so"))


_install()
