"""Drain of no-op jobs, each in a transaction of its own, durable."""

from systems.bare_loop import BareLoop

SYSTEMS = ('ours', 'queue_job', 'bare', 'pgqueuer')


def run(bench):
    q = bench.quick
    fresh = BareLoop(name='bare loop, a session as new for each job', is_fresh=True, problem=bench.bare.problem)
    rows = bench.compare_drains(
        "Drain of no-op jobs, each in its own transaction, durable",
        3 if q else 5,
        'noop',
        {
            bench.ours: 3000 if q else 6000,
            bench.queue_job: 250 if q else 600,
            bench.bare: 4000 if q else 10000,
            fresh: 4000 if q else 10000,
            bench.pgqueuer: 4000 if q else 10000,
            bench.cron: 100,
        },
    )
    rows[bench.ours].judge_ratio(rows[bench.queue_job], 12, '≥ 12 × queue_job')
    rows[bench.ours].judge_ratio(rows[bench.bare], 0.55, '≥ 55 % of the bare loop')
    rows[bench.ours].judge_ratio(rows[fresh], 0.55, '≥ 55 % of the bare loop with a session as new')
    rows[bench.bare].add_note("no Odoo; what a process had claimed is lost when it dies")
    rows[bench.pgqueuer].add_note(
        "no Odoo, no transaction for each: outcomes are written in batches, work may be done twice"
    )
