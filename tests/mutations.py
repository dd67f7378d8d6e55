"""Faults to plant in the code, each with the tests that must find it: see script/mutate."""

from typing import NamedTuple


class Fault(NamedTuple):
    """A change of one place of the code that breaks a promise of the queue."""

    name: str
    path: str  # of the file
    old: str  # a text that the file has exactly once
    new: str
    tests: tuple[str, ...]  # in the folder of this file

    def plant(self, source):
        """Return the source with the fault.

        :param str source: the text of the file
        :rtype: str
        :raises ValueError: if the file has the old text never or more than once
        """
        if (count := source.count(self.old)) != 1:
            msg = f"{self.path} has {self.old!r} {count} times"
            raise ValueError(msg)
        return source.replace(self.old, self.new)


def _faults(path, *rows):
    return [Fault(name, path, old, new, tests) for name, old, new, *tests in rows]


CHANNEL = 'test_channel.py::TestChannel::'
FORGET = 'test_connection.py::TestForget::'
FENCE = 'test_connection.py::TestFence::'
LEFT = f'{FORGET}test_whatever_a_job_did'
RETRY = 'test_retry.py::TestRetry::'
AFTER = 'test_after.py::TestAfter::'
MARKS = 'test_claim.py::TestMarks::'
MAINTENANCE = 'test_maintenance.py::TestMaintenance::'
DATABASES = 'test_databases.py::TestDatabases::'
DEATHS = 'test_deaths.py::TestDeaths::'
SETBACK = 'test_failure.py::TestSetback::'
BATCH = 'test_batch.py::TestBatch::'
WATCHDOG = 'test_batch.py::TestWatchdog::'
RETENTION = 'test_retention.py::TestRetention::'
LISTENER = 'test_listener.py::TestListener::'
ROSTER = 'test_roster.py::TestRoster::'
LOOKOUT = 'test_lookout.py::TestLookout::'
ORDERS = 'system/interleaving_test.py::test_all_orders'

FAULTS = [
    *_faults(
        'engine/fence.py',
        ('fence without claim number', ' AND job.claim_number = %(claim_number)s"', '"',
         f'{RETRY}test_what_is_fenced_off_commits_nothing_more'),
        ('fence without worker id', ' AND job.worker_id = %(worker_id)s AND', ' AND',
         f'{RETRY}test_a_death_while_it_was_stopped_is_not_charged'),
        ('commit in a job does not lock its row', '{HELD} FOR NO KEY UPDATE"', '{HELD}"', f'{ORDERS}[CommitRescue]'),
        ('outcome leaves the worker id', 'worker_id = NULL,', '', f'{FENCE}test_the_end'),
        ('outcome leaves the revision', 'revision = revision + 1,', '', f'{FENCE}test_the_end'),
        ('outcome without fence', 'END\n     WHERE {HELD}\n RETURNING', 'END\n     WHERE job.id = %(id)s\n RETURNING',
         f'{FENCE}test_the_end_of_a_job_that_is_lost'),
        ('fencing off keeps the claim number', 'SET claim_number = claim_number + 1 WHERE', 'SET claim_number = claim_number WHERE', f'{ORDERS}[FinishStop]'),
        ('fencing off is not durable', 'session.execute(DURABLE + RAISE', 'session.execute(RAISE',
         f'{RETRY}test_what_a_crash_of_postgresql_must_not_undo'),
    ),
    *_faults(
        'engine/claim.py',
        ('claim waits for locked jobs', 'FOR NO KEY UPDATE SKIP LOCKED', 'FOR NO KEY UPDATE', f'{ORDERS}[ClaimCancel]'),
        ('claim locks no rows', 'FOR NO KEY UPDATE SKIP LOCKED', '', f'{ORDERS}[ClaimClaim]'),
        ('claim in the order of ids', 'ORDER BY priority, id', 'ORDER BY id',
         f'{CHANNEL}test_priority_then_order_of_creation'),
        ('claim in the reverse order of ids', 'ORDER BY priority, id', 'ORDER BY priority, id DESC',
         f'{CHANNEL}test_priority_then_order_of_creation'),
        ('batch without order', 'sorted(jobs, key=lambda job: (job.priority, job.id))', 'list(jobs)',
         f'{CHANNEL}test_one_claim_of_many_is_in_the_same_order'),
        ('claim during a pause of everything', ' AND NOT {IS_PAUSED}"', '"', f'{CHANNEL}test_pause_of_everything'),
        ('claim before the date', "state = 'created' AND date_scheduled IS NULL", "state = 'created'",
         f'{RETRY}test_nobody_takes_it_before_its_date'),
        ('claim during an upgrade', ' AND NOT {IS_UPGRADING} AND {SERVED}', ' AND {SERVED}',
         f'{MAINTENANCE}test_modules_in_flux_hold_jobs_up_and_that_is_said'),
        ('claim of copied jobs', 'SERVED = f"{HERE} AND (', 'SERVED = f"(', 'test_origin.py::TestOrigin::test_nothing_is_claimed'),
        ('claim in channels of other workers', "%(channels)s = '{{}}' OR", "true OR", f'{CHANNEL}test_a_workers_channels'),
        ('claim without a new number', 'claim_number = job.claim_number + 1', 'claim_number = job.claim_number',
         'test_claim.py::TestClaimOne::test_each_claim_is_one_of_a_kind'),
        ('plain claim in a channel that got limits', 'NOT limited AND NOT {IS_LIMITED}', 'NOT limited',
         f'{CHANNEL}test_limits_that_come_after_the_jobs'),
        ('claim of one job in any state', "job.id = %(job_id)s AND job.state = 'created'", 'job.id = %(job_id)s',
         'test_claim.py::TestClaimOne::test_all_that_running_it_takes_is_read'),
        ('claim of one copied job', "job.state = 'created' AND {HERE}", "job.state = 'created'",
         'test_origin.py::TestOrigin::test_nothing_is_claimed'),
        ('released jobs stay below the mark', 'priority: min(mark, *ids)', 'priority: mark',
         f'{MARKS}test_what_this_worker_puts_back_is_found'),
        ('wake-up owes no full scan', 'full scan."""\n        self._is_owed = True', 'full scan."""',
         f'{MARKS}test_what_is_below_comes_with_a_wake_up'),
        ('owed scan is not announced', 'self._last_scan + SCAN_INTERVAL if self._is_owed', 'None if self._is_owed',
         f'{MARKS}test_a_worker_sleeps_no_longer_than_until_the_scan_that_is_owed'),
    ),
    *_faults(
        'engine/channels.py',
        ('capacity plus one', 'limits.capacity <= coalesce((', 'limits.capacity < coalesce((', f'{CHANNEL}test_capacity'),
        ('capacity without lock', 'SELECT pg_advisory_xact_lock({CHANNEL_LOCK_CLASS}, hashtext(%(channel)s))', 'SELECT 1',
         f'{ORDERS}[CapacityCapacity]'),
        ('interval from the first job', 'max(date_start)', 'min(date_start)', f'{CHANNEL}test_interval'),
        ('claim in a paused channel', 'WHEN limits.paused THEN', 'WHEN false THEN', f'{CHANNEL}test_pause_and_resume'),
        ('limited jobs come before plain ones', 'not (is_first or even_after_plain)', 'False',
         f'{CHANNEL}test_order_is_kept_between_channels_with_and_without_limits'),
        ('limited claim waits for locked jobs', 'LIMIT 1\n    FOR NO KEY UPDATE SKIP LOCKED', 'LIMIT 1\n    FOR NO KEY UPDATE',
         f'{ORDERS}[LimitedClaimCancel]'),
        ('limited claim locks no rows', 'LIMIT 1\n    FOR NO KEY UPDATE SKIP LOCKED', 'LIMIT 1',
         f'{ORDERS}[LimitedClaimCancel]'),
        ('copied jobs use the capacity', "state = 'processing' AND {HERE} GROUP BY", "state = 'processing' GROUP BY",
         'test_origin.py::TestOrigin::test_nothing_is_claimed'),
    ),
    *_faults(
        'engine/dependencies.py',
        ('child begins before its parents have ended', ' AND {HAS_NO_UNMET}\n    FOR', '\n    FOR', f'{AFTER}test_group'),
        ('child begins before a late parent', ' AND late_parent_ids IS NULL AND', ' AND',
         f'{AFTER}test_children_wait_for_late_parents'),
        ('child begins after a failed parent', "(%(parents)s::int[]) AND {STATE_OF_PARENT} IN ('succeeded', 'done')", '(%(parents)s::int[])',
         f'{AFTER}test_children_of_a_parent_that_is_tried_again_wait'),
        ('sweep unblocks the child of a failed parent', "{UNMET_OF_CHILD} AND {STATE_OF_PARENT} IN ('succeeded', 'done')\n", '{UNMET_OF_CHILD}\n',
         f'{AFTER}test_children_of_a_failed_parent_wait_until_it_is_retried_well'),
        ('unblocking waits for locked dependencies', "IN ('succeeded', 'done')\n    FOR NO KEY UPDATE SKIP LOCKED", "IN ('succeeded', 'done')\n    FOR NO KEY UPDATE",
         f'{ORDERS}[UnblockSweep]'),
        ('sweep unblocks nothing', '''+ UNBLOCK.format(children="state = 'waiting'")''', "+ UNBLOCK.format(children='false')", f'{ORDERS}[UnblockUnblock]'),
        ('unblocking locks no rows', 'AND {HAS_NO_UNMET}\n    FOR NO KEY UPDATE SKIP LOCKED', 'AND {HAS_NO_UNMET}',
         f'{ORDERS}[UnblockCancel]'),
        ('unblocking a child that does not wait', 'children=f"{CHILDREN} AND {WAITS}")\nHAS', 'children=CHILDREN)\nHAS',
         f'{AFTER}test_children_of_a_cancelled_parent_are_cancelled', f'{AFTER}test_unblock_is_idempotent'),
        ('cancelled parent leaves its children', 'changed = cancelled = self._session.change(CANCEL_ALL, self._session.params())',
         'changed = cancelled = set()', f'{AFTER}test_children_of_a_cancelled_parent_are_cancelled'),
    ),
    *_faults(
        'engine/rescue.py',
        ('no grace', 'GRACE = 0.7', 'GRACE = 0', f'{RETRY}test_the_report_of_a_death_has_its_time'),
        ('rescue of live jobs', ' AND job.worker_id NOT IN ({LIVE_SESSIONS})"', '"',
         f'{RETRY}test_a_live_session_keeps_its_jobs'),
        ('rescue of copied jobs', 'WHERE {IS_ORPHAN} AND {HERE} AND', 'WHERE {IS_ORPHAN} AND',
         'test_origin.py::TestOrigin::test_nothing_is_claimed'),
        ('rescue waits for locked jobs', 'FOR NO KEY UPDATE SKIP LOCKED', 'FOR NO KEY UPDATE', f'{ORDERS}[RescueRescue]'),
        ('rescue locks no rows', 'FOR NO KEY UPDATE SKIP LOCKED', '', f'{ORDERS}[FinishRescue]'),
        ('rescue charges a stop', ' AND worker_id = ANY(%(killed)s::int[])', '',
         f'{RETRY}test_cron_a_stop_of_the_server_is_no_death'),
        ('rescue charges who did not begin', 'deaths + ({IS_BEGUN} AND ', 'deaths + (',
         f'{RETRY}test_cron_who_waits_for_another_one_is_not_charged'),
        ('grace begins anew', 'before.get(worker_id, now)', 'now', f'{RETRY}test_the_report_of_a_death_has_its_time'),
        ('no full rescue', 'is_full = now >=', 'is_full = False and now >=', f'{RETRY}test_a_session_that_left_no_trace'),
        ('death is not charged', 'SET deaths = deaths + (NOT EXISTS (SELECT FROM ir_async_stop WHERE job_id = job.id))::int,',
         'SET', f'{RETRY}test_deaths_are_counted_apart'),
        ('death while it was stopped is charged', 'SET deaths = deaths + (NOT EXISTS (SELECT FROM ir_async_stop WHERE job_id = job.id))::int,',
         'SET deaths = deaths + 1,', f'{RETRY}test_a_death_after_a_stop_request_is_not_charged'),
        ('death of a job that ended', " AND state IN ('created', 'processing')", '', f'{RETRY}test_what_ended_is_not_charged'),
        ('death takes the job from the next worker', 'held="worker_id = %(worker_id)s AND claim_number = %(claim_number)s"',
         'held="true"', f'{RETRY}test_a_death_is_charged_once'),
        ('job is taken over twice', "SET worker_id = %(worker_id)s\n     WHERE id = %(id)s AND state = 'processing' AND worker_id = %(from_worker_id)s",
         "SET worker_id = %(worker_id)s\n     WHERE id = %(id)s AND state = 'processing'",
         f'{RETRY}test_a_death_while_it_was_stopped_is_not_charged'),
    ),
    *_faults(
        'engine/release.py',
        ("release of others' jobs", "WHERE id = ANY(%(ids)s::int[]) AND worker_id = %(worker_id)s", "WHERE id = ANY(%(ids)s::int[])",
         f'{RETRY}test_release_is_for_ones_own_jobs'),
        ('release of a job that was fenced off', 'AND claim_number = (\n', 'AND 0 != (\n',
         f'{RETRY}test_what_is_fenced_off_is_not_put_back'),
        ('release waits for locked jobs', 'FOR NO KEY UPDATE SKIP LOCKED', 'FOR NO KEY UPDATE', f'{ORDERS}[ReleaseRelease]'),
        ('release locks no rows', 'FOR NO KEY UPDATE SKIP LOCKED', '', f'{ORDERS}[ReleaseRescue]'),
        ('release without delay', "'delay': delay,", "'delay': None,", f'{RETRY}test_release_for_later'),
        ('release counts no start', "starts = starts + %(starts)s,", "", f'{RETRY}test_an_interruption_costs_nothing'),
        ('release wakes nobody', 'if released and not delay:', 'if False:', f'{RETRY}test_release_wakes_the_workers'),
    ),
    *_faults(
        'engine/maintenance.py',
        ('due jobs wake nobody', 'notifier.notify(self._session.dbname)', 'pass', f'{MAINTENANCE}test_others_are_notified_of_what_changed'),
        ('jobs are staged before their date', 'AND date_scheduled <= (SELECT {NOW}) AND', 'AND date_scheduled IS NOT NULL AND',
         'test_claim.py::TestClaimPlan::test_dated_jobs'),
        ('nobody looks after running jobs', 'if processing or ready or', 'if ready or', f'{MAINTENANCE}test_what_is_running_is_looked_at'),
        ('later sweep is forgotten', 'self._owed = max(self._owed - 1, int(processing))', 'self._owed = 0',
         f'{MAINTENANCE}test_a_later_sweep_is_owed'),
    ),
    *_faults(
        'engine/notifier.py',
        ('NOTIFY is lost', 'cr.execute(NOTIFY, [CHANNEL, dbname])', 'pass', 'test_transaction.py::TestTransaction::test_real_notify'),
        ('NOTIFY is lost with its connection', '# PostgreSQL restarted, or closed the idle connection\n                    self._send(dbname)', '',
         'test_transaction.py::TestTransaction::test_real_notify'),
    ),
    *_faults(
        'engine/registration.py',
        ('session lock is not taken', 'WHERE pg_try_advisory_lock({LOCK_CLASS}, worker_id::int)', '',
         f'{RETRY}test_a_live_session_keeps_its_jobs'),
        ('session with jobs counts as closed', " AND NOT EXISTS (SELECT FROM ir_async WHERE state = 'processing' AND worker_id = %(worker_id)s)", '',
         f'{RETRY}test_a_session_that_closes_before_its_job_has_ended'),
    ),
    *_faults(
        'engine/session.py',
        ('changes are not durable', 'self.execute(DURABLE + query, params)', 'self.execute(query, params)', f'{RETRY}test_what_a_crash_of_postgresql_must_not_undo'),
        ('check of clients that the server refuses', 'return {}  # PostgreSQL 13', 'return CLIENT_CHECK  # PostgreSQL 13',
         'system/environment_test.py::test_server_that_does_not_check_its_clients'),
        ('stop request is ignored', 'return rows[0][0] if rows else None', 'return None', f'{ORDERS}[ClaimCancel]'),
        ('control connection reads old snapshots', "isolation': 'read committed'", "isolation': 'repeatable read'",
         f'{ORDERS}[CapacityCapacity]'),
    ),
    *_faults(
        'engine/errors.py',
        ('serialization failure costs an attempt', "'40001', ", '', 'test_errors.py'),
        ('shutdown of PostgreSQL costs an attempt', "'57P01', ", '', 'test_errors.py'),
    ),
    *_faults(
        'service/failure.py',
        ('trouble of the server without delay', 'starts=execution.starts, delay=delay,', 'starts=execution.starts, delay=None,',
         f'{SETBACK}test_trouble_of_the_server'),
        ('trouble of the server without end', '_setbacks(execution) >= MAX_SETBACKS', 'False', f'{SETBACK}test_trouble_that_does_not_pass'),
        ('attempts count as setbacks', ' - job.attempts - job.deaths', '', f'{SETBACK}test_attempts_and_deaths_are_no_setbacks'),
        ('lost claim counts as a lost connection', 'if not holds(session, job):', 'if False:', f'{SETBACK}test_a_lost_claim'),
    ),
    *_faults(
        'service/cursor.py',
        ('settings stay', '"RESET ALL; ', '"', LEFT),
        ('role stays', 'SET SESSION AUTHORIZATION DEFAULT; ', '', LEFT),
        ('cursors stay', 'CLOSE ALL; ', '', LEFT),
        ('prepared statements stay', 'DEALLOCATE ALL; ', '', LEFT),
        ('listening stays', 'UNLISTEN *; ', '', LEFT),
        ('temporary tables stay', 'DISCARD TEMP; ', '', LEFT),
        ('sequences stay', 'DISCARD SEQUENCES;', '', LEFT),
        ('advisory locks stay', 'SELECT pg_advisory_unlock_all(), ', 'SELECT ', LEFT),
        ('random seed stays', ', setseed({random.random()})"', '"', f'{FORGET}test_random_numbers'),
        ('job is read in another transaction', 'BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE; "', '"',
         f'{FORGET}test_a_job_is_read_in_its_transaction'),
        ('no rollback between two jobs', 'connection.rollback()  # a no-op when', 'pass  # a no-op when',
         f'{FORGET}test_what_a_hook_after_the_rollback_left_open_is_rolled_back'),
        ('commit without fence', 'self.guard.check_claim()', 'pass', f'{FENCE}test_a_commit_of_a_job_that_is_lost'),
        ('commit that rolls back', 'if self.get_transaction_status() == TRANSACTION_STATUS_INERROR:', 'if False:',
         f'{FENCE}test_an_end_in_a_transaction_that_failed'),
        ('end of a lost job', 'if revision is None:', 'if False:', f'{FENCE}test_the_end_of_a_job_that_is_lost'),
        ('rolled-back end counts', 'transaction had it."""\n        self._is_finishing = False', 'transaction had it."""',
         f'{FENCE}test_an_end_that_is_rolled_back'),
        ('interrupted job goes on', 'if self._execution and self._execution.interrupted:', 'if False:',
         f'{FENCE}test_an_interrupted_job_executes_nothing_more'),
        ('kept cursor reaches the next job', 'self._cnx = _NoConnection()', 'pass', 'test_connection.py::TestClosed'),
        ('kept low cursor reaches the next job', 'connection.close_cursors()', 'pass', 'test_connection.py::TestClosed'),
        ('transaction of SQL is left open', 'if self.get_transaction_status() in UNENDED:', 'if False:',
         f'{FORGET}test_transaction_that_psycopg2_does_not_know'),
        ('connection that cannot forget is kept', 'self._cnx.close()  # a connection that cannot', 'pass  # a connection that cannot',
         f'{FORGET}test_a_connection_that_cannot_forget'),
        ('last job is not forgotten', 'cr.execute(self.forget_statement())', 'pass', f'{FORGET}test_forget_now'),
    ),
    *_faults(
        'service/databases.py',
        ('no back-off', 'self.due = self._backs_off_until = time.monotonic() + self._back_off * random.uniform(1, 1.5)',
         'self.due = self._backs_off_until = time.monotonic()', f'{DATABASES}test_back_off'),
        ('back-off does not grow', 'min(2 * self._back_off, LAST_BACK_OFF)', 'self._back_off', f'{DATABASES}test_back_off'),
        ('back-off keeps the session', 'for a while."""\n        self.leave()', 'for a while."""', f'{DATABASES}test_back_off'),
        ('NOTIFY ends the back-off', 'max(time.monotonic() + patience, self._backs_off_until)', 'time.monotonic() + patience',
         f'{DATABASES}test_a_notification_does_not_shorten_the_back_off'),
        ('NOTIFY does not reach the session', 'if self.session:\n            self.session.wake()', '', f'{DATABASES}test_waking_reaches_the_session'),
        ('connections are kept', 'others[: max(0, len(others) + 1 - MAX_OPEN)]', '[]', f'{DATABASES}test_few_connections'),
        ('first database has all turns', 'key=lambda database: database.due', 'key=lambda database: database.name',
         f'{DATABASES}test_each_gets_its_turn'),
        ('looks of others replace an owed one', 'if not self.owed and not self.must_look:', 'self.owed = None\n        if not self.must_look:', f'{DATABASES}test_others_have_looked'),
        ('looks of others replace the first one', 'if not self.owed and not self.must_look:', 'if not self.owed:',
         f'{DATABASES}test_looks_that_others_cannot_replace'),
        ('looks of others have no end', 'min(time.monotonic() + seconds, self._latest)', 'time.monotonic() + seconds', f'{DATABASES}test_looks_without_end'),
        ('a late look replaces a newer one', 'due if knows_all else min(self.due, due)', 'due', f'{DATABASES}test_a_look_that_comes_late'),
        ('looks of others replace that for the dead', 'bool(jobs or (self.session and self.session.is_rescuing))', 'bool(jobs)',
         f'{DATABASES}test_looks_that_others_cannot_replace'),
        ('due date is forgotten', 'min(poll_interval, delay)', 'poll_interval', f'{DATABASES}test_next_look'),
    ),
    *_faults(
        'service/deaths.py',
        ('obituary goes to another database', 'databases.get(obituary.dbname)', 'databases.next()',
         f'{DEATHS}test_a_death_is_reported_to_its_database'),
        ('obituary is lost with the connection', 'database.back_off()', 'obituaries.remove(obituary)',
         f'{DEATHS}test_a_death_that_cannot_be_reported_yet'),
        ('obituary is reported again and again', 'obituaries.remove(obituary)\n            database.wake()', 'database.wake()',
         f'{DEATHS}test_a_death_is_reported_to_its_database'),
        ('obituary is taken twice', '    _obituaries.clear()\n', '', f'{DEATHS}test_each_is_taken_once'),
        ('obituary without a mark', 'if obituary := mark.read():', 'if (obituary := mark.read()) or True:', f'{DEATHS}test_each_is_taken_once'),
    ),
    *_faults(
        'service/obituary.py',
        ('mark is not cleared', 'end of the process."""\n        self._memory[0:2] = b', 'end of the process."""\n        b',
         'test_process.py::TestMark::test_what_was_running'),
        ('time-out counts as death', "_replace(cause='timeout')", '_replace(cause=None)',
         'test_process.py::TestMark::test_past_the_deadline_it_is_a_timeout'),
    ),
    *_faults(
        'service/server.py',
        ('reset of modules is not signaled', "    _patch(loading, 'reset_modules_state', _with_signal)\n", '', 'system/databases_test.py::test_half_of_an_installation_fails'),
    ),
    *_faults(
        'service/thread_state.py',
        ('log stays locked', '        unlock_log()\n', '', 'test_process.py::TestProcessState::test_locks_of_the_log'),
    ),
    *_faults(
        'service/batch.py',
        ('time-out is not armed', 'self.deadline = limit and time.monotonic() + limit', 'self.deadline = None', f'{BATCH}test_time_limit'),
        ('alarm is not armed', 'signal.setitimer(signal.ITIMER_REAL, limit and limit + INTERRUPT_TIME)', 'pass', f'{BATCH}test_time_limit'),
        ('alarm is not disarmed', 'signal.setitimer(signal.ITIMER_REAL, 0)', 'pass', f'{BATCH}test_time_limit'),
        ('stopped job turns the alarm off', 'if not self.is_stopping:', 'if True:', f'{BATCH}test_alarm_of_a_process_that_ends'),
        ('stopped job puts the alarm off', 'if not self._batch.is_stopping:', 'if True:', f'{BATCH}test_alarm_of_a_process_that_ends'),
        ('mark stays after a job', 'self._mark.clear()\n            if not self', 'if not self', f'{BATCH}test_mark'),
        ('mark stays during hooks', 'self._batch.unmark()\n        with self._batch', 'with self._batch', f'{BATCH}test_mark'),
        ('hooks wait for the release', 'with self._batch.alarm_lock', 'with self._batch.lock', f'{BATCH}test_end_while_the_main_thread_waits'),
        ('mark stays after a failure', 'def on_failure(self) -> None:\n        self._batch.unmark()', 'def on_failure(self) -> None:\n        pass',
         f'{BATCH}test_mark'),
        ('mark is not set', 'self._batch.mark(self)', 'pass', f'{BATCH}test_mark'),
        ('job begins in a process that ends', 'self._prefetched.popleft() if is_alive and', 'self._prefetched.popleft() if',
         f'{BATCH}test_no_job_begins_in_a_process_that_ends'),
        ('released job begins', 'if execution.job.id not in released', 'if True', f'{BATCH}test_a_released_job_does_not_begin'),
        ('batch without limit', 'return min(MAX_SIZE, ', 'return max(MAX_SIZE, ', f'{BATCH}test_size'),
    ),
    *_faults(
        'service/watchdog.py',
        ('prefetched jobs wait for a long one', 'now >= release_time:\n            batch.release_prefetched()', 'now >= release_time:\n            pass',
         f'{WATCHDOG}test_prefetched_jobs_do_not_wait_for_a_long_one'),
        ('progress is saved all the time', 'self._next_progress = now + PROGRESS_INTERVAL', 'self._next_progress = now',
         f'{WATCHDOG}test_progress_is_not_saved_all_the_time'),
        ('time-out is ignored', "return 'timeout'", 'return None', 'system/stop_job_test.py::test_timeout'),
    ),
    *_faults(
        'service/listener.py',
        ('process lock is not taken', 'self._execute("SELECT pg_advisory_lock(%s, %s)", [PROCESS_LOCK_CLASS, self.process_number])', 'self._execute("SELECT 1")',
         f'{LISTENER}test_others_see_that_it_lives'),
        ('worker does not listen', 'f"LISTEN {NAMES}; LISTEN {WORKERS}"', '"SELECT 1"', f'{LISTENER}test_it_listens_when_it_has_connected'),
        ('lost connection is kept', '            while connection.poll()', '            while self._unsent and connection.poll()',
         f'{LISTENER}test_a_connection_that_was_cut'),
        ('messages go into the file of a job', 'if is_descriptor_closed(connection):\n            raise', 'if False:\n            raise',
         f'{LISTENER}test_a_job_that_takes_its_descriptor'),
        ('connecting in a loop', 'RECONNECT_DELAY * random', '0 * random', f'{LISTENER}test_a_connection_that_was_cut'),
    ),
    *_faults(
        'service/lookout.py',
        ('no look after listening', 'self._databases.wake_all()', 'pass', 'system/enqueue_test.py::test_notification_lost'),
        ('busy workers stay on duty', 'self._say(self._roster.go_off())', 'pass', f'{LOOKOUT}test_a_second_batch'),
        ('idle workers do not come on', 'elif timeout and not self._roster.is_on:', 'elif False:', 'system/herd_test.py::test_a_single_job[4]'),
        ('looks are not announced', 'elif not has_jobs and database.due > time.monotonic():', 'elif False:',
         f'{LOOKOUT}test_nobody_else_looks_if_nothing_was_found'),
        ('a look that finds limited jobs counts as empty', 'elif not has_jobs and database.due > time.monotonic():', 'elif not has_jobs:',
         f'{LOOKOUT}test_a_look_that_has_to_be_repeated'),
        ('lost workers stay on duty', 'self._say(self._roster.come_on())  # those on duty', 'pass  # those on duty',
         f'{LOOKOUT}test_those_on_duty_are_lost'),
        ('servers of other channels stand in', 'sorted(settings().channels), ', '', f'{LOOKOUT}test_servers_that_cannot_stand_in_for_each_other'),
        ('a worker that becomes on duty waits', 'if database.owed:\n                        database.hurry()', 'pass', f'{LOOKOUT}test_two_look_at_once'),
    ),
    *_faults(
        'service/roster.py',
        ('one is on duty', 'ON_DUTY = 2', 'ON_DUTY = 1', f'{ROSTER}test_two_are_on_duty'),
        ('a look covers names that its worker had not heard', 'Position(index, int(match[\'names\']))', 'self._position',
         f'{ROSTER}test_a_look_covers_only_what_its_worker_had_heard'),
        ('a look covers nothing', 'Position(index, int(match[\'names\']))', 'Position(index, 0)', f'{ROSTER}test_a_look_covers_only_what_its_worker_had_heard'),
        ('places survive a lost connection', 'self._position = Position(self._position.messages + 1, 0)\n\n    # ---', 'pass\n\n    # ---', f'{ROSTER}test_missed_names'),
        ('no growth', 'ON_DUTY + self._offs', 'ON_DUTY', f'{ROSTER}test_more_come_while_workers_find_jobs'),
        ('the dead stay on duty', "in ('off', 'gone')", "in ('off',)", f'{ROSTER}test_the_dead'),
    ),
    *_faults(
        'service/worker.py',
        ('workers end in silence', 'self.lookout.end()', 'pass', 'system/herd_test.py::test_workers_say_that_they_end'),
        ('death is not noted', 'note_death(self.mark)', 'pass', 'system/charge_test.py::test_deaths_are_counted'),
        ('stop is ignored', 'self.stop_deadline = time.monotonic() + settings().stop_timeout', 'pass', 'system/stop_test.py::test_stop[prefork-term]'),
        ('programs of a killed worker go on', 'os.killpg(self.pid, signal.SIGKILL)', 'pass', 'system/charge_test.py::test_children_and_files[kill]'),
        ('worker outlives its server', 'if self.stop_deadline is None and self.ppid != os.getppid():', 'if False:',
         'system/stop_test.py::test_parent_killed[prefork]'),
    ),
    *_faults(
        'service/stop.py',
        ('stopped job is not fenced off', 'job = fence_off(batch.session, execution.job, reason if is_outcome else None, debug)', 'job = execution.job',
         'system/stop_job_test.py::test_a_stopped_job_commits_nothing'),
        ('programs of a stopped job go on', 'process.kill()', 'pass', 'system/charge_test.py::test_children_and_files[cancel]'),
        ('lost connection charges its job', 'else:\n            batch.unmark()', 'else:\n            pass',
         'system/charge_test.py::test_stopped_workers_are_no_deaths'),
    ),
    *_faults(
        'service/hosting.py',
        ('stopping server begins jobs', "bool(getattr(_server(), 'quit_signals_received', 0))", 'False',
         'system/stop_test.py::test_short_jobs_of_cron_workers_end[threaded]'),
    ),
    *_faults(
        'service/inline.py',
        ('death of a cron worker is not noted', 'note_running(session, job)', 'pass',
         'system/charge_test.py::test_deaths_of_cron_workers_are_counted'),
    ),
    *_faults(
        'service/standby.py',
        ('cron worker ignores a stop request', 'if reason := self._session.stop_reason(execution.job):', 'if reason := None:',
         'system/waking_test.py::test_cancel_of_what_does_not_stop[hang_in_sleep-prefork]'),
    ),
    *_faults(
        'service/runner.py',
        ('old caches', 'Registry(self.session.dbname).check_signaling(cr)', 'Registry(self.session.dbname)',
         'system/databases_test.py::test_caches_are_cleared_in_time'),
        ('registry of a replaced database', 'Registry.delete(self.session.dbname)', 'pass', 'system/databases_test.py::test_replaced_under_the_same_name'),
        ('threads of a job stay', '            self.must_end = True\n\n    def _cursor', '\n    def _cursor', 'system/isolation_test.py::test_left_thread[joined]'),
        ('rolled-back fields stay', '        execution.reset_registry(self.session.dbname)\n\n    def _leave_threads', '\n    def _leave_threads',
         'system/isolation_test.py::test_fields[rollback]', 'system/isolation_test.py::test_fields[exit]'),
        ('lost race is not tried in place', 'TRIES = 4', 'TRIES = 1', 'system/postgres_test.py::test_serialization_failure'),
    ),
    *_faults(
        'models/ir_async.py',
        ('queued job leaves its key free', "state IN ('waiting', 'created', 'processing')\"", "state IN ('waiting', 'processing')\"", f'{ORDERS}[KeyKey]'),
        ('actions lock no rows', ' ORDER BY id FOR NO KEY UPDATE"', '"', f'{ORDERS}[FinishCancel]'),
    ),
    *_faults(
        'models/ir_async_actions.py',
        ('cancel gives no hint', """self.env.cr.execute(SQL("SELECT pg_notify('ir_async_stop', %s)", str(job.id)))""", 'pass',
         'test_cancel.py::TestCancel::test_the_worker_is_told_by_the_commit'),
        ('retry keeps the stop request', 'self.env.cr.execute(SQL("DELETE FROM ir_async_stop WHERE job_id IN %s", self._ids or (0,)))', 'pass',
         f'{RETRY}test_retry_forgets_that_it_was_to_be_stopped'),
    ),
    *_faults(
        'models/ir_async_key.py',
        ('keys are inserted in any order', 'sorted(calls, key=lambda call: key_identity(call.values))', 'list(calls)',
         'system/key_test.py::test_opposite_orders'),
        ('copied job stands for a new one', '= %s AND %s AND origin = %s\n                """', '= %s AND %s AND origin = coalesce(origin, %s)\n                """',
         'test_origin.py::TestOrigin::test_keys'),
        ('job that a call relies on may begin', ' FOR SHARE"', '"', f'{ORDERS}[KeyClaim]'),
    ),
    *_faults(
        'models/ir_async_notify.py',
        ('commit wakes nobody', 'notifier.notify(self.env.cr.dbname)', 'pass', 'test_transaction.py::TestTransaction::test_commit'),
    ),
    *_faults(
        'models/ir_async_run.py',
        ('work is committed before its outcome', 'encode_result(result)\n            env.cr.flush()', 'encode_result(result)\n            env.cr.commit()',
         'system/postgres_test.py::test_work_and_outcome_in_one_transaction'),
        ('retry without delay', "delay=_retry_delay(job))", "delay=0)", f'{RETRY}test_delay_is_a_number'),
        ('RetryJob costs an attempt', 'delay=delay, attempts=0)', 'delay=delay)', f'{RETRY}test_retry_job_costs_no_attempt'),
        ('lethal job runs for ever', 'if job.deaths >= MAX_DEATHS:', 'if False:', f'{RETRY}test_three_deaths_fail_it_whatever_its_attempts'),
        ('stop request outlives its job', 'if job.stop:\n', 'if False:\n', 'test_cancel.py::TestCancel::test_a_request_does_not_outlive_the_job'),
    ),
    *_faults(
        'models/ir_async_retention.py',
        ('parent is deleted before its children end', 'WHERE rel.after_id = job.id AND child.state IN %(live)s)', 'WHERE false)',
         f'{RETENTION}test_parents_of_a_child_that_waits_for_another_one'),
        ('clean-up locks no rows', 'FOR UPDATE OF job SKIP LOCKED', '', f'{ORDERS}[RetryPrune]'),
    ),
    *_faults(
        'models/ir_async_commit.py',
        ('caches are signaled after the commit', 'self._insert_pending(is_flush=True)\n        self._signal_changes()', 'self._insert_pending(is_flush=True)',
         'system/enqueue_test.py::test_signal_in_the_same_transaction'),
    ),
    *_faults(
        'models/ir_module_module.py',
        ('registry is signaled long after the flux', 'if not jobs._modules_in_flux():', 'if False:',
         'system/databases_test.py::test_uninstalled_before_the_signal'),
        ('registry is signaled for each module', 'if not jobs._modules_in_flux():', 'if True:',
         'test_modules.py::TestModules::test_signal_at_the_end'),
    ),
    *_faults(
        'models/ir_async_savepoint.py',
        ('jobs are lost with the settings', 'if pending.first and pending.first not in marks and', 'if False and',
         'system/savepoint_test.py::test_a_reset_of_all_settings'),
    ),
]  # fmt: skip
