"""Numerical loops compiled by Numba.

They are written so that LLVM can vectorize them, eight values at a time, without reordering sums.
So they give the same bytes on every processor, with any number of threads. A loop is compiled on
its first call and cached in `__pycache__`, or in the user's cache folder if that is read-only.
"""

import hashlib
import pickle
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]

DIGEST_SIZE = hashlib.sha256().digest_size

if TYPE_CHECKING:  # Numba has no type annotations

    def compiled(function: Any) -> Any: ...

    inlined = compiled
else:
    import numba
    from numba.core.caching import FunctionCache, IndexDataCacheFile

    # Divide as in C, because Python's check for zero prevents vectorization.
    inlined = numba.njit(inline="always", error_model="numpy")

    def compiled(function):
        function = numba.njit(error_model="numpy", nogil=True)(function)
        with suppress(RuntimeError):  # no writable folder: compile in each process
            function._cache = Cache(function.py_func)
        return function

    class Cache(FunctionCache):
        """Numba's cache of a function, which treats an unusable file as a cache miss.

        A power failure can leave files that are empty, truncated or filled with zeros, and Numba
        would raise an error for them in every process.
        """

        def __init__(self, function):
            super().__init__(function)
            self._cache_file = CheckedFiles(
                self._cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp()
            )

        def load_overload(self, sig, target_context):
            try:
                return super().load_overload(sig, target_context)
            except Exception:  # unpickling code of another version can raise anything
                return None

        def save_overload(self, sig, data):
            with suppress(OSError):  # no space left, or the folder has become read-only
                super().save_overload(sig, data)

    class CheckedFiles(IndexDataCacheFile):
        """One file for each signature of a function, with a checksum.

        Numba writes its index and the code that the index refers to separately, so two processes
        can leave an index that points to the code of another signature.
        """

        def save(self, key, data):
            entry = self._dump((self._version, self._source_stamp, key, data))
            with self._open_for_write(self._path(key)) as file:
                file.write(hashlib.sha256(entry).digest() + entry)

        def load(self, key):
            with suppress(OSError):
                content = Path(self._path(key)).read_bytes()
                digest, entry = content[:DIGEST_SIZE], content[DIGEST_SIZE:]
                if hashlib.sha256(entry).digest() == digest:
                    *origin, data = pickle.loads(entry)
                    if origin == [self._version, self._source_stamp, key]:
                        return data
            return None

        def _path(self, key):
            signature, target, _ = key  # not the code: an edited function replaces its files
            name = hashlib.sha256(repr((signature, target)).encode()).hexdigest()[:16]
            return self._data_path(f"{Path(self._index_name).stem}.{name}.nbc")
