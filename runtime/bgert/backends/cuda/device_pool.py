"""Several GPUs as one backend: each batch goes to the device that has been free longest."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING

from bgert.backends.protocol import BackendInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bgert.backends.protocol import Backend
    from bgert.batching import PackedBatch

__all__ = ["DevicePool"]


class DevicePool:
    """Backends of one model on several devices. Rows come back in the order of the batches' texts, as from one."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        infos = [backend.info for backend in backends]
        self.info = BackendInfo(
            device=",".join(info.device for info in infos),
            precision=infos[0].precision,
            engine=infos[0].engine,
            workers=sum(info.workers for info in infos),
            token_budget=min(info.token_budget for info in infos),
        )
        # Devices in turns, each as often as it takes batches at once.
        self._free: queue.SimpleQueue[Backend] = queue.SimpleQueue()
        for number in range(max(info.workers for info in infos)):
            for backend in backends:
                if number < backend.info.workers:
                    self._free.put(backend)

    def run(self, batch: PackedBatch) -> NDArray[np.float32]:
        """Packed texts to float32[B, columns], on whichever device is free."""
        backend = self._free.get()
        try:
            return backend.run(batch)
        finally:
            self._free.put(backend)
