"""Drain of jobs that write one record each through the ORM."""

SYSTEMS = ('ours', 'queue_job')


def run(bench):
    q = bench.quick
    rows = bench.compare_drains(
        "Drain of jobs that write one record through the ORM",
        2 if q else 5,
        'write_one',
        {bench.ours: 2000 if q else 4000, bench.queue_job: 250 if q else 600},
        with_record=True,
    )
    rows[bench.ours].judge_ratio(rows[bench.queue_job], 6, '≥ 6 × queue_job')
