"""Child processes of multiprocessing that end with their parent."""

import multiprocessing
import os
import threading


def exit_with_parent() -> None:
    """End this process when its parent ends, also after kill -9.

    A thread waits for the parent. The kernel's own signal would come as soon as the parent's thread ends that started
    this process. No clean-up is needed: every file that a stage writes is whole or absent.
    """
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
