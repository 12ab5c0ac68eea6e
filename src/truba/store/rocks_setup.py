"""How RocksDB is opened here, with which bounds, and what its errors mean.

Nothing here knows of sessions. RocksDB's Python binding raises plain `Exception` with RocksDB's own text; the text is
read in this one place.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from rocksdict import (
    AccessType,
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteOptions,
)

from truba.errors import DataDamaged, DataForeign, DataLocked, TrubaError
from truba.store.mark import NAME, sync_directory

MEMORY_BYTES = 96 << 20
"""Cache of table blocks, indexes and filters included: bounds what ten million sleeping sessions cost."""

_UNFINISHED = ("LOCK", "LOG", "IDENTITY", "MANIFEST-", "OPTIONS-", "rocksdict-config.json", NAME)
"""What a process may leave that died before RocksDB's first start was over (and `*.dbtmp`, `*.log`)."""


def claim(directory: Path) -> int:
    """Make the directory if it is missing and hold it: a descriptor that keeps the claim until it is closed.

    RocksDB's own lock is taken too late: opening for inspection does without, and it allows a process twice.
    """
    if not directory.exists():
        directory.mkdir(mode=0o700, parents=True)
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except NotADirectoryError as error:
        raise DataForeign(f"{directory} is not a directory; give an empty or a new directory") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise DataLocked(f"store {directory} is open already, in another process or in this one") from None
    except BaseException:
        os.close(handle)
        raise
    return handle


def holds_database(directory: Path) -> bool:
    """Whether there is a database; if not, whether one may be made here: DataForeign or DataDamaged when it may not."""
    names = sorted(entry.name for entry in directory.iterdir())
    if "CURRENT" in names:
        return True
    if tables := [name for name in names if name.endswith(".sst")]:
        raise DataDamaged(f"store {directory} has tables ({tables[0]}) but its file CURRENT is missing: restore it")
    for name in names:
        if not name.startswith(_UNFINISHED) and not name.endswith((".dbtmp", ".log")):
            raise DataForeign(f"{directory} holds {name}, which truba did not write: give an empty or a new directory")
    return False


def open_database(directory: Path, memory_bytes: int, *, read_only: bool = False) -> Rdict:
    """Open the database, or make it. Read-only: no file of its state is changed, none deleted."""
    # The write-ahead log that RocksDB always makes is empty here, hence error_if_log_file_exist=False.
    access = AccessType.read_only(False) if read_only else AccessType.read_write()
    if not (directory / "CURRENT").exists():
        # Whoever made the directory may have been killed before its name was durable: where a database is, it is.
        sync_directory(directory.parent)
    try:
        return Rdict(str(directory), _options(memory_bytes), access_type=access)
    except Exception as error:
        raise translated(error, directory) from error


def no_wal() -> WriteOptions:
    options = WriteOptions()
    options.disable_wal = True  # type: ignore[method-assign, assignment] # a property; the stub says a method
    return options


def missing(error: Exception) -> bool:
    """Whether a read found no such key."""
    return str(error) == "key not found"


def translated(error: Exception, directory: Path | None = None) -> Exception:
    """The error in truba's own words."""
    if isinstance(error, (TrubaError, OSError)):
        return error
    text = str(error)
    place = f"store {directory}" if directory else "store"
    if "/LOCK:" in text:
        return DataLocked(f"{place} is open in another process, or twice in this one: {text}")
    if "No space left" in text:
        return OSError(errno.ENOSPC, f"{place}: {text}")
    # A table or manifest that is gone is reported as an I/O error; files do not vanish by themselves.
    if text.startswith(("Corruption", "Invalid argument", "Not implemented")) or "No such file" in text:
        return DataDamaged(f"{place} is damaged; restore the directory or rebuild it from the log: {text}")
    return OSError(errno.EIO, f"{place}: {text}")


def _options(memory_bytes: int) -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(Cache(memory_bytes))
    table.set_block_size(16 << 10)
    table.set_bloom_filter(10, False)
    table.set_format_version(5)
    # Indexes and filters are read in parts through the cache: their memory is bounded with it, not by the data.
    table.set_index_type(BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(True)
    table.set_metadata_block_size(4 << 10)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(False)
    table.set_pin_top_level_index_and_filter(True)

    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(table)
    options.set_paranoid_checks(True)
    options.set_max_open_files(256)
    options.set_max_file_opening_threads(2)
    options.set_max_background_jobs(2)
    options.set_write_buffer_size(16 << 20)
    options.set_max_write_buffer_number(2)
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_bytes_per_sync(1 << 20)  # so that the sync at the end of a table finds little left to write
    options.set_max_manifest_file_size(16 << 20)
    options.set_manifest_preallocation_size(64 << 10)
    # RocksDB's diary, for experts: kept small.
    options.set_max_log_file_size(1 << 20)
    options.set_keep_log_file_num(2)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    return options
