"""How long this machine kept its processes waiting. Bounds of time leave that out, so that other programs fail no test."""

import bisect
import threading
import time
from pathlib import Path

# Pressure Stall Information of Linux. Each file begins with the time in which at least one process waited:
# https://docs.kernel.org/accounting/psi.html
FILES = [Path('/proc/pressure') / resource for resource in ('cpu', 'io', 'memory')]
PERIOD = 0.02  # seconds between two samples


def stalled():
    """Return the seconds in which a process waited, since the machine was booted; 0 where the kernel does not count."""
    try:
        return sum(int(path.read_text().split('total=', 1)[1].split()[0]) for path in FILES) / 1e6
    except OSError:
        return 0.0


class Pressure:
    """Samples, in a thread, how long processes waited."""

    def __init__(self):
        self._times, self._stalls = [time.time()], [stalled()]
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self):
        while True:
            time.sleep(PERIOD)
            self._times.append(time.time())
            self._stalls.append(stalled())

    def seconds(self, begin, end):
        """Return the seconds between two times, without those in which a process of this machine waited.

        :param float begin: as of :func:`time.time`
        :param float end: as of :func:`time.time`
        :rtype: float
        """
        first = max(bisect.bisect_right(self._times, begin) - 1, 0)
        last = bisect.bisect_left(self._times, end)
        waited = (self._stalls[last] if last < len(self._stalls) else stalled()) - self._stalls[first]
        return end - begin - min(max(waited, 0), end - begin)


seconds = Pressure().seconds
