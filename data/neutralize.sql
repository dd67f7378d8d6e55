-- what was queued in production does not run in a copy of it
UPDATE ir_async
   SET state = 'cancelled',
       session = NULL,
       date_done = now() AT TIME ZONE 'UTC',
       revision = revision + 1
 WHERE state IN ('waiting', 'created', 'processing');
