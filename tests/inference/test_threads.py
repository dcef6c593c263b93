"""The number of threads, set for a while."""

import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import torch

from topformer_d2.inference.threads import threads


def test_overlapping_calls_leave_the_number_of_threads():
    before = torch.get_num_threads(), cv2.getNumThreads()
    first_in, second_in, first_out = (threading.Event() for _ in range(3))

    def second():
        first_in.wait(60)
        with threads(1):
            second_in.set()
            first_out.wait(60)
        return torch.get_num_threads()

    try:
        torch.set_num_threads(2)
        cv2.setNumThreads(2)
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(second)
            with threads(1):
                first_in.set()
                assert second_in.wait(60)
                with threads(3):
                    assert torch.get_num_threads() == 3
                assert torch.get_num_threads() == 1
            first_out.set()
            assert other.result() == 2
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, 2)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
