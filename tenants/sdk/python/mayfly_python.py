# SPDX-License-Identifier: MIT OR Apache-2.0
"""The checks of the SDK and the hook on an interpreter. Imported first, so that one that is too old is reported."""

import ctypes
import sys

__all__ = ["show_openssl"]

_NEEDED = (3, 9)

if sys.version_info < _NEEDED:
    raise RuntimeError(
        "Mayfly's SDK and hook for Python need Python %d.%d or newer; this is %d.%d.%d" % (_NEEDED + tuple(sys.version_info[:3]))
    )


def show_openssl():
    """Makes the OpenSSL that `ssl` uses visible to the whole process, where the library looks for it.

    Returns False if the interpreter has none. Warns if it has one that cannot be reached, so that its random bytes
    would repeat.
    """
    try:
        import _ssl
    except ImportError:
        return False
    name = "libcrypto.so.3" if _ssl.OPENSSL_VERSION_INFO >= (3,) else "libcrypto.so.1.1"
    try:
        library = ctypes.CDLL(name, ctypes.RTLD_GLOBAL)
    except OSError:
        library = ctypes.CDLL(None)  # It may be part of the interpreter.
    if not hasattr(library, "RAND_set_rand_method"):
        print(
            "mayfly: %s of this Python (%s) is in no library of its own: what `ssl` draws will repeat in each request"
            % (_ssl.OPENSSL_VERSION, sys.executable),
            file=sys.stderr,
        )
        return False
    return True
