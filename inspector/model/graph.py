"""One CUDA graph from a picture on the host to its answer on the host, captured by hand."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspector.model.preprocess import Image

FIRST = -1  # priority of the stream, before the 0 of a training's
RUNS = 3  # before the capture: kernels are chosen and caches filled


class Line:
    """What the graphs of one engine share, for one thread replays them one after the other: a stream, on
    which no other engine works while one is captured, and the memory in between upload and read-back.
    """

    def __init__(self, device: torch.device):
        self.stream = torch.cuda.Stream(device, FIRST)  # type: ignore[no-untyped-call]  # not annotated
        self.pool = torch.cuda.graph_pool_handle()


class Replay:
    """What infer does to pixels of one kind: upload, kernels and read-back, launched at once.

    infer: pixels on the device -> float32 there; it must not look at what it computes. One thread
    captures and replays. Buffers on the host are pinned; all buffers stay where they are.
    """

    def __init__(
        self, infer: Callable[[Tensor], Tensor], pixels: Tensor, device: torch.device, line: Line
    ) -> None:
        self.sent = pixels.pin_memory()
        self.pixels = pixels.to(device)
        self.stream = line.stream
        self.done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self.stream):
            for _ in range(RUNS):
                answer = infer(self.pixels)
            self.received = torch.empty(answer.shape, pin_memory=True)
        self.stream.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            self.graph, pool=line.pool, stream=self.stream, capture_error_mode="thread_local"
        ):
            self.pixels.copy_(self.sent, non_blocking=True)
            self.received.copy_(infer(self.pixels), non_blocking=True)

    def __call__(self, image: Image) -> tuple[NDArray[np.float32], float]:
        """The answer for this picture, and when it was there (perf_counter)."""
        self.sent.numpy()[...] = image
        self.again()
        there = time.perf_counter()
        return self.received.numpy().copy(), there

    def again(self) -> None:
        """The same picture once more."""
        with torch.cuda.stream(self.stream):
            self.graph.replay()
            self.done.record()
        self.done.synchronize()
