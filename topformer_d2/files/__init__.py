"""Reading untrusted files safely, and writing files whole or not at all."""

from .folders import make_folder
from .locking import holding_alone, keep_holding, locked_output, waiting_for_lock
from .reading import (
    check_regular_file,
    naming_json_errors,
    parse_json,
    read_bytes,
    read_json,
    read_text,
)
from .remote import full_path, is_remote
from .room import naming_full_disks
from .stamps import Stamp, file_stamp, stamp
from .stores import ask_store, copy_from_store, fsspec_store, is_in_store, read_from_store, told
from .writing import (
    check_local_output,
    check_output,
    folder_beside,
    write_beside,
    write_json,
    writing_beside,
)

__all__ = [
    "Stamp",
    "ask_store",
    "check_local_output",
    "check_output",
    "check_regular_file",
    "copy_from_store",
    "file_stamp",
    "folder_beside",
    "fsspec_store",
    "full_path",
    "holding_alone",
    "is_in_store",
    "is_remote",
    "keep_holding",
    "locked_output",
    "make_folder",
    "naming_full_disks",
    "naming_json_errors",
    "parse_json",
    "read_bytes",
    "read_from_store",
    "read_json",
    "read_text",
    "stamp",
    "told",
    "waiting_for_lock",
    "write_beside",
    "write_json",
    "writing_beside",
]
