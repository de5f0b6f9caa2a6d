from __future__ import annotations

import signal
import threading

from seval.signals import listening


def test_only_the_main_thread_listens():
    heard = []

    def listen():
        with listening() as stop:
            heard.append((stop(), signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert heard == [(False, before)]
