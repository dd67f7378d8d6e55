-- Jobs that were queued in production do not run in a copy of it.
UPDATE ir_async
   SET state = 'cancelled',
       worker_id = NULL,
       date_done = now() AT TIME ZONE 'UTC',
       revision = revision + 1
 WHERE state IN ('waiting', 'created', 'processing');

-- Nor do their channels stay paused. A copy of an older version has no such table.
DO $$ BEGIN
    IF to_regclass('ir_async_pause') IS NOT NULL THEN
        DELETE FROM ir_async_pause;
    END IF;
END $$;

-- Jobs that are queued here later run even without workers.
UPDATE ir_cron
   SET active = true
 WHERE id IN (SELECT res_id FROM ir_model_data WHERE module = 'ir_async' AND name = 'ir_cron_run_jobs');
