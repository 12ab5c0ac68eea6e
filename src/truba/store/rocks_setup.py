"""How RocksDB is opened here, with which bounds, and what its errors mean.

Nothing here knows of sessions. RocksDB's Python binding raises plain `Exception` with RocksDB's own text; the text is
read in this one place.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from rocksdict import (
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteOptions,
)

from truba.errors import DataDamaged, DataForeign, DataLocked, TrubaError

MEMORY_BYTES = 96 << 20
"""Cache of table blocks, indexes and filters included: bounds what ten million sleeping sessions cost."""

_UNFINISHED = ("LOCK", "LOG", "IDENTITY", "MANIFEST-", "OPTIONS-", "rocksdict-config.json")
"""What RocksDB may have left when it died before its first start was over (and `*.dbtmp`, `*.log`)."""


def open_database(directory: Path, memory_bytes: int) -> Rdict:
    """Open or make the database. Errors as `RocksStore.open`; nothing that another program wrote is touched."""
    _prepare(directory)
    try:
        return Rdict(str(directory), _options(memory_bytes))
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


def _prepare(directory: Path) -> None:
    """Make the directory if it is missing; refuse one that RocksDB would take for new though it is not."""
    if not directory.exists():
        directory.mkdir(mode=0o700, parents=True)
        _sync_directory(directory.parent)
    names = sorted(entry.name for entry in directory.iterdir())
    if "CURRENT" in names:
        return
    if tables := [name for name in names if name.endswith(".sst")]:
        raise DataDamaged(f"store {directory} has tables ({tables[0]}) but its file CURRENT is missing: restore it")
    for name in names:
        if not name.startswith(_UNFINISHED) and not name.endswith((".dbtmp", ".log")):
            raise DataForeign(f"{directory} holds {name}, which truba did not write: give an empty or a new directory")


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
