"""What the queue must do, in plain Python: its jobs, and how each step of the machine changes them."""

from dataclasses import dataclass, field, replace

ENDED_WELL = ('succeeded', 'done')
ENDED = (*ENDED_WELL, 'failed', 'cancelled')


@dataclass(eq=False)
class Job:
    tag: str  # its argument
    state: str = 'created'
    priority: int = 10
    channel: str = 'default'
    key: str | None = None
    key_until: str = 'end'
    max_attempts: int = 1
    date: str | None = None  # before which it does not start: `past` until a worker notes that it has come, or `future`
    parents: set = field(default_factory=set)
    unmet: set = field(default_factory=set)  # the parents whose good end no worker has noted yet
    late: set = field(default_factory=set)  # the parents that were committed after the snapshot of its transaction
    limited: bool = False  # taken from the database: it only decides which jobs share a claim
    id: int | None = None
    attempts: int = 0
    deaths: int = 0
    starts: int = 0
    claim_number: int = 0
    worker_id: int | None = None
    stop: str | None = None  # the reason of a request to stop it
    effects: list = field(default_factory=list)  # the arguments of its runs that were committed
    has_payload: bool = False  # a result, or the last error
    is_recorded: bool = False  # its last start is recorded for the interval of its channel
    born: int = 0  # the step that committed it
    changed: int = 0  # the step that wrote its row last

    def __lt__(self, other):
        return (self.priority, self.id) < (other.priority, other.id)

    @property
    def takes_key(self):
        return bool(self.key) and self.state not in ENDED and (self.key_until == 'end' or not self.claim_number)


class Transaction:
    """A transaction that enqueues jobs: what it sees is from its first statement."""

    def __init__(self, model):
        self.model, self.began = model, model.now
        self.holders = {job.key: replace(job) for job in model.jobs.values() if job.takes_key}
        # held: the queued jobs that must not begin before the commit, with what replaces them
        self.new, self.held, self.is_flushed = [], {}, True

    def call(self, job, replaces):
        """Add a job. Return the job that has its key, if there is one."""
        own = next((other for other in self.new if job.key and other.key == job.key), None)
        found = own or self.holders.get(job.key)
        if found and not own and self.has_changed(found.id) and not self.is_taken(job.key):
            found = None
        self.is_flushed = False
        if not found:
            self.new.append(job)
        elif own and replaces and own.state == 'created':
            own.tag, own.priority, own.date = job.tag, job.priority, job.date
        elif not own and found.state == 'created' and replaces:
            self.held[found.id] = job
        elif not own and found.state in ('waiting', 'created') and job.key_until == 'start':
            self.held[found.id] = self.held.get(found.id)
        return found

    def is_taken(self, key):
        return any(job.takes_key and job.key == key for job in self.model.jobs.values())

    def has_changed(self, id_):
        return id_ not in self.model.jobs or self.model.jobs[id_].changed > self.began

    def is_lost_call(self, job, replaces):
        """Return whether a call depends on a job that has changed since the first statement."""
        found = not any(other.key == job.key for other in self.new) and self.holders.get(job.key)
        depends = found and (replaces or job.key_until == 'start')
        return bool(depends and self.has_changed(found.id) and self.is_taken(job.key))

    def is_lost(self, locked):
        """Return whether transactions that were committed meanwhile keep this one from its commit."""
        jobs = self.model.jobs
        return (
            any(self.is_taken(job.key) for job in self.new)
            or any(self.has_changed(id_) for id_ in self.held.keys() - locked)
            or any(id_ not in jobs for job in self.new for id_ in job.parents - job.late - {new.id for new in self.new})
        )

    def commit(self):
        for job in self.new:
            self.model.jobs[job.id] = job
            job.parents, job.unmet = (ids & self.model.jobs.keys() for ids in (job.parents, job.unmet))
            self.model.write(job, born=self.model.now)
        for id_, new in filter(lambda item: item[1], self.held.items()):
            self.model.write(self.model.jobs[id_], tag=new.tag, priority=new.priority, date=new.date)


class Model:
    def __init__(self):
        # channels: capacity, whether it has an interval, whether it is paused
        # recent: by channel, the ids of the jobs whose starts are recorded and less old than the interval
        self.jobs, self.channels, self.recent, self.now = {}, {}, {}, 0

    def write(self, job, **values):
        vars(job).update(values, changed=self.now)

    def limits(self, channel):
        return self.channels.get(channel.split('/')[0], (0, False, False))

    def is_claimable(self, job, locked):
        siblings = [other for other in self.jobs.values() if other.channel == job.channel]
        capacity, has_interval, is_paused = self.limits(job.channel)
        is_full = capacity and sum(other.state == 'processing' for other in siblings) >= capacity
        is_early = has_interval and self.recent.get(job.channel)
        is_held = job.date or job.id in locked or is_full or is_early or is_paused or self.limits('*')[2]
        return job.state == 'created' and not is_held

    def claim(self, ids, limit, worker_id, locked, is_complete):
        """Check a claim. A worker that has looked after everything before must get the first job, if there is any."""
        jobs = [self.jobs[id_] for id_ in ids]
        claimable = sorted(job for job in self.jobs.values() if self.is_claimable(job, locked))
        assert len(jobs) <= limit and jobs == sorted(jobs), f"{ids} are too many, or in a wrong order"
        assert not is_complete or jobs[:1] == claimable[:1], f"{ids} were claimed, but first comes {claimable[:1]}"
        for job in jobs:
            assert self.is_claimable(job, locked), f"{job} must not be claimed"
            assert all(self.jobs[id_].state in ENDED_WELL for id_ in job.parents), f"{job} overtakes its parents"
            job.is_recorded = self.limits(job.channel)[1]
            self.recent.setdefault(job.channel, set()).update({job.id} if job.is_recorded else ())
            self.write(job, state='processing', worker_id=worker_id, claim_number=job.claim_number + 1)

    def release(self, job):
        """Put a job back that has not begun."""
        self.recent.get(job.channel, set()).difference_update({job.id} if job.is_recorded else ())
        self.write(job, state='created', worker_id=None, is_recorded=False)

    def end(self, job, ending, starts, **values):
        """End a run: `succeeded`, `done`, `failed`, `died` too often, `retry`, `lost` with its connection, or `stopped`."""
        if job.stop and ending not in (*ENDED_WELL, 'lost'):
            ending, job.stop = 'cancelled' if job.stop == 'cancel' else 'failed', None
        attempts = job.attempts + (ending not in ('cancelled', 'retry', 'lost'))
        is_again = ending in ('retry', 'lost') or (ending == 'failed' and attempts < job.max_attempts)
        state = 'created' if is_again else 'failed' if ending == 'died' else ending
        job.date = 'future' if is_again else None
        job.has_payload = state not in ('done', 'cancelled')
        self.write(job, state=state, worker_id=None, attempts=attempts, starts=job.starts + starts, **values)

    def charge(self, job, worker_id, claim_number):
        """Charge a job with the death of a worker."""
        if job.state in ('created', 'processing'):
            job.state = 'created' if (job.worker_id, job.claim_number) == (worker_id, claim_number) else job.state
            job.worker_id = None if job.state == 'created' else job.worker_id
            self.write(job, deaths=job.deaths + (not job.stop), starts=job.starts + 1)

    def maintain(self, dead, locked):
        """Do what a worker does that looks after everything."""
        for job in self.jobs.values():
            if job.state == 'processing' and job.worker_id in dead:
                self.write(job, state='created', worker_id=None)
            if job.state == 'waiting':
                job.late = set()
                self.meet(job, job.unmet)
            if job.state == 'created' and job.date == 'past' and job.id not in locked:
                self.write(job, date=None)
        for job in sorted(self.jobs.values(), key=lambda job: job.id):  # parents come first
            if job.state == 'waiting' and any(self.jobs[id_].state == 'cancelled' for id_ in job.unmet):
                self.write(job, state='cancelled')

    def unblock(self, parents):
        for job in self.jobs.values():
            if not job.late and job.parents & parents:
                self.meet(job, parents)

    def meet(self, job, parents):
        """Note which of these parents have ended well."""
        job.unmet = {id_ for id_ in job.unmet if id_ not in parents or self.jobs[id_].state not in ENDED_WELL}
        if job.state == 'waiting' and not job.unmet:
            self.write(job, state='created')

    def act(self, job, action):
        """Do what a user wants. Return False if it is refused."""
        states = {self.jobs[id_].state for id_ in job.parents}
        is_free = not any(other.takes_key and other.key == job.key for other in self.jobs.values())
        if action == 'cancel' and job.state == 'processing':
            job.stop = 'cancel'
        elif action == 'cancel' and job.state not in ENDED:
            self.write(job, state='cancelled')
        elif action == 'retry' and is_free and job.state in ('failed', 'cancelled') and 'cancelled' not in states:
            is_waiting = bool(job.late) or any(self.jobs[id_].state not in ENDED_WELL for id_ in job.unmet)
            job.attempts, job.deaths, job.date, job.stop, job.has_payload = 0, 0, None, None, False
            self.write(job, state='waiting' if is_waiting else 'created')
        elif action == 'complete' and job.state in ENDED_WELL:
            self.write(job, state='done')
        else:
            return action == 'dismiss' and job.state in ENDED
        return True

    def prune(self, deleted, old, locked):
        """Check which of the old jobs were deleted."""
        needed = {id_ for job in self.jobs.values() for id_ in job.parents if job.state not in ENDED}
        parents = {id_ for job in self.jobs.values() for id_ in job.parents}
        assert deleted <= {id_ for id_ in old if self.jobs[id_].state in ENDED} - needed - locked
        assert deleted >= {id_ for id_ in old if self.jobs[id_].state in ENDED} - parents - locked
        self.jobs = {id_: job for id_, job in self.jobs.items() if id_ not in deleted}
        for job in self.jobs.values():
            job.parents, job.unmet = job.parents - deleted, job.unmet - deleted
