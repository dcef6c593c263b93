"""Records in a form that processes can share."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any

import numpy as np
from torch.utils.data import Dataset


class PackedRecords(Dataset):
    """A list of records as one array of bytes; item i is a new copy of the i-th record.

    A loader's processes are forked and share the array. Of objects they would not: Python counts in
    each of them who uses it, so that its page is copied. Detectron2's DatasetFromList makes
    an array of each record first, whose memory the system does not get back.
    """

    def __init__(self, records: Iterable[Any]):
        """
        Args:
            records: what pickle takes, such as Detectron2's dataset dicts.
        """
        content, ends = bytearray(), [0]
        for record in records:
            content += pickle.dumps(record, protocol=pickle.HIGHEST_PROTOCOL)
            ends.append(len(content))
        self._content = np.frombuffer(content, np.uint8)
        self._ends = np.array(ends, np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        start, end = self._ends[index : index + 2].tolist()
        return pickle.loads(self._content[start:end].data)
