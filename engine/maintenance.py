"""The maintenance of the queue in one database: due jobs, orphans, children, misplaced jobs, stuck modules."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from odoo.modules.loading import reset_modules_state

from .claim import HERE, IS_UPGRADING, LIMITED, NOW, READY, SERVED, UPGRADING
from .connection import LIVE_SESSIONS
from .job import PORTION, PUBLISHED, Swept
from .notifier import notifier

if TYPE_CHECKING:
    from .channels import Channels
    from .claim import Claim
    from .dependencies import Dependencies
    from .rescue import Rescue
    from .session import Session

_logger = logging.getLogger(__name__)

LOOK_INTERVAL = 1  # seconds between two looks while anything is processing
SWEEP_INTERVAL = 1  # minimum seconds between two sweeps
# Seconds between two sweeps that nothing asked for: a worker may die between a job and its children.
BUSY_SWEEP_INTERVAL = 10
WARNING_INTERVAL = 60  # seconds between two warnings about modules
FLUX_TIME = 10  # seconds that a job waits before the first warning: most upgrades are over by then
STUCK_TIME = 5 * 3600  # seconds after which modules in flux count as left over, as for Odoo's crons

DATED = f"state = 'created' AND date_scheduled IS NOT NULL AND {HERE}"
LOOK = f"""
    SELECT ARRAY(SELECT id FROM ir_async_worker WHERE closed IS NOT TRUE AND id NOT IN ({LIVE_SESSIONS})),
           $1 OR EXISTS (SELECT FROM ir_async WHERE state = 'processing' AND {HERE}),
           EXISTS (SELECT FROM ir_async WHERE state = 'waiting' AND {HERE}),
           EXISTS (SELECT FROM ir_async WHERE {READY} AND limited AND {SERVED}),
           EXISTS ({LIMITED}),
           $1 OR EXISTS (SELECT FROM ir_async WHERE {READY} AND NOT limited AND {SERVED}),
           (SELECT EXTRACT(EPOCH FROM date_scheduled - {NOW}) FROM ir_async
             WHERE {DATED} ORDER BY date_scheduled LIMIT 1),
           {IS_UPGRADING}
"""
# Urgent jobs first, since a portion may be all that a worker with long jobs stages for a while. The query jumps in the index
# from one priority to the next: see `ALL_HEADS`.
STAGE = f"""
    WITH RECURSIVE level AS (
        (SELECT priority FROM ir_async WHERE {DATED} ORDER BY priority LIMIT 1)
         UNION ALL
        SELECT next.*
          FROM level
    CROSS JOIN LATERAL (
            SELECT priority FROM ir_async WHERE {DATED} AND priority > level.priority ORDER BY priority LIMIT 1
        ) next
    ),
    due AS (
        SELECT job.id
          FROM level
    CROSS JOIN LATERAL (
            SELECT id
              FROM ir_async
             WHERE {DATED}
               AND (priority, date_scheduled) >= (level.priority, '-infinity'::timestamp)  -- leaves the planner one index to use
               AND (priority, date_scheduled) <= (level.priority, (SELECT {NOW}))
          ORDER BY priority, date_scheduled
             LIMIT {PORTION}
        FOR NO KEY UPDATE SKIP LOCKED
        ) job
         LIMIT {PORTION}
    )
    UPDATE ir_async job SET date_scheduled = NULL WHERE job.id = ANY(ARRAY(SELECT id FROM due))
 RETURNING {PUBLISHED.replace('job.notify', 'false')}
"""
# The seconds since a job is ready and modules are in flux. A job may be much older than the change of the modules.
FLUX_AGE = f"""
    SELECT EXTRACT(EPOCH FROM {NOW} - min(greatest(create_date, (SELECT max(write_date) FROM {UPGRADING}))))
      FROM (SELECT create_date FROM ir_async WHERE {READY} AND NOT limited AND {SERVED}
             UNION ALL
            SELECT create_date FROM ir_async WHERE {READY} AND limited AND {SERVED}
               AND NOT EXISTS (SELECT FROM ir_async_channel WHERE name = split_part(channel, '/', 1) AND paused)) ready
"""

# By database: a worker with many databases keeps no session between two visits.
_next_warnings: dict[str, float] = {}


class Maintenance:
    """The work of a worker besides running jobs. A worker with nothing to claim does it at once, a busy one once a second
    as long as one look is enough.

    :param Session session: the session
    :param Claim claim: its claims of plain jobs
    :param Channels channels: its claims of limited jobs
    :param Dependencies dependencies: children
    :param Rescue rescue: jobs of dead workers
    """

    def __init__(
        self,
        session: Session,
        claim: Claim,
        channels: Channels,
        dependencies: Dependencies,
        rescue: Rescue,
    ) -> None:
        self._session = session
        self._claim = claim
        self._channels = channels
        self._dependencies = dependencies
        self._rescue = rescue
        self._owed = 2  # sweeps: one now, and a later one in case a worker dies between a job and its children
        self._dead: set[int] = set()
        self._last_sweep = float('-inf')
        self.has_waiting = True
        self.has_more = False  # whether the last call has left work for the next one
        self.is_rescuing = False

    def wake(self) -> None:
        """Owe sweeps."""
        self._owed = 2

    def maintain(self, is_busy: bool = False) -> float | None:
        """Do the due work, and return when to call again.

        :param bool is_busy: whether the worker also has jobs to run
        :return: seconds until the next call; None: not before a NOTIFY
        :rtype: float | None
        """
        [[dead, processing, waiting, limited, has_limits, ready, due, upgrading]] = self._session.execute_prepared(
            'look', LOOK, self._session.params(), is_busy
        )
        # The last claim did not look for limited jobs, or left plain ones where they are for a limited one that others took meanwhile.
        is_owed_claim = (limited and not self._channels.has_jobs) or (
            ready and self._channels.is_unsure and not is_busy
        )
        self._channels.has_jobs, self._channels.is_unsure = limited, False
        self.has_waiting = waiting
        if not self._dead.issuperset(dead):
            self._owed = 2
        elif processing and not self._owed:
            self._owed = 1
        self._dead = set(dead)
        self.has_more = False
        changed, rescue_delay = self._rescue.rescue(dead) if processing else Swept()
        self.is_rescuing = rescue_delay is not None
        sweep_delay = None
        if waiting:
            swept, sweep_delay = self._sweep(processing, is_busy)
            changed |= swept
        if due is not None and due <= 0:
            changed |= (staged := self._session.change(STAGE, self._session.params()))
            self.has_more |= len(staged) == PORTION
        if ready and has_limits and not upgrading:
            changed |= (refiled := self._channels.reclassify(self._claim.parts_to_sort()))
            self.has_more |= len(refiled) == PORTION
        if upgrading and (ready or limited) and not is_busy:
            self._report_modules()
        if changed:
            notifier.notify(self._session.dbname)
        if is_owed_claim:
            self._claim.wake()
        if changed or is_owed_claim:
            return 0
        scan_delay = self._claim.next_scan and max(0.01, self._claim.next_scan - time.monotonic())
        if due is not None and due <= 0:
            due = LOOK_INTERVAL  # somebody has its row locked
        delays = [due, self._channels.slot_delay, rescue_delay, sweep_delay, scan_delay]
        if ready and not is_busy:
            self._claim.wake()  # a job is ready but was not claimed: somebody has it locked, or modules are being upgraded
        if processing or ready or self._channels.is_held_up or (limited and upgrading):
            delays.append(LOOK_INTERVAL)
        return min((float(delay) for delay in delays if delay is not None), default=None)

    def _sweep(self, processing: bool, is_busy: bool) -> Swept:
        """Sweep when it is time to."""
        now = time.monotonic()
        interval = SWEEP_INTERVAL if self._owed == 2 and not is_busy else BUSY_SWEEP_INTERVAL
        if now < self._last_sweep + interval:
            return Swept(delay=self._last_sweep + interval - now if self._owed else None)
        self._last_sweep = now
        self._owed = max(self._owed - 1, int(processing))
        changed = self._dependencies.unblock() | self._dependencies.cancel()
        if self._dependencies.has_blocked():  # somebody had their rows locked
            self._owed = 2
            return Swept(changed, SWEEP_INTERVAL)
        return Swept(changed, BUSY_SWEEP_INTERVAL if self._owed else None)

    def _report_modules(self) -> None:
        """Warn about modules in flux, since they hold jobs up. Reset those that were left over, as Odoo's crons do."""
        now = time.monotonic()
        if now < _next_warnings.get(self._session.dbname, now):
            return
        [[age]] = self._session.execute(FLUX_AGE, self._session.params())
        if age is None or age < FLUX_TIME:
            return
        _next_warnings[self._session.dbname] = now + WARNING_INTERVAL
        if age > STUCK_TIME:
            _logger.warning(
                "Jobs of database %s have waited for %d hours because of modules to install, upgrade or remove. Resetting these"
                " modules",
                self._session.dbname,
                age / 3600,
            )
            reset_modules_state(self._session.dbname)
        else:
            _logger.warning(
                "Jobs of database %s wait because of modules to install, upgrade or remove. Apply or cancel these changes in Apps",
                self._session.dbname,
            )
